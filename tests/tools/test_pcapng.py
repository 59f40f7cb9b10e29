"""tshark, capinfos, tcpdump and python-pcapng read the encoder's files."""

from pathlib import Path
from typing import Any

import pytest
from harness.tools import run
from harness.written import ARP, FRAMES, HEADER, MAC, NOW, VIRT3

from virtfs.core import pcapng
from virtfs.core.pcapng import INBOUND, OUTBOUND


def fields(path: Path, *names: str) -> list[list[str]]:
    """Return what tshark prints for each frame: the values of the fields `frame.NAME`."""
    wanted = [word for name in names for word in ("-e", "frame." + name)]
    return [line.split("\t") for line in run("tshark", "-r", path, "-T", "fields", *wanted).splitlines()]


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Write a capture: frames with each length of padding, in both directions, the second after a loss; statistics."""
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
    # if_filter is omitted, since a truncated filter would be a different filter.
    assert list(interface.options) == ["if_name", "if_MACaddr", "if_tsresol"]
    assert packet.options["epb_flags"].inout == "NA"
    assert list(statistics.options) == ["isb_ifrecv", "isb_ifdrop"]
