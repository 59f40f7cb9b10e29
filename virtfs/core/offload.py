"""Complete frames that the kernel left for a network card to complete: fill in checksums and cut large segments.

A tap with offload puts a struct virtio_net_hdr (linux/virtio_net.h) before each frame. The header says what is missing.
A large segment is either one TCP segment or several UDP datagrams that were sent together.
"""

import struct
from typing import Final

from virtfs.core.ethernet import VLAN_LEN

# The fields flags, gso_type, hdr_len, gso_size, csum_start and csum_offset. The kernel uses the machine's byte order;
# this code assumes a little-endian machine.
virtio_net_hdr: Final = struct.Struct("<BBHHHH")

NEEDS_CSUM: Final = 1
GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, GSO_ECN = 0, 1, 4, 5, 0x80

_FIN, _PSH, _CWR = 0x01, 0x08, 0x80
_TCP, _UDP = 6, 17  # protocol numbers in an IP header
_TCP_HEADER, _UDP_HEADER = 20, 8  # bytes, without options
_GSO_MIN = 8  # minimum bytes in a segment; include/net/tcp.h TCP_MIN_GSO_SIZE
_DATAGRAMS_MAX = 128  # maximum number in one frame; include/linux/udp.h UDP_MAX_SEGMENTS
_ETH_P_8021Q, _ETH_P_8021AD = b"\x81\x00", b"\x88\xa8"


def complete_frames(header: memoryview | bytes, frame: memoryview | bytes) -> list[bytes]:
    """Return the complete frames that a real wire would carry instead of this header and frame.

    A large TCP segment is cut into frames, and so is a batch of UDP datagrams (udp(7), UDP_SEGMENT). The kernel
    sends no other large frames to a tap that has the offload flags of cables (TUN_F_TSO4 and so on, linux/if_tun.h).
    ValueError: the frame is a large frame of another kind, or the header does not fit the frame. A program can cause
    both errors with a header of its own (packet(7), PACKET_VNET_HDR).
    """
    flags, gso_type, _, gso_size, csum_start, csum_offset = virtio_net_hdr.unpack_from(header)
    kind = gso_type & ~GSO_ECN
    if kind == GSO_NONE:
        return [summed(frame, csum_start, csum_offset) if flags & NEEDS_CSUM else bytes(frame)]
    if kind not in (GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4) or not gso_size:
        raise ValueError(f"gso_type {gso_type} is neither TCPv4 nor TCPv6 nor UDP")
    whole = bytes(frame)
    ip = 14 + VLAN_LEN * (whole[12:14] in (_ETH_P_8021Q, _ETH_P_8021AD))
    if kind == GSO_UDP_L4:
        return _datagrams(whole, ip, csum_start, gso_size)
    return _segments(whole, ip, csum_start, gso_size, four=kind == GSO_TCPV4)


def checksum(data: bytes, start: int = 0) -> int:
    """Return the Internet checksum (RFC 1071) of the big-endian 16-bit words of data. start: initial sum."""
    if len(data) % 2:
        data += b"\0"
    total = start + sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def summed(frame: memoryview | bytes, start: int, offset: int) -> bytes:
    """Return the frame with its checksum filled in. The checksum field already contains the sum of the pseudo header.

    start: offset of the first byte covered by the checksum. offset: bytes from `start` to the checksum field.
    """
    done = bytearray(frame)
    if start + offset + 2 <= len(done):
        struct.pack_into(">H", done, start + offset, checksum(bytes(done[start:])) or 0xFFFF)
    return bytes(done)


def _segments(frame: bytes, ip: int, tcp: int, size: int, four: bool) -> list[bytes]:
    """Cut a large TCP segment into frames.

    ip, tcp: offsets of the IP and the TCP header. size: maximum payload of a frame, in bytes. four: True for IPv4,
    False for IPv6.
    """
    if size < _GSO_MIN:
        raise ValueError(f"segments of {size} bytes are too short")
    _must_hold(frame, ip, tcp, _TCP_HEADER, four)
    payload_at = tcp + (frame[tcp + 12] >> 4) * 4
    longest = payload_at - ip + min(size, len(frame) - payload_at)
    if not tcp + _TCP_HEADER <= payload_at <= len(frame) or longest > 0xFFFF:
        raise ValueError(f"the TCP header ends at {payload_at}, in a frame of {len(frame)} bytes")
    (sequence,) = struct.unpack_from(">I", frame, tcp + 4)
    cuts = range(payload_at, len(frame), size) or range(payload_at, payload_at + 1)
    segments = []
    for number, at in enumerate(cuts):
        done = _cut(frame, ip, tcp, payload_at, at, size, number, four)
        struct.pack_into(">I", done, tcp + 4, (sequence + at - payload_at) & 0xFFFFFFFF)
        if number:
            done[tcp + 13] &= ~_CWR & 0xFF
        if at != cuts[-1]:
            done[tcp + 13] &= ~(_FIN | _PSH) & 0xFF
        _fill_in(done, ip, tcp, tcp + 16, _TCP, four)
        segments.append(bytes(done))
    return segments


def _datagrams(frame: bytes, ip: int, udp: int, size: int) -> list[bytes]:
    """Cut a frame that contains several UDP datagrams into one frame for each datagram.

    ip, udp: offsets of the IP and the UDP header. size: payload of each datagram except the last, in bytes.
    """
    four = frame[ip : ip + 1] < b"\x50"  # the IP version is in the upper four bits
    _must_hold(frame, ip, udp, _UDP_HEADER, four)
    payload_at = udp + _UDP_HEADER
    if len(frame) - payload_at > size * _DATAGRAMS_MAX or payload_at - ip + size > 0xFFFF:
        raise ValueError(f"datagrams of {size} bytes do not fit a frame of {len(frame)} bytes")
    datagrams = []
    for number, at in enumerate(range(payload_at, len(frame), size) or range(payload_at, payload_at + 1)):
        done = _cut(frame, ip, udp, payload_at, at, size, number, four)
        struct.pack_into(">H", done, udp + 4, len(done) - udp)
        _fill_in(done, ip, udp, udp + 6, _UDP, four)
        datagrams.append(bytes(done))
    return datagrams


def _must_hold(frame: bytes, ip: int, transport: int, header: int, four: bool) -> None:
    """Raise ValueError unless the frame has space for its headers. header: length of the transport header in bytes."""
    if transport < ip + (20 if four else 40) or len(frame) < transport + header:
        raise ValueError(f"a transport header at {transport} does not fit a frame of {len(frame)} bytes")


def _cut(
    frame: bytes, ip: int, transport: int, payload_at: int, at: int, size: int, number: int, four: bool
) -> bytearray:
    """Return one piece of a frame: its headers with the IP fields adapted, and its payload, which starts at `at`.

    ip, transport, payload_at: offsets of the IP header, the transport header and the payload. size: maximum payload of
    a piece, in bytes. number: number of the piece, from 0.
    """
    done = bytearray(frame[:payload_at] + frame[at : at + size])
    if four:
        (identification,) = struct.unpack_from(">H", frame, ip + 4)
        struct.pack_into(">HH", done, ip + 2, len(done) - ip, (identification + number) & 0xFFFF)
        struct.pack_into(">H", done, ip + 10, 0)
        struct.pack_into(">H", done, ip + 10, checksum(bytes(done[ip:transport])))
    else:
        struct.pack_into(">H", done, ip + 4, len(done) - ip - 40)
    return done


def _fill_in(frame: bytearray, ip: int, transport: int, field: int, protocol: int, four: bool) -> None:
    """Compute the checksum of the transport header and its payload, and store it at the offset `field`."""
    length = len(frame) - transport
    addresses = frame[ip + 12 : ip + 20] if four else frame[ip + 8 : ip + 40]
    pseudo = bytes(addresses) + struct.pack(">IHH", length, 0, protocol)
    struct.pack_into(">H", frame, field, 0)
    summed = checksum(bytes(frame[transport:]), 0xFFFF ^ checksum(pseudo))
    # UDP sends 0 as 0xFFFF, because 0 means that there is no checksum (RFC 768).
    struct.pack_into(">H", frame, field, summed or (0xFFFF if protocol == _UDP else 0))
