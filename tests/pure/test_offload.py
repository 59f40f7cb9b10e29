"""Segmentation and checksums that a host left to offload are completed. The tests verify the resulting checksums."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfs.core.offload import (
    GSO_ECN,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    NEEDS_CSUM,
    checksum,
    complete_frames,
    virtio_net_hdr,
)

A4, B4 = ip_address("10.0.3.1").packed, ip_address("10.0.3.2").packed
A6, B6 = ip_address("fd00::1").packed, ip_address("fd00::2").packed
PLAIN = virtio_net_hdr.pack(0, GSO_NONE, 0, 0, 0, 0)


def tcp4(payload: bytes, flags: int = 0x18, sequence: int = 1000, identification: int = 7) -> bytes:
    """Return an Ethernet frame of TCP over IPv4 whose checksums are not filled in."""
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 40 + len(payload), identification, 0x4000, 64, 6, 0, A4, B4)
    return bytes(12) + b"\x08\x00" + ip + tcp(flags, sequence) + payload


def tcp6(payload: bytes, flags: int = 0x18, sequence: int = 1000) -> bytes:
    """Return an Ethernet frame of TCP over IPv6 whose checksum is not filled in."""
    return (
        bytes(12)
        + b"\x86\xdd"
        + struct.pack(">IHBB16s16s", 6 << 28, 20 + len(payload), 6, 64, A6, B6)
        + tcp(flags, sequence)
        + payload
    )


def tcp(flags: int, sequence: int) -> bytes:
    return struct.pack(">HHIIBBHHH", 80, 4000, sequence, 0, 5 << 4, flags, 1000, 0, 0)


def udp(payload: bytes, four: bool, identification: int = 7) -> bytes:
    """Return an Ethernet frame of UDP whose checksums are not filled in."""
    packet = struct.pack(">HHHH", 53, 4000, 8 + len(payload), 0) + payload
    if four:
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(packet), identification, 0, 64, 17, 0, A4, B4)
        return bytes(12) + b"\x08\x00" + ip + packet
    return bytes(12) + b"\x86\xdd" + struct.pack(">IHBB16s16s", 6 << 28, len(packet), 17, 64, A6, B6) + packet


def good(frame: bytes, protocol: int = 6) -> bool:
    """Return whether every checksum is right: the checksum over a range that includes a right one is zero."""
    if frame[12:14] == b"\x08\x00":
        total = struct.unpack_from(">H", frame, 16)[0]
        pseudo = frame[26:34] + struct.pack(">HH", protocol, total - 20)
        return total == len(frame) - 14 and checksum(frame[14:34]) == 0 and checksum(pseudo + frame[34:]) == 0
    length = struct.unpack_from(">H", frame, 18)[0]
    pseudo = frame[22:54] + struct.pack(">II", length, protocol)
    return length == len(frame) - 54 and checksum(pseudo + frame[54:]) == 0


def test_a_whole_frame_stays_as_it_is() -> None:
    frame = tcp4(b"x")
    assert complete_frames(PLAIN, frame) == [frame]


def test_rfc_1071_example() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF ^ 0xDDF2


@given(st.binary(max_size=4000), st.integers(8, 1460), st.integers(0, 2**32 - 1), st.booleans())
def test_segments_carry_the_payload_with_right_checksums(payload: bytes, size: int, sequence: int, four: bool) -> None:
    frame, start = (tcp4(payload, sequence=sequence), 34) if four else (tcp6(payload, sequence=sequence), 54)
    header = virtio_net_hdr.pack(NEEDS_CSUM, GSO_TCPV4 if four else GSO_TCPV6, start + 20, size, start, 16)
    pieces = complete_frames(header, frame)
    assert all(map(good, pieces))
    assert b"".join(piece[start + 20 :] for piece in pieces) == payload
    assert all(len(piece) - start - 20 <= size for piece in pieces)
    at = sequence
    for piece in pieces:
        assert struct.unpack_from(">I", piece, start + 4)[0] == at % 2**32
        at += len(piece) - start - 20


def test_flags_lie_where_they_belong() -> None:
    """PSH and FIN in the last segment only (RFC 9293), CWR in the first only (RFC 3168)."""
    header = virtio_net_hdr.pack(NEEDS_CSUM, GSO_TCPV4 | GSO_ECN, 54, 10, 34, 16)
    flags = [piece[47] for piece in complete_frames(header, tcp4(bytes(25), flags=0x80 | 0x10 | 0x08 | 0x01))]
    assert flags == [0x90, 0x10, 0x19]


def test_identification_counts_on() -> None:
    header = virtio_net_hdr.pack(NEEDS_CSUM, GSO_TCPV4, 54, 10, 34, 16)
    pieces = complete_frames(header, tcp4(bytes(25), identification=0xFFFF))
    assert [struct.unpack_from(">H", piece, 18)[0] for piece in pieces] == [0xFFFF, 0, 1]


@given(st.binary(min_size=1, max_size=4000), st.integers(32, 1472), st.booleans())
def test_datagrams_sent_together_are_taken_apart(payload: bytes, size: int, four: bool) -> None:
    start = 34 if four else 54
    header = virtio_net_hdr.pack(NEEDS_CSUM, GSO_UDP_L4, start + 8, size, start, 6)
    pieces = complete_frames(header, udp(payload, four))
    assert [piece[start + 8 :] for piece in pieces] == [payload[at : at + size] for at in range(0, len(payload), size)]
    assert all(good(piece, 17) for piece in pieces)
    assert [struct.unpack_from(">H", piece, start + 4)[0] for piece in pieces] == [len(one) - start for one in pieces]
    assert not four or [piece[19] for piece in pieces] == list(range(7, 7 + len(pieces)))


def test_a_udp_checksum_is_never_zero() -> None:
    """Zero means that there is none (RFC 768)."""
    header = virtio_net_hdr.pack(NEEDS_CSUM, GSO_UDP_L4, 42, 2, 34, 6)
    summed = complete_frames(header, udp(bytes(2), four=True))[0]
    (piece,) = complete_frames(header, udp(summed[40:42], four=True))
    assert piece[40:42] == b"\xff\xff"


@pytest.mark.parametrize(
    ("start", "size", "length"),
    [(34, 10, 42 + 1281), (34, 65535, 2000), (14, 100, 2000), (1999, 100, 2000), (34, 1, 8)],
)
def test_datagrams_that_do_not_fit_the_frame_are_refused(start: int, size: int, length: int) -> None:
    header = virtio_net_hdr.pack(NEEDS_CSUM, GSO_UDP_L4, start + 8, size, start, 6)
    with pytest.raises(ValueError, match="fit a frame"):
        complete_frames(header, udp(bytes(2000), four=True)[:length].ljust(length, b"\0"))


def test_a_checksum_alone_is_filled_in() -> None:
    """The field holds the pseudo header's sum (linux/virtio_net.h: VIRTIO_NET_HDR_F_NEEDS_CSUM)."""
    frame = bytearray(tcp4(b"abc"))
    struct.pack_into(">H", frame, 24, checksum(bytes(frame[14:34])))
    struct.pack_into(">H", frame, 50, 0xFFFF ^ checksum(A4 + B4 + struct.pack(">HH", 6, 23)))
    (done,) = complete_frames(virtio_net_hdr.pack(NEEDS_CSUM, GSO_NONE, 54, 0, 34, 16), bytes(frame))
    assert good(done)


def test_other_segments_are_refused() -> None:
    with pytest.raises(ValueError, match="gso_type 3"):
        complete_frames(virtio_net_hdr.pack(NEEDS_CSUM, 3, 42, 100, 34, 6), tcp4(bytes(300)))


@pytest.mark.parametrize(
    ("tcp", "size", "length"),
    [
        (34, 1000, 40),
        (34, 0, 2000),
        (34, 7, 2000),
        (14, 1000, 2000),
        (2000, 1000, 2000),
        (65535, 1000, 2000),
        (34, 65535, 70000),
    ],
)
def test_a_header_that_does_not_fit_the_frame_is_refused(tcp: int, size: int, length: int) -> None:
    """A program can send such headers: packet(7), PACKET_VNET_HDR."""
    header = virtio_net_hdr.pack(NEEDS_CSUM, GSO_TCPV4, tcp, size, tcp, 16)
    frame = bytearray(length)
    frame[46:47] = b"\x50"
    with pytest.raises(ValueError, match=r"segments|header|gso_type"):
        complete_frames(header, bytes(frame))
