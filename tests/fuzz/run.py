"""`make fuzz`: runs every target, the channel and a real mount on seeded random inputs, within a number of inputs.

Usage: python -m fuzz.run [--inputs N] [--seed N] [--target NAME ...] [--engine auto|atheris|plain]

Each target runs in a process of its own, as many at a time as there are processors. With atheris installed, half of a
target's inputs are chosen by coverage. The exit status is 1 if anything was found.
"""

import argparse
import importlib.util
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import SystemRandom
from tempfile import TemporaryDirectory

TESTS = Path(__file__).parents[1]
FINDINGS = TESTS.parent / "fuzz-findings"

# The number of inputs of each target, in thousandths of all inputs: the faster a target is, and the more it is exposed,
# the more inputs it gets.
SHARES = {
    "ctl_line": 110, "verbs_line": 110, "script": 20, "value": 90, "numbers": 15, "loan": 10, "impairment": 70,
    "hex_lines": 80, "capture_file": 90, "capture_stream": 10, "offload": 60, "quoting": 60, "state_file": 15,
    "mount_options": 40, "command_line": 5, "mount_table": 40, "subuid": 40, "netlink": 15, "ioctl": 50,
    "filter_expression": 20, "channel": 40, "mount": 10,
}  # fmt: skip


def jobs(names: list[str], inputs: int, engine: str) -> Iterator[tuple[str, int, str]]:
    """Yield the name, the number of inputs and the engine of each process to run. The longest come first."""
    for name in names:
        share = max(inputs * SHARES[name] // 1000, 1)
        if name in ("channel", "mount"):
            yield name, share, "plain"
        elif engine == "both":
            yield name, share - share // 2, "plain"
            yield name, share // 2, "atheris"
        else:
            yield name, share, engine


def one(name: str, inputs: int, seed: int, engine: str) -> int:
    """Run a job in this process. Return its exit status."""
    # Imported here, because atheris instruments what is imported after it.
    if engine == "atheris":
        import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

        with atheris.instrument_imports(include=["virtfs"]):
            from fuzz import plain
        logging.disable()
        plain.fuzz_by_coverage(name, inputs, seed, FINDINGS)
    if name == "channel":
        from fuzz import sessions

        sessions.fuzz(inputs, seed)
        return 0
    if name == "mount":
        from harness import children

        from fuzz import mounted

        children.private_mounts()
        mounted.fuzz(inputs, seed)
        return 0
    from fuzz import plain

    logging.disable()
    return int(plain.fuzz(name, inputs, seed, FINDINGS) > 0)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000_000, help="number of inputs of all targets (1000000)")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(2**31), help="default: a random one")
    parser.add_argument("--target", action="append", choices=[*SHARES], help="run only this target; may be repeated")
    parser.add_argument("--engine", choices=["auto", "both", "atheris", "plain"], default="auto")
    parser.add_argument("--one", nargs=3, metavar=("TARGET", "INPUTS", "ENGINE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, inputs, engine = given.one
        return one(name, int(inputs), given.seed, engine)
    names = given.target or [name for name in SHARES if name != "mount" or os.geteuid() == 0]
    engine = given.engine
    if engine == "auto":
        engine = "both" if importlib.util.find_spec("atheris") else "plain"
    print(f"seed {given.seed}, {given.inputs} inputs, engine {engine}", flush=True)

    def run(job: tuple[str, int, str]) -> int:
        name, inputs, engine = job
        begun = time.monotonic()
        command = [sys.executable, "-m", "fuzz.run", "--seed", str(given.seed), "--one", name, str(inputs), engine]
        with TemporaryDirectory() as here:
            path = {"PYTHONPATH": f"{TESTS}:{TESTS.parent}"}
            done = subprocess.run(
                command, cwd=here, env=os.environ | path, capture_output=True, text=True, errors="replace"
            )
        result = "ok" if done.returncode == 0 else "FOUND"
        print(f"{name:14} {engine:8} {inputs:8} inputs {time.monotonic() - begun:7.1f} s  {result}", flush=True)
        if done.returncode:
            print(done.stdout + done.stderr, file=sys.stderr, flush=True)
        return inputs if done.returncode == 0 else -1

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(run, jobs(names, given.inputs, engine)))
    print(f"{sum(result for result in results if result > 0)} inputs, {results.count(-1)} targets with findings")
    return int(-1 in results)


if __name__ == "__main__":
    sys.exit(main())
