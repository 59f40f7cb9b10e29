"""Does anything leak? Creates and destroys one interface again and again: python bench/churn.py [--pairs N] (root).

Prints the daemon's descriptors and resident memory as it goes, and ends with status 1 if either grows. Memory moves
up and down with the garbage collector by some 2 MiB, so what is compared is the lowest of the first half, from when
what is bounded is full, and the lowest of the second.
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from arena import Server, enter, serve

PAGE = os.sysconf("SC_PAGE_SIZE")
STEPS = 10
LOOKS = 10  # at the memory, within one step; the lowest counts
SETTLED = 2_000  # pairs, after which the last 4096 lines of `events`, and caches, take no more memory
ENOUGH = 5_000  # pairs to judge memory by
LEAK = 400  # bytes a pair: a forgotten interface is some KiB, and what the collector has not got to yet a quarter of it


@dataclass(frozen=True)
class Use:
    """What the daemon holds after so many pairs."""

    pairs: int
    descriptors: int
    memory: int  # resident, bytes


def memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def churn(ctl: Path, pairs: int) -> None:
    with open(ctl, "wb", buffering=0) as commands:
        for _ in range(pairs):
            commands.write(b"create 5 up\n")
            commands.write(b"destroy 5\n")


def step(server: Server, before: int, pairs: int) -> Use:
    """So many pairs more, and what is held then."""
    lowest = sys.maxsize
    for look in range(LOOKS):
        churn(server.directory / "ctl", pairs * (look + 1) // LOOKS - pairs * look // LOOKS)
        lowest = min(lowest, memory(server.pid))
    return Use(before + pairs, len(os.listdir(f"/proc/{server.pid}/fd")), lowest)


def verdict(uses: list[Use]) -> str:
    """Why it leaks; empty if it does not."""
    more = uses[-1].descriptors - uses[0].descriptors
    if more > 0:
        return f"{more} descriptors more than before"
    if uses[-1].pairs < ENOUGH:
        print(f"memory is judged from {ENOUGH} pairs on")
        return ""
    middle = uses[-1].pairs / 2
    early = min(use.memory for use in uses if SETTLED <= use.pairs <= middle)
    late = min(use.memory for use in uses if use.pairs > middle)
    grown = (late - early) / (uses[-1].pairs / 2)
    print(f"from the first half's lowest to the second's: {grown:.1f} bytes of memory a pair")
    return f"{grown:.0f} bytes a pair" if grown > LEAK else ""


def main() -> int:
    parser = argparse.ArgumentParser(description="create and destroy, and look for leaks")
    parser.add_argument("--pairs", type=int, default=10_000)
    options = parser.parse_args()
    if options.pairs < STEPS:
        parser.error(f"--pairs must be {STEPS} or more")
    enter()
    pairs = options.pairs // STEPS
    with serve("virtfs", [sys.executable, "-m", "virtfs", "mount", "-f"], "ctl") as server:
        churn(server.directory / "ctl", 10)
        uses = [Use(0, len(os.listdir(f"/proc/{server.pid}/fd")), memory(server.pid))]
        print(f"{'pairs':>7}{'descriptors':>13}{'memory KiB':>12}{'pairs/s':>9}")
        print(f"{0:7}{uses[0].descriptors:13}{uses[0].memory // 1024:12}")
        for _ in range(STEPS):
            start = time.monotonic()
            now = step(server, uses[-1].pairs, pairs)
            rate = pairs / (time.monotonic() - start)
            uses.append(now)
            print(f"{now.pairs:7}{now.descriptors:13}{now.memory // 1024:12}{rate:9.1f}", flush=True)
    leak = verdict(uses)
    print(f"IT LEAKS: {leak}" if leak else "it does not leak")
    return 1 if leak else 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
