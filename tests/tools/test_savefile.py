"""Capture files written by editcap, tcpdump, tshark, mergecap and text2pcap. tshark's reading is the reference."""

import subprocess
from pathlib import Path

import pytest
from harness.savefiles import (
    FCS,
    FRAME,
    NS,
    SECONDS,
    enhanced,
    flagged,
    interface,
    option,
    pcap,
    pcap_packet,
    read,
    read_until_broken,
    section,
)
from harness.tools import need

from virtfs.core import pcapng


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """Write a capture file with timestamps in ns."""
    file = pcapng.section_header("", "", "") + pcapng.interface_description("virt1", "", bytes(6), 0)
    for number in range(1, 50):
        frame = bytes(12) + b"\x88\xb5" + bytes(number)
        file += pcapng.enhanced_packet(0, SECONDS * NS + number * 1001, frame, len(frame), number % 3)
    path = tmp_path / "original.pcapng"
    path.write_bytes(file)
    return path


@pytest.mark.parametrize(("kind", "unit"), [("pcap", 1000), ("nsecpcap", 1), ("pcapng", 1)])
def test_what_editcap_writes(original: Path, kind: str, unit: int) -> None:
    path = original.with_name("rewritten")
    subprocess.run([need("editcap"), "-F", kind, original, path], check=True)
    records = read(path.read_bytes())
    assert [record.timestamp_ns for record in records] == [
        SECONDS * NS + number * 1001 // unit * unit for number in range(1, 50)
    ]
    assert [record.frame for record in records] == [record.frame for record in read(original.read_bytes())]


def test_what_editcap_cuts(original: Path) -> None:
    path = original.with_name("cut")
    subprocess.run([need("editcap"), "-s", "20", original, path], check=True)
    assert read(path.read_bytes()) == [
        record._replace(frame=record.frame[:20]) for record in read(original.read_bytes())
    ]


def test_what_tcpdump_writes(original: Path) -> None:
    path = original.with_name("rewritten")
    options = ("--time-stamp-precision=nano", "-r", original, "-w", path)
    subprocess.run([need("tcpdump"), *options], check=True, capture_output=True)
    assert read(path.read_bytes()) == read(original.read_bytes())


def test_what_tshark_writes(original: Path) -> None:
    path = original.with_name("rewritten")
    subprocess.run([need("tshark"), "-r", original, "-w", path], check=True, capture_output=True)
    assert read(path.read_bytes()) == read(original.read_bytes())


def test_what_mergecap_merges(original: Path) -> None:
    path = original.with_name("merged")
    subprocess.run([need("mergecap"), "-a", "-I", "none", "-w", path, original, original], check=True)
    records = read(path.read_bytes())
    frames = [record.frame for record in read(original.read_bytes())]
    assert [record.frame for record in records] == frames * 2
    assert {record.interface for record in records} == {0, 1}


def test_what_text2pcap_makes_of_text(tmp_path: Path) -> None:
    path = tmp_path / "made"
    dump = subprocess.run(["od", "-Ax", "-tx1", "-v"], input=FRAME, capture_output=True, check=True).stdout
    subprocess.run([need("text2pcap"), "-q", "-", path], input=dump, check=True, capture_output=True)
    assert [record.frame for record in read(path.read_bytes())] == [FRAME]


@pytest.mark.parametrize("cut_off", range(6))
@pytest.mark.parametrize("announced", ["pcap", "interface", "flags"])
def test_what_tshark_takes_for_the_fcs(tmp_path: Path, announced: str, cut_off: int) -> None:
    kept = (FRAME + FCS)[: 64 - cut_off]
    if announced == "pcap":
        data = pcap("<", [pcap_packet("<", 0, kept, 64)], linktype=1 | 0x24000000)
    elif announced == "interface":
        data = section("<") + interface("<", option("<", 13, b"\4")) + enhanced("<", 0, 0, kept, 64)
    else:
        data = section("<") + interface("<") + flagged("<", 4, kept, 64)
    file = tmp_path / "fcs"
    file.write_bytes(data)
    tshark = [need("tshark"), "-r", str(file), "-T", "fields", "-e", "eth.fcs", "-e", "data.len"]
    fcs, _, length = (
        subprocess.run(tshark, check=True, capture_output=True, text=True).stdout.strip("\n").partition("\t")
    )
    (record,) = read(data)
    assert len(record.frame) == 14 + int(length)
    assert fcs == ("" if cut_off else f"0x{FCS.hex()}")


def test_what_tshark_calls_no_ethernet(original: Path) -> None:
    path = original.with_name("raw")
    subprocess.run([need("editcap"), "-T", "rawip", original, path], check=True)
    records, sentence = read_until_broken([path.read_bytes()])
    assert records == []
    assert "LINKTYPE_RAW 101" in sentence
