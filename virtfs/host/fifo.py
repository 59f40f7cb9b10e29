"""A FIFO in packet mode (O_DIRECT in pipe(7)): a read(2) returns the data of one write(2), up to PACKET bytes."""

import contextlib
import errno
import fcntl
import os
import select
from pathlib import Path

from virtfs.core.errors import VirtError
from virtfs.host.descriptors import keep_spare

PACKET = 4096  # bytes; PIPE_BUF, the maximum size of a packet
# The size of the pipe in bytes, room for 256 packets. Without privilege it cannot be larger (fs.pipe-max-size).
_ROOM = 1 << 20


class Fifo:
    """The writing end of a FIFO. It can be opened only while a process has the reading end open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path, 0o600)

    def set_rights(self, uid: int, gid: int, mode: int) -> None:
        """Set the owner, the group and the permission bits.

        If this process is not root, the FIFO keeps its owner and group. VirtError EPERM: root lacks CAP_FOWNER or
        CAP_CHOWN.
        """
        try:
            os.chmod(self.path, mode)
        except PermissionError as refusal:
            raise VirtError(errno.EPERM, "cannot set the mode of `rx`: the server lacks CAP_FOWNER") from refusal
        try:
            os.chown(self.path, uid, gid)
        except PermissionError as refusal:
            if os.geteuid() == 0:
                sentence = f"cannot give `rx` to user {uid}, group {gid}: the server lacks CAP_CHOWN"
                raise VirtError(errno.EPERM, sentence) from refusal

    def open(self) -> int | None:
        """Return a non-blocking descriptor for writing packets, None if no process has the reading end open.

        OSError: EMFILE, ENFILE, ENOMEM.
        """
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as refusal:
            if refusal.errno in (errno.ENXIO, errno.ENOENT):
                return None
            raise
        try:
            keep_spare(fd)
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_DIRECT | os.O_NONBLOCK)
        except BaseException:
            os.close(fd)
            raise
        # If the user has too many pipes (EPERM), keep the default size.
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _ROOM)
        return fd

    def remove(self) -> None:
        """Remove the name of the FIFO. Processes that have the FIFO open can still use it."""
        self.path.unlink(missing_ok=True)


def has_reader(fd: int) -> bool:
    """Return whether the reading end of a FIFO is still open."""
    poll = select.poll()
    poll.register(fd, 0)
    return not poll.poll(0)
