"""A search for leaks: create and destroy interfaces many times. python bench/churn.py [--pairs N], as root.

GROUP interfaces exist together. Prints the daemon's descriptors and resident memory at intervals, and exits with status
1 if either grows. The garbage collector makes memory vary by about 2 MiB. Therefore the lowest value of the second half
is compared with the lowest of the first half, not counting the first SETTLED pairs, in which bounded buffers fill.
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from arena import Server, enter, serve
from results import Results

PAGE = os.sysconf("SC_PAGE_SIZE")
STEPS = 10
GROUP = 80  # interfaces that exist together, as in a laboratory
LOOKS = 10  # readings of the memory in each step, of which the lowest counts
SETTLED = 2_000  # pairs after which caches and the 4096 lines kept for `events` have reached their full size
ENOUGH = 5_000  # the fewest pairs from which a growth of memory can be judged
# Bytes per pair. A leaked interface takes a few KiB; garbage not yet collected amounts to a quarter of LEAK.
LEAK = 400


@dataclass(frozen=True)
class Use:
    """The resources that the daemon holds after `pairs` pairs of create and destroy."""

    pairs: int
    descriptors: int
    memory: int  # resident, bytes


def memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def churn(ctl: Path, pairs: int) -> None:
    with open(ctl, "wb", buffering=0) as commands:
        for first in range(0, pairs, GROUP):
            group = range(1, min(GROUP, pairs - first) + 1)
            for unit in group:
                commands.write(b"create %d up\n" % unit)
            for unit in group:
                commands.write(b"destroy %d\n" % unit)


def step(server: Server, before: int, pairs: int) -> Use:
    """Run `pairs` more pairs, after `before` earlier ones, and return the resources held then."""
    lowest = sys.maxsize
    for look in range(LOOKS):
        churn(server.directory / "ctl", pairs * (look + 1) // LOOKS - pairs * look // LOOKS)
        lowest = min(lowest, memory(server.pid))
    return Use(before + pairs, len(os.listdir(f"/proc/{server.pid}/fd")), lowest)


def verdict(uses: list[Use]) -> str:
    """Return what leaks, as a phrase for the user, or an empty string if nothing does."""
    more = uses[-1].descriptors - uses[0].descriptors
    if more > 0:
        return f"{more} descriptors more than before"
    if uses[-1].pairs < ENOUGH:
        print(f"too few pairs to judge the memory: {ENOUGH} are needed")
        return ""
    middle = uses[-1].pairs / 2
    early = min(use.memory for use in uses if SETTLED <= use.pairs <= middle)
    late = min(use.memory for use in uses if use.pairs > middle)
    grown = (late - early) / (uses[-1].pairs / 2)
    print(f"memory grew by {grown:.1f} bytes per pair, from the lowest of the first half to the lowest of the second")
    return f"{grown:.0f} bytes per pair" if grown > LEAK else ""


def main() -> int:
    parser = argparse.ArgumentParser(description="create and destroy an interface many times, and look for leaks")
    parser.add_argument("--pairs", type=int, default=10_000)
    Results.option(parser)
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
    results = Results(options.json)
    for use in uses[1:]:
        results.keep(f"after {use.pairs} pairs", "virtfs", "bytes", [use.memory])
        results.keep(f"after {use.pairs} pairs", "virtfs", "descriptors", [use.descriptors])
    results.save()
    leak = verdict(uses)
    print(f"LEAK FOUND: {leak}" if leak else "no leak found")
    return 1 if leak else 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
