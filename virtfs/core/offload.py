"""Finish frames that the kernel has left for a network card to finish: fill in checksums, cut large TCP segments.

A tap with offload puts a struct virtio_net_hdr (linux/virtio_net.h) before each frame. The header says what is missing.
"""

import struct
from typing import Final

from virtfs.core.ethernet import VLAN_LEN

# The fields flags, gso_type, hdr_len, gso_size, csum_start and csum_offset. The kernel uses the machine's byte order;
# this code assumes a little-endian machine.
virtio_net_hdr: Final = struct.Struct("<BBHHHH")

NEEDS_CSUM: Final = 1
GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_ECN = 0, 1, 4, 0x80

_FIN, _PSH, _CWR = 0x01, 0x08, 0x80
_TCP: Final = 6
_TCP_HEADER = 20  # bytes, without options
_GSO_MIN = 8  # bytes in a segment, include/net/tcp.h TCP_MIN_GSO_SIZE
_ETH_P_8021Q, _ETH_P_8021AD = b"\x81\x00", b"\x88\xa8"


def complete_frames(header: memoryview | bytes, frame: memoryview | bytes) -> list[bytes]:
    """Return the complete frames that a real wire would carry instead of this header and frame.

    A large TCP segment over IPv4 or IPv6 is cut into frames. With the offload flags TUN_F_TSO4 and TUN_F_TSO6, the
    kernel sends no other kind of large segment.
    ValueError: the frame is a large segment of another kind, or the header does not fit the frame. A program can send
    such a header (packet(7), PACKET_VNET_HDR).
    """
    flags, gso_type, _, gso_size, csum_start, csum_offset = virtio_net_hdr.unpack_from(header)
    kind = gso_type & ~GSO_ECN
    if kind == GSO_NONE:
        return [_summed(frame, csum_start, csum_offset) if flags & NEEDS_CSUM else bytes(frame)]
    if kind not in (GSO_TCPV4, GSO_TCPV6) or not gso_size:
        raise ValueError(f"gso_type {gso_type} is neither TCPv4 nor TCPv6")
    return _segments(bytes(frame), csum_start, gso_size, four=kind == GSO_TCPV4)


def checksum(data: bytes, start: int = 0) -> int:
    """Return the Internet checksum (RFC 1071) of the big-endian 16-bit words of data. start: initial sum."""
    if len(data) % 2:
        data += b"\0"
    total = start + sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def _summed(frame: memoryview | bytes, start: int, offset: int) -> bytes:
    """Return the frame with its checksum filled in. The checksum field already contains the sum of the pseudo header.

    start: offset of the first byte covered by the checksum. offset: bytes from `start` to the checksum field.
    """
    summed = bytearray(frame)
    if start + offset + 2 <= len(summed):
        struct.pack_into(">H", summed, start + offset, checksum(bytes(summed[start:])) or 0xFFFF)
    return bytes(summed)


def _segments(frame: bytes, tcp: int, size: int, four: bool) -> list[bytes]:
    """Cut a large TCP segment into frames.

    tcp: offset of the TCP header. size: maximum payload of a frame, in bytes. four: whether the IP version is 4 rather
    than 6.
    """
    ip = 14 + VLAN_LEN * (frame[12:14] in (_ETH_P_8021Q, _ETH_P_8021AD))
    if size < _GSO_MIN or tcp < ip + (20 if four else 40) or len(frame) < tcp + _TCP_HEADER:
        raise ValueError(
            f"segments of {size} bytes with a TCP header at {tcp} do not fit a frame of {len(frame)} bytes"
        )
    payload_at = tcp + (frame[tcp + 12] >> 4) * 4
    longest = payload_at - ip + min(size, len(frame) - payload_at)
    if not tcp + _TCP_HEADER <= payload_at <= len(frame) or longest > 0xFFFF:
        raise ValueError(f"the TCP header ends at {payload_at}, in a frame of {len(frame)} bytes")
    head, payload = frame[:payload_at], frame[payload_at:]
    (sequence,) = struct.unpack_from(">I", frame, tcp + 4)
    (identification,) = struct.unpack_from(">H", frame, ip + 4)
    pseudo = head[ip + 12 : ip + 20] if four else head[ip + 8 : ip + 40]
    cuts = range(0, len(payload), size) or range(1)
    segments = []
    for number, at in enumerate(cuts):
        piece = payload[at : at + size]
        done = bytearray(head)
        if four:
            struct.pack_into(">H", done, ip + 2, len(head) - ip + len(piece))
            struct.pack_into(">H", done, ip + 4, (identification + number) & 0xFFFF)
            struct.pack_into(">H", done, ip + 10, 0)
            struct.pack_into(">H", done, ip + 10, checksum(bytes(done[ip:tcp])))
        else:
            struct.pack_into(">H", done, ip + 4, len(head) - ip - 40 + len(piece))
        struct.pack_into(">I", done, tcp + 4, (sequence + at) & 0xFFFFFFFF)
        if number:
            done[tcp + 13] &= ~_CWR & 0xFF
        if at != cuts[-1]:
            done[tcp + 13] &= ~(_FIN | _PSH) & 0xFF
        struct.pack_into(">H", done, tcp + 16, 0)
        done += piece
        length = len(done) - tcp
        rest = struct.pack(">IHH", 0, _TCP, length) if not four else struct.pack(">HH", _TCP, length)
        start = 0xFFFF ^ checksum(pseudo + rest)
        struct.pack_into(">H", done, tcp + 16, checksum(bytes(done[tcp:]), start))
        segments.append(bytes(done))
    return segments
