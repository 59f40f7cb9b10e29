"""Reads and writes that the kernel splits: each call transfers one frame."""

import errno
import os
from collections.abc import Sequence

import pytest
from harness.channels import channel
from harness.in_trio import forget, in_trio

from virtfs.files.device import DeviceHandle, Opens
from virtfs.files.events import Events
from virtfs.fuse import split_calls
from virtfs.fuse.split_calls import FIRST_OF_MANY, THREADS
from virtfs.host.processes import Buffer

from .test_frame import FRAME, frame

LONG = bytes(range(256)) * 5
APPEND = os.O_WRONLY | os.O_APPEND


class Writer:
    """A fake of the thread that writes `message`.

    limit: its RLIMIT_FSIZE in bytes. hidden: whether virtfs may not examine it. elsewhere: whether its system call is
    not a write. asked: how often it has been examined.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.message = b""
        self.limit: int | None = None
        self.hidden = False
        self.elsewhere = False
        self.asked = 0
        monkeypatch.setattr(split_calls, "buffers_written", self._buffers)
        monkeypatch.setattr(split_calls, "fetch", self._fetch)
        monkeypatch.setattr(split_calls, "file_size_limit", lambda thread: self.limit)

    def _buffers(self, thread: int) -> list[Buffer]:
        self.asked += 1
        if self.hidden:
            raise PermissionError(errno.EACCES, "not for you")
        return [] if self.elsewhere else [Buffer(0, 4)] * (len(self.message) // 4)

    def _fetch(self, thread: int, buffers: Sequence[Buffer], most: int) -> bytes:
        return self.message[:most]


class Whole(DeviceHandle):
    """A handle that records the messages written to it. cuts: how often a message has been cut."""

    messages = True

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.cuts = 0
        self.whole = {}
        self.unfinished = None
        self.splits = False

    def write(self, data: memoryview) -> int:
        self.got.append(bytes(data))
        return len(data)

    def cut(self) -> None:
        self.cuts += 1


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Writer:
    return Writer(monkeypatch)


def send(
    handle: Whole, message: bytes, pieces_of: int, offset: int = 0, flags: int = os.O_WRONLY, thread: int = 7
) -> int:
    """Make a write(2), in pieces of at most `pieces_of` bytes. Returns the number of bytes written."""
    taken = 0
    while taken < len(message):
        data = memoryview(message)[taken : taken + pieces_of]
        at = offset + taken
        if at or len(data) >= handle.whole.get(thread, 0):
            assert split_calls.write_piece(handle, thread, at, flags, data) == len(data)
        else:
            handle.write(data)
        taken += len(data)
    return taken


@pytest.mark.parametrize("flags", [os.O_WRONLY, APPEND])
def test_pieces_are_one_message(writer: Writer, flags: int) -> None:
    handle = Whole()
    offset = 0
    for message in (LONG, LONG[:300] * 2, LONG, LONG[:1200]):
        writer.message = message
        offset += send(handle, message, 1024, offset if flags == APPEND else 0, flags)
    assert handle.got == [LONG, LONG[:300] * 2, LONG, LONG[:1200]]
    assert handle.cuts == 0


def test_a_thread_that_writes_whole_messages_is_looked_at_once(writer: Writer) -> None:
    handle = Whole()
    for message in (b"abcd", b"efgh", LONG, LONG, b"ijkl", LONG):
        writer.message = message
        send(handle, message, 1 << 20)
    assert len(handle.got) == 6
    assert writer.asked == 1
    send(handle, LONG, 1 << 20, thread=8)
    assert writer.asked == 2


def test_a_later_piece_that_nobody_expects_is_dropped_and_counted(writer: Writer) -> None:
    handle = Whole()
    writer.message = LONG
    send(handle, LONG, 1 << 20)
    send(handle, LONG, 1024)
    assert handle.got == [LONG, LONG[:1024]]
    assert handle.cuts == 1
    send(handle, LONG, 1024)  # from now on, the thread is examined
    assert handle.got[2:] == [LONG]


def test_where_nobody_may_look(writer: Writer) -> None:
    handle = Whole()
    writer.hidden = True
    send(handle, LONG, 1024)
    assert (handle.got, handle.cuts) == ([LONG[:1024]], 1)


def test_an_offset_of_io_uring_s_means_nothing(writer: Writer) -> None:
    handle = Whole()
    writer.elsewhere = True
    for offset in (60, 4096, 10 << 20):
        send(handle, LONG, 1 << 20, offset)
    assert handle.got == [LONG] * 3


@pytest.mark.parametrize("limit", [100, 1024])
def test_a_message_cut_to_a_file_size_limit_is_refused(writer: Writer, limit: int) -> None:
    handle = Whole()
    writer.limit, writer.message = limit, LONG
    for _ in range(2):
        assert handle.whole.get(7, 0) <= limit
        with pytest.raises(OSError, match=f"1280 bytes.*{limit}") as caught:
            split_calls.write_piece(handle, 7, 0, os.O_WRONLY, memoryview(LONG)[:limit])
        assert caught.value.errno == errno.EFBIG
        writer.message = LONG[: limit & ~3]
        send(handle, writer.message, 1024)
        writer.message = LONG
    assert handle.got == [LONG[: limit & ~3]] * 2


def test_a_write_of_more_than_a_megabyte(writer: Writer) -> None:
    """The first piece is too long for any frame, and the later pieces are not taken for other frames."""
    handle = Whole()
    writer.message = LONG
    send(handle, LONG, 1 << 20)
    writer.message = LONG * 1000
    send(handle, writer.message, FIRST_OF_MANY)
    assert [len(message) for message in handle.got] == [len(LONG), FIRST_OF_MANY]
    assert handle.cuts == 0


def test_threads_are_forgotten(writer: Writer) -> None:
    handle = Whole()
    for thread in range(10 * THREADS):
        send(handle, b"abcd", 1024, thread=thread)
    assert len(handle.whole) <= THREADS


@in_trio
async def test_a_read_in_pieces() -> None:
    async with frame() as (bench, file, tap):
        fh = await bench.open(file)
        tap.host_send(LONG)
        tap.host_send(FRAME)
        first = await bench.answer_to(bench.read(fh, size=1024))
        assert first.body == LONG[:1024]
        assert (await bench.answer_to(bench.read(fh, size=100, offset=1024))).body == LONG[1024:1124]
        assert (await bench.answer_to(bench.read(fh, size=1024, offset=1124))).body == LONG[1124:]
        assert (await bench.answer_to(bench.read(fh))).body == FRAME
        assert file.wire.virt.counters.rx_frames == 2
        assert [handle.taken() for handle in bench.handles.devices.values()] == [2]


@in_trio
async def test_a_piece_after_a_whole_frame_ends_the_call() -> None:
    """The first read was exactly as long as the frame. The next piece neither waits for another frame nor takes one."""
    async with frame() as (bench, file, tap):
        fh = await bench.open(file)
        for following in ([], [FRAME]):
            for sent in (LONG[:1024], *following):
                tap.host_send(sent)
            assert (await bench.answer_to(bench.read(fh, size=1024))).body == LONG[:1024]
            assert (await bench.answer_to(bench.read(fh, size=176, offset=1024))).body == b""
        assert (await bench.answer_to(bench.read(fh))).body == FRAME


@in_trio
async def test_what_a_short_read_left_is_not_part_of_the_next() -> None:
    async with frame() as (bench, file, tap):
        fh = await bench.open(file)
        for sent in (LONG, FRAME, FRAME):
            tap.host_send(sent)
        assert (await bench.answer_to(bench.read(fh, size=300))).body == LONG[:300]
        assert (await bench.answer_to(bench.read(fh))).body == FRAME
        assert (await bench.answer_to(bench.read(fh, offset=60))).body == FRAME, "io_uring's offset means nothing"


@in_trio
async def test_a_read_that_waits_goes_on_in_pieces_too() -> None:
    async with frame() as (bench, file, tap):
        file.wire.virt.set(exclusive="none")
        fh, other = await bench.open(file), await bench.open(file)
        unique = bench.read(fh, size=1024)
        assert await bench.answers() == []
        tap.host_send(LONG)
        assert [answer.body for answer in await bench.answers()] == [LONG[:1024]]
        assert unique
        tap.host_send(FRAME)
        assert (await bench.answer_to(bench.read(other, offset=1024))).body == FRAME, "another open's offset"
        assert (await bench.answer_to(bench.read(fh, offset=1024))).body == LONG[1024:]


@in_trio
async def test_text_goes_on_and_never_waits() -> None:
    async with channel() as bench:
        events = Events(Opens(), lambda: None, forget)
        fh = await bench.open(events, os.O_RDONLY)
        events.emit("up", "virt3")
        (line,) = events.lines
        assert (await bench.answer_to(bench.read(fh, size=4))).body == line[:4]
        assert (await bench.answer_to(bench.read(fh, size=len(line) - 4, offset=4))).body == line[4:]
        assert (await bench.answer_to(bench.read(fh, size=4, offset=len(line)))).body == b""
