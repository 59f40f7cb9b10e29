"""The encoder: virtfs reads its own output back, and blocks are kept whole. tests/tools tries other programs."""

import struct
from typing import NamedTuple

from harness.written import HEADER, NOW, VIRT3
from hypothesis import given
from hypothesis import strategies as st

from virtfs.core import pcapng
from virtfs.core.pcapng import INBOUND
from virtfs.core.savefile import Reader, Record


def test_times_of_the_statistics_have_their_upper_half_first() -> None:
    """The pcapng draft says so. python-pcapng reads such a time as one 64-bit number."""
    block = pcapng.interface_statistics(0, 3 << 32 | 4, 0, 0, 1 << 32 | 2)
    assert struct.pack("<II", 3, 4) == block[12:20]
    assert struct.pack("<HHII", 2, 8, 1, 2) + struct.pack("<HHII", 3, 8, 3, 4) == block[20:44]


class Packet(NamedTuple):
    timestamp_ns: int
    frame: bytes
    more: int
    direction: int
    dropped: int


@given(
    st.lists(
        st.builds(
            Packet,
            st.integers(0, 2**64 - 1),
            st.binary(max_size=100),
            st.integers(0, 1000),
            st.integers(0, 2),
            st.integers(0, 2**64 - 1),
        )
    )
)
def test_our_own_reader_gets_back_what_was_written(packets: list[Packet]) -> None:
    file = HEADER + VIRT3
    written = []
    for time, frame, more, direction, dropped in packets:
        length = len(frame) + more
        block = pcapng.enhanced_packet(0, time, memoryview(frame), length, direction)
        file += pcapng.with_dropcount(block, dropped) if dropped else block
        written.append(Record(time, frame, 0, length))
    reader = Reader()
    assert list(reader.feed(file + pcapng.interface_statistics(0, NOW, 0, 0))) == written
    reader.finish()


def test_marks_are_told_from_frames() -> None:
    for length in range(1, 9):
        mark = pcapng.mark(0, NOW, "x" * length)
        frame = pcapng.MARK_HEAD + b"x" * length
        block = pcapng.enhanced_packet(0, NOW, memoryview(frame), len(frame), INBOUND)
        blocks = VIRT3, mark, block, pcapng.with_dropcount(block, 1)
        assert [pcapng.is_mark(VIRT3 + one, len(VIRT3)) for one in blocks] == [False, True, False, False]


def packet(number: int, length: int, direction: int = INBOUND) -> bytes:
    """Return an enhanced packet block that its time and its bytes identify."""
    return pcapng.enhanced_packet(0, NOW + number, bytes([number % 256]) * length, length, direction)


lengths = st.lists(st.integers(0, 70), max_size=20)


@given(lengths, st.integers(0, 2000), st.integers(0, 1), st.integers(0, 20))
def test_whole_blocks_are_as_many_as_fit(sizes: list[int], room: int, least: int, statistics_at: int) -> None:
    blocks = [packet(number, size) for number, size in enumerate(sizes)]
    statistics_at = min(statistics_at, len(blocks))
    blocks.insert(statistics_at, pcapng.interface_statistics(0, NOW, 1, 0))
    at, frames = pcapng.whole_blocks(memoryview(b"".join(blocks)), room, least)
    sums = [len(b"".join(blocks[:count])) for count in range(len(blocks) + 1)]
    count = sums.index(at)
    fitting = max(index for index, size in enumerate(sums) if size <= room)
    assert count == max(fitting, least)
    assert frames == count - (statistics_at < count)


@given(lengths)
def test_packets_are_split_as_they_were_joined(sizes: list[int]) -> None:
    blocks = [packet(number, size) for number, size in enumerate(sizes)]
    assert list(pcapng.split_packets(b"".join(blocks))) == [(NOW + number, each) for number, each in enumerate(blocks)]


@given(st.lists(st.integers(0, 70), min_size=1, max_size=5), st.integers(1, 2**64 - 1))
def test_a_dropcount_comes_into_the_first(sizes: list[int], dropped: int) -> None:
    blocks = [packet(number, size) for number, size in enumerate(sizes)]
    first, *others = blocks
    length = struct.pack("<I", len(first) + 12)
    option = struct.pack("<HHQ", 4, 8, dropped)  # epb_dropcount, before the end of options
    expected = first[:4] + length + first[8:-8] + option + bytes(4) + length
    assert pcapng.with_dropcount(b"".join(blocks), dropped) == expected + b"".join(others)


@given(st.integers(0, 70), st.integers(0, 2))
def test_what_stands_behind_a_frame(captured: int, direction: int) -> None:
    total, tail = pcapng.packet_tail(captured, direction)
    whole = packet(3, captured, direction)
    assert (total, tail) == (len(whole), whole[28 + captured :])
