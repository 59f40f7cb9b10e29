# cython: language_level=3
"""Finds the frames of plain records in a piece of a capture file.

A plain record is complete and valid, in the machine's byte order, and holds one frame without an FCS. All others are
left to Python: savefile_pcap and savefile_pcapng, which also decode all records if this module has not been compiled.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcpy

cdef struct Span:  # core.savefile_records.Spans describes it
    uint32_t begin, length

cdef struct PcapRecord:
    uint32_t seconds, fraction, captured, length

cdef struct Enhanced:  # the head of an enhanced packet block
    uint32_t kind, total, interface, upper, lower, captured, length

cdef struct Flags:  # the option epb_flags, and what follows it
    uint16_t code, size
    uint32_t value, end

cdef enum:
    MOST = 128  # frames in one call
    FRAME_MAX = 262144  # bytes, as in savefile_records
    ENHANCED = 6  # block type
    FLAGS = 2  # option code


def pcap(bytes data, Py_ssize_t at, int most):
    """Find the frames of the plain records at offset `at` of a pcap file: at most `most` and at most 128.

    Return (spans, end). spans: those of savefile_records.Spans, b"" if the first record is not plain. end: the offset
    after the last of these records.
    """
    cdef const char *memory = PyBytes_AS_STRING(data)
    cdef Py_ssize_t size = len(data)
    cdef Span spans[MOST]
    cdef int count = 0
    cdef PcapRecord head
    while count < min(most, <int>MOST) and at + <Py_ssize_t>sizeof(head) <= size:
        memcpy(&head, memory + at, sizeof(head))
        if head.captured > FRAME_MAX or at + <Py_ssize_t>sizeof(head) + head.captured > size:
            break
        spans[count] = Span(at + sizeof(head), min(head.captured, head.length))
        at += sizeof(head) + head.captured
        count += 1
    return PyBytes_FromStringAndSize(<char *>spans, count * sizeof(Span)), at


def pcapng(bytes data, Py_ssize_t at, int most, set interfaces):
    """Find the frames of the plain packet blocks at offset `at` of a pcapng file, as `pcap` does.

    A plain packet is an enhanced packet with no options, or with the option epb_flags alone. interfaces: the numbers of
    the interfaces whose frames may be plain.
    """
    cdef const char *memory = PyBytes_AS_STRING(data)
    cdef Py_ssize_t size = len(data)
    cdef Span spans[MOST]
    cdef int count = 0
    cdef Enhanced head
    cdef object last = None  # the interface of the packet before
    while count < min(most, <int>MOST) and at + <Py_ssize_t>sizeof(head) + 4 <= size:
        memcpy(&head, memory + at, sizeof(head))
        if head.kind != ENHANCED or head.captured > FRAME_MAX or not is_plain(memory + at, size - at, &head):
            break
        if last is None or last != head.interface:
            last = head.interface
            if last not in interfaces:
                break
        spans[count] = Span(at + sizeof(head), min(head.captured, head.length))
        at += head.total
        count += 1
    return PyBytes_FromStringAndSize(<char *>spans, count * sizeof(Span)), at


cdef bint is_plain(const char *block, Py_ssize_t size, Enhanced *head) noexcept:
    """Return whether a packet block is complete, and has no options or the flags alone, without an FCS length."""
    cdef Flags flags
    cdef uint32_t again
    cdef Py_ssize_t before = sizeof(Enhanced) + (head.captured + 3 & ~<uint32_t>3)  # bytes before the options
    cdef Py_ssize_t options = <Py_ssize_t>head.total - 4 - before
    if head.total & 3 or head.total > size or not (options == 0 or options == 8 or options == 12):
        return False
    memcpy(&again, block + head.total - 4, 4)
    if again != head.total:
        return False
    if options:
        flags.end = 0
        memcpy(&flags, block + before, options)
        return flags.code == FLAGS and flags.size == 4 and not flags.value >> 5 & 0xF and not flags.end
    return True
