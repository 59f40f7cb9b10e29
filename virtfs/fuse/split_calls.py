"""Writes that FUSE has split into several requests.

Where one write(2) is one frame, the pieces are reassembled. Other files take one piece after the other. If such a file
refuses a later piece, the kernel reports only the length of the earlier ones, so the next write fails with the error.

The kernel splits a call of more than 256 buffers (writev(2)) or 1 MiB into several WRITEs (fs/fuse/file.c
fuse_direct_io), and truncates a call at RLIMIT_FSIZE (fs/read_write.c generic_write_check_limits). A WRITE does not
say whether more pieces follow. A write(2) on a device file begins at offset 0 or, with O_APPEND, at the file size that
the kernel has cached. So without O_APPEND an offset above 0 marks a later piece. Nothing marks the first of several
pieces.

The arguments of the system call in which the writer is blocked show the length of the frame (host/processes.py). It
takes about 10 µs to read them. So this is done only for WRITEs that have at least 256 bytes or end at RLIMIT_FSIZE, and
among these:

- for the first WRITE of each thread;
- for every WRITE, if the file is open with O_APPEND or the writer has a small RLIMIT_FSIZE;
- for every WRITE, once the handle has seen a piece of a split call.

The rest of a split frame is read from the writer's memory and sent together with the first piece.
"""

import errno
import os

from virtfs.core.errors import VirtError
from virtfs.files.device import DeviceHandle
from virtfs.forward.wire import LONGEST, SPLIT
from virtfs.fuse import protocol as p
from virtfs.host.processes import Buffer, buffers_written, fetch, file_size_limit

THREADS = 32  # maximum number of writing threads that a handle remembers; core.memory.OPEN has room for them
# If a call writes more than 1 MiB, its first piece has at least this many bytes.
FIRST_OF_MANY = p.MAX_WRITE - 4096
_NEVER = 1 << 62  # a threshold above the size of any WRITE, so that no WRITE is examined


def write_piece(handle: DeviceHandle, thread: int, offset: int, flags: int, data: memoryview) -> int | None:
    """Take a WRITE that may be one piece of a longer call. The result is that of DeviceHandle.write().

    A file that takes pieces need not be asked this for a WRITE at offset 0, unless its last one was a later piece.
    OSError: that of DeviceHandle.write(), for this WRITE or for an earlier one whose error the kernel has hidden. For a
    frame also EFBIG, RLIMIT_FSIZE has truncated it, and EFAULT, its rest cannot be read from the writer's memory. Then
    nothing is sent.
    """
    if len(handle.whole) >= THREADS:
        handle.whole.clear()
    if not handle.messages:
        return _write_next(handle, thread, offset, flags, data)
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
        raise VirtError(
            errno.EFBIG, f"the frame has {total} bytes, but the writer's RLIMIT_FSIZE is {limit}: raise it (ulimit -f)"
        )
    handle.splits = True
    handle.whole[thread] = min(handle.whole[thread], SPLIT)
    handle.write(data if size > LONGEST else memoryview(fetch(thread, buffers, p.MAX_WRITE)))
    handle.unfinished = thread, offset + size, total - size
    return size


def _write_next(handle: DeviceHandle, thread: int, offset: int, flags: int, data: memoryview) -> int | None:
    """Take a WRITE of a file that takes pieces. See DeviceHandle.failed()."""
    if offset and not flags & os.O_APPEND:
        buffers = _buffers(thread)
        handle.later = buffers is None or sum(length for _, length in buffers) > len(data)
        handle.whole.clear()  # so the next WRITE comes here, whichever thread it is from
    else:
        hidden, handle.later, handle.hidden = handle.hidden, False, None
        handle.whole[thread] = _NEVER
        if hidden is not None:
            raise hidden
    try:
        return handle.write(data)
    except VirtError as error:
        handle.failed(error)
        raise


def _write_at(handle: DeviceHandle, thread: int, data: memoryview) -> int | None:
    """Take a WRITE at an offset above 0, without O_APPEND. No write(2) on a device file begins there.

    A later piece of a split call is dropped, because the first piece was sent as a frame. A complete call is sent as a
    frame, and its offset is ignored. Complete calls at such offsets come from io_uring, splice(2), and pwritev2(2) with
    RWF_APPEND, which choose the offset themselves.
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
    """Return the buffers that a thread is writing.

    Return [] if the thread is in a call other than a write, and None if its call cannot be determined.
    """
    try:
        return buffers_written(thread)
    except OSError:
        return None
