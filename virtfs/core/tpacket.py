"""Convert a block of a packet socket's ring (TPACKET_V3, linux/if_packet.h) to pcapng.

A frame in the ring is a struct tpacket3_hdr, a struct sockaddr_ll and the data. The struct tpacket3_hdr has the offsets
of the data and of the next frame. If the kernel has put the frame's VLAN tag into the header, the tag is inserted into
the data again. The ring is in the machine's byte order, but pcapng is written in little-endian order here. So a
big-endian machine converts the frames one by one.
"""

import sys
from array import array
from struct import Struct

from virtfs.core.pcapng import INBOUND, OUTBOUND, PACKET, enhanced_packet, equal_packets, packet_head, packet_tail

SECOND = 10**9
TAG = 4  # bytes of a VLAN tag
ADDRESSES = 12  # bytes of the two MAC addresses; the VLAN tag follows them
VLAN_VALID, TPID_VALID = 1 << 4, 1 << 6  # TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID
C_VLAN = 0x8100
OUTGOING = 4  # PACKET_OUTGOING: the host has sent the frame, towards virt

# Consecutive frames of the same length are converted together if there are more than RUN of them, and if this length is
# at most RUN_LONGEST bytes.
RUN = 16 if sys.byteorder == "little" else sys.maxsize
RUN_LONGEST = 128

# The fields tp_next_offset, tp_sec, tp_nsec, tp_snaplen, tp_len, tp_status, tp_mac, tp_vlan_tci, tp_vlan_tpid and
# sll_pkttype.
_head = Struct("=6IH6xIH20xB").unpack_from
_tag = Struct(">HH").pack
_SECONDS, _NANOSECONDS, _CAPTURED, _LENGTH, _STATUS, _BEGIN = 1, 2, 3, 4, 5, 6  # offsets in 32-bit words
_KIND = 58  # offset of sll_pkttype in bytes
_WAYS = bytes(INBOUND if kind == OUTGOING else OUTBOUND for kind in range(256))  # pcapng direction by sll_pkttype


def pcapng(memory: memoryview, first: int, count: int, interface_id: int) -> bytes:
    """Return an enhanced packet block for each frame in a block of the ring.

    memory: the block of the ring. first: offset of the first struct tpacket3_hdr. count: number of frames in the block.
    interface_id: number of the interface in the pcapng file.
    """
    at, before, equal = first, 0, 0
    pieces: list[bytes | memoryview] = []
    add = pieces.append
    while count:
        step, seconds, nanoseconds, captured, length, status, mac, tci, tpid, kind = _head(memory, at)
        if captured == before:
            equal += 1
            if equal == 2 and captured <= RUN_LONGEST and count > RUN:
                run, blocks = _equal(memory, at, min(count, (len(memory) - at) // step), interface_id)
                if run:
                    add(blocks)
                    at += step * run
                    count -= run
                    before = 0
                    continue
        else:
            before, equal = captured, 0
        begin = at + mac
        at += step
        count -= 1
        time = seconds * SECOND + nanoseconds
        if status & VLAN_VALID:
            tag = _tag(tpid if status & TPID_VALID else C_VLAN, tci & 0xFFFF)
            frame = b"".join((memory[begin : begin + ADDRESSES], tag, memory[begin + ADDRESSES : begin + captured]))
            add(enhanced_packet(interface_id, time, frame, length + TAG, _WAYS[kind]))
        else:
            total, tail = packet_tail(captured, _WAYS[kind])
            add(packet_head(PACKET, total, interface_id, time >> 32, time & 0xFFFFFFFF, captured, length))
            add(memory[begin : begin + captured])
            add(tail)
    return b"".join(pieces)


def _equal(memory: memoryview, at: int, count: int, interface_id: int) -> tuple[int, bytes]:
    """Convert the run of frames that begins at `at`: complete, untagged frames of the same length.

    Return the number of frames and their blocks; (0, b"") if the run is too short. at: offset of the first header.
    count: maximum number of frames.
    A frame with a VLAN tag in its data begins 4 bytes closer to its header (net/packet/af_packet.c tpacket_rcv:
    macoff), so comparing the tp_mac fields ends the run at such a frame.
    """
    step, seconds, _, captured, _, status, mac, *_ = _head(memory, at)
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
    if status & VLAN_VALID or (begun + max(times)) >> 32 != high or mac % 4:
        return 0, b""
    base = begun - (high << 32)
    kinds = memory[at + _KIND : at + _KIND + (count - 1) * step + 1 : step]
    frame = mac // 4
    columns = [column(frame + number) for number in range((captured + 3) // 4)]
    lows = array("I", [base + time for time in times])
    return count, equal_packets(interface_id, high, lows, columns, captured, kinds.tobytes().translate(_WAYS))
