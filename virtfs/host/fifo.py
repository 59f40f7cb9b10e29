"""A FIFO in packet mode (O_DIRECT in pipe(7)): a read(2) returns the data of one write(2), up to PACKET bytes."""

import contextlib
import errno
import fcntl
import os
import select
from collections.abc import Iterator
from pathlib import Path

from virtfs.core.errors import VirtError
from virtfs.host.descriptors import keep_spare

PACKET = 4096  # bytes; PIPE_BUF, the maximum size of a packet
# The size of the pipe in bytes, room for 256 packets. Without privilege it cannot be larger (fs.pipe-max-size).
_ROOM = 1 << 20


class Fifo:
    """The writing end of a FIFO. It can be opened only while a process has the reading end open.

    Methods raise VirtError with the errno of the system call.
    """

    def __init__(self, path: Path) -> None:
        """Create the FIFO. Any file at this path, perhaps left by an earlier failure, is removed first."""
        self.path = path
        with self._explained("create"):
            path.unlink(missing_ok=True)
            os.mkfifo(path, 0o600)

    def set_rights(self, uid: int, gid: int, mode: int) -> None:
        """Set the owner, the group and the permission bits. Recreate the FIFO if it has been removed.

        If this process is not root, the FIFO keeps its owner and group. If this process lacks CAP_DAC_OVERRIDE and owns
        the FIFO, the owner's write permission is always set. VirtError: EPERM, the process lacks CAP_FOWNER, or is root
        and lacks CAP_CHOWN; EACCES, the FIFO belongs to another user and this process could not write into it.
        """
        with self._explained("change"):
            if not self.path.exists():
                os.mkfifo(self.path, 0o600)
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
            if self._writable():
                return
            if self.path.stat().st_uid == os.geteuid():
                os.chmod(self.path, mode | 0o200)
            if not self._writable():
                sentence = f"rx: writing into a FIFO of user {uid} needs CAP_DAC_OVERRIDE, which the server lacks"
                raise VirtError(errno.EACCES, sentence)

    def _writable(self) -> bool:
        return os.access(self.path, os.W_OK, effective_ids=True)

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn an OSError into a VirtError whose message names the path. what: the verb for the message."""
        try:
            yield
        except VirtError:
            raise
        except OSError as refusal:
            sentence = f'rx: cannot {what} the FIFO "{self.path}": {refusal.strerror}'
            raise VirtError(refusal.errno or errno.EIO, sentence) from refusal

    def open(self) -> int | None:
        """Return a non-blocking descriptor for writing packets, or None if no process has the reading end open.

        VirtError: ENOENT, the FIFO has been removed; EMFILE, ENFILE, ENOMEM; EACCES.
        """
        with self._explained("open"):
            try:
                fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError as refusal:
                if refusal.errno == errno.ENXIO:
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
        with contextlib.suppress(OSError):  # the directory is removed when the mount ends
            os.unlink(self.path)


def has_reader(fd: int) -> bool:
    """Return whether the reading end of a FIFO is still open."""
    poll = select.poll()
    poll.register(fd, 0)
    return not poll.poll(0)
