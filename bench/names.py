"""Names and texts: stat(2), values, listings and counters. As root: python bench/names.py [--quick] [--interfaces N].

Each figure is a median, and is printed beside its goal. The goals for a thousand interfaces are scaled to the number
used.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from arena import Others, Server, build, enter, serve
from results import Results

WRITERS = 8
SECONDS = 60  # time limit of the writers, which normally are ended earlier

# Prints the microseconds that `stat` and a read of a value take, each as a median. Arguments: directory, how often.
_CALLS = """
import os, statistics, sys, time
directory, often = sys.argv[1], int(sys.argv[2])
def look(): os.stat(f"{directory}/virt3/frame")
def read():
    file = os.open(f"{directory}/virt3/mtu", os.O_RDONLY)
    os.read(file, 4096)
    os.close(file)
def cat():
    file = os.open(f"{directory}/virt3/mtu", os.O_RDONLY)
    os.fstat(file)
    while os.read(file, 131072): pass
    os.close(file)
for call in look, read, cat:
    taken = []
    for _ in range(often):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    print(1e6 * statistics.median(taken))
"""


@dataclass
class Report:
    """Prints figures, and collects those that miss their goals."""

    results: Results
    missed: list[str] = field(default_factory=list)

    def tell(self, what: str, figures: list[float], unit: str, goal: float) -> None:
        middle = statistics.median(figures)
        self.results.keep(what, "virtfs", unit, figures, most=goal)
        row = f"{what:48}{middle:10.2f} {unit:3}({min(figures):.2f}–{max(figures):.2f})  goal: at most {goal:g}"
        if middle > goal:
            row += "  MISSED"
            self.missed.append(f"{what}: {middle:.2f} {unit}, the goal is {goal:g}")
        print(row, flush=True)


def calls(server: Server, often: int, cpus: str) -> list[float]:
    """Return the microseconds of stat, of open, read and close, and of what cat does."""
    command = ["taskset", "-c", cpus, sys.executable, "-c", _CALLS, str(server.directory), str(often)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    return [float(line) for line in done.stdout.split()]


def seconds(server: Server, command: str) -> float:
    """Return the seconds that a shell command takes in the mount."""
    began = time.monotonic()
    subprocess.run(["sh", "-c", f"{command} >/dev/null"], check=True, cwd=server.directory, timeout=600)
    return time.monotonic() - began


@contextlib.contextmanager
def busy(server: Server, client: Path) -> Iterator[None]:
    """Keep WRITERS programs writing frames, each to an interface of its own."""
    writers = [
        subprocess.Popen(
            [client, "write", str(server.directory / f"virt{unit}/frame"), str(SECONDS), "60", f"tap{unit}"],
            stdout=subprocess.DEVNULL,
        )
        for unit in range(4, 4 + WRITERS)
    ]
    try:
        time.sleep(0.5)
        yield
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="measure names, texts and counters")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and interfaces")
    parser.add_argument("--interfaces", type=int, default=0, metavar="N", help="how many (usually 1000)")
    Results.option(parser)
    options = parser.parse_args()
    rounds, many = (3, 200) if options.quick else (9, 1000)
    many = options.interfaces or many
    enter()
    client, report, other = build("client"), Report(Results(options.json)), Others()
    usable = sorted(os.sched_getaffinity(0))
    places = {"free to move": (usable, usable), "on one CPU": (usable[-1:], usable[-1:])}
    if len(usable) > 1:
        places["each on its own CPU"] = usable[:1], usable[-1:]
    with serve("virtfs", [sys.executable, "-m", "virtfs", "mount", "-f"], "ctl") as server:
        (server.directory / "ctl").write_text("".join(f"create {unit} up\n" for unit in range(3, 13)))
        for title, (its, ours) in places.items():
            server.pin(its)
            got = [calls(server, 400, ",".join(map(str, ours))) for _ in range(rounds)]
            report.tell(f"stat of frame, {title}", [one[0] for one in got], "µs", 60)
            report.tell(f"open, read and close of mtu, {title}", [one[1] for one in got], "µs", 150)
            report.tell(f"the calls of cat mtu, {title}", [one[2] for one in got], "µs", 250)
        server.pin(usable)
        with busy(server, client):
            got = [calls(server, 40, ",".join(map(str, usable))) for _ in range(rounds)]
        report.tell(f"stat of frame beside {WRITERS} writers", [one[0] / 1e3 for one in got], "ms", 2)
        report.tell(f"the calls of cat mtu beside {WRITERS} writers", [one[2] / 1e3 for one in got], "ms", 10)
        report.tell("ls -l virt3", [1e3 * seconds(server, "ls -l virt3") for _ in range(rounds)], "ms", 8)
        (server.directory / "ctl").write_text("".join(f"create {unit}\n" for unit in range(13, 3 + many)))
        some = max(rounds // 3, 1)
        work: dict[str, tuple[str, float]] = {
            "ls -lR": ("ls -lR", 10 * many / 1000),
            "cat */stats/*": ("cat virt*/stats/*", 5 * many / 1000),
        }
        if (server.directory / "stats").exists():
            work["cat stats"] = "cat stats", 0.1 * many / 1000
        for name, (command, goal) in work.items():
            report.tell(f"{name}, {many} interfaces", [seconds(server, command) for _ in range(some)], "s", goal)
        print(f"\nother programs meanwhile: {other.share():.0%} of a CPU")
    report.results.save()
    print("missed goals:" if report.missed else "all goals are reached")
    for line in report.missed:
        print(f"  {line}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
