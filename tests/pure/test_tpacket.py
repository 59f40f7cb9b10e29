"""Converting a ring's block to pcapng, with runs of equal frames at once, gives the same as frame by frame."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from virtfs.core import ringblock
from virtfs.core.offload import NEEDS_CSUM, summed, virtio_net_hdr
from virtfs.core.pcapng import INBOUND, OUTBOUND, enhanced_packet
from virtfs.core.tpacket import (
    C_VLAN,
    NO_CHECKSUM,
    OUTGOING,
    RUN,
    RUN_LONGEST,
    SECOND,
    TPID_VALID,
    VLAN_VALID,
    pcapng,
    pcapng_in_python,
)

BOTH = [pcapng_in_python, ringblock.pcapng]

FIRST = 48  # bytes that describe a block, linux/if_packet.h: BLK_PLUS_PRIV(0)
MAC = 92  # offset of an untagged frame: its network header, 14 bytes on, begins 10 bytes after a multiple of 16
S_VLAN = 0x88A8
WRAP = 1 << 32  # ns, the lower half of a timestamp
CHECKED = 1 << 7  # TP_STATUS_CSUM_VALID


@dataclass(frozen=True)
class Passed:
    """A frame as the kernel stores it in a ring.

    cut: number of bytes that did not fit
    tag: the VLAN tag in the metadata: its TCI, and its TPID if the kernel reports it
    sum: where a checksum is to be filled in, as in struct virtio_net_hdr: csum_start and csum_offset
    """

    frame: bytes
    time: int
    kind: int = OUTGOING
    cut: int = 0
    tag: tuple[int, int | None] | None = None
    mac: int = MAC
    status: int = 1
    sum: tuple[int, int] | None = None

    def blocks(self, interface_id: int) -> bytes:
        """Return the frame as a pcapng block."""
        frame, added = self.frame, 0
        if self.sum is not None and not self.cut:
            frame = summed(frame, *self.sum)
        if self.tag is not None:
            tci, tpid = self.tag
            frame, added = frame[:12] + struct.pack(">HH", C_VLAN if tpid is None else tpid, tci) + frame[12:], 4
        way = INBOUND if self.kind == OUTGOING else OUTBOUND
        return enhanced_packet(interface_id, self.time, frame, len(self.frame) + self.cut + added, way)

    def laid(self, last: bool) -> bytes:
        """Return the frame as in the ring: struct tpacket3_hdr, struct sockaddr_ll, the frame.

        last: whether this is the last frame of its block, whose offset of the next frame is 0
        """
        tci, tpid, status = 0, 0, self.status
        if self.tag is not None:
            tci, status = self.tag[0], status | VLAN_VALID
            if self.tag[1] is not None:
                tpid, status = self.tag[1], status | TPID_VALID
        if self.sum is not None:
            status |= NO_CHECKSUM
        size = self.mac + len(self.frame)
        step = size + -size % 8
        length = len(self.frame) + self.cut
        seconds, nanoseconds = divmod(self.time, SECOND)
        head = struct.pack(
            "=6I2H2I2H8x", 0 if last else step, seconds, nanoseconds, len(self.frame), length, status,
            self.mac, MAC + 14, 0xDEADBEEF, tci, tpid, 0,
        )  # fmt: skip
        address = struct.pack("=HHiHBB8x", 17, 0x0300, 7, 1, self.kind, 6)
        before = (head + address).ljust(self.mac, b"\xee")
        if self.sum is not None:
            before = before[: -virtio_net_hdr.size] + virtio_net_hdr.pack(NEEDS_CSUM, 0, 0, 0, *self.sum)
        return (before + self.frame).ljust(step, b"\xee")


def block(frames: Sequence[Passed], behind: int = 0) -> memoryview:
    """Return a block of frames. It ends with `behind` bytes of stale data."""
    laid = b"".join(frame.laid(frame is frames[-1]) for frame in frames)
    return memoryview(bytearray(bytes(FIRST) + laid + b"\x55" * behind))


def check(frames: Sequence[Passed], interface_id: int = 0, behind: int = 0) -> None:
    """Assert that converting a block gives the same as encoding its frames one by one."""
    expected = b"".join(frame.blocks(interface_id) for frame in frames)
    for convert in BOTH:
        assert convert(block(frames, behind), FIRST, len(frames), interface_id) == expected


@st.composite
def times(draw: st.DrawFn, count: int) -> list[int]:
    """Draw the times of consecutive frames, often near an overflow, and mostly increasing."""
    second = draw(st.integers(1_700_000_000, (1 << 32) - 100)) * SECOND
    wrap = (second // WRAP + 1) * WRAP
    base = draw(st.sampled_from([second, wrap, second + SECOND // 2])) - draw(st.integers(0, 2000))
    step = draw(st.sampled_from([0, 1, 50, 1000, -3]))
    return [base + step * number for number in range(count)]


@st.composite
def runs(draw: st.DrawFn) -> list[Passed]:
    """Draw frames that are alike, except for one or two."""
    count = draw(st.integers(1, 3 * RUN))
    length = draw(st.one_of(st.integers(14, RUN_LONGEST + 6), st.integers(14, 2000)))
    like = Passed(
        b"",
        0,
        draw(st.sampled_from([OUTGOING, 0, 1, 3])),
        draw(st.sampled_from([0, 0, 0, 5])),
        draw(st.sampled_from([None, None, None, (7, C_VLAN), (0x2007, S_VLAN), (7, None)])),
        draw(st.sampled_from([MAC, MAC, MAC - 4, MAC - 8, MAC - 2])),
        sum=draw(st.sampled_from([None, None, (14, 0), (20, 5), (17, 1), (40, 16)])),
    )
    seed = draw(st.integers(0, 250))
    frames = [
        replace(like, frame=bytes((seed + number + at) % 251 for at in range(length)), time=time)
        for number, time in enumerate(draw(times(count)))
    ]
    changes = st.sampled_from(
        [
            lambda frame: replace(frame, kind=0 if frame.kind == OUTGOING else OUTGOING),
            lambda frame: replace(frame, cut=9),
            lambda frame: replace(frame, tag=(0xFFF, C_VLAN)),
            lambda frame: replace(frame, sum=(len(frame.frame) // 2, 6)),
            lambda frame: replace(frame, sum=(len(frame.frame) // 2, 6), cut=9),
            lambda frame: replace(frame, sum=(14, 6), tag=(0xFFF, C_VLAN)),
            lambda frame: replace(frame, mac=MAC - 4),
            lambda frame: replace(frame, status=1 | CHECKED),
            lambda frame: replace(frame, frame=frame.frame + b"\x99"),
            lambda frame: replace(frame, time=frame.time + SECOND),
            lambda frame: replace(frame, time=frame.time - WRAP),
        ]
    )
    for at, change in draw(st.lists(st.tuples(st.integers(0, count - 1), changes), max_size=2)):
        frames[at] = change(frames[at])
    return frames


def equal(count: int, length: int = 60, base: int = 1_700_000_000 * SECOND, step: int = 100) -> list[Passed]:
    """Return a run of frames."""
    return [
        Passed(bytes((number + at) % 256 for at in range(length)), base + number * step, kind=4 * (number % 3 == 0))
        for number in range(count)
    ]


def test_a_checksum_of_zero_is_sent_as_all_ones() -> None:
    """UDP takes 0 for no checksum (RFC 768)."""
    frame = bytes(20) + b"\xff\xff" + bytes(10)
    for convert in BOTH:
        made = convert(block([Passed(frame, SECOND, sum=(18, 6))]), FIRST, 1, 0)
        assert made[28:][24:26] == b"\xff\xff"


@settings(max_examples=100, deadline=None)
@given(st.lists(runs(), max_size=4), st.integers(0, 1000), st.integers(0, 40).map(lambda words: 4 * words))
@example([equal(5 * RUN, 61)], 3, 0)
@example([[replace(frame, mac=MAC - 4 * (number % 2)) for number, frame in enumerate(equal(3 * RUN))]], 0, 0)
def test_any_mixture(frames: list[list[Passed]], interface_id: int, behind: int) -> None:
    check([frame for run in frames for frame in run], interface_id, behind)


def test_a_run_over_each_border_of_time() -> None:
    second = 1_700_000_000 * SECOND
    wrap = (second // WRAP + 1) * WRAP
    for border in (second, wrap):
        for before in range(2 * RUN + 3):
            check(equal(2 * RUN + 3, base=border - before * 100))


def test_lengths_around_a_run_s_longest_and_every_padding() -> None:
    for length in (*range(14, 24), *range(RUN_LONGEST - 4, RUN_LONGEST + 5)):
        check(equal(RUN + 5, length))


def test_runs_of_every_length() -> None:
    for count in range(1, 2 * RUN + 4):
        check([*equal(count), *equal(1, 61), *equal(count, 60)])


def test_padding_is_zero_whatever_lies_behind_a_frame() -> None:
    for convert in BOTH:
        made = convert(block(equal(2 * RUN, 61)), FIRST, 2 * RUN, 0)
        size = len(made) // (2 * RUN)
        assert all(made[at + 28 + 61 : at + 28 + 64] == bytes(3) for at in range(0, len(made), size))


def test_nothing() -> None:
    for convert in BOTH:
        assert convert(memoryview(bytearray(64)), FIRST, 0, 0) == b""


def test_the_compiled_module_stays_within_the_block() -> None:
    """The kernel lays the frames out, so this cannot happen; but nothing may be read behind the block if it does."""
    whole = block(equal(3))
    with pytest.raises(ValueError, match="past the end"):
        ringblock.pcapng(whole[:-8], FIRST, 3, 0)
    with pytest.raises(ValueError, match="past the end"):
        ringblock.pcapng(whole, -1, 1, 0)


def test_the_compiled_module_is_used_if_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ringblock, "pcapng", lambda *_: b"compiled")
    assert pcapng(block(equal(1)), FIRST, 1, 0) == b"compiled"
    monkeypatch.setenv("VIRTFS_COMPILED", "no")
    assert pcapng(block(equal(1)), FIRST, 1, 0) == equal(1)[0].blocks(0)
