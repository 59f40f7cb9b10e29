"""One frame at a time through `frame`, compared with other servers. As root: python bench/run.py [--quick] [WORK …].

Results are ratios within one run, since absolute rates mainly describe the machine. All servers run at the same time.
For each kind of work they take turns (A B C A B C …), and the result is the median of the ratios of each round.
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
from results import TIMES, Results

COMPUTE = 8  # programs in the setting "busy"
QUEUE = 256  # frames; the default of virtfs, and set for the rivals' taps too
CLIENT_SECONDS = 60
VIRTFS, PLAIN, RAW = "virtfs", "plain pyfuse3", "raw tap, Python"
C_ONE, C_POOL = "C daemon, 1 thread", "C daemon, pool"


@dataclass(frozen=True)
class Work:
    """A kind of work for the client; `mode` and `size` are arguments of client.c."""

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
    """The CPUs on which client and server may run, and the goals: by rival, virtfs' rate divided by the rival's.

    others: number of programs that compute meanwhile.
    """

    name: str
    title: str
    client: frozenset[int]
    server: frozenset[int]
    goals: dict[str, float]
    others: int = 0


@dataclass(frozen=True)
class Sample:
    """The result of one run of the client.

    seconds: the time that the client took. server_seconds: the CPU time that the server used, 0 without a server.
    """

    frames: int
    seconds: float
    server_seconds: float

    @property
    def rate(self) -> float:
        return self.frames / self.seconds


@dataclass
class Rival:
    """A program under test: a server with a frame file or, if `server` is None, the tap alone."""

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
        """Run the client once and return its result."""
        if self.server:
            self.server.pin(setting.server)
        before = cpu_seconds(self.server.pid) if self.server else 0.0
        pinned = ["taskset", "-c", ",".join(map(str, setting.client)), *self.command(work, seconds, client)]
        try:
            done = subprocess.run(pinned, stdout=subprocess.PIPE, text=True, timeout=CLIENT_SECONDS)
        except subprocess.TimeoutExpired:
            fail(f"{self.name}: the client for {work.name} has not ended in {CLIENT_SECONDS} s")
        if done.returncode:
            fail(f"{self.name}: the client for {work.name} ended with status {done.returncode}")
        frames, nanoseconds = map(int, done.stdout.split())
        used = cpu_seconds(self.server.pid) - before if self.server else 0.0
        return Sample(frames, nanoseconds / 1e9, used)


# -- the rivals ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def rivals(with_virtfs: bool) -> Iterator[list[Rival]]:
    """Start all programs under test and yield them, virtfs first."""
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


# -- measuring and reporting --------------------------------------------------------------------------------


def measure(work: Work, setting: Setting, carriers: list[Rival], rounds: int, seconds: float, client: Path) -> None:
    for rival in carriers:
        rival.run(work, seconds / 4, client, setting)  # to warm up; this sample is discarded
        rival.samples = []
    for _ in range(rounds):
        for rival in carriers:
            rival.samples.append(rival.run(work, seconds, client, setting))


def tell(work: Work, setting: Setting, carriers: list[Rival], results: Results) -> list[str]:
    """Print and keep the results for one kind of work in one setting. Return the missed goals, as lines of text."""
    print(f"\n{work.title}; {setting.title}")
    print(f"  {'':20}{'frames/s':>10}{'µs/frame':>10}{'server CPU s':>14}   virtfs divided by it")
    print(f"  {'':20}{'':>10}{'':>10}{'per 1e6':>14}   median (lowest–highest)")
    missed = []
    subject = carriers[0]
    for rival in carriers:
        rate = statistics.median(s.rate for s in rival.samples)
        frames = sum(s.frames for s in rival.samples)
        cpu = 1e6 * sum(s.server_seconds for s in rival.samples) / frames
        row = f"  {rival.name:20}{rate:10,.0f}{1e6 / rate:10.2f}{f'{cpu:.1f}' if rival.server else '–':>14}"
        results.keep(f"{work.name}, {setting.name}", rival.name, "frames/s", [s.rate for s in rival.samples])
        if subject.name == VIRTFS and rival is not subject:
            ratios = [mine.rate / its.rate for mine, its in zip(subject.samples, rival.samples, strict=True)]
            median, goal = statistics.median(ratios), setting.goals.get(rival.name)
            what = f"{work.name}, {setting.name}"
            results.keep(what, VIRTFS, TIMES, ratios, against=rival.name, least=goal)
            row += f"   {median:5.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
            if goal:
                row += f"  goal: {goal}"
                if median < goal:
                    row += "  MISSED"
                    missed.append(f"{work.name}, {setting.title}: {median:.2f} times {rival.name}, the goal is {goal}")
        print(row, flush=True)
    return missed


def settings() -> list[Setting]:
    """Return the settings that this machine allows.

    In "free", the scheduler decides from moment to moment whether client and server share a CPU.
    """
    usable = frozenset(os.sched_getaffinity(0))
    first, last = frozenset({min(usable)}), frozenset({max(usable)})
    free = {C_ONE: 2.5, C_POOL: 2.5, PLAIN: 2.0}
    one_cpu = {C_ONE: 0.95, C_POOL: 0.9, PLAIN: 2.0}
    found = [
        Setting("free", "free to move", usable, usable, free),
        Setting("one", "client and server on one CPU", last, last, one_cpu),
    ]
    if first != last:
        found.insert(1, Setting("two", "client and server each on its own CPU", first, last, {}))
    return [*found, Setting("busy", f"beside {COMPUTE} programs that compute", usable, usable, {}, COMPUTE)]


@contextlib.contextmanager
def computing(programs: int) -> Iterator[None]:
    """Run programs that do nothing but compute."""
    with contextlib.ExitStack() as stack:
        for _ in range(programs):
            program = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(program.kill)
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description="compare virtfs with other programs, one frame at a time")
    parser.add_argument("works", metavar="WORK", nargs="*", help=", ".join(w.name for w in WORKS))
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--rivals-only", action="store_true", help="measure only the other programs")
    parser.add_argument(
        "--setting", choices=["free", "two", "one", "busy"], action="append", help="only in this setting"
    )
    Results.option(parser)
    options = parser.parse_args()
    if unknown := set(options.works) - {w.name for w in WORKS}:
        parser.error(f"unknown work {', '.join(sorted(unknown))}")
    enter()
    rounds, seconds = (3, 0.2) if options.quick else (9, 0.5)
    works = [w for w in WORKS if not options.works or w.name in options.works]
    client, missed, results = build("client"), [], Results(options.json)
    with rivals(not options.rivals_only) as carriers:
        others = Others()
        for setting in settings():
            if options.setting and setting.name not in options.setting:
                continue
            with computing(setting.others):
                for work in works:
                    measure(work, setting, carriers, rounds, seconds, client)
                    missed += tell(work, setting, carriers, results)
        print(f"\nother programs meanwhile: {others.share():.0%} of a CPU")
    results.save()
    if options.rivals_only:
        return
    print("\nmissed goals:" if missed else "\nall goals are reached")
    for line in missed:
        print(f"  {line}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
