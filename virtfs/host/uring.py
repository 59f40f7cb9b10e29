"""Many reads or writes on one descriptor in one system call (io_uring(7), linux/io_uring.h).

The submission entries are filled in once and reused for every submission, because filling in an entry from Python takes
as long as the system call that the entry saves. All operations are complete when submit() returns. An operation that
would block fails with EAGAIN instead (RWF_NOWAIT). So the kernel accesses the memory only during submit().
"""

import ctypes
import errno
import mmap
import os
import struct
from array import array

from virtfs.host.descriptors import keep_spare
from virtfs.host.libc import check, last_error, libc

READ, WRITE = 22, 23  # IORING_OP_…

# The numbers of io_uring_setup(2) and io_uring_enter(2), the same on every architecture (asm-generic/unistd.h).
_SETUP, _ENTER = 425, 426
_GETEVENTS = 1
_SINGLE_MMAP = 1  # feature flag, since Linux 5.4: one mapping holds both rings
_OFFSET_RINGS, _OFFSET_ENTRIES = 0, 0x10000000
_RWF_NOWAIT = 8

_params = struct.Struct("10I 8IQ 8IQ")  # struct io_uring_params: sq_entries …, sq_off, cq_off
# struct io_uring_sqe: opcode, flags, ioprio, fd, off, addr, len, rw_flags, user_data
_entry = struct.Struct("BBHiQQIIQ24x")
_COMPLETION = 16  # bytes of struct io_uring_cqe: user_data, res, flags
_HERE = 0xFFFFFFFFFFFFFFFF  # offset -1: the current position
_WORD = 0xFFFFFFFF

_syscall = libc.syscall
_syscall.restype = ctypes.c_long
_mmap = libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_munmap = libc.munmap
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_MAP_FAILED = ctypes.c_void_p(-1).value


class Ring:
    """A fixed set of reads or writes on one descriptor, each with its own slot in memory.

    operation: READ or WRITE. operations: the number of operations, a power of two. address: the address of the first
    slot. stride: the number of bytes from one slot to the next. lengths: a memoryview of format "I" with the number of
    bytes for each operation, initially `stride`.
    OSError: ENOSYS, the kernel has no io_uring; EPERM, io_uring is not allowed; EMFILE, ENOMEM and so on.
    """

    def __init__(self, operation: int, fd: int, operations: int, address: int, stride: int) -> None:
        self._count = operations
        self._maps: list[tuple[int, int]] = []
        self._views: list[memoryview] = []
        params = bytearray(_params.size)
        self._fd = -1
        self._fd = check(int(_syscall(_SETUP, operations, (ctypes.c_char * _params.size).from_buffer(params))))
        try:
            # Raises an error if too few descriptors are free. The caller then falls back to plain system calls.
            keep_spare(self._fd)
            self._map(_params.unpack(params))
        except BaseException:
            self.close()
            raise
        for index in range(operations):
            place = address + index * stride
            fields = operation, 0, 0, fd, _HERE, place, stride, _RWF_NOWAIT, index
            _entry.pack_into(self._entries, index * _entry.size, *fields)
        self._in_order = array("Q", range(operations)).tobytes()

    def _map(self, params: tuple[int, ...]) -> None:
        completions, features = params[1], params[5]
        sq_tail, sq_indices = params[11], params[16]
        cq_head, cq_tail, cqes = params[19], params[20], params[24]
        if not features & _SINGLE_MMAP:
            raise OSError(errno.ENOSYS, "this kernel's io_uring is too old")
        count, end = self._count, cqes + _COMPLETION * completions
        rings = self._mapped(max(sq_indices + 4 * count, end), _OFFSET_RINGS)
        self._entries = self._mapped(count * _entry.size, _OFFSET_ENTRIES)
        rings[sq_indices : sq_indices + 4 * count] = array("I", range(count)).tobytes()
        done = self._view(rings[cqes:end])
        self._names = self._view(self._view(done.cast("Q"))[::2])
        self._results = self._view(self._view(done.cast("i"))[2::4])
        self.lengths = self._view(self._view(self._entries.cast("I"))[6::16])
        self._words = self._view(self._view(rings[: len(rings) & ~3]).cast("I"))
        self._sq_tail, self._cq_head, self._cq_tail = sq_tail // 4, cq_head // 4, cq_tail // 4
        self._submitted, self._completions = 0, completions

    def _mapped(self, size: int, offset: int) -> memoryview:
        """Map a part of the ring with mmap(2). Python's mmap would keep a duplicate descriptor for each mapping."""
        address = _mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, self._fd, offset)
        if address in (None, _MAP_FAILED):
            raise last_error()
        self._maps.append((address, size))
        return self._view(self._view(memoryview((ctypes.c_ubyte * size).from_address(address))).cast("B"))

    def _view(self, view: memoryview) -> memoryview:
        """Record a view that close() must release before it unmaps the memory. Return the view."""
        self._views.append(view)
        return view

    def submit(self) -> bytes:
        """Perform all operations and return their results, in order, as native int32.

        A negative result is a negated errno. EAGAIN means that the operation would block. EOPNOTSUPP means that the
        descriptor does not support RWF_NOWAIT; the taps of older kernels do not.
        OSError: the kernel could not perform all operations. The ring cannot be used again.
        """
        words, count, before = self._words, self._count, self._submitted
        self._submitted = words[self._sq_tail] = before + count & _WORD
        entered = _syscall(_ENTER, self._fd, count, count, _GETEVENTS, None, 0)
        if entered != count or words[self._cq_tail] != self._submitted:
            self._complete(entered)
        # The size of the completion ring is a power of two and at least _count, so these results never wrap around.
        first = before % self._completions
        results = self._results[first : first + count].tobytes()
        names = self._names[first : first + count].tobytes()
        words[self._cq_head] = self._submitted
        return results if names == self._in_order else _sorted(names, results)

    def _complete(self, entered: int) -> None:
        """Repeat io_uring_enter(2) until all operations are done.

        A signal or a temporary lack of memory can end a call early.
        """
        rest = self._count
        while True:
            if entered < 0 and ctypes.get_errno() != errno.EINTR:
                raise last_error()
            rest -= max(entered, 0)
            missing = self._submitted - self._words[self._cq_tail] & _WORD
            if not missing:
                return
            entered = _syscall(_ENTER, self._fd, rest, missing, _GETEVENTS, None, 0)

    def close(self) -> None:
        """Release everything. A second call does nothing."""
        while self._views:
            self._views.pop().release()
        while self._maps:
            _munmap(*self._maps.pop())
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _sorted(names: bytes, results: bytes) -> bytes:
    """Return the results in the order of the operations; the kernel may complete them in another order."""
    found = dict(zip(array("Q", names), array("i", results), strict=True))
    return array("i", (found[index] for index in sorted(found))).tobytes()
