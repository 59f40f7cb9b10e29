"""READ and LSEEK of `history`, whose content is fixed at each open."""

import errno
import os

from virtfs.core.errors import VirtError
from virtfs.files.device import Unique
from virtfs.forward.tasks import in_thread
from virtfs.fuse import protocol as p
from virtfs.fuse.answers import Answers
from virtfs.fuse.inodes_handles import HandleId, Handles, Inode

FIXED_FLAGS = p.FOPEN_DIRECT_IO | p.FOPEN_NOFLUSH  # FOPEN_NOFLUSH: as in devices.DEVICE_FLAGS
TOO_SHORT = "the request is too short for its opcode"


class Offsets:
    """Answers READ and LSEEK of files with fixed content, for one FUSE connection."""

    def __init__(self, answers: Answers, handles: Handles) -> None:
        self._answers = answers
        self._handles = handles

    async def opened(self, unique: Unique, fh: HandleId, inode: Inode) -> None:
        """Answer an open of a fixed file.

        First report the file's length to the kernel, because the file may have grown since the lookup.
        """
        handle = self._handles.fixed[fh]
        try:
            if length := handle.length():
                last = b"".join(handle.read_at(length - 1, 1))
                await in_thread(self._answers.grow, inode, length, last)
        except VirtError as refusal:
            self._handles.remove_device(fh).release()
            self._answers.fail(unique, refusal.errno)
        else:
            self._answers.answer(unique, p.fuse_open_out.pack(fh, FIXED_FLAGS, 0))

    def read(self, unique: Unique, fh: HandleId, message: memoryview) -> None:
        """Answer a READ of a fixed file, that is, of a device file that can be read at any offset.

        Refuse a READ that would fill the page cache of a device file. All opens of a file share its page cache, but
        each open of a device file has its own content. So such a READ fails with EINVAL, and programs fall back to
        read(2).
        """
        handle = self._handles.fixed.get(fh)
        if len(message) != p.DATA or handle is None:
            raise VirtError(errno.EINVAL, "a device file has no page cache: use read(2)")
        _, offset, size, how, _, _, _ = p.fuse_read_in.unpack_from(message, p.BODY)
        if not how & p.FUSE_READ_LOCKOWNER:
            raise VirtError(errno.EINVAL, "each open has its own content, so the file cannot be cached: use read(2)")
        pieces = handle.read_at(offset, min(size, p.MAX_WRITE))
        handle.reads += 1
        head = p.fuse_out_header.pack(p.REPLY + sum(map(len, pieces)), 0, unique)
        self._answers.emit(b"".join([head, *pieces]))

    def seek(self, unique: Unique, fh: HandleId, message: memoryview) -> None:
        """Answer lseek(2) with SEEK_DATA or SEEK_HOLE in a file without holes. The kernel handles other seeks."""
        if len(message) < p.BODY + p.fuse_lseek_in.size:
            raise VirtError(errno.EINVAL, TOO_SHORT)
        _, offset, whence, _ = p.fuse_lseek_in.unpack_from(message, p.BODY)
        handle = self._handles.fixed.get(fh)
        if handle is None:
            raise VirtError(errno.ESPIPE, "a device file is not seekable")
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise VirtError(errno.EINVAL, "lseek takes SEEK_DATA or SEEK_HOLE")
        if offset >= handle.length():
            raise VirtError(errno.ENXIO, "the offset is beyond the end of the file")
        self._answers.answer(unique, p.fuse_lseek_out.pack(handle.length() if whence == os.SEEK_HOLE else offset))
