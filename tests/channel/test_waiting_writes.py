"""Writes that wait, as those to inject do until a frame is due."""

import errno
import os
import select

import pytest
from harness.channels import Answer, Bench, Talk, channel
from harness.in_trio import in_trio

from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.files.device import DeviceFile, DeviceHandle, Opens, Waiters
from virtfs.files.node import ROOT
from virtfs.fuse import protocol as p


class Slow(DeviceFile):
    """A device file that takes `allowed` bytes. The rest of a write waits."""

    takes = True

    def __init__(self) -> None:
        super().__init__(ROOT, "slow", Opens())
        self.allowed = 0
        self.heard = b""
        self.fault: Exception | None = None
        self.waiters = Waiters()

    def open(self, flags: int, user: User) -> "SlowHandle":
        return SlowHandle(self, user)

    def go_on(self, size: int) -> None:
        """Allow `size` more bytes and wake the waiting writes."""
        self.allowed += size
        self.waiters.wake()


class SlowHandle(DeviceHandle):
    """One open of a Slow."""

    def __init__(self, slow: Slow, user: User) -> None:
        super().__init__(slow, user, slow.waiters)
        self.slow = slow
        self.rest = b""
        self.taken_of_it = 0

    def write(self, data: memoryview) -> int | None:
        self.rest, self.taken_of_it = bytes(data), 0
        return self.written()

    def written(self) -> int | None:
        if self.slow.fault is not None:
            raise self.slow.fault
        now = min(self.slow.allowed, len(self.rest))
        self.slow.allowed -= now
        self.slow.heard += self.rest[:now]
        self.rest = self.rest[now:]
        self.taken_of_it += now
        return None if self.rest else self.taken_of_it

    def interrupt(self) -> int:
        self.rest = b""
        return self.taken_of_it

    def poll(self) -> int:
        return select.POLLOUT


def taken(unique: int, size: int) -> Answer:
    return Answer(0, unique, p.fuse_write_out.pack(size, 0))


def write(bench: Bench, fh: int, data: bytes, flags: int = os.O_WRONLY, offset: int = 0) -> int:
    return bench.request(p.FUSE_WRITE, 2, p.fuse_write_in.pack(fh, offset, len(data), 0, 0, flags, 0) + data)


@in_trio
async def test_it_is_answered_when_all_is_taken() -> None:
    async with channel() as bench:
        slow = Slow()
        fh = await bench.open(slow)
        unique = write(bench, fh, b"0123456789")
        assert await bench.answers() == []
        slow.waiters.wake()  # while nothing more is allowed
        slow.go_on(4)
        assert await bench.answers() == []
        slow.go_on(6)
        assert await bench.answers() == [taken(unique, 10)]
        assert slow.heard == b"0123456789"
        slow.go_on(3)
        assert await bench.answers() == [], "answered twice"
        assert not slow.waiters
        unique = write(bench, fh, b"abc")
        assert await bench.answers() == [taken(unique, 3)], "answered at once"


@in_trio
async def test_a_signal_before_anything_is_taken() -> None:
    async with channel() as bench:
        slow = Slow()
        fh = await bench.open(slow)
        unique = write(bench, fh, b"0123456789")
        assert await bench.answers() == []
        bench.request(p.FUSE_INTERRUPT, 0, p.fuse_interrupt_in.pack(unique))
        assert await bench.answers() == [Answer(-errno.EINTR, unique, b"")]
        slow.go_on(10)
        assert await bench.answers() == []
        assert slow.heard == b""


@in_trio
async def test_a_signal_after_a_part() -> None:
    async with channel() as bench:
        slow = Slow()
        fh = await bench.open(slow)
        unique = write(bench, fh, b"0123456789")
        slow.go_on(4)
        assert await bench.answers() == []
        bench.request(p.FUSE_INTERRUPT, 0, p.fuse_interrupt_in.pack(unique))
        assert await bench.answers() == [taken(unique, 4)]
        rest = write(bench, fh, b"456789")
        slow.go_on(100)
        assert await bench.answers() == [taken(rest, 6)]
        assert slow.heard == b"0123456789"


@in_trio
async def test_a_second_signal_is_one_too_many() -> None:
    async with channel() as bench:
        fh = await bench.open(Slow())
        unique = write(bench, fh, b"0123456789")
        assert await bench.answers() == []
        for _ in range(2):
            bench.request(p.FUSE_INTERRUPT, 0, p.fuse_interrupt_in.pack(unique))
        assert await bench.answers() == [Answer(-errno.EINTR, unique, b"")]


@in_trio
async def test_without_waiting() -> None:
    async with channel() as bench:
        slow = Slow()
        fh = await bench.open(slow)
        unique = write(bench, fh, b"0123456789", os.O_WRONLY | os.O_NONBLOCK)
        assert await bench.answers() == [Answer(-errno.EAGAIN, unique, b"")]
        slow.go_on(4)
        unique = write(bench, fh, b"0123456789", os.O_WRONLY | os.O_NONBLOCK)
        assert await bench.answers() == [taken(unique, 4)]
        assert not slow.waiters
        slow.go_on(6)
        unique = write(bench, fh, b"456789", os.O_WRONLY | os.O_NONBLOCK)
        assert await bench.answers() == [taken(unique, 6)]


@in_trio
async def test_the_end_answers_it() -> None:
    async with channel() as bench:
        slow = Slow()
        unique = write(bench, await bench.open(slow), b"0123456789")
        assert await bench.answers() == []
        bench.channel.end()
        assert await bench.answers() == [Answer(-errno.ENXIO, unique, b"")]
        slow.go_on(10)
        assert await bench.answers() == []


@pytest.mark.parametrize(
    ("fault", "number"), [(VirtError(errno.EINVAL, "broken"), errno.EINVAL), (ValueError("a fault"), errno.EIO)]
)
def test_a_refusal_after_waiting(fault: Exception, number: int, caplog: pytest.LogCaptureFixture) -> None:
    @in_trio
    async def run() -> None:
        async with channel() as bench:
            slow = Slow()
            fh = await bench.open(slow)
            unique = write(bench, fh, b"0123456789")
            assert await bench.answers() == []
            slow.fault = fault
            slow.waiters.wake()
            assert await bench.answers() == [Answer(-number, unique, b"")]
            assert not slow.waiters
            slow.fault = None
            unique = write(bench, fh, b"01")
            slow.go_on(2)
            assert await bench.answers() == [taken(unique, 2)]

    run()
    assert ("a fault" in caplog.text) == (number == errno.EIO)


@in_trio
async def test_others_go_on_meanwhile() -> None:
    async with channel() as bench:
        slow, talk = Slow(), Talk(b"here")
        fh, other = await bench.open(slow), await bench.open(talk)
        waiting = write(bench, fh, b"0123456789")
        reading = bench.read(other)
        assert await bench.answers() == [Answer(0, reading, b"here")]
        writing = bench.write(other, b"there")
        assert await bench.answers() == [taken(writing, 5)]
        assert await bench.poll(fh, kh=3, schedule=True) == select.POLLOUT
        slow.go_on(10)
        assert await bench.answers() == [taken(waiting, 10)]


@in_trio
async def test_the_pieces_of_one_long_write() -> None:
    """The kernel splits writes longer than max_write. The offset says which piece a request has."""
    async with channel() as bench:
        slow = Slow()
        slow.allowed = 100
        fh = await bench.open(slow)
        write(bench, fh, b"first")
        write(bench, fh, b"second", offset=p.MAX_WRITE - 4096)
        assert len(await bench.answers()) == 2
        assert slow.heard == b"firstsecond"
