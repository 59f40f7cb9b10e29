"""What a test's programs do in a loop of their own, where a stream is faster than a test that looks at each piece."""

import os
import select
import struct

_ENHANCED_PACKET = 6


def longest_read(fd: int, frames: int) -> int:
    """Read as many frames from a frame file; how many bytes the longest of them has."""
    return max(len(os.read(fd, 70000)) for _ in range(frames))


def longest_captured(fd: int, frames: int) -> int:
    """Read as many from a pcap file, whole blocks a read; how many bytes the longest of them has."""
    longest = 0
    while frames > 0:
        data = os.read(fd, 1 << 20)
        at = 0
        while at < len(data):
            kind, total = struct.unpack_from("<II", data, at)
            if kind == _ENHANCED_PACKET:
                (length,) = struct.unpack_from("<I", data, at + 24)
                longest = max(longest, length)
                frames -= 1
            at += total
    return longest


def write_by_epoll(fd: int, data: bytes, events: int) -> int:
    """Write all of it, waiting in epoll alone; how often a write was EAGAIN."""
    refused = 0
    with select.epoll() as poll:
        poll.register(fd, events)
        while data:
            try:
                data = data[os.write(fd, data) :]
            except BlockingIOError:
                refused += 1
                assert poll.poll(5), "no event"
    return refused
