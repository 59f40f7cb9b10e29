"""The network and mount namespaces of processes, and the processes in a namespace."""

import os
from collections.abc import Set
from contextlib import suppress
from pathlib import Path

KINDS = ("net", "mnt")
Space = tuple[str, int]  # kind and inode number of a namespace


def spaces_of(pid: int) -> set[Space]:
    """Return the namespaces of a process. OSError: it has ended."""
    return {(kind, os.stat(f"/proc/{pid}/ns/{kind}").st_ino) for kind in KINDS}


def processes_in(spaces: Set[Space]) -> dict[int, str]:
    """Return the command lines, by process ID, of all processes in at least one of the namespaces."""
    found = {}
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
        with suppress(OSError):
            if spaces & spaces_of(pid):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                if line:  # a zombie has none
                    found[pid] = line.strip()
    return found
