"""Fuzzing of one target in this process, with seeded mutation or with atheris.

A finding is an exception, an input that takes longer than SLOW, or memory that grows. Its input is written to a file.
"""

import hashlib
import importlib
import resource
import sys
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

from fuzz.corpus import FOLDER, corpus
from fuzz.mutate import mutate
from fuzz.targets import TARGETS

SLOW = 1.0  # seconds of processor time for one input
GROWTH = 64 << 10  # KiB
MOST = 5  # findings of one target


def fuzz(name: str, inputs: int, seed: int, findings: Path) -> int:
    """Run a target on mutated inputs. Return the number of findings, which are written to a folder and printed."""
    target, seeds, random = TARGETS[name], corpus(name), Random(f"{name} {seed}")
    found = 0
    warm = 0
    for number in range(inputs):
        data = seeds[number] if number < len(seeds) else mutate(random, seeds)
        begun = time.process_time()
        try:
            target(data)
            why = "" if time.process_time() - begun < SLOW else "it is slow"
        except Exception:
            why = traceback.format_exc(limit=-4)
        if why:
            path = keep(name, data, findings)
            print(f"{name}: {path}\n{why}", file=sys.stderr)
            found += 1
            if found == MOST:
                break
        if number == inputs // 4:
            warm = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - warm
    if grown > GROWTH:
        print(f"{name}: memory grew by {grown} KiB", file=sys.stderr)
        found += 1
    return found


def keep(name: str, data: bytes, findings: Path) -> Path:
    """Write the input of a finding to a file, and return its path."""
    findings.mkdir(exist_ok=True)
    path = findings / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


def fuzz_by_coverage(name: str, inputs: int, seed: int, findings: Path) -> None:
    """Run a target under atheris, which ends the process: with status 0 if nothing is found.

    It ends without running finally clauses. The caller removes the current directory, which gets new inputs.
    """
    atheris: Any = importlib.import_module("atheris")  # an optional package without type annotations
    findings.mkdir(exist_ok=True)
    found = f"-artifact_prefix={findings}/{name}-"
    options = [f"-runs={inputs}", f"-seed={seed}", found, "-timeout=20", "-max_len=4096", "-verbosity=0"]
    new = Path("new")  # libFuzzer adds inputs that reach new code to the first folder
    new.mkdir()
    atheris.Setup([name, *options, str(new), str(FOLDER / name)], TARGETS[name])
    atheris.Fuzz()
