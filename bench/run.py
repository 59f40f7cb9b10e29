"""One frame through `frame`, against what else could carry it: python bench/run.py [--quick] [WORK …] (root).

Everything is compared within one run: the servers wait side by side, each kind of work goes round them several times
(A B C A B C …), and what counts is the median of the ratios of one round. Rates alone say more about the machine.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from arena import BENCH, Others, Server, build, cpu_seconds, enter, fail, make_tap, serve

QUEUE = 256  # virtfs' default; the rivals' taps get the same
CLIENT_SECONDS = 60
VIRTFS, PLAIN, RAW = "virtfs", "plain pyfuse3", "raw tap, Python"
C_ONE, C_POOL = "C daemon, 1 thread", "C daemon, pool"


@dataclass(frozen=True)
class Work:
    """What the client does: `mode` and `size` are client.c's."""

    name: str
    title: str
    mode: str
    size: int = 0


WORKS = [
    Work("write60", "write, 60 bytes", "write", 60),
    Work("write1514", "write, 1514 bytes", "write", 1514),
    Work("read60", "read, 60 bytes, queue never empty", "read", 60),
    Work("read1514", "read, 1514 bytes, queue never empty", "read", 1514),
    Work("roundtrip", "ARP request and answer, one at a time", "roundtrip"),
]


@dataclass(frozen=True)
class Setting:
    """Where client and server may run, and what is to be reached there: virtfs' rate over the rival's."""

    name: str
    title: str
    client: frozenset[int]
    server: frozenset[int]
    goals: dict[str, float]


@dataclass(frozen=True)
class Sample:
    """One run of the client."""

    frames: int
    seconds: float
    server_seconds: float

    @property
    def rate(self) -> float:
        return self.frames / self.seconds


@dataclass
class Rival:
    """Something that carries frames: a server with a file, or the bare tap."""

    name: str
    tap: str
    address: str
    server: Server | None
    samples: list[Sample] = field(default_factory=list)

    def command(self, work: Work, seconds: float, client: Path) -> list[str]:
        what = self.address if work.mode == "roundtrip" else str(work.size)
        if self.server is None:
            return [sys.executable, str(BENCH / "raw_tap.py"), work.mode, self.tap, str(seconds), what]
        return [str(client), work.mode, str(self.server.directory / "frame"), str(seconds), what, self.tap]

    def run(self, work: Work, seconds: float, client: Path, setting: Setting) -> Sample:
        """One run of the client."""
        if self.server:
            self.server.pin(setting.server)
        before = cpu_seconds(self.server.pid) if self.server else 0.0
        pinned = ["taskset", "-c", ",".join(map(str, setting.client)), *self.command(work, seconds, client)]
        try:
            done = subprocess.run(pinned, stdout=subprocess.PIPE, text=True, timeout=CLIENT_SECONDS)
        except subprocess.TimeoutExpired:
            fail(f"{self.name}: the client of {work.name} hangs")
        if done.returncode:
            fail(f"{self.name}: the client of {work.name} ended with {done.returncode}")
        frames, nanoseconds = map(int, done.stdout.split())
        used = cpu_seconds(self.server.pid) - before if self.server else 0.0
        return Sample(frames, nanoseconds / 1e9, used)


# -- the rivals ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def rivals(with_virtfs: bool) -> Iterator[list[Rival]]:
    """All of them, running, virtfs first."""
    daemon = build("tapfuse", "fuse3")
    servers: dict[str, list[str | Path] | None] = {
        C_ONE: [daemon, "-s"],
        C_POOL: [daemon],
        PLAIN: [sys.executable, BENCH / "plain_pyfuse3.py"],
        RAW: None,
    }
    running = []
    with contextlib.ExitStack() as stack:
        if with_virtfs:
            running.append(stack.enter_context(virtfs()))
        for unit, (name, command) in enumerate(servers.items(), 4):
            tap, address = f"tap{unit}", f"10.77.{unit}.1"
            make_tap(tap, address, QUEUE)
            server = stack.enter_context(serve(tap, [*command, tap], "frame")) if command else None
            running.append(Rival(name, tap, address, server))
        yield running


@contextlib.contextmanager
def virtfs() -> Iterator[Rival]:
    address = "10.77.3.1"
    with serve("virtfs", [sys.executable, "-m", "virtfs", "mount", "-f"], "ctl") as server:
        (server.directory / "ctl").write_text(f"create 3 up inet {address}/24\n")
        yield Rival(VIRTFS, "tap3", address, Server(server.directory / "virt3", server.pid))


# -- measuring and telling ----------------------------------------------------------------------------------


def measure(
    work: Work, setting: Setting, carriers: list[Rival], rounds: int, seconds: float, client: Path
) -> None:
    for rival in carriers:
        rival.run(work, seconds / 4, client, setting)  # to warm up
        rival.samples = []
    for _ in range(rounds):
        for rival in carriers:
            rival.samples.append(rival.run(work, seconds, client, setting))


def tell(work: Work, setting: Setting, carriers: list[Rival]) -> list[str]:
    """Prints the table of one work in one setting; gives back the goals that were missed."""
    print(f"\n{work.title}; {setting.title}")
    print(f"  {'':20}{'frames/s':>10}{'µs/frame':>10}{'server CPU s':>14}   virtfs is … times it")
    print(f"  {'':20}{'':>10}{'':>10}{'per 1e6':>14}   median (lowest–highest)")
    missed = []
    subject = carriers[0]
    for rival in carriers:
        rate = statistics.median(s.rate for s in rival.samples)
        frames = sum(s.frames for s in rival.samples)
        cpu = 1e6 * sum(s.server_seconds for s in rival.samples) / frames
        row = f"  {rival.name:20}{rate:10,.0f}{1e6 / rate:10.2f}{f'{cpu:.1f}' if rival.server else '–':>14}"
        if subject.name == VIRTFS and rival is not subject:
            ratios = [mine.rate / its.rate for mine, its in zip(subject.samples, rival.samples, strict=True)]
            median, goal = statistics.median(ratios), setting.goals.get(rival.name)
            row += f"   {median:5.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
            if goal:
                row += f"  to reach: {goal}"
                if median < goal:
                    row += "  MISSED"
                    missed.append(f"{work.name}, {setting.title}: {median:.2f} of {rival.name}, not {goal}")
        print(row, flush=True)
    return missed


def settings() -> list[Setting]:
    """Free, the scheduler decides from moment to moment which of the other two it is."""
    usable = frozenset(os.sched_getaffinity(0))
    first, last = frozenset({min(usable)}), frozenset({max(usable)})
    free = {C_ONE: 2.5, C_POOL: 2.5, PLAIN: 2.0}
    one_cpu = {C_ONE: 0.9, C_POOL: 0.9, PLAIN: 2.0}
    found = [
        Setting("free", "free to move", usable, usable, free),
        Setting("one", "client and server on one CPU", last, last, one_cpu),
    ]
    if first != last:
        found.insert(1, Setting("two", "client and server each on a CPU of its own", first, last, {}))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="frames through virtfs and its rivals, as ratios")
    parser.add_argument("works", metavar="WORK", nargs="*", help=", ".join(w.name for w in WORKS))
    parser.add_argument("--quick", action="store_true", help="a few short rounds")
    parser.add_argument("--rivals-only", action="store_true", help="without virtfs")
    parser.add_argument("--setting", choices=["free", "two", "one"], action="append", help="only this one")
    options = parser.parse_args()
    if unknown := set(options.works) - {w.name for w in WORKS}:
        parser.error(f"unknown work {', '.join(sorted(unknown))}")
    enter()
    rounds, seconds = (3, 0.2) if options.quick else (9, 0.5)
    works = [w for w in WORKS if not options.works or w.name in options.works]
    client, missed = build("client"), []
    with rivals(not options.rivals_only) as carriers:
        others = Others()
        for setting in settings():
            if options.setting and setting.name not in options.setting:
                continue
            for work in works:
                measure(work, setting, carriers, rounds, seconds, client)
                missed += tell(work, setting, carriers)
        print(f"\nother programs meanwhile: {others.share():.0%} of a CPU")
    if options.rivals_only:
        return
    print("\nmissed goals:" if missed else "\nevery goal is reached")
    for line in missed:
        print(f"  {line}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
