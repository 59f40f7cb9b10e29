"""Writes whose data are one message: a frame is not cut, and no frame is made of its second half.

The kernel splits a call of more than 256 buffers (writev(2)) or 1 MiB into several WRITEs (fs/fuse/file.c:
fuse_direct_io), and cuts one short at RLIMIT_FSIZE (fs/read_write.c: generic_write_check_limits). A WRITE does not say
so. Each call on a stream begins at offset 0, with O_APPEND at what the kernel takes for the file's size. So an offset
above 0 shows a later piece, but nothing shows that a piece is the first. The system call that the writer is blocked in
does (host/processes.py), for some 10 µs. It is looked at for the first write of at least 256 bytes of each thread, and
for every such write where pieces have been seen, with O_APPEND, and under a small RLIMIT_FSIZE. The rest of a split
message is read from the writer's memory and sent with its first piece.
"""

import errno
import os

from virtfs.core.errors import VirtError
from virtfs.files.device import DeviceHandle
from virtfs.forward.wire import LONGEST, SPLIT
from virtfs.fuse import protocol as p
from virtfs.host.processes import Buffer, buffers_written, fetch, file_size_limit

THREADS = 64  # of one handle that are remembered
FIRST_OF_MANY = p.MAX_WRITE - 4096  # bytes; the first piece of a call of more than 1 MiB has at least as many
_NEVER = 1 << 62


def write_piece(handle: DeviceHandle, thread: int, offset: int, flags: int, data: memoryview) -> int | None:
    """Take a WRITE that may be a piece of a longer call, as DeviceHandle.write.

    Errors, with nothing sent: EFBIG, RLIMIT_FSIZE has cut the message; EFAULT, the rest of it cannot be read.
    """
    if len(handle.whole) >= THREADS:
        handle.whole.clear()
    if not handle.messages:
        handle.whole[thread] = _NEVER
        return handle.write(data)
    size = len(data)
    if handle.unfinished is not None:
        expected, left = handle.unfinished, handle.unfinished[2] - size
        handle.unfinished = (thread, offset + size, left) if left > 0 else None
        if expected[:2] == (thread, offset):
            return size
        handle.unfinished = None
    if offset and not flags & os.O_APPEND:
        return _write_at(handle, thread, data)
    limit = file_size_limit(thread)
    handle.whole[thread] = SPLIT if size < SPLIT or handle.splits else FIRST_OF_MANY
    if limit is not None and limit < LONGEST:
        handle.whole[thread] = min(limit, SPLIT)
    if size < SPLIT and offset + size != limit:
        return handle.write(data)
    buffers = _buffers(thread) or []
    total = sum(length for _, length in buffers)
    if total <= size:
        return handle.write(data)
    if limit is not None and limit - offset < total:
        raise VirtError(errno.EFBIG, f"a frame of {total} bytes: the writer's RLIMIT_FSIZE (ulimit -f) is {limit}")
    handle.splits = True
    handle.whole[thread] = min(handle.whole[thread], SPLIT)
    handle.write(data if size > LONGEST else memoryview(fetch(thread, buffers, p.MAX_WRITE)))
    handle.unfinished = thread, offset + size, total - size
    return size


def _write_at(handle: DeviceHandle, thread: int, data: memoryview) -> int | None:
    """Take a WRITE at an offset that no call on a stream begins at.

    It is the rest of a call whose first piece was sent as a message, and is dropped. Other calls (io_uring, splice,
    pwritev2 with RWF_APPEND) choose an offset of their own, which means nothing.
    """
    size = len(data)
    buffers = _buffers(thread)
    if buffers is not None and sum(length for _, length in buffers) in (0, size):
        return handle.write(data)
    handle.splits = True
    handle.whole.clear()
    handle.cut()
    return size


def _buffers(thread: int) -> list[Buffer] | None:
    """Return what a thread is writing, nothing for a thread in another call; None when that cannot be told."""
    try:
        return buffers_written(thread)
    except OSError:
        return None
