"""Helpers shared by the parts of traffic.py: the test network, and the tables of results compared with the goals."""

import contextlib
import json
import os
import select
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arena import RUN, Server, attach, fail, make_tap
from results import TIMES, Results

QUEUE = 256  # frames; the default of virtfs, and set for the rivals' taps too
SIZE = 60  # bytes of the smallest Ethernet frame, without its FCS
PATIENCE = 30  # seconds after which a program that has not ended counts as hung
FIRST, LAST = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
SUBJECT = "virtfs"


@dataclass
class Lab:
    """The environment of every part.

    blaster: the compiled program blast. rounds: how often each measurement is repeated. missed: the goals that were
    not reached, as lines for the summary at the end. results: every result, for the file that the user may want.
    """

    server: Server
    blaster: Path
    rounds: int
    missed: list[str] = field(default_factory=list)
    results: Results = field(default_factory=Results)

    def ctl(self, *lines: str) -> None:
        """Write commands to virtfs' ctl. All have taken effect when this returns."""
        for line in lines:
            (self.server.directory / "ctl").write_text(f"{line}\n")

    def blast(
        self, ifname: str, seconds: float, rate: float = 0, inside: str = "", lengths: Sequence[int] = (SIZE,)
    ) -> tuple[int, float]:
        """Send frames through an interface, on the first CPU. Return their number and the seconds taken.

        rate: frames per second; 0 means as fast as possible. inside: the namespace of the interface, if not this one.
        lengths: those of the frames in turn, in bytes. By default all frames are of the smallest size.
        """
        command = [self.blaster, ifname, seconds, ",".join(map(str, lengths)), *([rate] if rate else [])]
        frames, nanoseconds = map(int, run("taskset", "-c", FIRST, *entering(inside), *command).split())
        return frames, nanoseconds / 1e9

    # Reporting

    def rounds_of(self, rivals: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
        """Measure every rival once in each round, in turn. Return the results by rival, one per round."""
        samples: dict[str, list[float]] = {name: [] for name in rivals}
        for _ in range(self.rounds):
            for name, figure in rivals.items():
                samples[name].append(figure())
        return samples

    def compare(self, title: str, unit: str, samples: dict[str, list[float]], goals: dict[str, float]) -> None:
        """Print a table that compares the subject, the first of `samples`, with each rival.

        A ratio divides two results of the same round; the median of the ratios is compared with the goal.
        """
        subject, *_ = samples
        print(f"\n{title}")
        print(f"  {'':28}{unit:>12}   {subject} divided by it: median (lowest–highest)")
        for name, figures in samples.items():
            middle = statistics.median(figures)
            self.results.keep(title, name, unit, figures)
            row = f"  {name:28}{middle:12,.{0 if middle >= 1000 else 2}f}"
            if name != subject:
                pairs = zip(samples[subject], figures, strict=True)
                ratios = [mine / its if its else float("inf") for mine, its in pairs]
                row += f"   {statistics.median(ratios):6.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
                self.results.keep(title, subject, TIMES, ratios, against=name, least=goals.get(name))
                if goal := goals.get(name):
                    row += f"  goal: {goal}"
                    if statistics.median(ratios) < goal:
                        row += "  MISSED"
                        self.missed.append(f"{title}: {statistics.median(ratios):.2f} times {name}, the goal is {goal}")
            print(row, flush=True)

    def within(self, title: str, unit: str, samples: dict[str, list[float]], most: float) -> None:
        """Print the median error of each program. The goal for virtfs is at most `most`; 0 means no goal."""
        print(f"\n{title}")
        for name, figures in samples.items():
            median = statistics.median(figures)
            goal = most if name.startswith(SUBJECT) and most else None
            self.results.keep(title, name, unit, figures, most=goal)
            row = f"  {name:28}{median:12.3f} {unit} ({min(figures):.3f} … {max(figures):.3f})"
            if name.startswith(SUBJECT) and most:
                row += f"  goal: at most {most}"
                if abs(median) > most:
                    row += "  MISSED"
                    self.missed.append(f"{title}: {name} has an error of {median:.3f} {unit}, the goal is {most}")
            print(row, flush=True)


def run(*command: object, **options: Any) -> str:
    """Run a command and return its standard output. Exit with an error if the command fails or hangs."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, **options)
    except subprocess.TimeoutExpired:
        fail(f"{' '.join(words)} has not ended in {PATIENCE} s")
    if done.returncode:
        fail(f"{' '.join(words)} ended with status {done.returncode}: {done.stdout}")
    return str(done.stdout)


def ip(words: str) -> None:
    """Run ip(8) with these arguments."""
    run("ip", *words.split())


def entering(namespace: str) -> list[str]:
    """Return the words that, put before a command, run it in the namespace; none for the current one (\"\")."""
    return ["ip", "netns", "exec", namespace] if namespace else []


@contextlib.contextmanager
def namespaces(*names: str) -> Iterator[None]:
    """Create network namespaces by name. Delete them, and with them their interfaces, at the end."""
    for name in names:
        ip(f"netns add {name}")
        ip(f"-n {name} link set lo up")
    try:
        yield
    finally:
        for name in names:
            ip(f"netns del {name}")


def settle(namespace: str, ifname: str, address: str) -> None:
    """Configure an interface that has been moved to `namespace`: an address, no automatic IPv6 address, and up."""
    ip(f"-n {namespace} link set {ifname} addrgenmode none")
    ip(f"-n {namespace} addr add {address}/24 dev {ifname}")
    ip(f"-n {namespace} link set {ifname} up")


def received(namespace: str, ifname: str) -> int:
    """Return the number of frames that the interface has received so far."""
    told = json.loads(run(*entering(namespace), "ip", "-j", "-s", "link", "show", "dev", ifname))
    return int(told[0]["stats64"]["rx"]["packets"])


def until(what: str, held: Callable[[], bool]) -> None:
    """Poll until `held` returns true, for a condition without a notification. `what` names it in the error message."""
    for _ in range(PATIENCE * 100):
        if held():
            return
        pause(0.01)
    fail(f"still waiting for {what} after {PATIENCE} s")


@contextlib.contextmanager
def program(*command: object, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run a program in the background, and send it SIGTERM at the end."""
    with subprocess.Popen([str(word) for word in command], **options) as process:
        try:
            yield process
        finally:
            process.terminate()


@dataclass(frozen=True)
class Rate:
    """A measurement by iperf3 between two namespaces: bits of payload received per second.

    near: the namespace of the sender. far, address: that of the receiver, and its IPv4 address.
    """

    near: str
    far: str
    address: str

    def tcp(self, seconds: float) -> float:
        """Return the rate of one TCP connection."""
        return float(self._run("-t", seconds, "-O", 0.2)["sum_received"]["bits_per_second"])

    def udp(self, seconds: float, offered: int, size: int) -> float:
        """Return the rate of UDP datagrams of `size` bytes, of which the sender sends `offered` bits per second."""
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
    """Create a tap that is up and that nobody reads, and yield its descriptor.

    name: its name. Some programs would open an interface called tapN as a tap of their own (tcpreplay does).
    """
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
    """Sleep, while waiting for a condition without a notification."""
    select.select([], [], [], seconds)


def remove(path: Path) -> None:
    """Remove a file on the tmpfs, if it exists."""
    assert RUN in path.parents
    path.unlink(missing_ok=True)
