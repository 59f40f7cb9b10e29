# cython: language_level=3
"""The compiled twin of core.tpacket.pcapng_in_python(): converts a block of a packet socket's ring to pcapng."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from "<endian.h>" nogil:
    uint32_t htole32(uint32_t)
    uint16_t htobe16(uint16_t)

cdef extern from "<linux/virtio_net.h>":
    cdef enum:
        VIRTIO_NET_HDR_F_NEEDS_CSUM
    cdef struct virtio_net_hdr:
        unsigned char flags
        uint16_t csum_start, csum_offset

cdef extern from "<linux/if_packet.h>":
    cdef enum:
        PACKET_OUTGOING, TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID, TP_STATUS_CSUMNOTREADY
    cdef struct tpacket_hdr_variant1:
        uint32_t tp_vlan_tci
        uint16_t tp_vlan_tpid
    cdef struct tpacket3_hdr:
        uint32_t tp_next_offset, tp_sec, tp_nsec, tp_snaplen, tp_len, tp_status
        uint16_t tp_mac
        tpacket_hdr_variant1 hv1
    cdef struct sockaddr_ll:
        unsigned char sll_pkttype

cdef struct Frame:  # as the ring holds it
    tpacket3_hdr head
    sockaddr_ll address

cdef struct Head:  # of an enhanced packet block
    uint32_t kind, total, interface, upper, lower, captured, length

cdef struct Tail:
    uint32_t flags, way, end, total

cdef enum:
    PACKET = 6  # block type
    FLAGS = 2 | 4 << 16  # code and length of the option epb_flags
    INBOUND = 1
    OUTBOUND = 2
    ADDRESSES = 12  # bytes; the VLAN tag follows the two MAC addresses
    TAG = 4  # bytes
    C_VLAN = 0x8100


def pcapng(memory, Py_ssize_t first, int count, uint32_t interface_id):
    """Return an enhanced packet block for each frame. ValueError: a frame extends past the end of `memory`."""
    cdef Py_buffer view
    PyObject_GetBuffer(memory, &view, PyBUF_SIMPLE)
    try:
        size = measure(<char *>view.buf, view.len, first, count)
        blocks = PyBytes_FromStringAndSize(NULL, size)
        convert(<char *>view.buf + first, count, interface_id, PyBytes_AS_STRING(blocks))
        return blocks
    finally:
        PyBuffer_Release(&view)


cdef inline uint32_t tag_length(Frame *frame) noexcept nogil:
    return TAG if frame.head.tp_status & TP_STATUS_VLAN_VALID else 0


cdef inline uint32_t padded(uint32_t length) noexcept nogil:
    return length + 3 & ~<uint32_t>3


cdef Py_ssize_t measure(char *memory, Py_ssize_t size, Py_ssize_t at, int count) except -1:
    """Return the length of the blocks in bytes."""
    cdef Py_ssize_t total = 0
    cdef Frame *frame
    for _ in range(count):
        frame = <Frame *>(memory + at)
        if at < 0 or at + <Py_ssize_t>sizeof(Frame) > size or at + frame.head.tp_mac + frame.head.tp_snaplen > size:
            raise ValueError("a frame extends past the end of the ring's block")
        if frame.head.tp_status & TP_STATUS_CSUMNOTREADY and frame.head.tp_mac < sizeof(Frame) + sizeof(virtio_net_hdr):
            raise ValueError("a frame has no struct virtio_net_hdr")
        total += sizeof(Head) + padded(frame.head.tp_snaplen + tag_length(frame)) + sizeof(Tail)
        at += frame.head.tp_next_offset
    return total


cdef void fill_checksum(char *frame, uint32_t size, char *before, uint32_t added) noexcept nogil:
    """Compute the checksum of a frame (RFC 1071), which the host has left to the network card.

    before: the data in the ring, after its struct virtio_net_hdr. added: bytes of the VLAN tag that it lacks.
    """
    cdef virtio_net_hdr header
    cdef uint64_t total = 0
    cdef uint32_t word, start, at
    cdef uint16_t half
    memcpy(&header, before - sizeof(header), sizeof(header))
    start = header.csum_start + added
    at = start + header.csum_offset
    if not header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM or at + 2 > size:
        return
    while start + 4 <= size:
        memcpy(&word, frame + start, 4)
        total += word
        start += 4
    if start < size:
        word = 0
        memcpy(&word, frame + start, size - start)
        total += word
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    half = ~<uint16_t>total
    if not half:
        half = 0xFFFF
    memcpy(frame + at, &half, 2)


cdef void convert(char *at, int count, uint32_t interface_id, char *out) noexcept nogil:
    """Write the blocks of `count` frames to `out`. at: the first frame, which measure() has checked."""
    cdef Frame *frame
    cdef uint64_t time
    cdef uint32_t captured, added, before, room, total
    cdef uint16_t tag[2]
    cdef char *data
    for _ in range(count):
        frame = <Frame *>at
        captured, added, data = frame.head.tp_snaplen, tag_length(frame), at + frame.head.tp_mac
        time = frame.head.tp_sec * <uint64_t>1000000000 + frame.head.tp_nsec
        room = padded(captured + added)
        total = sizeof(Head) + room + sizeof(Tail)
        (<Head *>out)[0] = Head(
            htole32(PACKET), htole32(total), htole32(interface_id), htole32(time >> 32), htole32(<uint32_t>time),
            htole32(captured + added), htole32(frame.head.tp_len + added),
        )
        out += sizeof(Head)
        if room:
            memset(out + room - 4, 0, 4)
        if added:
            tag[0] = htobe16(
                frame.head.hv1.tp_vlan_tpid if frame.head.tp_status & TP_STATUS_VLAN_TPID_VALID else C_VLAN
            )
            tag[1] = htobe16(frame.head.hv1.tp_vlan_tci)
            before = min(captured, <uint32_t>ADDRESSES)
            memcpy(out, data, before)
            memcpy(out + before, tag, TAG)
            memcpy(out + before + TAG, data + before, captured - before)
        else:
            memcpy(out, data, captured)
        if frame.head.tp_status & TP_STATUS_CSUMNOTREADY and captured == frame.head.tp_len:
            fill_checksum(out, captured + added, data, added)
        out += room
        (<Tail *>out)[0] = Tail(
            htole32(FLAGS), htole32(INBOUND if frame.address.sll_pkttype == PACKET_OUTGOING else OUTBOUND), 0,
            htole32(total),
        )
        out += sizeof(Tail)
        at += frame.head.tp_next_offset
