"""What goes to the kernel: answers, refusals, notifications, each one write(2) to /dev/fuse."""

import errno
import logging
from io import FileIO

from virtfs.files.device import PollId, Unique
from virtfs.fuse import protocol as p

log = logging.getLogger(__name__)


class Answers:
    """The way out of one FUSE connection."""

    def __init__(self, fuse: int) -> None:
        self.device = FileIO(fuse, "r+b", closefd=False)  # reading, it says None where os.read raises BlockingIOError

    def answer(self, unique: Unique, body: bytes = b"") -> None:
        """Done, with what the request asked for."""
        self.emit(p.fuse_out_header.pack(p.REPLY + len(body), 0, unique) + body)

    def fail(self, unique: Unique, error: int) -> None:
        """Answer with an errno. Never ENOSYS, which the kernel takes to hold for every file, for ever.

        Nor one of those above 511, such as ENOTSUPP (524), which are the kernel's own and which it does not take.
        """
        if error == errno.ENOSYS:
            error = errno.EOPNOTSUPP
        self.emit(p.fuse_out_header.pack(p.REPLY, -(error if 0 < error < 512 else errno.EIO), unique))

    def notify(self, kh: PollId) -> None:
        """Wake a poll."""
        size = p.REPLY + p.fuse_notify_poll_wakeup_out.size
        self.emit(p.fuse_out_header.pack(size, p.FUSE_NOTIFY_POLL, 0) + p.fuse_notify_poll_wakeup_out.pack(kh))

    def grow(self, inode: int, size: int) -> None:
        """Tell the kernel that a file has at least `size` bytes, before its OPEN is answered.

        splice(2), sendfile(2), mmap(2) and io_uring end at the size that the kernel knows, and the answer to OPEN
        carries none. A store of nothing at an offset sets it (fs/fuse/dev.c fuse_notify_store). It takes no lock that
        waits for an answer.
        """
        length = p.REPLY + p.fuse_notify_store_out.size
        head = p.fuse_out_header.pack(length, p.FUSE_NOTIFY_STORE, 0)
        self.emit(head + p.fuse_notify_store_out.pack(inode, size, 0, 0))

    def emit(self, message: bytes | memoryview) -> None:
        """Send a whole message, header and all."""
        try:
            self.device.write(message)
        except OSError as error:
            # ENOENT: nobody waits for this answer any more. ENODEV: the connection is over; reading will tell.
            if error.errno in (errno.ENOENT, errno.ENODEV, errno.ECONNABORTED):
                return
            log.error("answer of %d bytes refused: %s", len(message), error.strerror)
            unique = p.fuse_out_header.unpack_from(message)[2]
            if unique and len(message) > p.REPLY:  # whoever asked is not left waiting
                self.fail(unique, errno.EIO)
