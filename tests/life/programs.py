"""Loops that tests run in an agent."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from harness.places import DIR


def contents_until(last: str) -> set[frozenset[str]]:
    """List the directories of all interfaces until the interface `last` is gone. Returns every listing seen."""
    seen: set[frozenset[str]] = set()
    while os.path.lexists(f"{DIR}/{last}"):
        for name in os.listdir(DIR):
            if name.startswith("virt"):
                try:
                    seen.add(frozenset(os.listdir(f"{DIR}/{name}")))
                except OSError as refusal:  # destroyed before or after the lookup of its name
                    if refusal.errno not in (errno.ENOENT, errno.ENXIO):
                        raise
    return seen


def texts_until(path: str, last: str) -> set[str]:
    """Read a file repeatedly until the interface `last` is gone. Returns every text seen."""
    seen: set[str] = set()
    while os.path.lexists(f"{DIR}/{last}"):
        with suppress(FileNotFoundError):
            seen.add(Path(path).read_text())
    return seen
