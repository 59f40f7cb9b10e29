"""Plots of measurements: the results of the benchmarks, and a series of pings through an impairment."""

import io
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from docs.markdown import ROOT
from harness.serving import Mount
from matplotlib.figure import Figure

from .sessions import laboratory

RESULTS = ROOT / "doc/pictures/bench.json"
# The parts of `make bench` that the plot needs. They take four minutes.
PROGRAMS = (
    ("run.py", "--setting", "one", "write60", "read60"),
    ("bulk.py", "read60", "write60"),
    ("descriptor.py", "read60", "write60"),
    ("traffic.py", "rx", "inject", "cable"),
)
PINGS = 2000
SERIES = 200  # pings of which the lost ones are shown
_BLUE, _GREEN, _ORANGE, _GREY = "#2f6fb0", "#3c8d5a", "#c8741a", "#8a8f98"


@dataclass(frozen=True)
class Bar:
    """A bar of the plot of throughput: a figure in the results, and its label.

    benchmark, what, program, against: see bench/results.py; `what` may be the beginning.
    """

    label: str
    benchmark: str
    what: str
    program: str
    against: str


_FRAME = "virtfs, frame"
_RAW, _BRIDGE, _OWN = "raw tap, Python", "kernel bridge, veths", "tcpreplay, tap of its own"
TO_FRAME = (
    Bar("rx, read", "traffic", "rx", "virtfs, rx", _FRAME),
    Bar("stream, read", "bulk", "read60, one", "virtfs, stream", _FRAME),
    Bar("stream, written", "bulk", "write60, one", "virtfs, stream", _FRAME),
)
TO_OTHERS = (
    Bar("fd, read\n(a raw tap)", "descriptor", "read60", "virtfs, given", "raw tap"),
    Bar("fd, written\n(a raw tap)", "descriptor", "write60", "virtfs, given", "raw tap"),
    Bar("cable\n(kernel bridge)", "traffic", "cable: 60-byte", "virtfs", _BRIDGE),
    Bar("cable, TCP\n(kernel bridge)", "traffic", "cable: TCP", "virtfs", _BRIDGE),
    Bar("inject\n(tcpreplay)", "traffic", "inject: as fast", "virtfs", _OWN),
    Bar("frame, read\n(a raw tap)", "run", "read60, one", "virtfs", _RAW),
    Bar("frame, written\n(a raw tap)", "run", "write60, one", "virtfs", _RAW),
)


def measure() -> None:
    """Run the benchmarks of the plot, and keep their results in RESULTS."""
    for program in PROGRAMS:
        name, *words = program
        subprocess.run([sys.executable, ROOT / "bench" / name, *words, "--json", RESULTS], check=True)


def throughput() -> str:
    """Draw the results of the benchmarks, as ratios of rates with 60-byte frames."""
    results = json.loads(RESULTS.read_text())
    figure = _figure(4.6)
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    _bars(left, [(bar.label, _ratio(results, bar)) for bar in TO_FRAME], _BLUE)
    left.set_title("times the rate of frame")
    _bars(right, [(bar.label, _ratio(results, bar)) for bar in TO_OTHERS], _GREEN)
    right.set_title("times the rate without virtfs (in parentheses)")
    return _svg(figure)


def _ratio(results: Any, bar: Bar) -> tuple[float, float, float]:
    """Return the median, lowest and highest ratio of a bar."""
    for one in results[bar.benchmark]["figures"]:
        names = one["program"], one.get("against")
        if one["what"].startswith(bar.what) and names == (bar.program, bar.against):
            return one["median"], one["lowest"], one["highest"]
    raise SystemExit(f"pictures: {RESULTS} has no {bar.what} of bench/{bar.benchmark}.py: measure it again")


def _bars(axes: Any, bars: list[tuple[str, tuple[float, float, float]]], colour: str) -> None:
    """Draw horizontal bars, the first at the top, with their ranges and a line at 1."""
    labels = [label for label, _ in bars]
    medians = [figures[0] for _, figures in bars]
    ranges = [[mid - low for _, (mid, low, _) in bars], [high - mid for _, (mid, _, high) in bars]]
    axes.barh(labels, medians, xerr=ranges, color=colour, ecolor=_GREY, height=0.6, capsize=3)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1)
    limit = max(1.3 * max(medians), 1.1 * max(figures[2] for _, figures in bars if figures[2] < 2 * max(medians)))
    axes.set_xlim(0, limit)
    for at, (_, (median, _, highest)) in enumerate(bars):
        axes.annotate(
            f"{median:.2f}" if median < 2 else f"{median:.1f}",
            (min(highest, limit), at),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    axes.spines[["top", "right"]].set_visible(False)


def impair() -> str:
    """Draw the round-trip times of pings through impairments with jitter, and the pings that get lost."""
    jitters = {
        "delay 20ms 5ms": _BLUE,
        "delay 20ms 5ms distribution normal": _GREEN,
        "delay 20ms 5ms distribution pareto": _ORANGE,
    }
    losses = ["loss 10% seed 7"] * 3 + ["loss 10% seed 8", "loss gemodel 3% 25% seed 7"]
    with laboratory() as mount:
        mount.ctl("uncable 1 2")
        mount.ctl("cable 1 2")
        times = {words: list(_pings(mount, words, PINGS).values()) for words in jitters}
        arrived = [_pings(mount, words, SERIES).keys() for words in losses]
    figure = _figure(6)
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 2))
    for words, colour in jitters.items():
        upper.hist(times[words], bins=80, range=(5, 45), histtype="step", color=colour, linewidth=1.6, label=words)
    upper.set_title(f"round-trip times of {PINGS} pings, with a delay in one direction")
    upper.set_xlabel("ms")
    upper.set_ylabel("pings")
    upper.legend(frameon=False)
    lost = [sorted(set(range(1, SERIES + 1)) - set(found)) for found in arrived]
    lower.eventplot(lost, colors=[_BLUE] * 3 + [_GREEN, _ORANGE], linelengths=0.6)
    lower.set_yticks(range(len(losses)), [f"{words}: {len(gone)}" for words, gone in zip(losses, lost, strict=True)])
    lower.invert_yaxis()
    lower.set_xlim(0, SERIES + 1)
    lower.set_title(f"the pings of {SERIES} that get lost, and how many: the same in every run with one seed")
    lower.set_xlabel("number of the ping")
    for axes in upper, lower:
        axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def _pings(mount: Mount, impairment: str, count: int) -> dict[int, float]:
    """Send pings through an impairment of one direction. Returns the times in ms, by the numbers of the pings."""
    mount.ctl("virt2 -impair")
    mount.sh("ip netns exec near ping -q -c1 10.0.1.2")  # so that no ARP request can be lost
    mount.ctl(f"virt2 impair in {impairment} limit 10000")
    told = mount.sh(f"ip netns exec near nice -n -20 ping -n -c{count} -i0.003 -W1 10.0.1.2 || true", seconds=60)
    answers = re.findall(r"icmp_seq=(\d+) .*time=([\d.]+) ms", told)
    return {int(number): float(time) for number, time in answers}


def _figure(height: float) -> Figure:
    """Return an empty figure, as wide as the page of a site. height: in inches."""
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "virtfs", "font.size": 11, "axes.titlesize": 12}
    return Figure(figsize=(10, height), layout="constrained")


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())
