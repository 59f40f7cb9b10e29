"""Kill a server with SIGKILL at system calls and at random times, and compare what remains with a model.

python -m crash [--kills N] [--seed N] [--keep-going]

Each acknowledged line must be there whole, the line in progress whole or not at all, and nothing else. The kernel, ctl
and the state file must agree. A mismatch prints the seed and the history; the exit status is then 1.
"""

import argparse
import sys
import time

from .machine import Machine, Mismatch


def crash(kills: int, seed: int) -> tuple[int, str, dict[str, int]]:
    """Kill servers. Returns the number of kills, a description of the first mismatch ("" if there is none), and how
    often the last lines were acknowledged, or there whole or not at all."""
    machine = Machine(seed)
    wrong = ""
    try:
        machine.start()
        while machine.kills < kills:
            machine.round()
    except Mismatch as mismatch:
        history = "\n".join(machine.history)
        wrong = f"seed {seed}, after {machine.kills} kills:\n{history}\n{mismatch}"
    finally:
        machine.close()
    return machine.kills, wrong, machine.kept


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    done = mismatches = 0
    seed = options.seed
    while done < options.kills:
        kills, wrong, kept = crash(min(100, options.kills - done), seed)
        done += kills
        mismatches += bool(wrong)
        print(wrong or f"seed {seed}: {kills} kills, {kept}", flush=True)
        seed += 1
    print(f"{done} kills, {mismatches} mismatches")
    return 1 if mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
