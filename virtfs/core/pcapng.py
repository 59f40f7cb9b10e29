"""pcapng, written: the blocks of a capture, each whole (draft-ietf-opsawg-pcapng).

A file begins with section_header(). Then comes an interface_description() for each interface, numbered from 0
in the order of these blocks; one that appears later gets its block then. Packets and statistics come behind
the block of their interface. All is little-endian, times are nanoseconds since 1970, as if_tsresol says.
"""

from struct import Struct

LINKTYPE_ETHERNET = 1
INBOUND, OUTBOUND = 1, 2  # as epb_flags say it

_INTERFACE, _STATISTICS, _PACKET, _SECTION = 1, 5, 6, 0x0A0D0D0A  # block types

_END_OF_OPTIONS = bytes(4)
_OPTION_MAX = 0xFFFF  # bytes: the length is a 16-bit number
_FLAGS = 2 | 4 << 16  # code and length of an option as one number: epb_flags, 4 bytes;
_DROPCOUNT = 4 | 8 << 16  # epb_dropcount, 8 bytes

_ONE, _TWO = Struct("<I").pack, Struct("<II").pack
_option_head = Struct("<HH").pack

# What stands before and behind the frame of a packet. The one behind begins with the padding to four bytes.
_packet_head = Struct("<IIIIIII").pack
_PACKET_TAILS = [Struct(f"<{padding}xIIII").pack for padding in range(4)]
_LOSSY_TAILS = [Struct(f"<{padding}xIIIQII").pack for padding in range(4)]
_BARE = 7 * 4 + 4 * 4  # bytes of both, without padding
_DROPCOUNT_LEN = 12


def section_header(hardware: str, os: str, application: str) -> bytes:
    """The block that begins a file; an empty text is left out. Its section may have any length."""
    body = Struct("<IHHq").pack(0x1A2B3C4D, 1, 0, -1)
    return _block(_SECTION, body, _text(2, hardware) + _text(3, os) + _text(4, application))


def interface_description(
    name: str, description: str, mac: bytes, snaplen: int, filter: str | None = None
) -> bytes:
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
    total = _BARE + captured + padding
    if dropped:
        total += _DROPCOUNT_LEN
        tail = _LOSSY_TAILS[padding](_FLAGS, direction, _DROPCOUNT, dropped, 0, total)
    else:
        tail = _PACKET_TAILS[padding](_FLAGS, direction, 0, total)
    head = _packet_head(
        _PACKET, total, interface_id, timestamp_ns >> 32, timestamp_ns & 0xFFFFFFFF, captured, original_length
    )
    return b"".join((head, frame, tail))


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
