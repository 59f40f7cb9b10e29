"""Frames are removed from a pcapng stream, however it is cut."""

import errno
from itertools import pairwise

import pytest
from harness.captured import Captured
from hypothesis import given
from hypothesis import strategies as st

from virtfs.core import pcapng
from virtfs.core.errors import VirtError
from virtfs.core.pcapng_sieve import Sieve

FRAMES = [bytes([number]) * length for number, length in enumerate((60, 61, 62, 63, 1514, 14), 1)]
MARK = pcapng.mark(0, 7, "the second step")
HEADER = pcapng.section_header("", "", "test") + pcapng.interface_description("virt3", "", bytes(6), 0)
STREAM = (
    HEADER
    + b"".join(pcapng.enhanced_packet(0, at, frame, 2000, pcapng.INBOUND) for at, frame in enumerate(FRAMES))
    + MARK
    + pcapng.interface_description("virt4", "", bytes(6), 0)
)


@given(st.lists(st.integers(0, len(STREAM))), st.sets(st.sampled_from(FRAMES)))
def test_accepted_frames_marks_and_other_blocks_pass(cuts: list[int], accepted: set[bytes]) -> None:
    asked = []

    def accepts(frame: bytes, length: int) -> bool:
        asked.append((frame, length))
        return frame in accepted

    sieve, borders = Sieve(accepts), [0, *sorted(cuts), len(STREAM)]
    passed = Captured(b"".join(sieve.feed(STREAM[a:b]) for a, b in pairwise(borders)))
    assert passed.frames[:-1] == [frame for frame in FRAMES if frame in accepted]
    assert passed.frames[-1].endswith(b"the second step")
    assert passed.interfaces == ["virt3", "virt4"]
    assert asked == [(frame, 2000) for frame in FRAMES]


@pytest.mark.parametrize("length", [0, 11, 1 << 24])
def test_a_length_that_no_block_has_is_refused(length: int) -> None:
    sieve = Sieve(lambda frame, length: True)
    with pytest.raises(VirtError) as refused:
        sieve.feed(HEADER + b"\6\0\0\0" + length.to_bytes(4, "little") + bytes(8))
    assert refused.value.errno == errno.EINVAL
