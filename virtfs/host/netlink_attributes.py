"""The attributes of rtnetlink messages as raw bytes: struct nlattr of linux/netlink.h."""

import struct
from collections.abc import Iterable

from virtfs.core.bytestext import to_text

_ATTRIBUTE = struct.Struct("HH")  # struct nlattr: length including this header, type
_TYPE = 0x3FFF  # NLA_TYPE_MASK
_NESTED = 0x8000  # NLA_F_NESTED

Attributes = dict[int, bytes]


def parse(data: bytes, at: int = 0) -> Attributes:
    """Return the attributes by type. If a type occurs more than once, its last value counts.

    at: the offset of the first attribute in `data`.
    """
    attributes: Attributes = {}
    end, unpack, head = len(data), _ATTRIBUTE.unpack_from, _ATTRIBUTE.size
    while end - at >= head:
        length, kind = unpack(data, at)
        if length < head:
            break
        attributes[kind & _TYPE] = data[at + head : at + length]
        at += length + 3 & ~3
    return attributes


def find(data: bytes, at: int, kind: int) -> bytes | None:
    """Return the value of the first attribute of a type, or None if there is none.

    at: the offset of the first attribute of any type in `data`.
    """
    end, unpack, head = len(data), _ATTRIBUTE.unpack_from, _ATTRIBUTE.size
    while end - at >= head:
        length, this = unpack(data, at)
        if length < head:
            break
        if this & _TYPE == kind:
            return data[at + head : at + length]
        at += length + 3 & ~3
    return None


def pack(attributes: Iterable[tuple[int, bytes]]) -> bytes:
    """Encode attributes, given as pairs of type and value, as bytes. This is the inverse of parse()."""
    return b"".join(_padded(_ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value) for kind, value in attributes)


def nested(kind: int, *attributes: tuple[int, bytes]) -> tuple[int, bytes]:
    """Return an attribute that contains other attributes."""
    return kind | _NESTED, pack(attributes)


def text(value: bytes) -> str:
    """Return the text of a string attribute. A NUL byte ends the string."""
    return to_text(value.partition(b"\0")[0])


def _padded(data: bytes) -> bytes:
    return data + bytes((len(data) + 3 & ~3) - len(data))
