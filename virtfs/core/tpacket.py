"""Convert a block of a packet socket's ring (TPACKET_V3, linux/if_packet.h) to pcapng.

A frame in the ring is a struct tpacket3_hdr, a struct sockaddr_ll, a struct virtio_net_hdr and the data. The struct
tpacket3_hdr has the offsets of the data and of the next frame. If the host has left the checksum to its network card,
the struct virtio_net_hdr says where it belongs (core.offload), and it is filled in. If the kernel has put the frame's
VLAN tag into the header, the tag is put back into the data. The ring is in the machine's byte order, but pcapng is
written in little-endian order here. So a big-endian machine converts the frames one by one.
"""

import sys
from array import array
from struct import Struct

from virtfs.core.compiled import compiled
from virtfs.core.offload import NEEDS_CSUM, summed, virtio_net_hdr
from virtfs.core.pcapng import (
    FLAGS,
    INBOUND,
    OUTBOUND,
    PACKET,
    PACKET_BARE,
    equal_packets,
    packet_head,
    packet_joints,
    packet_tails,
)

SECOND = 10**9
TAG = 4  # bytes of a VLAN tag
ADDRESSES = 12  # bytes of the two MAC addresses; the VLAN tag follows them
VLAN_VALID, TPID_VALID = 1 << 4, 1 << 6  # TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID
NO_CHECKSUM = 1 << 3  # TP_STATUS_CSUMNOTREADY
C_VLAN = 0x8100
OUTGOING = 4  # PACKET_OUTGOING: the host has sent the frame, towards virt

# Consecutive frames of the same length are converted together if there are more than RUN of them, and if this length is
# at most RUN_LONGEST bytes. If there is no run, the next SINGLES frames are converted one by one.
RUN = 16 if sys.byteorder == "little" else sys.maxsize
RUN_LONGEST = 128
SINGLES = 32

# If the frames of a block have fewer than DENSE bytes on average, the block is copied as a whole before they are
# converted one by one, because slicing bytes is cheaper than slicing a memoryview.
DENSE = 400

# The fields tp_next_offset, tp_sec, tp_nsec, tp_snaplen, tp_len, tp_status, tp_mac and sll_pkttype.
_head = Struct("=6IH32xB").unpack_from
_vlan = Struct("=32xIH").unpack_from  # tp_vlan_tci, tp_vlan_tpid
_tag = Struct(">HH").pack
_STEP, _SECONDS, _NANOSECONDS, _CAPTURED, _LENGTH, _STATUS, _BEGIN = range(7)  # offsets in 32-bit words
_KIND = 58  # offset of sll_pkttype in bytes
_WAYS = bytes(INBOUND if kind == OUTGOING else OUTBOUND for kind in range(256))  # pcapng direction by sll_pkttype
_WRAP = 1 << 32


def pcapng(memory: memoryview, first: int, count: int, interface_id: int) -> bytes:
    """Return an enhanced packet block for each frame in a block of the ring.

    memory: the block of the ring. first: offset of the first struct tpacket3_hdr. count: number of frames in the block.
    interface_id: number of the interface in the pcapng file.
    The work is done by the compiled module `ringblock` if it is available.
    """
    convert = compiled("virtfs.core.ringblock", "pcapng") or pcapng_in_python
    blocks: bytes = convert(memory, first, count, interface_id)
    return blocks


def pcapng_in_python(memory: memoryview, first: int, count: int, interface_id: int) -> bytes:
    """Do the same as pcapng(), without a compiled module."""
    at = first
    data: bytes | memoryview = memory
    pieces: list[bytes | memoryview] = []
    while count:
        done, blocks = _equal(memory, at, count, interface_id)
        if done:
            pieces.append(blocks)
            at += _head(memory, at)[_STEP] * done
        else:
            done = min(count, SINGLES)
            if data is memory and len(memory) < count * DENSE:
                data = memory.tobytes()
            at = _each(data, at, done, interface_id, pieces)
        count -= done
    return b"".join(pieces)


def _each(data: bytes | memoryview, at: int, count: int, interface_id: int, pieces: list[bytes | memoryview]) -> int:
    """Append the packet blocks of `count` frames to `pieces`. Return the offset of the next frame.

    at: offset of the first struct tpacket3_hdr in data.
    The tail of a block and the head of the next one form one piece, because packing both in one call is cheaper.
    """
    add, second, joint = pieces.append, -1, _head_alone
    total = way = padding = high = base = 0
    for _ in range(count):
        step, seconds, nanoseconds, captured, length, status, mac, kind = _head(data, at)
        frame = data[at + mac : at + mac + captured]
        if status & NO_CHECKSUM and captured == length:
            frame = _summed(frame, data[at + mac - virtio_net_hdr.size : at + mac])
        if status & VLAN_VALID:
            frame = _tagged(frame, status, *_vlan(data, at))
            captured += TAG
            length += TAG
        if seconds != second:
            second = seconds
            high, base = divmod(seconds * SECOND, _WRAP)
        upper, lower = high, base + nanoseconds
        if lower >= _WRAP:
            upper, lower = upper + 1, lower - _WRAP
        padding = -captured & 3
        last, total = total, PACKET_BARE + captured + padding
        add(joint(FLAGS, way, 0, last, PACKET, total, interface_id, upper, lower, captured, length))
        add(frame)
        joint, way = packet_joints[padding], _WAYS[kind]
        at += step
    add(packet_tails[padding](FLAGS, way, 0, total))
    return at


def _head_alone(_flags: int, _way: int, _end: int, _total: int, *head: int) -> bytes:
    """Pack the head of the first block. The parameters are those of packet_joints; those of the tail are ignored."""
    return packet_head(*head)


def _tagged(frame: bytes | memoryview, status: int, tci: int, tpid: int) -> bytes:
    """Return a frame with its VLAN tag inserted. status: tp_status, which says whether the kernel reports the TPID."""
    tag = _tag(tpid if status & TPID_VALID else C_VLAN, tci & 0xFFFF)
    return b"".join((frame[:ADDRESSES], tag, frame[ADDRESSES:]))


def _summed(frame: bytes | memoryview, header: bytes | memoryview) -> bytes | memoryview:
    """Return a complete frame with its checksum filled in. header: its struct virtio_net_hdr."""
    flags, _, _, _, start, offset = virtio_net_hdr.unpack(header)
    return summed(frame, start, offset) if flags & NEEDS_CSUM else frame


def _equal(memory: memoryview, at: int, count: int, interface_id: int) -> tuple[int, bytes]:
    """Convert the run of frames that begins at `at`: complete, untagged frames of the same length, with checksums.

    Return the number of frames and their blocks; (0, b"") if the run is too short. at: offset of the first header.
    count: maximum number of frames.
    A frame with a VLAN tag in its data begins 4 bytes closer to its header (net/packet/af_packet.c tpacket_rcv:
    macoff), so comparing the tp_mac fields ends the run at such a frame.
    """
    step, seconds, _, captured, _, status, mac, _ = _head(memory, at)
    if count <= RUN or captured > RUN_LONGEST or (count := min(count, (len(memory) - at) // step)) <= RUN:
        return 0, b""
    if _head(memory, at + RUN * step)[_CAPTURED] != captured:  # checked first, because it is cheap
        return 0, b""
    words, word, stride = memory.cast("I"), at // 4, step // 4
    begin = words[word + _BEGIN]  # tp_mac and tp_net, 16 bits each

    def column(number: int) -> memoryview:
        return words[word + number : word + number + (count - 1) * stride + 1 : stride]

    alike = (_SECONDS, seconds), (_CAPTURED, captured), (_LENGTH, captured), (_STATUS, status), (_BEGIN, begin)
    for number, value in alike:
        values = column(number).tolist()
        if values != [value] * count:
            count = next(index for index, other in enumerate(values) if other != value)
        if count <= RUN:
            return 0, b""
    times = column(_NANOSECONDS).tolist()
    begun = seconds * SECOND
    high = begun + min(times) >> 32
    if status & (VLAN_VALID | NO_CHECKSUM) or (begun + max(times)) >> 32 != high or mac % 4:
        return 0, b""
    base = begun - (high << 32)
    kinds = memory[at + _KIND : at + _KIND + (count - 1) * step + 1 : step]
    frame = mac // 4
    columns = [column(frame + number) for number in range((captured + 3) // 4)]
    lows = array("I", [base + time for time in times])
    return count, equal_packets(interface_id, high, lows, columns, captured, kinds.tobytes().translate(_WAYS))
