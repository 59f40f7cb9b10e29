"""A FIFO in packet mode: one write(2) of up to PACKET bytes is one read(2), as pipe(7) says of O_DIRECT."""

import contextlib
import errno
import fcntl
import os
import select
from pathlib import Path

from virtfs.host.descriptors import keep_spare

PACKET = 4096  # bytes; PIPE_BUF, what a pipe carries as one packet
_ROOM = 1 << 20  # bytes a pipe may hold without privilege (fs.pipe-max-size): 256 packets


class Fifo:
    """The writing end. It can be had only while somebody reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path, 0o600)

    def set_rights(self, uid: int, gid: int, mode: int) -> None:
        """Set owner and permission bits. Without CAP_CHOWN the FIFO keeps the server's owner."""
        os.chmod(self.path, mode)
        with contextlib.suppress(PermissionError):
            os.chown(self.path, uid, gid)

    def open(self) -> int | None:
        """A descriptor to write packets to, non-blocking; None while nobody reads. OSError: EMFILE, ENFILE, ENOMEM."""
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
        with contextlib.suppress(OSError):  # the user has many pipes already: what there is will do
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _ROOM)
        return fd

    def remove(self) -> None:
        """Take its name away; who has it open keeps it."""
        self.path.unlink(missing_ok=True)


def read_by_somebody(fd: int) -> bool:
    """Whether the other end of a FIFO is still open."""
    poll = select.poll()
    poll.register(fd, 0)
    return not poll.poll(0)
