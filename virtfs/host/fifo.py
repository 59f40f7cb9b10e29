"""A FIFO in packet mode: one write(2) of up to PACKET bytes is one read(2) (O_DIRECT in pipe(7))."""

import contextlib
import errno
import fcntl
import os
import select
from pathlib import Path

from virtfs.host.descriptors import keep_spare

PACKET = 4096  # bytes; PIPE_BUF, the maximum of one packet
_ROOM = 1 << 20  # bytes, 256 packets: the unprivileged maximum (fs.pipe-max-size)


class Fifo:
    """The writing end of a FIFO. It can be opened only while somebody has the reading end open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path, 0o600)

    def set_rights(self, uid: int, gid: int, mode: int) -> None:
        """Set owner and permission bits. Without CAP_CHOWN the FIFO keeps the server's owner."""
        os.chmod(self.path, mode)
        with contextlib.suppress(PermissionError):
            os.chown(self.path, uid, gid)

    def open(self) -> int | None:
        """Return a non-blocking descriptor to write packets to; None while nobody reads. OSError: EMFILE, ENFILE,
        ENOMEM.
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
        with contextlib.suppress(OSError):  # EPERM: the user has too many pipes; keep the default size
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _ROOM)
        return fd

    def remove(self) -> None:
        """Remove the name; processes that have the FIFO open keep it."""
        self.path.unlink(missing_ok=True)


def has_reader(fd: int) -> bool:
    """Return whether the reading end of a FIFO is still open."""
    poll = select.poll()
    poll.register(fd, 0)
    return not poll.poll(0)
