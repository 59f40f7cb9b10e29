"""Writes of more than the kernel passes on at once, which end with an error."""

import errno
import os
import struct
from collections.abc import Callable

import pytest
from harness.process import fails
from harness.serving import Virt, frame

PIECE = 1 << 20  # bytes that the kernel passes on at once
BEFORE = 1200  # frames before the wrong one: more than one piece of each file, and less than two


def records(size: int) -> bytes:
    return struct.pack(">I", size) + frame(size)


def line(size: int) -> bytes:
    return frame(size).hex().encode() + b"\n"


def packet(size: int) -> bytes:
    return struct.pack("<IIII", 0, 0, size, size) + frame(size)


FILES = pytest.mark.parametrize(
    ("name", "head", "encode", "kept"),
    [
        pytest.param("stream", b"", records, False, id="stream"),
        pytest.param("hex", b"", line, False, id="hex"),
        pytest.param("inject", struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1), packet, True, id="inject"),
    ],
)


@FILES
def test_a_refusal_that_a_short_count_hides_is_the_result_of_the_next_write(
    virt: Virt, name: str, head: bytes, encode: Callable[[int], bytes], kept: bool
) -> None:
    """A write of two pieces returns the length of the first. The rest is what the program writes next.

    kept: whether the next write begins with the frames after the refused one.
    """
    virt.set("strict")
    file = virt.mount.root.open(f"{virt.name}/{name}", os.O_WRONLY)
    good = head + encode(1000) * BEFORE
    data = good + encode(3) + encode(1000) * 10
    written = file.write(data)
    assert 0 < written < len(good), "the piece with the wrong frame is refused"
    assert virt.count("tx_frames") == BEFORE
    reason = virt.mount.read("last_error")
    with fails(errno.EMSGSIZE):
        file.write(data[written:])
    assert virt.count("tx_frames") == BEFORE, "no frame is sent twice"
    assert virt.mount.read("last_error") == reason
    file.write(encode(60))
    assert virt.count("tx_frames") == BEFORE + 1 + 10 * kept


@FILES
def test_a_write_of_several_pieces_that_is_whole(
    virt: Virt, name: str, head: bytes, encode: Callable[[int], bytes], kept: bool
) -> None:
    virt.set("strict")
    file = virt.mount.root.open(f"{virt.name}/{name}", os.O_WRONLY)
    data = head + encode(1000) * BEFORE
    for count in (BEFORE, 2 * BEFORE):
        assert file.write(data) == len(data)
        assert virt.count("tx_frames") == count
        data = encode(1000) * BEFORE
    with fails(errno.EMSGSIZE):
        file.write(encode(3))
