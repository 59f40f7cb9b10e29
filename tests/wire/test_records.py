"""A wire as a byte stream: which records a reader gets, and which frames the bytes of a writer become."""

import errno
import os
import struct
from collections.abc import Callable
from itertools import pairwise

import pytest
from harness.wires import Bench, frame, received, refusal, wire
from hypothesis import given
from hypothesis import strategies as st

from virtfs.core.errors import VirtError
from virtfs.core.framestream import FRAME_MAX
from virtfs.core.ids import Uid
from virtfs.core.memory import Kind
from virtfs.forward import tapframes
from virtfs.forward.records import MOST, RecordReader, RecordWriter
from virtfs.forward.wire import HEADROOM, LONGEST

ROOM = 1 << 17  # bytes that the longest read asks for
ALICE = Uid(4001)

pytestmark = pytest.mark.usefixtures("code")


def record(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return the data in pieces. places: where it is cut, in any order, modulo the length of the data."""
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[begin:end] for begin, end in pairwise(ends)]


class Ends:
    """Both ends of a stream on a wire."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._reader = RecordReader(bench.wire, bench.wire.memory.hold(Kind.CONTENTS, ALICE))
        self.writer = RecordWriter(bench.wire.out)
        self._room = memoryview(bytearray(HEADROOM + ROOM + LONGEST + 4))
        bench.wire.opened()

    def read(self, size: int = ROOM) -> bytes:
        length, _ = self._reader.read(self._room, size)
        return bytes(self._room[HEADROOM : HEADROOM + length])

    def write(self, data: bytes) -> None:
        """Write as the file does, in as many calls as necessary."""
        rest = memoryview(bytearray(data))
        while len(rest):
            rest = rest[self.writer.write(rest) :]


def on_ends(test: Callable[[Ends], None]) -> Callable[[], None]:
    """Give a test both ends of a stream."""

    def run() -> None:
        with wire() as bench:
            test(Ends(bench))

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


@on_ends
def test_a_read_returns_all_frames_that_wait(ends: Ends) -> None:
    sent = [frame(n, size) for n, size in enumerate((14, 60, 1514, 9018, 65535))]
    for one in sent:
        ends.bench.tap.host_send(one)
    assert ends.read() == b"".join(map(record, sent))
    assert ends.read() == b""
    assert ends.bench.counters.rx_frames == 5
    assert ends.bench.counters.rx_bytes == sum(map(len, sent))


@on_ends
def test_only_whole_records_are_returned(ends: Ends) -> None:
    """A record that does not fit any more comes first in the next read."""
    sent = [frame(n, 60) for n in range(5)]
    for one in sent:
        ends.bench.tap.host_send(one)
    assert [ends.read(150), ends.read(190), ends.read(64), ends.read(150)] == [
        record(sent[0]) + record(sent[1]),
        record(sent[2]) + record(sent[3]),
        record(sent[4]),
        b"",
    ]


@on_ends
def test_a_record_longer_than_the_read_is_continued(ends: Ends) -> None:
    sent = [frame(1, 1500), frame(2, 60)]
    for one in sent:
        ends.bench.tap.host_send(one)
    got = [ends.read(700), ends.read(700), ends.read(700)]
    assert b"".join(got) == record(sent[0]) + record(sent[1])
    assert [len(part) for part in got] == [700, 700, 104 + 64]


@given(st.lists(st.tuples(st.integers(14, 1518), st.integers(1, 4000)), max_size=12))
def test_any_reads_return_the_stream(turns: list[tuple[int, int]]) -> None:
    with wire() as bench:
        ends, sent, got = Ends(bench), b"", b""
        for number, (length, size) in enumerate(turns):
            bench.tap.host_send(frame(number, length))
            sent += record(frame(number, length))
            got += ends.read(size)
        while part := ends.read():
            got += part
        assert got == sent


@on_ends
def test_the_backlog_comes_first(ends: Ends) -> None:
    bench = ends.bench
    bench.wire.closed()
    bench.set_backlog(5)
    bench.tap.host_send(frame(1))
    bench.wire.opened()
    bench.tap.host_send(frame(2))
    assert ends.read() == record(frame(1)) + record(frame(2))


@on_ends
def test_a_read_of_an_interface_that_is_down_fails(ends: Ends) -> None:
    ends.bench.tap.host_send(frame(1))
    ends.bench.tap.host_send(frame(2))
    assert ends.read(100) == record(frame(1))
    ends.bench.down()
    assert ends.read() == record(frame(2)), "it was taken before"
    assert refusal(ends.read) == errno.EHOSTDOWN
    ends.bench.lose()
    assert refusal(ends.read) == errno.ENXIO


@given(
    st.lists(st.integers(1, 2000) | st.just(9000), max_size=12),
    st.lists(st.integers(0, 1 << 16), max_size=8),
)
def test_a_stream_may_be_cut_anywhere(lengths: list[int], places: list[int]) -> None:
    """Frames that fit arrive whole and in order. The others are counted, as with frame."""
    with wire() as bench:
        ends = Ends(bench)
        sent = [frame(number, length) for number, length in enumerate(lengths)]
        for piece in cut(b"".join(map(record, sent)), places):
            ends.write(piece)
        assert received(bench) == [one for one in sent if 14 <= len(one) <= 1518]
        assert ends.writer.frames == len(sent)
        assert ends.writer.unfinished() == 0
        assert bench.counters.tx_short == sum(length < 14 for length in lengths)
        assert bench.counters.tx_oversize == sum(length > 1518 for length in lengths)
        assert bench.counters.tx_bytes == sum(length for length in lengths if 14 <= length <= 1518)


@pytest.mark.parametrize("length", [0, FRAME_MAX + 1, 0xFFFFFFFF])
@pytest.mark.parametrize("together", [True, False])
def test_a_length_that_no_frame_has(length: int, together: bool) -> None:
    """The frames before it are sent. The error says where it is."""
    with wire() as bench:
        ends = Ends(bench)
        good, bad = record(frame(1)) + record(frame(2)), struct.pack(">I", length) + bytes(60)
        with pytest.raises(VirtError) as caught:
            for piece in [good + bad] if together else [good, bad[:3], bad[3:]]:
                ends.write(piece)
        assert caught.value.errno == errno.EINVAL
        assert f'byte 128: invalid frame length "{length}"' in caught.value.strerror
        assert received(bench) == [frame(1), frame(2)]
        ends.write(record(frame(3)))
        assert received(bench) == [frame(3)], "the next record begins anew"


@on_ends
def test_a_long_write_is_sent_in_slices(ends: Ends) -> None:
    """Each call sends at most MOST frames, so that other tasks can run in between."""
    rest = memoryview(bytearray(b"".join(record(frame(n)) for n in range(3 * MOST))))
    sent = []
    while len(rest):
        rest = rest[ends.writer.write(rest) :]
        sent.append(ends.writer.frames)
        received(ends.bench)
    assert sent == [MOST, 2 * MOST, 3 * MOST]


def test_strict_and_antispoof_apply_to_each_frame() -> None:
    with wire() as bench:
        ends = Ends(bench)
        bench.virt.set(antispoof=True, address=bytes.fromhex("020000000009"))
        spoofed, own = frame(1), frame(2)[:6] + bytes.fromhex("020000000009") + frame(2)[12:]
        ends.write(record(spoofed) + record(own))
        assert received(bench) == [own]
        assert bench.counters.tx_spoofed == 1
        bench.virt.set(strict=True)
        assert refusal(ends.write, record(own) + record(spoofed) + record(own)) == errno.EPERM
        assert received(bench) == [own]


@on_ends
def test_the_tap_refuses_while_it_is_down(ends: Ends) -> None:
    ends.bench.down()
    os.set_blocking(ends.bench.tap.fd, False)
    ends.write(b"".join(record(frame(n)) for n in range(3)))
    assert ends.bench.counters.tx_dropped == 3
    assert ends.bench.counters.tx_frames == 0


@pytest.mark.parametrize("code", ["compiled"], indirect=True)
def test_the_compiled_module_stays_within_its_buffers(code: str) -> None:
    room = memoryview(bytearray(HEADROOM + 1000))
    with wire() as bench:
        bench.tap.host_send(frame(1))
        for at, end in ((0, 10), (HEADROOM, HEADROOM + 1)):
            with pytest.raises(ValueError, match="too small"):
                tapframes.read_records(bench.wire.out.tap_fd, room, at, end, 1)
        data = memoryview(bytearray(HEADROOM) + record(frame(1)))
        fd = bench.wire.out.tap_fd
        for at in (-1, 0, len(data) - 3, len(data), len(data) + 1):
            assert tapframes.write_records(fd, data, at, 9, 0, 1514) == (at, 0, 0, 0)
        assert tapframes.write_records(fd, data[:-1], HEADROOM, 9, 0, 1514) == (HEADROOM, 0, 0, 0)
        assert tapframes.write_records(fd, data, HEADROOM, 9, 0, 1514) == (len(data), 1, 60, 0)
        assert received(bench) == [frame(1)]
