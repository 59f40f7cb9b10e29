"""The id maps of a user namespace: the caller as root, and the ranges from /etc/subuid and /etc/subgid.

user_namespaces(7) has the rules for /proc/PID/uid_map, subuid(5) the format of the ranges. An ordinary user can map
only one id; newuidmap(1) and newgidmap(1) (package uidmap) have the privilege to map the ranges. unshare --map-auto
runs them too, but only since util-linux 2.38.
"""

import contextlib
import os
import pwd
import subprocess
from pathlib import Path


def map_users(process: int) -> None:
    """Map the ids of a process that has just entered a new user namespace: 0 to the caller, 1 and up to the ranges.

    If the ranges of users or of groups cannot be mapped, map only id 0 of that kind. OSError: the process is gone, or
    is in no new user namespace.
    """
    for kind, own in (("gid", os.getegid()), ("uid", os.geteuid())):
        if not _map_ranges(process, kind, own):
            if kind == "gid":  # required before an unprivileged process writes gid_map
                Path(f"/proc/{process}/setgroups").write_text("deny")
            Path(f"/proc/{process}/{kind}_map").write_text(f"0 {own} 1")


def _map_ranges(process: int, kind: str, own: int) -> bool:
    """Map by newuidmap or newgidmap. Return False if there is no range or no such program, or if it fails."""
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
    """Return the first id and the count of each range that a file like subuid(5) has for the caller."""
    user = os.geteuid()
    names = {str(user)}
    with contextlib.suppress(KeyError):
        names.add(pwd.getpwuid(user).pw_name)
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return []
    fields = [line.split(":") for line in lines]
    return [
        (int(field[1]), int(field[2]))
        for field in fields
        if len(field) == 3 and field[0] in names and field[1].isdecimal() and field[2].isdecimal() and int(field[2])
    ]
