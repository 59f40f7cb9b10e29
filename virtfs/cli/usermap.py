"""The users and groups of a user namespace: the user as its root, and the ids that /etc/subuid gives him.

user_namespaces(7) has the rules for /proc/PID/uid_map, subuid(5) the ranges. newuidmap(1) and newgidmap(1) (package
uidmap) may write what an ordinary user may not. unshare(1) can run them (--map-auto), but only since util-linux 2.38.
"""

import contextlib
import os
import pwd
import subprocess
from pathlib import Path


def map_users(process: int) -> None:
    """Map the ids of a process that has just entered a user namespace: 0 is the caller, 1 and up his sub-ids.

    Without ranges or programs for users, groups or both, those are the caller's own alone. OSError: the process is
    gone, or in no such namespace.
    """
    for kind, own in (("gid", os.getegid()), ("uid", os.geteuid())):
        if not _map_ranges(process, kind, own):
            if kind == "gid":  # else nobody without privilege may write gid_map
                Path(f"/proc/{process}/setgroups").write_text("deny")
            Path(f"/proc/{process}/{kind}_map").write_text(f"0 {own} 1")


def _map_ranges(process: int, kind: str, own: int) -> bool:
    """Let newuidmap or newgidmap write the map. False: there is no range, no program, or it refused."""
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
    """First id and count of each range that a file as subuid(5) gives the caller, by name or number."""
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
