"""Messages to the kernel: answers, errors and notifications. Each is sent with a single write(2) to /dev/fuse."""

import errno
import logging

from virtfs.files.device import PollId, Unique
from virtfs.fuse import protocol as p
from virtfs.fuse.trace import Device

log = logging.getLogger(__name__)


class Answers:
    """The sending side of one FUSE connection.

    device: /dev/fuse, non-blocking.
    """

    def __init__(self, device: Device) -> None:
        self.device = device

    def answer(self, unique: Unique, body: bytes = b"") -> None:
        """Answer a request that has succeeded. body: the opcode's fuse_…_out structure, or the data of a READ."""
        self.emit(p.fuse_out_header.pack(p.REPLY + len(body), 0, unique) + body)

    def fail(self, unique: Unique, error: int) -> None:
        """Answer a request with an errno.

        ENOSYS becomes EOPNOTSUPP, because after ENOSYS the kernel never sends that opcode on this connection again.
        An error of 0 and errnos above 511 become EIO, because the kernel rejects them (fs/fuse/dev.c
        fuse_dev_do_write). Errnos above 511, such as ENOTSUPP (524), are internal to the kernel.
        """
        if error == errno.ENOSYS:
            error = errno.EOPNOTSUPP
        self.emit(p.fuse_out_header.pack(p.REPLY, -(error if 0 < error < 512 else errno.EIO), unique))

    def notify(self, kh: PollId) -> None:
        """Wake the poller that the kernel knows as `kh` (FUSE_NOTIFY_POLL)."""
        size = p.REPLY + p.fuse_notify_poll_wakeup_out.size
        self.emit(p.fuse_out_header.pack(size, p.FUSE_NOTIFY_POLL, 0) + p.fuse_notify_poll_wakeup_out.pack(kh))

    def forget_attributes(self, inode: int) -> None:
        """Make the kernel drop the attributes that it has cached for an inode (FUSE_NOTIFY_INVAL_INODE).

        With a negative offset the kernel waits for no page and no request (fs/fuse/inode.c fuse_reverse_inval_inode),
        so the loop may call this. If the kernel has not yet processed an answer to a GETATTR, that answer has no effect
        (fuse_change_attributes, attr_version).
        """
        size = p.REPLY + p.fuse_notify_inval_inode_out.size
        head = p.fuse_out_header.pack(size, p.FUSE_NOTIFY_INVAL_INODE, 0)
        self.emit(head + p.fuse_notify_inval_inode_out.pack(inode, -1, 0))

    def grow(self, inode: int, size: int, last: bytes) -> None:
        """Raise the size that the kernel has cached for an inode to at least `size` bytes.

        Call this before answering OPEN. splice(2), sendfile(2), mmap(2) and io_uring stop at the cached size, and the
        answer to OPEN has no field for the size. A FUSE_NOTIFY_STORE of the last byte sets the cached size; one without
        data does not (fs/fuse/dev.c fuse_notify_store, fs/fuse/file.c fuse_write_update_attr).
        last: the last byte of the file.

        This call blocks while another program reads the last page into the page cache. So the thread that answers
        requests must not call it.
        """
        length = p.REPLY + p.fuse_notify_store_out.size + len(last)
        head = p.fuse_out_header.pack(length, p.FUSE_NOTIFY_STORE, 0)
        self.emit(head + p.fuse_notify_store_out.pack(inode, size - len(last), len(last), 0) + last)

    def emit(self, message: bytes | memoryview) -> None:
        """Write one message, with its fuse_out_header. If the kernel rejects an answer, log that and answer EIO."""
        try:
            self.device.write(message)
        except OSError as error:
            # ENOENT: the request was aborted. ENODEV, ECONNABORTED: the connection is gone, and the next read of
            # /dev/fuse will fail too.
            if error.errno in (errno.ENOENT, errno.ENODEV, errno.ECONNABORTED):
                return
            log.error("cannot write a message of %d bytes to /dev/fuse: %s", len(message), error.strerror)
            unique = p.fuse_out_header.unpack_from(message)[2]
            if unique and len(message) > p.REPLY:  # an unanswered request blocks its caller
                self.fail(unique, errno.EIO)
