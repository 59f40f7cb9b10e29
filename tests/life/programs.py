"""What a test's programs do in a loop of their own."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from harness.places import DIR


def contents_until(last: str) -> set[frozenset[str]]:
    """Every content that a virt's directory was seen with, until one named `last` is gone."""
    seen: set[frozenset[str]] = set()
    while os.path.lexists(f"{DIR}/{last}"):
        for name in os.listdir(DIR):
            if name.startswith("virt"):
                try:
                    seen.add(frozenset(os.listdir(f"{DIR}/{name}")))
                except OSError as refusal:  # destroyed before its name was looked up, or after
                    if refusal.errno not in (errno.ENOENT, errno.ENXIO):
                        raise
    return seen


def texts_until(path: str, last: str) -> set[str]:
    """Every text that a file was read with, until a virt named `last` is gone."""
    seen: set[str] = set()
    while os.path.lexists(f"{DIR}/{last}"):
        with suppress(FileNotFoundError):
            seen.add(Path(path).read_text())
    return seen
