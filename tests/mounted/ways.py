"""The ways in which programs copy a file. Each is a function that opens the file and returns its content, in an agent.

after: a file to open and close after that, so that events has something to report. stream: whether to read only once,
because the file has no end.
"""

import ctypes
import mmap
import os
from collections.abc import Callable

from virtfs.host.uring import READ, Ring

SIZE = 65536
_OFFSET, _RW_FLAGS = slice(8, 16), slice(28, 32)  # of struct io_uring_sqe


def _opened(path: str, after: str, flags: int = os.O_RDONLY) -> int:
    fd = os.open(path, flags)
    if after:
        os.close(os.open(after, os.O_RDONLY))
    return fd


def _all(part: Callable[[int], bytes], stream: bool) -> bytes:
    """Return all parts, from growing offsets up to the end. Of a stream, return only the first part."""
    got = b""
    while piece := part(len(got)):
        got += piece
        if stream:
            break
    return got


def by_read(path: str, after: str, stream: bool) -> bytes:
    """read(2), as GNU cat does."""
    fd = _opened(path, after)
    return _all(lambda at: os.read(fd, SIZE), stream)


def by_small_reads(path: str, after: str, stream: bool) -> bytes:
    """read(2) of 7 bytes each, but one large read of a stream, because a small one would cut a frame."""
    fd = _opened(path, after)
    return _all(lambda at: os.read(fd, SIZE if stream else 7), stream)


def by_readv(path: str, after: str, stream: bool) -> bytes:
    """readv(2) into three buffers."""
    fd = _opened(path, after)

    def part(at: int) -> bytes:
        rooms = [bytearray(11), bytearray(100), bytearray(SIZE)]
        taken = os.readv(fd, rooms)
        return b"".join(rooms)[:taken]

    return _all(part, stream)


def by_pread(path: str, after: str, stream: bool) -> bytes:
    """pread(2), as a debugger or a JVM does."""
    fd = _opened(path, after)
    return _all(lambda at: os.pread(fd, SIZE, at), stream)


def by_preadv2(path: str, after: str, stream: bool) -> bytes:
    """preadv2(2)."""
    fd = _opened(path, after)

    def part(at: int) -> bytes:
        room = bytearray(SIZE)
        taken = os.preadv(fd, [room], at, 0)
        return bytes(room[:taken])

    return _all(part, stream)


def by_direct(path: str, after: str, stream: bool) -> bytes:
    """O_DIRECT, as `dd iflag=direct` does."""
    fd = _opened(path, after, os.O_RDONLY | os.O_DIRECT)

    def part(at: int) -> bytes:
        with mmap.mmap(-1, SIZE) as room:
            taken = os.readv(fd, [room])
            return room[:taken]

    return _all(part, stream)


def by_splice(path: str, after: str, stream: bool) -> bytes:
    """splice(2) into a pipe, as uutils' cat does."""
    fd = _opened(path, after)
    reader, writer = os.pipe()
    return _all(lambda at: os.read(reader, n) if (n := os.splice(fd, writer, SIZE)) else b"", stream)


def by_sendfile(path: str, after: str, stream: bool) -> bytes:
    """sendfile(2), as busybox does."""
    fd = _opened(path, after)
    target = os.open("/tmp", os.O_TMPFILE | os.O_RDWR)
    return _all(lambda at: os.pread(target, n, at) if (n := os.sendfile(target, fd, None, SIZE)) else b"", stream)


def by_copy_file_range(path: str, after: str, stream: bool) -> bytes:
    """copy_file_range(2), as GNU cp does."""
    fd = _opened(path, after)
    target = os.open("/tmp", os.O_TMPFILE | os.O_RDWR)
    return _all(lambda at: os.pread(target, n, at) if (n := os.copy_file_range(fd, target, SIZE)) else b"", stream)


def by_uring(path: str, after: str, stream: bool) -> bytes:
    """Reads by io_uring(7)."""
    fd = _opened(path, after)
    room = ctypes.create_string_buffer(SIZE)
    ring = Ring(READ, fd, 1, ctypes.addressof(room), SIZE)
    ring._entries[_RW_FLAGS] = bytes(4)  # without RWF_NOWAIT, so that each read may wait

    def part(at: int) -> bytes:
        if not stream:  # a read does not advance the descriptor's position (io_uring/rw.c, -EIOCBQUEUED)
            ring._entries[_OFFSET] = at.to_bytes(8, "little")
        taken = int.from_bytes(ring.submit(), "little", signed=True)
        if taken < 0:
            raise OSError(-taken, os.strerror(-taken))
        return room.raw[:taken]

    try:
        return _all(part, stream)
    finally:
        ring.close()


def by_mmap(path: str, after: str, stream: bool) -> bytes:
    """A private mapping, as ripgrep makes."""
    with mmap.mmap(_opened(path, after), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as memory:
        return memory[:]


def by_shared_mmap(path: str, after: str, stream: bool) -> bytes:
    """A shared mapping."""
    with mmap.mmap(_opened(path, after), 0, mmap.MAP_SHARED, mmap.PROT_READ) as memory:
        return memory[:]


def by_size(path: str, after: str, stream: bool) -> bytes:
    """One read of st_size, as tar and rsync do."""
    fd = _opened(path, after)
    return os.read(fd, os.fstat(fd).st_size)


def by_size_before(path: str, after: str, stream: bool) -> bytes:
    """stat(2), then one read of st_size bytes."""
    size = os.stat(path).st_size
    return os.read(_opened(path, after), size)


def by_end(path: str, after: str, stream: bool) -> bytes:
    """One read of the size found with SEEK_END, as by fseek and ftell in old C programs."""
    fd = _opened(path, after)
    size = os.lseek(fd, 0, os.SEEK_END)
    os.lseek(fd, 0, os.SEEK_SET)
    return os.read(fd, size)


WAYS = [value for name, value in list(globals().items()) if name.startswith("by_")]
