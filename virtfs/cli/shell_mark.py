"""Whether this process is inside a `virtfs shell`, and what to type there when its server has ended."""

from contextlib import suppress
from pathlib import Path

# This text in the command line tells process 1 of a `virtfs shell` from other processes.
MARK = "from virtfs.cli.shell_init import main"
MOUNT_AGAIN = '`virtfs mount "$VIRTFS"; cd "$VIRTFS"`'


def inside() -> bool:
    """Return whether process 1 of this pid namespace is that of a `virtfs shell`."""
    with suppress(OSError):
        return MARK.encode() in Path("/proc/1/cmdline").read_bytes()
    return False


def remedy() -> str:
    """Return what to do about a mount whose server has ended, as the end of an error message."""
    if inside():
        return f"the server has ended: type {MOUNT_AGAIN}"
    return "the server was killed: mount again with the same options"
