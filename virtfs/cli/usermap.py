"""The id maps of a user namespace: the caller as root, and the ranges from /etc/subuid and /etc/subgid.

user_namespaces(7) describes /proc/PID/uid_map, and subuid(5) the format of the ranges. An ordinary user can map only
one id; newuidmap(1) and newgidmap(1) (package uidmap) have the privilege to map the ranges. unshare --map-auto runs
these programs too, but only since util-linux 2.38.
"""

import contextlib
import os
import pwd
import re
import subprocess
from collections.abc import Container
from pathlib import Path

from virtfs.host.textfiles import read_text, write_text

# Ids have 32 bits, so at most 10 digits. int() raises ValueError for thousands of digits.
_RANGE = re.compile(r"([^:]*):([0-9]{1,10}):([0-9]{1,10})")


def map_users(process: int) -> None:
    """Map the ids in the new user namespace that a process has just entered.

    Id 0 is mapped to the caller. Higher ids are mapped to the caller's ranges in /etc/subuid and /etc/subgid.
    User ids and group ids are mapped separately: if the ranges of one kind cannot be mapped, only id 0 of this kind is
    mapped. OSError: the process is gone, or is not in a new user namespace.
    """
    for kind, own in (("gid", os.getegid()), ("uid", os.geteuid())):
        if not _map_ranges(process, kind, own):
            # An unprivileged process must deny setgroups(2) before it writes gid_map.
            if kind == "gid":
                write_text(f"/proc/{process}/setgroups", "deny")
            write_text(f"/proc/{process}/{kind}_map", f"0 {own} 1")


def _map_ranges(process: int, kind: str, own: int) -> bool:
    """Map ids with newuidmap(1) or newgidmap(1).

    Return False if there is no range, or if the program is missing or fails.

    kind: "uid" or "gid". own: the caller's id, which becomes id 0.
    """
    extents = [0, own, 1]
    inside = 1
    for first, count in ranges(Path(f"/etc/sub{kind}")):
        extents += [inside, first, count]
        inside += count
    if inside == 1:
        return False
    command = [f"new{kind}map", str(process), *map(str, extents)]
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0
    except OSError:
        return False


def ranges(file: Path) -> list[tuple[int, int]]:
    """Return the caller's ranges from /etc/subuid or /etc/subgid (subuid(5)), in the form that ranges_of() returns."""
    user = os.geteuid()
    names = {str(user)}
    with contextlib.suppress(KeyError):
        names.add(pwd.getpwuid(user).pw_name)
    try:
        return ranges_of(names, read_text(file))
    except OSError:
        return []


def ranges_of(names: Container[str], text: str) -> list[tuple[int, int]]:
    """Parse a text like /etc/subuid (subuid(5)) and return a user's ranges, each as (first id, number of ids).

    names: the user's name and uid, as they may appear in the first field. Lines in another format are skipped.
    """
    found = map(_RANGE.fullmatch, text.split("\n"))
    return [(int(match[2]), int(match[3])) for match in found if match and match[1] in names and int(match[3])]
