"""Actions of a user's program. These functions run in the agent's process."""

import os
from collections.abc import Iterable
from pathlib import Path

from harness.places import DIR


def opens(path: str, flags: int) -> int:
    """Open and close a file of the mount. Returns 0 or the errno."""
    try:
        os.close(os.open(Path(DIR, path), flags))
    except OSError as refusal:
        return refusal.errno or -1
    return 0


def each_opens(tries: Iterable[tuple[str, int]]) -> list[int]:
    """Call opens() with each pair of path and flags, and return the results."""
    return [opens(path, flags) for path, flags in tries]


def says(path: str, line: str) -> int:
    """Open a ctl and write a line. Returns 0, or the errno of the call that fails."""
    try:
        fd = os.open(Path(DIR, path), os.O_WRONLY)
        try:
            os.write(fd, f"{line}\n".encode())
        finally:
            os.close(fd)
    except OSError as refusal:
        return refusal.errno or -1
    return 0
