"""Mounts in a mount namespace that no other process is in.

`ip netns exec NAME virtfs mount DIR` runs virtfs in a mount namespace of its own (ip-netns(8)). The namespace lasts as
long as the server, and no other process sees the mount.
"""

import os
from contextlib import suppress
from pathlib import Path

from virtfs.fuse.mounttable import mounted_at, parse


def unseen(path: str, server: int) -> str:
    """Return a warning if no process sees the mount at a directory but this one and the server, else "".

    path: a resolved directory, where this process sees the mount. server: the process id of the server.
    """
    mount = mounted_at(path)
    own = {os.getpid(), server}
    # A container may begin with this process, and others may follow it.
    if mount is None or 1 in own or any(_sees(pid, mount.device) for pid in _others(own)):
        return ""
    return (
        f'no other process sees the mount at "{path}", because virtfs was started in a mount namespace of its own, '
        f"as by `ip netns exec`: end it with `kill {server}`, then use `nsenter --net=/run/netns/NAME virtfs mount DIR`"
    )


def _others(own: set[int]) -> list[int]:
    """Return the other processes, the parent of this one first, because it most likely sees the mount."""
    every = {int(name) for name in os.listdir("/proc") if name.isdecimal()} - own
    return sorted(every, key=lambda pid: (pid != os.getppid(), pid))


def _sees(pid: int, device: str) -> bool:
    """Return whether a process sees a mount of a device, and lasts: mount(8) ends as soon as the mount is there."""
    process = Path("/proc", str(pid))
    with suppress(OSError):  # the process has ended, or belongs to another user
        named_mount = (process / "comm").read_bytes().startswith(b"mount")
        return not named_mount and any(one.device == device for one in parse((process / "mountinfo").read_bytes()))
    return False
