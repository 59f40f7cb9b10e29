import errno
import subprocess
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfs.core.errors import VirtError
from virtfs.core.hexlines import LINE_MAX, Lines, format_frame, parse_line

FRAME = bytes(range(256))[:60]
LONGEST = bytes(65539)  # an MTU of 65521, an Ethernet header and a VLAN tag


def printed_by(*command: str, frame: bytes = FRAME) -> bytes:
    return subprocess.run(command, input=frame, capture_output=True, check=True).stdout


def refusal(line: bytes) -> VirtError:
    with pytest.raises(VirtError) as caught:
        parse_line(line)
    return caught.value


@given(st.binary(min_size=1, max_size=300))
def test_what_is_read_can_be_written_back(frame: bytes) -> None:
    line = format_frame(frame)
    assert line == frame.hex().encode() + b"\n"
    assert parse_line(line) == frame
    assert format_frame(memoryview(frame)) == line


@given(st.binary(max_size=200) | st.text("0123456789abcdefABCDEFxX#: \t\r", max_size=80).map(str.encode))
def test_any_line_is_a_frame_nothing_or_refused(line: bytes) -> None:
    try:
        frame = parse_line(line)
    except VirtError as error:
        refused = error
    else:
        assert frame is None or parse_line(format_frame(frame)) == frame
        return
    assert refused.errno == errno.EINVAL
    assert refused.strerror.startswith('"')
    assert refused.strerror.isprintable()


@pytest.mark.parametrize(
    "line",
    [
        b"00112233aabb",
        b"00112233AABB\n",
        b"00:11:22:33:aa:bb",
        b"  00 11 22 33 aa bb  \r\n",
        b"0011 2233\taabb",
        b"0x00112233aabb",
        b"0x00 0x11 0X22 0x33 0xaa 0xBB",
        b"00112233aabb # and a comment: 44",
        b"00112233aabb#44",
        b"001122:33aabb",
    ],
)
def test_ways_to_write_a_frame(line: bytes) -> None:
    assert parse_line(line) == b"\x00\x11\x22\x33\xaa\xbb"


@pytest.mark.parametrize("line", [b"", b"\n", b" \t\r\n", b"# a comment", b"   # 00 11\n", b" : :"])
def test_a_line_without_digits_gives_nothing(line: bytes) -> None:
    assert parse_line(line) is None


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"00 11 hello 22", '"hello" at column 7 is not hexadecimal'),
        (b"0x00 1g", '"g" at column 7 is not hexadecimal'),
        (b"0x", '"x" at column 2 is not hexadecimal'),
        (b"000x11", '"x11" at column 4 is not hexadecimal'),
        (b"00 0x0x11", '"x11" at column 7 is not hexadecimal'),
        (b"00,11", '",11" at column 3 is not hexadecimal'),
        ("00 Ä".encode(), '"Ä" at column 4 is not hexadecimal'),
        (b"00 \xff\x1b", r'"\xff\x1b" at column 4 is not hexadecimal'),
        (b"00 112: # 3", '"112" at column 4 has 3 digits: write two digits for each byte'),
        (b"0x8 0x06", '"8" at column 3 is half a byte: write two digits for each byte'),
        (b"0806 0001 0800 6 4", '"6" at column 16 is half a byte: write two digits for each byte'),
        (b"0806 000 1 0800", '"000" at column 6 has 3 digits: write two digits for each byte'),
        (b"f:f:f:f:f:f 020000000002", '"f" at column 1 is half a byte: write two digits for each byte'),
        (
            b"ffffffffffff 02000000002 88b5 1",
            '"02000000002" at column 14 has 11 digits: write two digits for each byte',
        ),
        (b"*", '"*" at column 1 is not hexadecimal'),
    ],
)
def test_a_bad_line_is_quoted(line: bytes, sentence: str) -> None:
    assert refusal(line).errno == errno.EINVAL
    assert refusal(line).strerror == sentence


@given(st.binary(min_size=1, max_size=40), st.data())
def test_a_separator_inside_a_byte_is_refused(frame: bytes, data: st.DataObject) -> None:
    """Ignoring it would join halves of two bytes, and send a frame that was not meant."""
    digits = format_frame(frame).strip()
    places = data.draw(st.sets(st.integers(1, len(digits) - 1)))
    separator = data.draw(st.sampled_from([b" ", b":", b"\t", b" : "]))
    ends = [*sorted(places), len(digits)]
    words = [digits[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    odd = next((word for word in words if len(word) % 2), None)
    if odd is None:
        assert parse_line(separator.join(words)) == frame
    else:
        assert refusal(separator.join(words)).strerror.startswith(f'"{odd.decode()}" at column ')


@pytest.mark.parametrize(
    ("line", "offset", "column"),
    [
        (b"00000000: ffff ffff ffff 0200 0000 0002 0806 0001  ................", "00000000:", 1),
        (b"00000010: 0800 0604 0001 0200 0000 0002 0a00 0301", "00000010:", 1),
        (b"\t0x0000:  ffff ffff ffff 0200 0000 0002 0806 0001", "0x0000:", 2),
        (b"0000   ff ff ff ff ff ff 02 00 00 00 00 02 08 06 00 01", "0000", 1),
        (b"0010  08 00 06 04 00 01 02 00 00 00 00 02 0a 00 03 01   ................", "0010", 1),
        (b"00000000  ff ff ff ff ff ff 02 00  00 00 00 02 08 06 00 01  |................|", "00000000", 1),
        (b"0000000 ffff ffff ffff 0002 0000 0200 0608 0100", "0000000", 1),
    ],
)
def test_the_offset_of_a_dump_is_refused(line: bytes, offset: str, column: int) -> None:
    """It would become the first bytes of the frame. Lines of xxd, tcpdump -xx, Wireshark, tshark, hexdump -C and od."""
    where = f'"{offset}" at column {column}'
    assert (
        refusal(line).strerror == f"{where} is the offset of a dump: write the bytes alone, as xxd -p -c0 prints them"
    )


@pytest.mark.parametrize("command", [("xxd",), ("od",), ("od", "-tx1")])
def test_a_dump_is_refused_at_its_first_line(command: tuple[str, ...]) -> None:
    with pytest.raises(VirtError, match=r'line 1: "0+:?" at column 1 is the offset of a dump'):
        list(Lines().feed(printed_by(*command)))


def test_what_xxd_prints_is_a_frame() -> None:
    assert parse_line(printed_by("xxd", "-p", "-c", "60")) == FRAME
    wrapped = printed_by("xxd", "-p", frame=bytes(1514))
    assert parse_line(wrapped.replace(b"\n", b"")) == bytes(1514)


@pytest.mark.parametrize("size", [60, 1514])
def test_what_od_prints_is_a_frame(size: int) -> None:
    assert parse_line(printed_by("od", "-An", "-v", "-tx1", "-w65539", frame=bytes(size))) == bytes(size)


def test_the_longest_frame_fits_as_wide_as_it_can_be_written() -> None:
    line = b"0x00 " * len(LONGEST)
    assert parse_line(line) == LONGEST
    assert refusal(line + b" ").errno == errno.E2BIG


def test_a_line_ends_at_its_newline_only() -> None:
    lines = Lines()
    assert list(lines.feed(b"0011\n\n# nothing\n22 33")) == [b"\x00\x11", None]
    assert lines.rest() == b"22 33"
    assert list(lines.feed(memoryview(b"4"))) == list(lines.feed(b"4")) == []
    assert list(lines.feed(b"\n55\n")) == [b"\x22\x33\x44", b"\x55"]
    assert lines.rest() == b""


@pytest.mark.parametrize("rest", [b" \t", b"# a comment", b" # 0011"])
def test_an_unfinished_line_without_digits_is_no_loss(rest: bytes) -> None:
    lines = Lines()
    assert list(lines.feed(b"0011\n" + rest)) == [b"\x00\x11"]
    assert lines.rest() == b""


def test_the_data_is_taken_before_the_frames_are() -> None:
    data = bytearray(b"0011\n2233\n")
    frames = Lines().feed(memoryview(data))
    data[:] = bytes(len(data))
    assert list(frames) == [b"\x00\x11", b"\x22\x33"]


def test_lines_before_a_bad_one_are_frames_and_it_is_named_by_number() -> None:
    lines = Lines()
    frames = lines.feed(b"# a comment\n0011\nno\n2233\n44")
    assert next(frames) is None
    assert next(frames) == b"\x00\x11"
    with pytest.raises(VirtError, match=r'^\[Errno 22\] line 3: "no" at column 1') as caught:
        next(frames)
    assert caught.value.errno == errno.EINVAL
    assert lines.rest() == b""
    assert list(lines.feed(b"55\n")) == [b"\x55"]


def test_the_only_line_needs_no_number() -> None:
    with pytest.raises(VirtError) as caught:
        list(Lines().feed(b"no\n"))
    assert caught.value.strerror == '"no" at column 1 is not hexadecimal'


def test_a_line_without_an_end_is_bounded() -> None:
    lines = Lines()
    even = LINE_MAX & ~1
    assert list(lines.feed(b"0" * (even - 10))) == list(lines.feed(b"0" * 10)) == []
    frames = lines.feed(b"\n" + b"0" * (LINE_MAX + 1))
    assert next(frames) == bytes(even // 2)
    with pytest.raises(VirtError, match="line 2: the line is longer than") as caught:
        next(frames)
    assert caught.value.errno == errno.E2BIG
    assert lines.rest() == b""


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1), st.lists(st.integers(0, 200)))
def test_writes_cut_anywhere_give_the_same_frames(frames: list[bytes], sizes: list[int]) -> None:
    text = b"".join(map(format_frame, frames))
    lines = Lines()
    found: list[bytes | None] = []
    for size in sizes:
        piece, text = text[:size], text[size:]
        found += lines.feed(piece)
    assert [*found, *lines.feed(text)] == frames


def test_blank_lines_are_passed_over_in_one_step() -> None:
    """A write may consist of a million of them, and other requests are served only between two items."""
    lines = Lines()
    assert list(lines.feed(b"\n" * (1 << 20))) == []
    assert list(lines.feed(b" \t\n:\n" * 1000 + b"00\n" + b"\n" * 1000 + b"#")) == [b"\x00"]
    with pytest.raises(VirtError, match='line 1003: "no" at column 3') as caught:
        list(lines.feed(b"\n\n" + b" :\n" * 1000 + b"  no\n"))
    assert caught.value.errno == errno.EINVAL


@given(
    st.lists(st.sampled_from([b"00", b"11 22", b"# comment", b"", b" \t"]), min_size=1, max_size=20),
    st.integers(0, 20),
    st.sampled_from([b"", b"33", b"# un"]),
)
def test_an_interrupted_write_goes_on_where_it_stopped(text: list[bytes], count: int, kept: bytes) -> None:
    lines = Lines()
    assert list(lines.feed(kept)) == []
    data = b"\n".join(text)
    items = lines.feed(data)
    found = [item for item in islice(items, count) if item]
    whole = Lines()
    expected = [item for item in whole.feed(kept + data) if item]
    next(items, None)  # the last one is consumed when the next one is requested
    taken = lines.give_back()
    found += [item for item in lines.feed(data[taken:]) if item]
    assert found == expected
    assert lines.rest() == whole.rest()
