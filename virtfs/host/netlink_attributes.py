"""rtnetlink messages as raw bytes, so that the attributes of one interface can be copied to another unchanged."""

import struct
from collections.abc import Iterable

from virtfs.host.rtnl import Message

_HEADER = struct.Struct("IHHII")  # struct nlmsghdr, linux/netlink.h
_ATTRIBUTE = struct.Struct("HH")  # struct nlattr: length including this header, type
_TYPE = 0x3FFF  # NLA_TYPE_MASK

Attributes = dict[int, bytes]


class Raw(dict[str, dict[str, int]]):
    """A message for Rtnl.ask(), made from the bytes that follow the netlink header."""

    def __init__(self, body: bytes) -> None:
        super().__init__(header={})
        self.data = b""
        self._body = body

    def encode(self) -> None:
        """Set `data` to the whole message: the header, which Rtnl.ask() has filled in, and the body."""
        header = self["header"]
        length = _HEADER.size + len(self._body)
        numbers = (length, header["type"], header["flags"], header["sequence_number"], 0)
        self.data = _HEADER.pack(*numbers) + self._body


def body(message: Message) -> bytes:
    """Return the bytes that follow the netlink header of a received message."""
    start: int = message.offset
    return bytes(message.data[start + _HEADER.size : start + message["header"]["length"]])


def parse(data: bytes) -> Attributes:
    """Return the attributes by type. If a type occurs more than once, the last value is returned."""
    attributes: Attributes = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            break
        attributes[kind & _TYPE] = data[_ATTRIBUTE.size : length]
        data = data[_aligned(length) :]
    return attributes


def pack(attributes: Iterable[tuple[int, bytes]]) -> bytes:
    """Encode attributes, given as pairs of type and value, as bytes. This is the inverse of parse()."""
    return b"".join(_padded(_ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value) for kind, value in attributes)


def _padded(data: bytes) -> bytes:
    return data + bytes(_aligned(len(data)) - len(data))


def _aligned(length: int) -> int:
    return length + 3 & ~3
