"""Kill a server with SIGKILL at system calls and at random times, and compare what remains with a model.

Each acknowledged line must be there whole, the line in progress whole or not at all, and nothing else. The kernel, ctl
and the state file must agree. A mismatch prints the seed and the history; the exit status is then 1.
"""

import argparse
import os
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from harness import children

from .machine import Machine

EACH = 100  # kills with one seed, and so with one history


def crash(kills: int, seed: int) -> tuple[int, str, dict[str, int]]:
    """Kill servers. Returns the number of kills, a description of the first mismatch ("" if there is none), and how
    often the last lines were acknowledged, or there whole or not at all."""
    machine = Machine(seed)
    wrong = ""
    try:
        machine.start()
        while machine.kills < kills:
            machine.round()
    except AssertionError as mismatch:
        history = "\n".join(machine.history)
        wrong = f"seed {seed}, after {machine.kills} kills:\n{history}\n{mismatch}"
    finally:
        machine.close()
    return machine.kills, wrong, machine.kept


def main() -> int:
    """Run the command line. Returns its exit status."""
    parser = argparse.ArgumentParser(prog="make crash")
    parser.add_argument("--kills", type=int, default=2000, help="number of kills (2000)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="seed of the first EACH kills")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="number of servers at a time")
    options = parser.parse_args()
    children.accept_any_caller()
    children.private_mounts()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the servers are ended, too
    done = mismatches = 0
    kept: Counter[str] = Counter()
    portions = [min(EACH, options.kills - begun) for begun in range(0, options.kills, EACH)]
    seeds = range(options.seed, options.seed + len(portions))
    with ProcessPoolExecutor(options.jobs) as pool:
        for seed, (kills, wrong, ends) in zip(seeds, pool.map(crash, portions, seeds), strict=True):
            done += kills
            mismatches += bool(wrong)
            kept.update(ends)
            print(wrong or f"seed {seed}: {kills} kills", flush=True)
    print(f"{done} kills, {mismatches} mismatches; of the last lines {dict(kept)}")
    return 1 if mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
