# cython: language_level=3
"""Moves many frames of any lengths between a tap and memory, without Python between them."""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport ENXIO, errno
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset
from posix.unistd cimport read, write

cdef extern from "<endian.h>" nogil:
    uint32_t htobe32(uint32_t)
    uint32_t be32toh(uint32_t)

cdef extern from "<linux/virtio_net.h>":
    cdef struct virtio_net_hdr:  # precedes each frame of a tap with IFF_VNET_HDR
        pass

cdef struct Span:  # core.savefile_records.Spans describes it
    uint32_t begin, length

cdef enum:
    VNET = sizeof(virtio_net_hdr)
    PREFIX = 4  # bytes of length before each frame of a byte stream (core.framestream)
    BEFORE = VNET - PREFIX  # bytes by which a virtio_net_hdr extends into the record before
    LONGEST = 65536 + 32  # bytes, as in wire.py

cdef char packet[VNET + LONGEST]


def write_frames(int fd, bytes data, bytes spans, int first, uint32_t shortest, uint32_t longest):
    """Write the frames of savefile_records.Spans, from number `first` on, each with an empty virtio_net_hdr.

    Stop at a frame that is shorter than `shortest` or longer than `longest`, and at one that the tap refuses.
    Return (number, size, error). number: that of the frame not written, or the number of frames. size: the bytes of the
    frames written. error: the errno of write(2), 0 if it was not called.
    """
    cdef const char *memory = PyBytes_AS_STRING(data)
    cdef const Span *span = <const Span *>PyBytes_AS_STRING(spans)
    cdef int count = len(spans) // sizeof(Span)
    cdef Py_ssize_t size = 0, whole = len(data)
    cdef int number = first, error = 0
    longest = min(longest, <uint32_t>LONGEST)
    memset(packet, 0, VNET)
    while 0 <= number < count:
        if not shortest <= span[number].length <= longest:
            break
        if <Py_ssize_t>span[number].begin + span[number].length > whole:
            raise ValueError("a frame extends past the end of the data")
        memcpy(packet + VNET, memory + span[number].begin, span[number].length)
        if write(fd, packet, VNET + span[number].length) < 0:
            error = errno
            break
        size += span[number].length
        number += 1
    return number, size, error


def read_records(int fd, room, Py_ssize_t at, Py_ssize_t end, int most):
    """Read up to `most` frames into `room`, as records of a byte stream, from offset `at` on.

    Start no record at or after the offset `end`. `room` has space for one more frame of any length there, and BEFORE
    bytes before `at`.
    Return (at, last, frames, error). at: the offset after the last record. last: that of the last record. frames: the
    number of records. error: the errno of read(2) if no further frame could be read, or 0.
    """
    cdef Py_buffer view
    cdef char kept[BEFORE]
    cdef char *record
    cdef Py_ssize_t last = at, length
    cdef uint32_t prefix
    cdef int frames = 0, error = 0
    PyObject_GetBuffer(room, &view, PyBUF_WRITABLE)
    try:
        if at < BEFORE or end + PREFIX + LONGEST > view.len:
            raise ValueError("the room is too small")
        while frames < most and at < end:
            record = <char *>view.buf + at
            # The tap's header covers the prefix of this record and the end of the record before, which is restored.
            memcpy(kept, record - BEFORE, BEFORE)
            length = read(fd, record - BEFORE, VNET + LONGEST) - VNET
            error = errno if length < -VNET else ENXIO
            memcpy(record - BEFORE, kept, BEFORE)
            if length <= 0:
                break
            error = 0
            prefix = htobe32(length)
            memcpy(record, &prefix, PREFIX)
            last, at = at, at + PREFIX + length
            frames += 1
    finally:
        PyBuffer_Release(&view)
    return at, last, frames, error


def write_records(int fd, data, Py_ssize_t at, int most, uint32_t shortest, uint32_t longest):
    """Write the frames of up to `most` records of a byte stream to the tap, from offset `at` on.

    Stop at an incomplete record, at a frame that is shorter than `shortest` or longer than `longest`, and at one that
    the tap refuses. The virtio_net_hdr of a frame overwrites the bytes before it.
    Return (at, frames, size, error). at: the offset of the first record not written. frames, size: the number of frames
    written, and their bytes. error: the errno of write(2), 0 if it was not called.
    """
    cdef Py_buffer view
    cdef char *record
    cdef Py_ssize_t size = 0
    cdef uint32_t length, prefix
    cdef int frames = 0, error = 0
    PyObject_GetBuffer(data, &view, PyBUF_WRITABLE)
    try:
        longest = min(longest, <uint32_t>LONGEST)
        while BEFORE <= at <= view.len - PREFIX and frames < most:
            record = <char *>view.buf + at
            memcpy(&prefix, record, PREFIX)
            length = be32toh(prefix)
            if not shortest <= length <= longest or at + PREFIX + length > view.len:
                break
            memset(record - BEFORE, 0, VNET)
            if write(fd, record - BEFORE, VNET + length) < 0:
                error = errno
                memcpy(record, &prefix, PREFIX)
                break
            frames, size, at = frames + 1, size + length, at + PREFIX + length
    finally:
        PyBuffer_Release(&view)
    return at, frames, size, error
