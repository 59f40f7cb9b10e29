"""Builds capture files that no common tool writes, such as those with the other byte order or with obsolete blocks."""

import errno
import struct
from collections.abc import Iterable
from itertools import pairwise

import pytest

from virtfs.core.errors import VirtError
from virtfs.core.savefile import Reader, Record

SECONDS = 1_700_000_000
NS = 10**9
FRAME = bytes(range(60))
ORDERS = pytest.mark.parametrize("order", ["<", ">"])
FCS = b"FCS!"


def pcap(
    order: str, packets: Iterable[bytes] = (), magic: int = 0xA1B2C3D4, linktype: int = 1, major: int = 2
) -> bytes:
    head = struct.pack(order + "IHHiIII", magic, major, 4, 0, 0, 65535, linktype)
    return head + b"".join(packets)


def pcap_packet(order: str, fraction: int, frame: bytes, length: int | None = None) -> bytes:
    length = len(frame) if length is None else length
    return struct.pack(order + "IIII", SECONDS, fraction, len(frame), length) + frame


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    total = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + total + body + total


def section(order: str, major: int = 1) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, major, 0, -1))


def interface(order: str, options: bytes = b"", linktype: int = 1, snaplen: int = 0) -> bytes:
    return block(order, 1, struct.pack(order + "HHI", linktype, 0, snaplen) + options)


def option(order: str, code: int, value: bytes) -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def enhanced(order: str, number: int, ticks: int, frame: bytes, length: int = 60, captured: int | None = None) -> bytes:
    captured = len(frame) if captured is None else captured
    head = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, captured, length)
    return block(order, 6, head + frame + bytes(-len(frame) % 4) + option(order, 2, bytes(4)) + bytes(4))


def obsolete(order: str, number: int, ticks: int, frame: bytes) -> bytes:
    head = struct.pack(order + "HHIIII", number, 9, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
    return block(order, 2, head + frame)


def simple(order: str, frame: bytes, length: int) -> bytes:
    return block(order, 3, struct.pack(order + "I", length) + frame)


def others(order: str) -> bytes:
    """Return blocks without packets: names, statistics, a journal entry, secrets, custom ones, unknown ones."""
    kinds = (4, 5, 9, 10, 0xBAD, 0x40000BAD, 0x80000001)
    return b"".join(block(order, kind, bytes(range(kind % 50))) for kind in kinds) + block(order, 0x777, b"")


def read(data: bytes | memoryview, reader: Reader | None = None) -> list[Record]:
    """Return the records of a whole file."""
    reader = reader or Reader()
    records = list(reader.feed(data))
    reader.finish()
    return records


def read_until_broken(pieces: Iterable[bytes]) -> tuple[list[Record], str]:
    """Return the records before the error, and the error's message ("" if there was no error)."""
    reader = Reader()
    records: list[Record] = []
    try:
        for piece in pieces:
            records.extend(reader.feed(piece))
        reader.finish()
    except VirtError as error:
        told = error
    else:
        return records, ""
    assert told.errno == errno.EINVAL
    return records, told.strerror


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    return [data[begin:end] for begin, end in pairwise([0, *sorted(places), len(data)])]


def flagged(order: str, fcs: int, frame: bytes, length: int | None = None, before: bytes = b"") -> bytes:
    """Return an enhanced packet whose flags announce an FCS of `fcs` bytes (0: of unknown length)."""
    head = struct.pack(order + "IIIII", 0, 0, 0, len(frame), len(frame) if length is None else length)
    flags = option(order, 2, struct.pack(order + "I", 0xFF00_0000 | fcs << 5 | 1))
    return block(order, 6, head + frame + bytes(-len(frame) % 4) + before + flags + bytes(4))
