"""Whether this process is inside a `virtfs shell`, and what to type there when its server has ended."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from virtfs.fuse.mounttable import mount_of, resolve

# This text in the command line tells process 1 of a `virtfs shell` from other processes.
MARK = "from virtfs.cli.shell_init import main"
MOUNT_AGAIN = '`virtfs mount "$VIRTFS"; cd "$VIRTFS"`'


def inside() -> bool:
    """Return whether process 1 of this pid namespace is that of a `virtfs shell`."""
    with suppress(OSError):
        return MARK.encode() in Path("/proc/1/cmdline").read_bytes()
    return False


def own() -> str:
    """Return the mount point at $VIRTFS, which `virtfs shell` sets, as the mount table has it, or "" without it."""
    with suppress(OSError):  # the working directory is gone, and the path is relative
        return resolve(os.environ["VIRTFS"]) if os.environ.get("VIRTFS") else ""
    return ""


def own_first() -> Callable[[str], tuple[bool, str]]:
    """Return a key that sorts mount points: the one at $VIRTFS, in which the user works, and then by name."""
    mine = own()
    return lambda directory: (directory != mine, directory)


def remedy(path: str) -> str:
    """Return what to do about a mount whose server has ended, as the end of an error message.

    path: that of the mount or of a file in it.
    """
    if not inside():
        return "the server was killed: mount again with the same options"
    with suppress(OSError):  # the working directory is gone, and the path is relative
        mount = mount_of(os.path.realpath(path))
        if mount and mount.directory == own():
            return f"the server has ended: type {MOUNT_AGAIN}"
    # The mount namespace keeps the mounts that it began with, and none of them can be unmounted in it
    # (mount_namespaces(7)).
    return "the server has ended: a new virtfs shell no longer shows a mount from outside; mount your own again"


def began_before() -> str:
    """Return why a mount may be missing inside a `virtfs shell`, as the end of an error message, or "" outside."""
    if not inside():
        return ""
    return ": a virtfs shell does not see mounts that were made outside after it began: leave it and start another"
