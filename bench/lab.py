"""What the parts of traffic.py have in common: the network around, and how figures become a table and a verdict."""

import contextlib
import json
import os
import select
import statistics
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arena import RUN, Server, attach, fail, make_tap

QUEUE = 256  # virtfs' default; the rivals' taps get the same
SIZE = 60  # bytes of a smallest frame, without its FCS
PATIENCE = 30  # seconds for any program that is to come to an end
FIRST, LAST = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
SUBJECT = "virtfs"


@dataclass
class Lab:
    """What every part gets. missed: the goals that were not reached, to be told at the end."""

    server: Server
    blaster: Path
    rounds: int
    missed: list[str] = field(default_factory=list)

    def ctl(self, *lines: str) -> None:
        """Commands for virtfs, each to hold when this returns."""
        for line in lines:
            (self.server.directory / "ctl").write_text(f"{line}\n")

    def blast(self, ifname: str, seconds: float, rate: float = 0, inside: str = "") -> tuple[int, float]:
        """Smallest frames out of an interface, from the first CPU: how many, in how many seconds. rate 0: all."""
        command = [self.blaster, ifname, seconds, SIZE, *([rate] if rate else [])]
        frames, nanoseconds = map(int, run("taskset", "-c", FIRST, *entering(inside), *command).split())
        return frames, nanoseconds / 1e9

    # Telling

    def rounds_of(self, rivals: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
        """Each rival's figure in each round; they take turns."""
        samples: dict[str, list[float]] = {name: [] for name in rivals}
        for _ in range(self.rounds):
            for name, figure in rivals.items():
                samples[name].append(figure())
        return samples

    def compare(self, title: str, unit: str, samples: dict[str, list[float]], goals: dict[str, float]) -> None:
        """virtfs beside each rival: the median of the ratios of one round. The first one is the subject."""
        subject, *_ = samples
        print(f"\n{title}")
        print(f"  {'':28}{unit:>12}   {subject} is … times it: median (lowest–highest)")
        for name, figures in samples.items():
            middle = statistics.median(figures)
            row = f"  {name:28}{middle:12,.{0 if middle >= 1000 else 2}f}"
            if name != subject:
                pairs = zip(samples[subject], figures, strict=True)
                ratios = [mine / its if its else float("inf") for mine, its in pairs]
                row += f"   {statistics.median(ratios):6.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
                if goal := goals.get(name):
                    row += f"  to reach: {goal}"
                    if statistics.median(ratios) < goal:
                        row += "  MISSED"
                        self.missed.append(f"{title}: {statistics.median(ratios):.2f} of {name}, not {goal}")
            print(row, flush=True)

    def within(self, title: str, unit: str, samples: dict[str, list[float]], most: float) -> None:
        """How far virtfs is off, the others for comparison: medians, which may be `most` in either direction."""
        print(f"\n{title}")
        for name, figures in samples.items():
            median = statistics.median(figures)
            row = f"  {name:28}{median:12.3f} {unit} ({min(figures):.3f} … {max(figures):.3f})"
            if name.startswith(SUBJECT) and most:
                row += f"  to reach: within {most}"
                if abs(median) > most:
                    row += "  MISSED"
                    self.missed.append(f"{title}: {name} is off by {median:.3f} {unit}, not {most}")
            print(row, flush=True)


def run(*command: object, **options: Any) -> str:
    """What a program that has to succeed prints."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, **options)
    except subprocess.TimeoutExpired:
        fail(f"{' '.join(words)} hangs")
    if done.returncode:
        fail(f"{' '.join(words)} ended with {done.returncode}: {done.stdout}")
    return str(done.stdout)


def ip(words: str) -> None:
    """ip(8), quietly."""
    run("ip", *words.split())


def entering(namespace: str) -> list[str]:
    """What to put in front of a command that is to run in there."""
    return ["ip", "netns", "exec", namespace] if namespace else []


@contextlib.contextmanager
def namespaces(*names: str) -> Iterator[None]:
    """Network namespaces by name; the interfaces that are in them go with them, taps stay with their holder."""
    for name in names:
        ip(f"netns add {name}")
        ip(f"-n {name} link set lo up")
    try:
        yield
    finally:
        for name in names:
            ip(f"netns del {name}")


def settle(namespace: str, ifname: str, address: str) -> None:
    """Give an interface that has been moved there its address, and no IPv6 of its own accord."""
    ip(f"-n {namespace} link set {ifname} addrgenmode none")
    ip(f"-n {namespace} addr add {address}/24 dev {ifname}")
    ip(f"-n {namespace} link set {ifname} up")


def received(namespace: str, ifname: str) -> int:
    """Frames that have come out of this interface so far."""
    told = json.loads(run(*entering(namespace), "ip", "-j", "-s", "link", "show", "dev", ifname))
    return int(told[0]["stats64"]["rx"]["packets"])


def until(what: str, held: Callable[[], bool]) -> None:
    """Wait until something holds which nothing tells of."""
    for _ in range(PATIENCE * 100):
        if held():
            return
        pause(0.01)
    fail(f"in vain waited for: {what}")


@contextlib.contextmanager
def program(*command: object, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A program in the background; ends it by SIGTERM if it has not ended."""
    with subprocess.Popen([str(word) for word in command], **options) as process:
        try:
            yield process
        finally:
            process.terminate()


@dataclass(frozen=True)
class Rate:
    """What iperf3 measures between two namespaces: bits of payload a second, as received."""

    near: str
    far: str
    address: str

    def tcp(self, seconds: float) -> float:
        """One TCP connection."""
        return float(self._run("-t", seconds, "-O", 0.2)["sum_received"]["bits_per_second"])

    def udp(self, seconds: float, offered: int, size: int) -> float:
        """Datagrams of so many bytes, so many bits of them offered a second."""
        told = self._run("-t", seconds, "-u", "-b", offered, "-l", size)
        return float(told["sum_received"]["bits_per_second"])

    def _run(self, *options: object) -> Any:
        command = [*entering(self.far), "iperf3", "-s", "-1", "--forceflush"]
        with program(*command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout
            for line in server.stdout:
                if "listening" in line:
                    break
            told = run(*entering(self.near), "iperf3", "-c", self.address, "-J", *options)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(1)
        return json.loads(told)["end"]


@contextlib.contextmanager
def attached(name: str, queue: int = QUEUE) -> Iterator[int]:
    """A tap that is up, under a name which no program takes for its own, as its descriptor; nobody reads it."""
    make_tap("tap999", "10.78.0.1", queue)
    tap = attach("tap999")
    try:
        ip("link set tap999 down")
        ip(f"link set tap999 name {name} up")
        yield tap
    finally:
        ip(f"link del {name}")
        os.close(tap)


def pause(seconds: float) -> None:
    """For what tells nobody that it is ready."""
    select.select([], [], [], seconds)


def remove(path: Path) -> None:
    """A file of ours on the tmpfs, if it is there."""
    assert RUN in path.parents
    path.unlink(missing_ok=True)
