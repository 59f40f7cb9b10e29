import errno
import struct
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice

import pytest
from harness.savefiles import (
    FCS,
    FRAME,
    NS,
    ORDERS,
    SECONDS,
    block,
    cut,
    enhanced,
    flagged,
    interface,
    obsolete,
    option,
    others,
    pcap,
    pcap_packet,
    read,
    read_until_broken,
    section,
    simple,
)
from hypothesis import example, given
from hypothesis import strategies as st

from virtfs.core.errors import VirtError
from virtfs.core.pcapng import mark
from virtfs.core.savefile import WINDOW, Group, Reader, Record, Run, Spans
from virtfs.core.savefile_pcapng import BLOCK_MAX, INTERFACES_MAX
from virtfs.core.savefile_records import FRAME_MAX, SHORTEST_RUN

PYTHON_ONLY = pytest.mark.parametrize("code", ["Python"], indirect=True)


pytestmark = pytest.mark.usefixtures("code")


@ORDERS
@pytest.mark.parametrize(("magic", "unit"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_pcap_of_either_order_and_resolution(order: str, magic: int, unit: int) -> None:
    file = pcap(order, [pcap_packet(order, 123456, FRAME), pcap_packet(order, 5, FRAME[:14])], magic)
    assert read(file) == [
        Record(SECONDS * NS + 123456 * unit, FRAME, 0, 60),
        Record(SECONDS * NS + 5 * unit, FRAME[:14], 0, 14),
    ]


@ORDERS
def test_pcapng_of_either_order(order: str) -> None:
    file = section(order) + interface(order) + enhanced(order, 0, SECONDS * 10**6 + 7, FRAME)
    assert read(file) == [Record(SECONDS * NS + 7000, FRAME, 0, 60)]


@ORDERS
@pytest.mark.parametrize(
    ("resolution", "ticks", "nanoseconds"),
    [
        (6, SECONDS * 10**6 + 1, SECONDS * NS + 1000),
        (9, SECONDS * 10**9 + 1, SECONDS * NS + 1),
        (0, SECONDS, SECONDS * NS),
        (12, 17 * 10**18 + 2999, 17 * 10**15 + 2),
        (0x80 | 10, SECONDS * 1024 + 512, SECONDS * NS + NS // 2),
        (0x80 | 32, SECONDS << 32 | 1 << 31, SECONDS * NS + NS // 2),
        (127, 2**64 - 1, 0),
    ],
)
def test_resolution_of_an_interface(order: str, resolution: int, ticks: int, nanoseconds: int) -> None:
    options = option(order, 2, b"eth0") + option(order, 9, bytes([resolution])) + bytes(4)
    file = section(order) + interface(order, options) + enhanced(order, 0, ticks, FRAME)
    assert read(file)[0].timestamp_ns == nanoseconds


@ORDERS
@pytest.mark.parametrize("seconds", [3600, -3600])
def test_offset_of_an_interface(order: str, seconds: int) -> None:
    file = section(order) + interface(order, option(order, 14, struct.pack(order + "q", seconds)))
    assert read(file + enhanced(order, 0, 10**10, FRAME))[0].timestamp_ns == (10_000 + seconds) * NS


@ORDERS
def test_each_interface_has_its_own_clock(order: str) -> None:
    clocks = interface(order) + interface(order, option(order, 9, b"\x09"))
    file = section(order) + clocks + enhanced(order, 1, 5, FRAME) + enhanced(order, 0, 5, FRAME)
    assert read(file) == [Record(5, FRAME, 1, 60), Record(5000, FRAME, 0, 60)]


@ORDERS
def test_packets_of_former_days(order: str) -> None:
    file = section(order) + interface(order) + obsolete(order, 0, 8, FRAME[:15])
    assert read(file) == [Record(8000, FRAME[:15], 0, 15)]


@ORDERS
def test_simple_packets_have_no_time_and_the_snaplen_of_interface_0(order: str) -> None:
    whole = section(order) + interface(order) + simple(order, FRAME[:17], 17)
    assert read(whole) == [Record(None, FRAME[:17], 0, 17)]
    short = section(order) + interface(order, snaplen=15) + simple(order, FRAME[:15], 60)
    assert read(short) == [Record(None, FRAME[:15], 0, 60)]


def test_other_blocks_are_passed_over() -> None:
    for order in "<>":
        packet = enhanced(order, 0, 1, FRAME)
        blocks = [section(order), interface(order), packet, packet]
        file = b"".join(block + others(order) for block in blocks)
        assert read(file) == [Record(1000, FRAME, 0, 60)] * 2


def test_sections_have_interfaces_and_a_byte_order_of_their_own() -> None:
    first = section("<") + interface("<", option("<", 9, b"\x09")) + enhanced("<", 0, 1, FRAME)
    second = section(">") + interface(">") + enhanced(">", 0, 1, FRAME)
    assert [record.timestamp_ns for record in read(first + second + first)] == [1, 1000, 1]
    _, sentence = read_until_broken([first + section("<") + enhanced("<", 0, 1, FRAME)])
    assert sentence == f'byte {len(first) + 28}: the section has no interface number "0"'


def test_a_frame_that_the_capture_cut_is_delivered_as_cut() -> None:
    file = pcap("<", [pcap_packet("<", 0, FRAME[:20], 60)])
    assert read(file) == [Record(SECONDS * NS, FRAME[:20], 0, 60)]
    file = section("<") + interface("<") + enhanced("<", 0, 0, FRAME[:20], 60)
    assert read(file) == [Record(0, FRAME[:20], 0, 60)]


def test_bytes_behind_a_frame_are_not_the_frame() -> None:
    file = pcap("<", [pcap_packet("<", 0, FRAME, 50), pcap_packet("<", 0, FRAME)])
    assert [record.frame for record in read(file)] == [FRAME[:50], FRAME]


def test_no_file_at_all_and_files_without_frames_are_fine() -> None:
    assert read(b"") == read(pcap("<")) == read(pcap(">")) == read(section("<") + interface("<")) == []


MIXED = b"".join(
    section(order)
    + interface(order)
    + others(order)
    + enhanced(order, 0, 1, FRAME)
    + simple(order, FRAME[:14], 14)
    + interface(order, option(order, 9, b"\x09"))
    + obsolete(order, 1, 2, FRAME[:33])
    for order in "<>"
)
PCAP = pcap("<", [pcap_packet("<", number, FRAME[: number * 5]) for number in range(12)])
FILES = {
    "pcap": PCAP,
    "pcapng": MIXED,
    "broken pcap": PCAP + pcap_packet("<", 0, b"") + struct.pack("<IIII", 0, 0, FRAME_MAX + 1, 60) + PCAP,
    "broken pcapng": MIXED + block(">", 6, b"") + MIXED,
    "ends early": MIXED[:-1],
    "no capture": b"GIF89a" * 10,
}


@pytest.mark.parametrize("name", FILES)
def test_one_byte_at_a_time_is_the_same(name: str) -> None:
    file = FILES[name]
    assert read_until_broken(bytes([byte]) for byte in file) == read_until_broken([file])


@given(st.sampled_from(sorted(FILES)), st.lists(st.integers(0, len(MIXED)), max_size=20))
def test_any_cut_is_the_same(name: str, places: list[int]) -> None:
    file = FILES[name]
    pieces = cut(file, [place % (len(file) + 1) for place in places])
    assert read_until_broken(pieces) == read_until_broken([file])


@given(st.sampled_from([PCAP, MIXED]), st.data())
def test_any_damage_gives_records_or_a_refusal(file: bytes, data: st.DataObject) -> None:
    damaged = bytearray(file)
    for place in data.draw(st.lists(st.integers(0, len(file) - 1), max_size=4)):
        damaged[place] = data.draw(st.integers(0, 255))
    records, sentence = read_until_broken([bytes(damaged)])
    assert sentence == "" or sentence.startswith("byte ")
    assert all(len(record.frame) <= record.original_length for record in records)


BEGINNINGS = [b"", pcap("<"), pcap(">"), section("<") + interface("<"), section(">")]


@given(st.binary(max_size=100), st.sampled_from(BEGINNINGS))
@example(bytes(12), section(">"))
def test_any_bytes_give_records_or_a_refusal(data: bytes, before: bytes) -> None:
    read_until_broken([before + data])


def test_records_before_the_broken_one_come_first() -> None:
    good = section("<") + interface("<") + enhanced("<", 0, 1, FRAME) * 3
    reader = Reader()
    records = reader.feed(good + enhanced("<", 5, 1, FRAME) + enhanced("<", 0, 1, FRAME))
    assert [next(records) for _ in range(3)] == [Record(1000, FRAME, 0, 60)] * 3
    with pytest.raises(VirtError, match=f'byte {len(good)}: the section has no interface number "5"') as caught:
        next(records)
    with pytest.raises(VirtError) as again:
        reader.feed(b"more")
    assert again.value.strerror == caught.value.strerror
    reader.finish()  # does not report the error again


GOOD = section("<") + interface("<") + enhanced("<", 0, 1, FRAME)
AT = f"byte {len(GOOD)}: "
_enhanced = partial(enhanced, "<", 0, 1, FRAME)


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        (b"hello", 'byte 0: "68656c6c" does not begin a pcap or pcapng file'),
        (b"\x1f\x8b\x08\x00", 'byte 0: "1f8b0800" is a gzip file: decompress it with zcat'),
        (pcap("<", magic=0xA1B2CD34), 'byte 0: "34cdb2a1" is pcap with Kuznetzov\'s extended record headers'),
        (pcap(">", magic=0xA1B2CD34), 'byte 0: "a1b2cd34" is pcap with Kuznetzov\'s extended record headers'),
        (pcap("<", linktype=113), 'byte 0: "LINKTYPE_LINUX_SLL 113" is not Ethernet'),
        (pcap("<", linktype=150), 'byte 0: "linktype 150" is not Ethernet'),
        (pcap(">", major=3), 'byte 0: pcap version "3.4" is not supported'),
        (pcap("<") + struct.pack("<IIII", 0, 0, 1 << 20, 60), "byte 24: a frame of 1048576 bytes is too long"),
        (pcap("<")[:23], "byte 0: the file is truncated 23 bytes into the block or record"),
        (pcap("<", [pcap_packet("<", 0, FRAME)])[:-1], "byte 24: the file is truncated "),
        (section("<", major=2), 'byte 0: pcapng version "2.0" is not supported'),
        (section("<").replace(b"\x4d\x3c\x2b\x1a", b"abcd"), 'byte 0: "61626364" is not a byte-order'),
        (GOOD + interface("<", option("<", 13, b"\0\4")), AT + '"2" is not a valid length for option 13'),
        (GOOD + interface("<", option("<", 9, b"")), AT + '"0" is not a valid length for option 9'),
        (GOOD + interface("<", option("<", 14, b"\0")), AT + '"1" is not a valid length for option 14'),
        (GOOD + interface("<", struct.pack("<HH", 2, 9)), AT + "option 2 has length 9"),
        (GOOD + block("<", 6, bytes(16)), AT + "a block of 28 bytes is too short for its type"),
        (GOOD + block("<", 3, b""), AT + "a block of 12 bytes is too short for its type: the minimum is 16"),
        (GOOD + block("<", 1, bytes(4)), AT + "a block of 16 bytes is too short for its type: the minimum is 20"),
        (GOOD + _enhanced(captured=73), AT + "a frame of 73 bytes is too long: the maximum is 72 bytes"),
        (GOOD + simple("<", FRAME, 61), AT + "a frame of 61 bytes is too long: the maximum is 60 bytes"),
        (GOOD + struct.pack("<III", 9, 8, 8), AT + '"8" is not a valid block length'),
        (GOOD + struct.pack("<IIII", 9, 14, 0, 14), AT + '"14" is not a valid block length'),
        (GOOD + struct.pack("<III", 9, BLOCK_MAX + 4, 0), AT + f'"{BLOCK_MAX + 4}" is not a valid block length'),
        (GOOD + struct.pack("<IIII", 9, 16, 0, 20), AT + 'the block length is "16" at the start of the block but "20"'),
        (GOOD + GOOD[:11], AT + "the file is truncated 11 bytes into the block or record"),
        (GOOD + interface("<") * INTERFACES_MAX, "the section has more than 65536 interfaces"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(file: bytes, sentence: str) -> None:
    records, told = read_until_broken([file])
    assert sentence in told
    assert len(records) == file.startswith(GOOD)


def test_the_data_is_taken_before_the_records_are() -> None:
    data = bytearray(GOOD)
    records = Reader().feed(memoryview(data))
    data[:] = bytes(len(data))
    assert [record.frame for record in records] == [FRAME]


def test_a_block_of_16_mib_is_passed_over_and_let_go_of() -> None:
    reader = Reader()
    assert not list(reader.feed(section("<") + interface("<")))
    large = block("<", 9, bytes(BLOCK_MAX - 12))
    for begin in range(0, len(large), 1 << 17):
        assert not list(reader.feed(large[begin : begin + (1 << 17)]))
    assert read(enhanced("<", 0, 1, FRAME), reader) == [Record(1000, FRAME, 0, 60)]


# Interfaces with link types other than Ethernet are allowed, but not packets from them.


@ORDERS
@pytest.mark.parametrize("kind", ["enhanced", "obsolete", "simple"])
def test_the_first_packet_of_another_link_type_is_refused(order: str, kind: str) -> None:
    packets = {
        "enhanced": enhanced(order, 0, 1, FRAME),
        "obsolete": obsolete(order, 0, 1, FRAME),
        "simple": simple(order, FRAME, 60),
    }
    ethernet = section(order) + interface(order) + interface(order, linktype=127) + enhanced(order, 0, 1, FRAME)
    other = section(order) + interface(order, linktype=127) + interface(order)
    good = ethernet + other + others(order) + enhanced(order, 1, 2, FRAME)
    records, told = read_until_broken([good + packets[kind] + enhanced(order, 1, 3, FRAME)])
    assert records == [Record(1000, FRAME, 0, 60), Record(2000, FRAME, 1, 60)]
    assert told == (f'byte {len(good)}: "LINKTYPE_IEEE802_11_RADIOTAP 127" is not Ethernet: its frames cannot be sent')


def test_interfaces_without_packets_may_have_any_link_type() -> None:
    described = b"".join(interface("<", linktype=number) for number in (0, 113, 127, 65535))
    assert len(read(section("<") + interface("<") + described + enhanced("<", 0, 1, FRAME) * 20)) == 20
    assert read(section("<") + described) == []


def test_a_run_ends_where_another_interface_begins() -> None:
    head = section("<") + interface("<") + interface("<", linktype=113)
    packets = [enhanced("<", number // 20, number, FRAME) for number in range(40)]
    found = Reader().feed_frames(head + b"".join(packets), lambda: 100)
    frames: list[bytes] = []
    with pytest.raises(VirtError, match=f'byte {len(head) + 20 * len(packets[0])}: "LINKTYPE_LINUX_SLL 113"'):
        for frame in singly(found):
            frames.append(frame)
    assert frames == [FRAME] * 20


# Frames that end with a frame check sequence (FCS), as the file announces.


@ORDERS
@pytest.mark.parametrize(
    ("announced", "fcs"),
    [
        (0x24000000, 4),  # libpcap's pcap/pcap.h: the length in 16-bit words, and a flag
        (0x14000000, 2),
        (0x04000000, 0),
        (0x50000000, 4),  # draft-gharris-opsawg-pcap-01, the length read as words
        (0x90000000, 4),  # the same, the length read as bytes
        (0x10000000, 0),
        (0x20000000, 0),  # without either flag, the length is ignored
        (0, 0),
    ],
)
def test_a_pcap_announces_its_fcs(order: str, announced: int, fcs: int) -> None:
    frames = [FRAME + FCS[:fcs], FRAME[:14] + FCS[:fcs]] + [FRAME + FCS[:fcs]] * 20
    file = pcap(order, [pcap_packet(order, 0, frame) for frame in frames], linktype=1 | announced)
    bare = [frame[: len(frame) - fcs] for frame in frames]
    assert [(record.frame, record.original_length) for record in read(file)] == [(f, len(f)) for f in bare]
    assert list(singly(Reader().feed_frames(file, lambda: 100))) == bare


@pytest.mark.parametrize(("value", "fcs"), [(32, 4), (4, 4), (16, 2), (0, 0)])
@ORDERS
def test_an_interface_announces_its_fcs(order: str, value: int, fcs: int) -> None:
    options = option(order, 13, bytes([value])) + bytes(4)
    whole = FRAME + FCS[:fcs]
    packets = enhanced(order, 0, 0, whole, 60 + fcs) + obsolete(order, 0, 0, whole) + simple(order, whole, 60 + fcs)
    file = section(order) + interface(order, options) + interface(order) + packets + enhanced(order, 1, 0, FRAME)
    assert [record.frame for record in read(file)] == [FRAME] * 4
    assert list(singly(Reader().feed_frames(file, lambda: 100))) == [FRAME] * 4


@ORDERS
def test_a_packet_s_flags_tell_of_its_fcs(order: str) -> None:
    """An FCS length in a packet's flags overrides that of its interface. A comment may come before the flags."""
    comment = option(order, 1, b"no")
    packets = [
        flagged(order, 2, FRAME + b"!!"),
        flagged(order, 4, FRAME + FCS, before=comment),
        flagged(order, 0, FRAME),
    ]
    head = section(order) + interface(order)
    assert [record.frame for record in read(head + b"".join(packets))] == [FRAME] * 3
    announced = section(order) + interface(order, option(order, 13, b"\x20"))
    kept = [record.frame for record in read(announced + b"".join(packets))]
    assert kept == [FRAME, FRAME, FRAME[:-4]]


@pytest.mark.parametrize("before", [0, 10, 100])
def test_a_run_ends_where_the_fcs_is_another(before: int) -> None:
    comment = option("<", 1, bytes(before)) if before else b""
    packets = [flagged("<", 4 * (number // 20 % 2), FRAME, before=comment) for number in range(60)]
    file = section("<") + interface("<") + b"".join(packets)
    found = listed(Reader().feed_frames(file, lambda: 100))
    assert list(singly(found)) == [FRAME] * 20 + [FRAME[:-4]] * 20 + [FRAME] * 20
    assert any(isinstance(one, Run) for one in found) == (before < 100)


@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
def test_an_fcs_that_the_capture_cut_is_left_out_as_far_as_it_is_there(kind: str) -> None:
    """tshark 4.0 treats the same bytes as data."""
    for cut_off in range(8):
        kept = (FRAME + FCS)[: 64 - cut_off]
        if kind == "pcap":
            file = pcap("<", [pcap_packet("<", 0, kept, 64)] * 20, linktype=1 | 0x24000000)
        else:
            file = section("<") + interface("<", option("<", 13, b"\x20")) + enhanced("<", 0, 0, kept, 64) * 20
        bare = FRAME[: min(60, 64 - cut_off)]
        assert [(record.frame, record.original_length) for record in read(file)] == [(bare, 60)] * 20
        assert list(singly(Reader().feed_frames(file, lambda: 100))) == [bare] * 20


def test_a_frame_shorter_than_its_fcs_is_empty() -> None:
    file = pcap("<", [pcap_packet("<", 0, b"abc")] * 20, linktype=1 | 0x24000000)
    assert read(file) == [Record(SECONDS * NS, b"", 0, 0)] * 20
    assert list(singly(Reader().feed_frames(file, lambda: 100))) == [b""] * 20


# feed_frames() returns only the frames of the records, in groups. Consecutive frames with the same layout are a Run.


def singly(found: Iterable[Group | list[bytes]]) -> Iterator[bytes]:
    for one in found:
        yield from one.singly() if isinstance(one, Run | Spans) else one


def frames_file(kind: str, order: str, frames: Iterable[bytes]) -> bytes:
    if kind == "pcap":
        return pcap(order, [pcap_packet(order, number, frame) for number, frame in enumerate(frames)])
    packets = [enhanced(order, 0, number, frame, len(frame)) for number, frame in enumerate(frames)]
    return section(order) + interface(order) + b"".join(packets)


def listed(found: Iterable[Group]) -> list[Run | Spans | list[bytes]]:
    """Return groups, with lists instead of iterators."""
    return [one if isinstance(one, Run | Spans) else list(one) for one in found]


KINDS = pytest.mark.parametrize("kind", ["pcap", "pcapng"])


@ORDERS
@KINDS
@given(
    groups=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), max_size=8),
    places=st.sets(st.integers(0, 5000), max_size=5),
    longest=st.sampled_from([1, SHORTEST_RUN, 20, 100]),
)
def test_frames_are_the_same_in_runs(
    kind: str, order: str, groups: list[tuple[int, int]], places: set[int], longest: int
) -> None:
    sizes = [size for size, many in groups for _ in range(many)]
    frames = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    file = frames_file(kind, order, frames)
    reader = Reader()
    found = [one for piece in cut(file, places) for one in listed(reader.feed_frames(piece, lambda: longest))]
    assert list(singly(found)) == frames
    assert all(0 < (one.frames if isinstance(one, Run | Spans) else len(one)) <= longest for one in found)
    reader.finish()


@PYTHON_ONLY
@KINDS
def test_equal_frames_come_in_long_runs(kind: str) -> None:
    frames = [bytes([number]) * 60 for number in range(250)]
    found = listed(Reader().feed_frames(frames_file(kind, "<", frames), lambda: 100))
    assert [one.frames for one in found if isinstance(one, Run)] == [100, 100, 50]
    assert len(found) == 3
    assert listed(Reader().feed_frames(frames_file(kind, "<", frames))) == [[frame] for frame in frames]


@PYTHON_ONLY
@KINDS
def test_runs_among_other_frames_are_found(kind: str) -> None:
    frames = [bytes(14 + number % 50) for number in range(100)] + [bytes(99)] * 200
    found = listed(Reader().feed_frames(frames_file(kind, "<", frames), lambda: 100))
    assert sum(one.frames for one in found if isinstance(one, Run)) > 150


@PYTHON_ONLY
def test_a_run_of_cut_frames_and_of_too_long_ones() -> None:
    """Records whose captured length is below the original length, and above it, which makes no sense."""
    file = pcap("<", [pcap_packet("<", number, FRAME, 1514) for number in range(20)])
    file += b"".join(pcap_packet("<", number, FRAME, 50) for number in range(20))
    found = listed(Reader().feed_frames(file, lambda: 100))
    assert [len(frame) for frame in singly(found)] == [60] * 20 + [50] * 20
    assert any(isinstance(one, Run) for one in found)


@pytest.mark.parametrize("place", [4, 100])  # offsets of the block length at its start and at its end
def test_a_broken_block_ends_a_run(place: int) -> None:
    head, packets = section("<") + interface("<"), [enhanced("<", 0, number, FRAME) for number in range(30)]
    broken = bytearray(packets[20])
    broken[place] += 4
    reader = Reader()
    found = reader.feed_frames(head + b"".join([*packets[:20], bytes(broken), *packets[21:]]), lambda: 100)
    frames: list[bytes] = []
    with pytest.raises(VirtError, match=f"byte {len(head) + 20 * len(packets[0])}: ") as caught:
        for frame in singly(found):
            frames.append(frame)
    assert caught.value.errno == errno.EINVAL
    assert frames == [FRAME] * 20


def test_a_run_is_done_with_as_a_whole() -> None:
    packets = [pcap_packet("<", number, FRAME) for number in range(30)]
    file = pcap("<", packets)
    reader = Reader()
    found = reader.feed_frames(file, lambda: 10)
    assert [len(list(singly([next(found)]))) for _ in range(3)] == [10, 10, 10]
    assert reader.give_back() == 24 + 20 * 76
    assert list(singly(reader.feed_frames(file[24 + 20 * 76 :]))) == [FRAME] * 10


def bare(captured: int, kind: int = 6) -> bytes:
    """Return a block with the layout of an enhanced packet without options, for a frame of 60 bytes."""
    return block("<", kind, struct.pack("<IIIII", 0, 0, 7, captured, captured) + FRAME)


# A packet, and None or a change of one of its bytes: the offset and the new value.
packets = st.tuples(
    st.one_of(
        st.builds(
            enhanced,
            st.just("<"),
            st.integers(0, 2),
            st.just(7),
            st.binary(max_size=70),
            st.integers(0, 80),
        ),
        st.builds(flagged, st.just("<"), st.sampled_from([0, 0, 4]), st.binary(min_size=60, max_size=64)),
        st.builds(simple, st.just("<"), st.just(FRAME), st.just(60)),
        st.builds(obsolete, st.just("<"), st.just(0), st.just(7), st.just(FRAME)),
        st.sampled_from([interface("<"), interface("<", option("<", 13, b"\4")), block("<", 9, b"abcd")]),
    ),
    st.none() | st.tuples(st.integers(0, 139), st.integers(0, 255)),
)


@given(
    st.lists(packets.map(lambda packet: (packet[0], None)) | packets, max_size=30),
    st.sets(st.integers(0, 3000), max_size=3),
    st.sampled_from([1, 2, 100]),
)
@example([(enhanced("<", 0, 0, FRAME), None)] * 2 + [(enhanced("<", 0, 0, FRAME, captured=73), None)], set(), 100)
@example([(enhanced("<", 0, 0, FRAME), None), (enhanced("<", 0, 0, FRAME), (107, 1))], set(), 100)
@example([(enhanced("<", 0, 0, FRAME), None), (flagged("<", 4, FRAME + FCS), None)], set(), 100)
@example([(enhanced("<", 0, 0, FRAME), None), (enhanced("<", 1, 0, FRAME + FCS), None)], set(), 100)
@example([(bare(60), None), (bare(61), None)], set(), 100)
@example([(bare(60), None), (bare(60, kind=9), None)], set(), 100)
@example([(enhanced("<", 0, 0, FRAME), None), (mark(0, 7, "here"), None), (bare(60), None)], set(), 100)
def test_groups_have_the_frames_of_the_records(
    parts: list[tuple[bytes, tuple[int, int] | None]], places: set[int], most: int
) -> None:
    """Also if blocks are damaged: the frames before the damage are the same, and so is the error."""
    file = bytearray(section("<") + interface("<") + interface("<", option("<", 13, b"\4")))
    for part, damage in parts:
        file += part
        if damage and damage[0] < len(part):
            file[damage[0] - len(part)] = damage[1]
    records, told = read_until_broken(cut(bytes(file), places))
    reader, frames, error = Reader(), list[bytes](), ""
    try:
        for piece in cut(bytes(file), places):
            for frame in singly(reader.feed_frames(piece, lambda: most)):
                frames.append(frame)
        reader.finish()
    except VirtError as refusal:
        error = refusal.strerror
    assert (frames, error) == ([record.frame for record in records], told)


@pytest.mark.parametrize("code", ["compiled"], indirect=True)
@KINDS
def test_the_compiled_module_finds_frames_of_any_lengths(kind: str) -> None:
    """The first packets of an interface are left to Python, which learns the interface from them."""
    frames = [bytes(14 + number % 50) for number in range(300)]
    found = listed(Reader().feed_frames(frames_file(kind, "<", frames), lambda: 100))
    assert sum(one.frames for one in found if isinstance(one, Spans)) >= 200
    assert list(singly(found)) == frames


@KINDS
def test_a_piece_larger_than_what_is_decoded_at_once(kind: str) -> None:
    """One block alone is larger, too."""
    frames = [number.to_bytes(2, "big") * 30 for number in range(3 * WINDOW // 60)]
    frames[1000:1000] = [bytes(WINDOW + 1)]
    file = frames_file(kind, "<", frames)
    assert [record.frame for record in read(file)] == frames
    assert list(singly(Reader().feed_frames(file, lambda: 100))) == frames


# A write that a signal interrupts.


def test_what_was_not_asked_for_comes_first_the_next_time() -> None:
    packets = [pcap_packet("<", number, FRAME) for number in range(4)]
    reader = Reader()
    records = reader.feed(pcap("<", packets[:3]))
    assert [next(records).timestamp_ns, next(records).timestamp_ns] == [SECONDS * NS, SECONDS * NS + 1000]
    again = [record.timestamp_ns for record in reader.feed(packets[3])]
    assert again == [SECONDS * NS + 1000 * number for number in (1, 2, 3)]


@pytest.mark.parametrize("file", [PCAP, MIXED], ids=["pcap", "pcapng"])
@given(writes=st.lists(st.tuples(st.integers(1, 600), st.integers(0, 5))))
def test_writes_that_end_early_and_are_continued(file: bytes, writes: list[tuple[int, int]]) -> None:
    """A program continues where the last write(2) ended, which is before the record that was being sent."""
    reader = Reader()
    sent: list[Record] = []
    at = 0
    for size, most in writes:
        records = reader.feed(file[at : at + size])
        sent += islice(records, most)
        if next(records, None) is None:
            at += len(file[at : at + size])
        else:
            at += reader.give_back()
    assert [*sent, *read(file[at:], reader)] == read(file)


def test_a_write_that_got_nowhere_says_so() -> None:
    reader = Reader()
    assert list(reader.feed(PCAP[:30])) == []
    next(reader.feed(PCAP[30:]))
    assert reader.give_back() == 0
    assert list(reader.feed(PCAP[30:])) == read(PCAP)
