"""Many reads or writes in one system call: their results, the memory they use, and descriptors that would block."""

import ctypes
import errno
import mmap
import os
import socket
from array import array
from collections.abc import Iterator

import pytest
from harness.nets import descriptors, need

from virtfs.host import uring
from virtfs.host.uring import READ, WRITE, Ring

COUNT, STRIDE = 8, 100


class Places:
    """Memory for COUNT operations, and a pair of sockets that preserve message boundaries."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, COUNT * STRIDE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.setblocking(False)
        self.theirs.setblocking(False)

    def ring(self, operation: int, fd: int | None = None) -> Ring:
        return Ring(operation, self.ours.fileno() if fd is None else fd, COUNT, self.address, STRIDE)

    def at(self, index: int, size: int) -> bytes:
        return self.memory[index * STRIDE : index * STRIDE + size]


@pytest.fixture
def places() -> Iterator[Places]:
    try:
        Ring(READ, 0, 1, 0, 0).close()
    except OSError as refusal:
        need(False, f"io_uring: {refusal.strerror}")
    places = Places()
    yield places
    places.ours.close()
    places.theirs.close()


def results(ring: Ring) -> list[int]:
    return array("i", ring.submit()).tolist()


def message(number: int) -> bytes:
    return b"%04d" % number + bytes(number % 50)


def test_reads_go_to_their_places_in_order(places: Places) -> None:
    ring = places.ring(READ)
    for begin in range(0, 40 * COUNT, COUNT):  # wraps around the queues many times
        sent = [message(number) for number in range(begin, begin + COUNT)]
        for one in sent:
            places.theirs.send(one)
        assert results(ring) == [len(one) for one in sent]
        assert [places.at(index, len(one)) for index, one in enumerate(sent)] == sent
    ring.close()


def test_writes_come_from_their_places_with_their_lengths(places: Places) -> None:
    ring = places.ring(WRITE)
    for begin in range(0, 40 * COUNT, COUNT):
        sent = [message(number) for number in range(begin, begin + COUNT)]
        for index, one in enumerate(sent):
            places.memory[index * STRIDE : index * STRIDE + len(one)] = one
        ring.lengths[:] = memoryview(array("I", map(len, sent)))
        assert results(ring) == [len(one) for one in sent]
        assert [places.theirs.recv(STRIDE) for _ in sent] == sent
    ring.close()


def test_what_would_wait_is_told_at_once_and_nothing_is_read_later(places: Places) -> None:
    ring = places.ring(READ)
    places.theirs.send(b"first")
    assert results(ring) == [5] + [-errno.EAGAIN] * (COUNT - 1)
    places.theirs.send(b"second")
    assert places.ours.recv(STRIDE) == b"second"
    assert places.at(1, 6) == bytes(6)
    assert results(ring) == [-errno.EAGAIN] * COUNT
    ring.close()


def test_a_descriptor_that_would_wait_is_told(places: Places) -> None:
    """A pseudo-terminal does not support non-blocking operations of io_uring."""
    master, slave = os.openpty()
    ring = places.ring(READ, slave)
    assert results(ring) == [-errno.EOPNOTSUPP] * COUNT
    ring.close()
    os.close(master)
    os.close(slave)


def test_the_other_end_is_gone(places: Places) -> None:
    reads, writes = places.ring(READ), places.ring(WRITE)
    places.theirs.close()
    assert results(reads) == [0] * COUNT
    assert results(writes) == [-errno.EPIPE] * COUNT
    reads.close()
    writes.close()


def test_a_descriptor_that_is_closed(places: Places) -> None:
    reader, writer = os.pipe()
    ring = places.ring(READ, reader)
    os.close(reader)
    assert results(ring) == [-errno.EBADF] * COUNT
    ring.close()
    os.close(writer)


def test_close_gives_all_back(places: Places) -> None:
    before = descriptors()
    ring = places.ring(READ)
    assert len(descriptors()) == len(before) + 1
    assert not os.get_inheritable(ring._fd)
    ring.close()
    ring.close()
    assert descriptors() == before


def test_what_the_kernel_refuses(places: Places) -> None:
    before = descriptors()
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        Ring(READ, 0, 0, 0, 0)
    assert descriptors() == before


def test_in_whatever_order_they_are_completed() -> None:
    names, answers = array("Q", [2, 0, 3, 1]).tobytes(), array("i", [12, 10, 13, 11]).tobytes()
    assert array("i", uring._sorted(names, answers)).tolist() == [10, 11, 12, 13]
