"""Write pcapng: the blocks of a capture (draft-ietf-opsawg-pcapng).

A file begins with section_header(). An interface_description() follows for each interface. The interfaces are numbered
from 0, in the order of these blocks. An interface that is created during the capture gets its block at that point. The
packets and statistics of an interface come after its block. All numbers are little-endian. Times are nanoseconds since
1970, as the option if_tsresol says.
"""

from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from struct import Struct

from virtfs.core.quoting import one_line

LINKTYPE_ETHERNET = 1
INBOUND, OUTBOUND = 1, 2  # values of the direction in epb_flags

# The Ethernet header of a mark: zero addresses, and an EtherType that IEEE 802 reserves for local experiments.
MARK_HEAD = bytes(12) + b"\x88\xb5"

PACKET, _INTERFACE, _NAMES, _STATISTICS, _SECTION = 6, 1, 4, 5, 0x0A0D0D0A  # block types

_END_OF_OPTIONS = bytes(4)
_OPTION_MAX = 0xFFFF  # bytes; the length field of an option has 16 bits
_COMMENT = 1  # opt_comment
# The code and the length of an option, as one 32-bit number.
FLAGS = 2 | 4 << 16  # epb_flags: code 2, length 4
_DROPCOUNT = 4 | 8 << 16  # epb_dropcount: code 4, length 8

_ONE, _TWO = Struct("<I").pack, Struct("<II").pack
_option_head = Struct("<HH").pack

# The parts of a packet block before and after the frame. Head: PACKET, block length, interface number, upper and lower
# half of the time, captured length, original length. Tail: padding, head and value of epb_flags, end of options, block
# length. The index of a tail is its number of padding bytes.
packet_head = Struct("<IIIIIII").pack
packet_tails = [Struct(f"<{padding}xIIII").pack for padding in range(4)]
# The tail of one block together with the head of the next, indexed like packet_tails.
packet_joints = [Struct(f"<{padding}xIIII IIIIIII").pack for padding in range(4)]

_KIND_AND_LENGTH = Struct("<II").unpack_from
_CAPTURED = Struct("<20xI").unpack_from
_LENGTH_AND_TIME = Struct("<4xI4xII").unpack_from
# Masks that clear the padding in the last word of a frame, indexed by the number of padding bytes.
_PADDING_MASKS = [0xFFFFFFFF >> 8 * padding for padding in range(4)]
_FEW = 16  # checking up to this many blocks one by one is faster than checking them together
PACKET_BARE = 7 * 4 + 4 * 4  # bytes of head and tail without padding
_DROPCOUNT_LEN = 12  # bytes of the option epb_dropcount, including its code and length


def section_header(hardware: str, os: str, application: str) -> bytes:
    """Return the section header block, which begins a file.

    An empty text is left out. The section length is left unspecified (-1).
    """
    body = Struct("<IHHq").pack(0x1A2B3C4D, 1, 0, -1)
    return _block(_SECTION, body, _text(2, hardware) + _text(3, os) + _text(4, application))


def interface_description(name: str, description: str, mac: bytes, snaplen: int, filter: str | None = None) -> bytes:
    """Return the interface description block of an Ethernet interface.

    mac: MAC address, six bytes. snaplen: maximum captured bytes of a frame, 0 for no limit. filter: the tcpdump
    expression of the capture. An empty description or filter is left out.
    """
    options = _text(2, name) + _text(3, description) + _option(6, mac)
    options += _option(9, b"\x09")  # if_tsresol: 10^-9 s
    if filter:
        options += _option(11, b"\0" + _encoded(filter))  # 0 means a filter expression, 1 would mean BPF code
    return _block(_INTERFACE, Struct("<HHI").pack(LINKTYPE_ETHERNET, 0, snaplen), options)


def enhanced_packet(
    interface_id: int,
    timestamp_ns: int,
    frame: bytes | memoryview,
    original_length: int,
    direction: int,
) -> bytes:
    """Return the enhanced packet block of a frame.

    The structs are compiled in advance to save time, because this function runs for each captured frame.
    frame: the captured bytes, which may be only the beginning of the frame. original_length: bytes of the whole frame.
    direction: INBOUND, OUTBOUND, or 0 if unknown.
    """
    captured = len(frame)
    total, tail = packet_tail(captured, direction)
    head = packet_head(
        PACKET, total, interface_id, timestamp_ns >> 32, timestamp_ns & 0xFFFFFFFF, captured, original_length
    )
    return b"".join((head, frame, tail))


def mark(interface_id: int, timestamp_ns: int, text: str) -> bytes:
    """Return the packet block of a mark. The mark's text is the comment of the packet (option opt_comment).

    Wireshark reports an empty packet as malformed. So the packet, which was never on the wire, consists of the Ethernet
    header MARK_HEAD and the text as its payload.
    """
    comment = _encoded(text)
    frame = MARK_HEAD + comment
    body = Struct("<IIIII").pack(
        interface_id, timestamp_ns >> 32, timestamp_ns & 0xFFFFFFFF, len(frame), len(frame)
    ) + frame.ljust(len(frame) + 3 & ~3, b"\0")
    return _block(PACKET, body, _option(_COMMENT, comment))


def is_mark(data: bytes, at: int) -> bool:
    """Return whether the block at an offset was made by mark(). Of all packets, only marks begin with a comment."""
    kind, _ = _KIND_AND_LENGTH(data, at)
    if kind != PACKET:
        return False
    (captured,) = _CAPTURED(data, at)
    return int.from_bytes(data[(options := at + 28 + (captured + 3 & ~3)) : options + 2], "little") == _COMMENT


@lru_cache(4096)
def packet_tail(captured: int, direction: int) -> tuple[int, bytes]:
    """Return the length of a packet block, and the bytes of the block that follow the frame.

    captured: number of captured bytes of the frame.
    """
    padding = -captured & 3
    total = PACKET_BARE + captured + padding
    return total, packet_tails[padding](FLAGS, direction, 0, total)


def equal_packets(
    interface_id: int, high: int, lows: "array[int]", columns: Sequence[memoryview], length: int, directions: bytes
) -> bytes:
    """Return the packet blocks of many frames that have the same length.

    This takes a tenth of the time of calling enhanced_packet() for each frame.
    high: upper half of the timestamps, equal for all frames. lows: lower half of the timestamp of each frame. columns:
    one array for each 32-bit word of a frame, with the values of this word in all frames. length: length of a frame in
    bytes; all of its bytes are captured. directions: the direction of each frame, one byte per frame.
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
        words[at - 1 :: step] = memoryview(array("I", [word & _PADDING_MASKS[padding] for word in columns[-1]]))
    return bytes(blocks)


def split_packets(packets: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the time in nanoseconds and the bytes of each block. packets: blocks made by enhanced_packet()."""
    at = 0
    while at < len(packets):
        total, high, low = _LENGTH_AND_TIME(packets, at)
        yield high << 32 | low, packets[at : at + total]
        at += total


def whole_blocks(blocks: bytes | memoryview, size: int, least: int = 0) -> tuple[int, int]:
    """Measure the whole blocks at the beginning of `blocks` that fit in `size` bytes.

    Return the total length of these blocks in bytes, and the number of packet blocks among them.
    least: 1 to include the first block even if it does not fit, otherwise 0.
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
    """Do the same as whole_blocks(), but faster, and only for blocks of equal length, which are checked together.

    Return (0, 0) if the lengths differ or if at most _FEW blocks fit.
    """
    _, total = _KIND_AND_LENGTH(blocks, 0)
    count, step = min(size, len(blocks)) // total, total // 4
    if count > _FEW:
        words = memoryview(blocks).cast("I")
        if words[1 : count * step : step].tolist() == [total] * count:
            return count * total, words[: count * step : step].tolist().count(PACKET)
    return 0, 0


def with_dropcount(packets: bytes, dropped: int) -> bytes:
    """Return the packet blocks with the option epb_dropcount added to the first one.

    dropped: number of frames lost before the first packet.
    """
    _, total = _KIND_AND_LENGTH(packets, 0)
    longer = total + _DROPCOUNT_LEN
    options_end = total - 8  # opt_endofopt and the second block length follow, 4 bytes each
    option = Struct("<IQII").pack(_DROPCOUNT, dropped, 0, longer)
    return b"".join((_TWO(PACKET, longer), packets[8:options_end], option, packets[total:]))


def interface_statistics(
    interface_id: int, timestamp_ns: int, received: int, dropped: int, start_ns: int | None = None
) -> bytes:
    """Return the interface statistics block for a capture from `start_ns` to `timestamp_ns`.

    received: number of frames that the capture saw, including dropped frames; option isb_ifrecv.
    dropped: number of frames dropped; option isb_ifdrop. dumpcap uses both options in this sense.
    start_ns: beginning of the capture; None to leave out both the beginning and the end.
    """
    count = Struct("<Q").pack
    options = b"" if start_ns is None else _option(2, _time(start_ns)) + _option(3, _time(timestamp_ns))
    options += _option(4, count(received)) + _option(5, count(dropped))
    return _block(_STATISTICS, _ONE(interface_id) + _time(timestamp_ns), options)


def no_names() -> bytes:
    """Return a name resolution block without names. It is the only standard block that carries no information."""
    return _block(_NAMES, _ONE(0), b"")  # nrb_record_end


def _block(kind: int, body: bytes, options: bytes) -> bytes:
    """Return a block. The caller has padded body and options to whole 32-bit words."""
    if options:
        options += _END_OF_OPTIONS
    total = 12 + len(body) + len(options)
    return b"".join((_TWO(kind, total), body, options, _ONE(total)))


def _time(nanoseconds: int) -> bytes:
    """Return the two halves of a time. pcapng puts the upper half first, whatever the byte order."""
    return _TWO(nanoseconds >> 32, nanoseconds & 0xFFFFFFFF)


def _text(code: int, text: str) -> bytes:
    return _option(code, _encoded(text)) if text else b""


def _encoded(text: str) -> bytes:
    return one_line(text).encode()


def _option(code: int, value: bytes) -> bytes:
    """Return an option, padded to whole 32-bit words; b"" if the value is too long.

    The value is not truncated, because a truncated filter would have a different meaning.
    """
    if len(value) > _OPTION_MAX:
        return b""
    return _option_head(code, len(value)) + value + bytes(-len(value) & 3)
