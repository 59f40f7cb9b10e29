"""The encoder, as those who will read its files see it: tshark, capinfos, tcpdump and python-pcapng."""

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfs.core import pcapng
from virtfs.core.pcapng import INBOUND, OUTBOUND
from virtfs.core.savefile import Reader, Record

NOW = 1_700_000_000_123_456_789
MAC = bytes.fromhex("b20a5a0b0e03")
ARP = bytes.fromhex("ffffffffffff b20a5a0b0e03 0806  0001 0800 06 04 0001  b20a5a0b0e03 0a000301 000000000000 0a000302")
FRAMES = [ARP, ARP + b"\0", ARP + bytes(2), ARP + bytes(3), ARP.ljust(60, b"\0"), ARP.ljust(1514, b"\xaa")]
HEADER = pcapng.section_header("x86_64", "Linux 6.1", "virtfs 1.0")
VIRT3 = pcapng.interface_description("virt3", "the lab's Ärger", MAC, 0, "arp or icmp")


def run(*command: str | Path) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def fields(path: Path, *names: str) -> list[list[str]]:
    """What tshark says of each frame."""
    wanted = [word for name in names for word in ("-e", "frame." + name)]
    return [line.split("\t") for line in run("tshark", "-r", path, "-T", "fields", *wanted).splitlines()]


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Frames with each padding, both ways, the second after a loss, and statistics at the end."""
    file = HEADER + VIRT3
    for number, frame in enumerate(FRAMES):
        direction = OUTBOUND if number % 2 else INBOUND
        block = pcapng.enhanced_packet(0, NOW + number, frame, len(frame), direction)
        file += pcapng.with_dropcount(block, 7) if number == 1 else block
    path = tmp_path / "capture.pcapng"
    path.write_bytes(file + pcapng.interface_statistics(0, NOW + 9, 13, 7, NOW - 1))
    return path


def test_tshark_sees_the_frames(capture: Path) -> None:
    seen = fields(capture, "time_epoch", "len", "interface_name", "interface_description", "protocols")
    assert seen == [
        [f"1700000000.{123456789 + number}", str(len(frame)), "virt3", "the lab's Ärger", "eth:ethertype:arp"]
        for number, frame in enumerate(FRAMES)
    ]


def test_tshark_sees_directions_and_losses(capture: Path) -> None:
    inward, outward = ["0x00000001", ""], ["0x00000002", ""]
    seen = fields(capture, "packet_flags_direction", "drop_count")
    assert seen == [inward, ["0x00000002", "7"], inward, outward, inward, outward]


def test_capinfos_sees_the_section_and_the_interface(capture: Path) -> None:
    told = {" ".join(line.split()) for line in run("capinfos", "-M", capture).splitlines()}
    assert told >= {
        "Capture hardware: x86_64",
        "Capture oper-sys: Linux 6.1",
        "Capture application: virtfs 1.0",
        "File timestamp precision: nanoseconds (9)",
        f"Number of packets: {len(FRAMES)}",
        "Strict time order: True",
        "Encapsulation = Ethernet (1 - ether)",
        "Filter string = arp or icmp",
        "Number of stat entries = 1",
    }


def test_tshark_sees_the_blocks_themselves(capture: Path) -> None:
    told = run("tshark", "-r", capture, "-V", "-X", "read_format:MIME Files Format")
    options = [line.strip().removeprefix("Option: ") for line in told.splitlines() if "Option: " in line]
    assert "MAC Address = b2:0a:5a:0b:0e:03" in options
    assert "Timestamp Resolution = 10^-9 (nanoseconds)" in options
    assert [option for option in options if option.startswith("Number")] == [
        "Number of Received Packets = 13",
        "Number of Dropped Packets = 7",
    ]
    assert "Malformed" not in told


def test_tcpdump_sees_the_frames(capture: Path) -> None:
    told = run("tcpdump", "-r", capture, "-tt", "-nn", "--time-stamp-precision=nano")
    whole = "ARP, Request who-has 10.0.3.2 tell 10.0.3.1, length"
    assert told.splitlines() == [
        f"1700000000.{123456789 + number} {whole} {len(frame) - 14}" for number, frame in enumerate(FRAMES)
    ]


def blocks(path: Path) -> list[Any]:
    scanner = pytest.importorskip("pcapng", reason="python-pcapng is not installed").FileScanner
    with path.open("rb") as file:
        return list(scanner(file))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pcapng")
def test_python_pcapng_sees_every_block(capture: Path) -> None:
    section, interface, *packets, statistics = blocks(capture)
    assert dict(section.options) == {
        "shb_hardware": "x86_64",
        "shb_os": "Linux 6.1",
        "shb_userappl": "virtfs 1.0",
    }
    assert interface.link_type == pcapng.LINKTYPE_ETHERNET
    assert interface.options["if_name"] == "virt3"
    assert interface.options["if_MACaddr"] == "b2:0a:5a:0b:0e:03"
    assert interface.options["if_filter"] == (0, b"arp or icmp")
    assert [packet.packet_data for packet in packets] == FRAMES
    assert [packet.options["epb_flags"].inout for packet in packets] == ["inbound", "outbound"] * 3
    assert packets[1].options["epb_dropcount"] == 7
    assert "epb_dropcount" not in packets[0].options
    assert statistics.options["isb_ifrecv"] == 13
    assert statistics.options["isb_ifdrop"] == 7


def test_interfaces_may_appear_between_packets(tmp_path: Path) -> None:
    path = tmp_path / "capture.pcapng"
    late = pcapng.interface_description("virt4", "", MAC, 0)
    packets = [pcapng.enhanced_packet(number, NOW, ARP, len(ARP), INBOUND) for number in range(2)]
    path.write_bytes(HEADER + VIRT3 + packets[0] + late + packets[1])
    seen = fields(path, "interface_name", "interface_description")
    assert seen == [["virt3", "the lab's Ärger"], ["virt4", ""]]


def test_a_cut_frame_keeps_its_length(tmp_path: Path) -> None:
    path = tmp_path / "capture.pcapng"
    path.write_bytes(HEADER + VIRT3 + pcapng.enhanced_packet(0, NOW, ARP[:20], len(ARP), INBOUND))
    assert fields(path, "cap_len", "len") == [["20", "42"]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pcapng")
def test_what_is_not_said_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "capture.pcapng"
    path.write_bytes(
        pcapng.section_header("", "", "")
        + pcapng.interface_description("virt3", "", MAC, 0, "udp port 1 or " * 5000)
        + pcapng.enhanced_packet(0, NOW, ARP, len(ARP), 0)
        + pcapng.interface_statistics(0, NOW, 1, 0)
    )
    section, interface, packet, statistics = blocks(path)
    assert list(section.options) == []
    assert list(interface.options) == ["if_name", "if_MACaddr", "if_tsresol"]  # part of a filter is another
    assert packet.options["epb_flags"].inout == "NA"
    assert list(statistics.options) == ["isb_ifrecv", "isb_ifdrop"]


def test_times_of_the_statistics_have_their_upper_half_first() -> None:
    """As the draft says; python-pcapng takes them for one number."""
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


def packet(number: int, length: int, direction: int = INBOUND) -> bytes:
    """A block, told apart by its time and its bytes."""
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
