"""A soak: users, faults, traffic, outside changes and kills against one mount, compared with a model.

make soak ARGS="--minutes 2 --seed 7", as root. It prints a table. If anything differed or grew, it also prints the last
operations, and the exit status is 1.

A cycle creates interfaces, carries out random operations, compares everything, and destroys all. Then the server's
memory and descriptors are measured. The server is killed once in each cycle of the first half, so that the second half
shows the growth of one server.
"""

import argparse
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression
from threading import Event

from harness import children, forks
from harness.lasting import Lasting
from harness.waiting import Stuck

from .lab import Lab
from .model import Mismatch
from .operations import CHOICES, do

CYCLE = 60  # operations
CHECK = 20  # operations between two comparisons
PACE = 8.0  # maximum number of operations per second, so that the soak leaves processor time to others
GROWTH = 3 << 20  # bytes by which memory may grow from the second to the last third of the measurements
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Use:
    """The server's resources while the mount is empty. at: seconds since the start of the soak; memory: bytes."""

    at: float
    server: int
    memory: int
    descriptors: int


@dataclass
class Result:
    """What a soak has done and found. uses: one for each cycle. wrong: the faults; empty if there is none."""

    seed: int
    seconds: float = 0.0
    processor: float = 0.0
    frames: int = 0
    done: dict[str, int] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def last(self) -> list[Use]:
        """Return the measurements of the last server, without the first one, which includes its start."""
        return [use for use in self.uses if use.server == self.uses[-1].server][1:]

    def slope(self) -> float:
        """Return the growth of the last server's memory in KiB per minute: a line fitted to the measurements.

        The first third of the measurements is left out, because buffers and the allocator's arenas fill then.
        """
        uses = self.last()
        uses = uses[len(uses) // 3 :]
        if len(uses) < 2:
            return 0.0
        return linear_regression([use.at for use in uses], [use.memory for use in uses]).slope * 60 / 1024

    def judge(self) -> None:
        """Add a fault if memory or descriptors have grown."""
        uses = self.last()
        if not uses:
            return
        third = max(1, len(uses) // 3)
        before = uses[third : 2 * third] or uses[:1]  # buffers and the allocator's arenas fill in the first third
        grown = min(use.memory for use in uses[-third:]) - min(use.memory for use in before)
        if grown > GROWTH:
            self.wrong.append(f"memory has grown by {grown >> 10} KiB")
        if uses[-1].descriptors > uses[0].descriptors:
            self.wrong.append(f"descriptors have grown from {uses[0].descriptors} to {uses[-1].descriptors}")

    def table(self) -> str:
        """Return the result as lines of text."""
        rows = [
            ("seed", self.seed),
            ("minutes", f"{self.seconds / 60:.1f}"),
            ("operations", sum(self.done.values())),
            ("frames sent and written", self.frames),
            ("processor seconds of the servers", f"{self.processor:.1f}"),
        ]
        if uses := self.last():
            memory = [use.memory >> 10 for use in uses]
            shown = memory[:: len(memory) // 10 + 1] + memory[-1:]
            rows += [
                ("empty mounts measured, last server", len(uses)),
                ("memory, KiB", " ".join(map(str, shown))),
                ("memory growth, fitted, KiB per minute", f"{self.slope():.1f}"),
                ("descriptors: first, last", f"{uses[0].descriptors}, {uses[-1].descriptors}"),
            ]
        rows += sorted(self.done.items())
        rows.append(("faults", len(self.wrong)))
        return "\n".join(f"{name:42}{value}" for name, value in rows)


class Soak:
    """One run. It ends after `seconds`, at the end of a cycle."""

    def __init__(self, lab: Lab, seconds: float, result: Result) -> None:
        self._lab = lab
        self._seconds = seconds
        self._result = result
        self._begun = time.monotonic()

    def run(self) -> None:
        """Run cycles. Mismatch, Stuck, OSError: a fault was found."""
        while self._passed() < self._seconds:
            self._cycle()
            self._measure()

    def _passed(self) -> float:
        return time.monotonic() - self._begun

    def _cycle(self) -> None:
        lab = self._lab
        kill_at = lab.random.randrange(CYCLE) if self._passed() < self._seconds / 2 else -1
        pause = Event()
        for step in range(CYCLE):
            begun = time.monotonic()
            if step == kill_at:
                self._result.processor += processor_seconds(lab.mount.server.pid)
                do(lab, "kill the server")
                lab.checkpoint()
            do(lab, lab.random.choice(CHOICES) if step else "create")
            if step % CHECK == CHECK - 1:
                lab.checkpoint()
            pause.wait(begun + 1 / PACE - time.monotonic())
            if self._passed() > self._seconds:
                break
        lab.checkpoint()
        lab.clear()

    def _measure(self) -> None:
        pid = self._lab.mount.server.pid
        memory = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
        self._result.uses.append(Use(self._passed(), pid, memory, len(os.listdir(f"/proc/{pid}/fd"))))


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used so far, in seconds."""
    columns = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(columns[11]) + int(columns[12])) / os.sysconf("SC_CLK_TCK")


def soak(minutes: float, seed: int, show: Callable[[str], None] = print) -> Result:
    """Run a soak and return its result. Nothing is left behind. show: called with the history if a fault is found."""
    result, begun = Result(seed), time.monotonic()
    mount = Lasting()
    try:
        lab = Lab(mount, random.Random(seed))
        try:
            Soak(lab, minutes * 60, result).run()
            result.judge()
        except (Mismatch, Stuck, OSError) as fault:
            result.wrong.append(f"{type(fault).__name__}: {fault}")
            mount.stacks()
            show("\n".join(["the last operations:", *lab.history, "the server's log:", *mount.log]))
            mount.broken = True
        result.done, result.frames = lab.done, lab.frames
        if mount.server.poll() is None:
            result.processor += processor_seconds(mount.server.pid)
    finally:
        result.wrong += mount.stop()
    result.seconds = time.monotonic() - begun
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description="run users, faults, traffic and kills against one mount and a model")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 16))
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("run this as root")
    if options.minutes <= 0:
        parser.error("--minutes must be positive")
    print(f"seed {options.seed}, {options.minutes:g} minutes", flush=True)
    children.accept_any_caller()
    children.private_mounts()
    try:
        result = soak(options.minutes, options.seed)
    finally:
        forks.end()
    print(result.table())
    for fault in result.wrong:
        print(f"FAULT: {fault}")
    return 1 if result.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
