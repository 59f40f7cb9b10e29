# cython: language_level=3
"""Writes many frames of any lengths into a tap, without Python between them."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport errno
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset
from posix.unistd cimport write

cdef extern from "<linux/virtio_net.h>":
    cdef struct virtio_net_hdr:  # precedes each frame of a tap with IFF_VNET_HDR
        pass

cdef struct Span:  # core.savefile_records.Spans describes it
    uint32_t begin, length

cdef enum:
    VNET = sizeof(virtio_net_hdr)
    LONGEST = 65536  # bytes; tun_get_user in drivers/net/tun.c takes no longer frame

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
