"""Loops that tests run in an agent, for streams that are too fast for one call per read or write."""

import os
import select
import struct

_ENHANCED_PACKET = 6


def longest_read(fd: int, frames: int) -> int:
    """Read `frames` frames from a frame file. Returns the length of the longest in bytes."""
    return max(len(os.read(fd, 70000)) for _ in range(frames))


def longest_captured(fd: int, frames: int) -> int:
    """Read `frames` frames from a pcap file, whose reads return whole blocks. Returns the length of the longest."""
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
    """Write all of `data`, waiting only in epoll_wait(2). Returns how many writes failed with EAGAIN."""
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
