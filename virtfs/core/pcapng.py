"""pcapng, written: the blocks of a capture, each whole (draft-ietf-opsawg-pcapng).

A file begins with section_header(). Then comes an interface_description() for each interface, numbered from 0
in the order of these blocks; one that appears later gets its block then. Packets and statistics come behind
the block of their interface. All is little-endian, times are nanoseconds since 1970, as if_tsresol says.
"""

from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from struct import Struct

LINKTYPE_ETHERNET = 1
INBOUND, OUTBOUND = 1, 2  # as epb_flags say it

PACKET, _INTERFACE, _NAMES, _STATISTICS, _SECTION = 6, 1, 4, 5, 0x0A0D0D0A  # block types

_END_OF_OPTIONS = bytes(4)
_OPTION_MAX = 0xFFFF  # bytes: the length is a 16-bit number
_FLAGS = 2 | 4 << 16  # code and length of an option as one number: epb_flags, 4 bytes;
_DROPCOUNT = 4 | 8 << 16  # epb_dropcount, 8 bytes

_ONE, _TWO = Struct("<I").pack, Struct("<II").pack
_option_head = Struct("<HH").pack

# What stands before and behind the frame of a packet. Before: PACKET, the block's length, the interface's number, the
# upper and the lower half of the time, bytes captured, bytes of the frame. Behind, first the padding to four bytes.
packet_head = Struct("<IIIIIII").pack
_PACKET_TAILS = [Struct(f"<{padding}xIIII").pack for padding in range(4)]
_LOSSY_TAILS = [Struct(f"<{padding}xIIIQII").pack for padding in range(4)]
_KIND_AND_LENGTH = Struct("<II").unpack_from
_LENGTH_AND_TIME = Struct("<4xI4xII").unpack_from
_WITHOUT = [0xFFFFFFFF >> 8 * padding for padding in range(4)]  # the last word of a frame, without padding
_FEW = 16
_BARE = 7 * 4 + 4 * 4  # bytes of both, without padding
_DROPCOUNT_LEN = 12


def section_header(hardware: str, os: str, application: str) -> bytes:
    """The block that begins a file; an empty text is left out. Its section may have any length."""
    body = Struct("<IHHq").pack(0x1A2B3C4D, 1, 0, -1)
    return _block(_SECTION, body, _text(2, hardware) + _text(3, os) + _text(4, application))


def interface_description(name: str, description: str, mac: bytes, snaplen: int, filter: str | None = None) -> bytes:
    """The block of an Ethernet interface.

    mac: six bytes. snaplen: the longest part of a frame that is captured, 0 if there is no limit. filter:
    tcpdump's expression of what is captured. An empty description, and no filter, are left out.
    """
    options = _text(2, name) + _text(3, description) + _option(6, mac)
    options += _option(9, b"\x09")  # if_tsresol: 10^-9 s
    if filter:
        options += _option(11, b"\0" + _encoded(filter))  # 0: an expression, not BPF code
    return _block(_INTERFACE, Struct("<HHI").pack(LINKTYPE_ETHERNET, 0, snaplen), options)


def enhanced_packet(
    interface_id: int,
    timestamp_ns: int,
    frame: bytes | memoryview,
    original_length: int,
    direction: int,
    dropped: int = 0,
) -> bytes:
    """The block of a frame. Called for each frame captured, hence the tables above.

    original_length: the whole frame's, where `frame` is only its beginning. direction: INBOUND, OUTBOUND,
    or 0 if it is not known. dropped: frames of this interface that are missing since its last one.
    """
    captured = len(frame)
    padding = -captured & 3
    if dropped:
        total = _BARE + captured + padding + _DROPCOUNT_LEN
        tail = _LOSSY_TAILS[padding](_FLAGS, direction, _DROPCOUNT, dropped, 0, total)
    else:
        total, tail = packet_tail(captured, direction)
    head = packet_head(
        PACKET, total, interface_id, timestamp_ns >> 32, timestamp_ns & 0xFFFFFFFF, captured, original_length
    )
    return b"".join((head, frame, tail))


@lru_cache(4096)
def packet_tail(captured: int, direction: int) -> tuple[int, bytes]:
    """How long the block is of a frame of which so many bytes were captured, and what follows these in it."""
    padding = -captured & 3
    total = _BARE + captured + padding
    return total, _PACKET_TAILS[padding](_FLAGS, direction, 0, total)


def equal_packets(
    interface_id: int, high: int, lows: "array[int]", columns: Sequence[memoryview], length: int, directions: bytes
) -> bytes:
    """The blocks of many frames of one length, made all together: a tenth of the work for each.

    high, lows: the upper half of all timestamps and the lower of each. columns: for each word of 32 bits of a
    frame, those of all frames. length: of a frame, in bytes, all of it was captured. directions: a byte each.
    """
    count, padding = len(lows), -length & 3
    block = enhanced_packet(interface_id, high << 32, bytes(length), length, 0)
    blocks = bytearray(block * count)
    words, step, at = memoryview(blocks).cast("I"), len(block) // 4, 7
    words[4::step] = memoryview(lows)
    memoryview(blocks)[len(block) - 12 :: len(block)] = directions
    for column in columns:
        words[at::step] = column
        at += 1
    if padding:
        words[at - 1 :: step] = memoryview(array("I", [word & _WITHOUT[padding] for word in columns[-1]]))
    return bytes(blocks)


def split_packets(packets: bytes) -> Iterator[tuple[int, bytes]]:
    """The time in ns, and the bytes, of each of many blocks as enhanced_packet makes them."""
    at = 0
    while at < len(packets):
        total, high, low = _LENGTH_AND_TIME(packets, at)
        yield high << 32 | low, packets[at : at + total]
        at += total


def whole_blocks(blocks: bytes | memoryview, size: int, least: int = 0) -> tuple[int, int]:
    """The bytes of as many whole blocks, from the first on, as take `size` bytes at most, and how many are frames.

    least: 1 to have the first in any case.
    """
    at, frames = _equal_blocks(blocks, size) if blocks and not least else (0, 0)
    while at < len(blocks):
        kind, total = _KIND_AND_LENGTH(blocks, at)
        if at + total > size and not least:
            break
        least = 0
        at += total
        frames += kind == PACKET
    return at, frames


def _equal_blocks(blocks: bytes | memoryview, size: int) -> tuple[int, int]:
    """The same for those that are as long as the first, all asked together; nothing if they are not, or few."""
    _, total = _KIND_AND_LENGTH(blocks, 0)
    count, step = min(size, len(blocks)) // total, total // 4
    if count > _FEW:
        words = memoryview(blocks).cast("I")
        if words[1 : count * step : step].tolist() == [total] * count:
            return count * total, words[: count * step : step].tolist().count(PACKET)
    return 0, 0


def with_dropcount(packets: bytes, dropped: int) -> bytes:
    """The same packets, as enhanced_packet makes them; so many of their interface are missing before the first."""
    _, total = _KIND_AND_LENGTH(packets, 0)
    longer = total + _DROPCOUNT_LEN
    options_end = total - 8  # the end of the options, and the length again
    option = Struct("<IQII").pack(_DROPCOUNT, dropped, 0, longer)
    return b"".join((_TWO(PACKET, longer), packets[8:options_end], option, packets[total:]))


def interface_statistics(
    interface_id: int, timestamp_ns: int, received: int, dropped: int, start_ns: int | None = None
) -> bytes:
    """The block that sums up an interface from `start_ns`, when its capture began, to `timestamp_ns`.

    received: frames that the capture saw, those it dropped among them. They are isb_ifrecv and isb_ifdrop, as
    dumpcap writes them.
    """
    count = Struct("<Q").pack
    options = b"" if start_ns is None else _option(2, _time(start_ns)) + _option(3, _time(timestamp_ns))
    options += _option(4, count(received)) + _option(5, count(dropped))
    return _block(_STATISTICS, _ONE(interface_id) + _time(timestamp_ns), options)


def no_names() -> bytes:
    """Return a name resolution block without a name: the one standard block that says nothing."""
    return _block(_NAMES, _ONE(0), b"")  # nrb_record_end


def _block(kind: int, body: bytes, options: bytes) -> bytes:
    """A block of what takes whole 32-bit words."""
    if options:
        options += _END_OF_OPTIONS
    total = 12 + len(body) + len(options)
    return b"".join((_TWO(kind, total), body, options, _ONE(total)))


def _time(nanoseconds: int) -> bytes:
    """The two halves of a time, the upper one first in either byte order."""
    return _TWO(nanoseconds >> 32, nanoseconds & 0xFFFFFFFF)


def _text(code: int, text: str) -> bytes:
    return _option(code, _encoded(text)) if text else b""


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _option(code: int, value: bytes) -> bytes:
    """An option, padded; nothing if the value is too long: the beginning of a filter is another filter."""
    if len(value) > _OPTION_MAX:
        return b""
    return _option_head(code, len(value)) + value + bytes(-len(value) & 3)
