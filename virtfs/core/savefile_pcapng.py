"""Decode pcapng (draft-ietf-opsawg-pcapng).

A file consists of sections. A section consists of blocks, and can have many interfaces.
"""

from collections.abc import Callable, Iterator
from errno import EINVAL
from itertools import chain
from math import gcd
from struct import Struct
from typing import NamedTuple

from virtfs.core.compiled import compiled
from virtfs.core.errors import VirtError
from virtfs.core.pcapng import MARK_HEAD
from virtfs.core.savefile_records import (
    ETHERNET,
    FCS,
    FRAME_MAX,
    NATIVE,
    SECOND,
    SINGLES,
    Group,
    Record,
    Run,
    Spans,
    alike,
    frame_of,
    must_be_a_frame,
    must_be_ethernet,
)

BLOCK_MAX = 16 << 20  # bytes; Wireshark's MAX_BLOCK_SIZE
# Maximum number of interfaces in one section. A limit is needed because the decoder keeps every interface until the
# section ends. Nothing else that the decoder keeps grows with the file.
INTERFACES_MAX = 65536

_SECTION = 0x0A0D0D0A  # block type
_ENHANCED = 6  # block type
_ENHANCED_HEAD = 28  # bytes of type, length, interface, time in two halves, captured length, original length
_ENHANCED_MIN = _ENHANCED_HEAD + 4  # bytes; the block length is repeated at the end
_BLOCK_MIN = 12  # bytes of type, length, and the length again at the end
_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}  # the byte-order magic 0x1a2b3c4d
_IF_TSRESOL, _IF_FCSLEN, _IF_TSOFFSET = 9, 13, 14  # option codes
_COMMENT = 1  # option code
# Code of the options epb_flags and pack_flags. Bits 5 to 8 are the length of the FCS in bytes, 0 if unknown.
_FLAGS = 2
_OPTIONS_MAX = 32  # bytes; a packet with longer options never begins a run
_END_OF_OPTIONS = bytes(4)
_PLAIN_OPTIONS_MAX = 64  # maximum size of _Section.plain_options


class Pcapng:
    """A decoder of pcapng. A file begins with a section header, whose block type is MAGIC in either byte order."""

    MAGIC = b"\n\r\r\n"

    def __init__(self) -> None:
        self.taken = self.needed = 0
        self._section = _Section("<")
        # Finds the frames of many packets at once. None if the compiled module is not used.
        self._find_plain: Callable[[bytes, int, int, set[int]], tuple[bytes, int]] | None = compiled(
            "virtfs.core.plainrecords", "pcapng"
        )

    def records(self, data: bytes) -> Iterator[Record]:
        at = 0
        self.needed = _BLOCK_MIN
        while (block := self._block(data, at)) is not None:
            if block.record:
                yield block.record
            self._section = block.section
            self.taken = at = block.end

    def frames(self, data: bytes, most: Callable[[], int]) -> Iterator[Group]:
        at = 0
        self.needed = _BLOCK_MIN
        while True:
            if self._find_plain and self._section.native:
                spans, end = self._find_plain(data, at, most(), self._section.plain_interfaces)
                if spans:
                    yield Spans(data, spans)
                    self.taken = at = end
                    continue
            block = self._block(data, at)
            if block is None:
                return
            self._section, record, end = block
            if record:
                limit, length = most(), end - at
                count = self._section.alike(data, at, length, limit)
                if count > 1:
                    end = at + count * length
                    yield Run(data, at + _ENHANCED_HEAD, len(record.frame), length, count)
                else:
                    self.taken = end
                    yield chain((record.frame,), self._plain_frames(data, end, min(limit, SINGLES) - 1))
                    end = self.taken
            self.taken = at = end

    def _plain_frames(self, data: bytes, at: int, most: int) -> Iterator[bytes]:
        """Yield the frames of plain packets, starting at offset `at`, and set `taken`.

        A plain packet is a complete enhanced packet of a plain interface with plain options. An interface becomes plain
        when _Section._record() decodes one of its packets and finds that it has no FCS. The options of that packet
        become plain if they are empty or consist of the flags only. A mark has a comment, so it is never plain.
        Comparing a packet with known values is cheaper than decoding it.
        most: maximum number of frames.
        """
        section, last = self._section, len(data) - _ENHANCED_MIN
        head, options, interfaces = section.enhanced_head, section.plain_options, section.plain_interfaces
        for _ in range(most):
            if at > last:
                break
            kind, length, number, captured, original = head(data, at)
            begin, end = at + _ENHANCED_HEAD, at + length
            padded = begin + (captured + 3 & ~3)
            if kind != _ENHANCED or number not in interfaces or padded > end - 4 or captured > FRAME_MAX:
                break
            if data[padded : end - 4] not in options or data[at + 4 : at + 8] != data[end - 4 : end]:
                break
            self.taken = at = end
            yield data[begin : begin + (captured if captured < original else original)]

    def _block(self, data: bytes, at: int) -> "_Block | None":
        """Decode the block at offset `at`. If it is incomplete, set `needed` and return None."""
        section, size = self._section, len(data)
        if at + _BLOCK_MIN > size:
            return None
        kind, length = section.pair(data, at)
        if kind == _SECTION:
            section = _Section(_byte_order(data[at + 8 : at + 12]))
            kind, length = section.pair(data, at)
        if length < _BLOCK_MIN or length & 3 or length > BLOCK_MAX:
            raise VirtError(
                EINVAL, f'"{length}" is not a valid block length: it must be a multiple of 4 from 12 to {BLOCK_MAX}'
            )
        end = at + length
        if end > size:
            self.needed = length
            return None
        if data[at + 4 : at + 8] != data[end - 4 : end]:
            again = section.one(data, end - 4)[0]
            raise VirtError(
                EINVAL, f'the block length is "{length}" at the start of the block but "{again}" at its end'
            )
        decode = _BLOCKS.get(kind)
        return _Block(section, decode(section, data, at, end) if decode else None, end)


class _Section:
    """The state of one section and the decoders of its blocks.

    The arguments of a decoder: data, a piece of the file; at and end, the offsets of the beginning and the end of the
    block in data. The caller has checked that the block has at least _BLOCK_MIN bytes.
    """

    def __init__(self, order: str) -> None:
        self.one = Struct(order + "I").unpack_from
        self.pair = Struct(order + "II").unpack_from
        self._order = order
        self.native = order == NATIVE
        self._enhanced = Struct(order + "IIIII").unpack_from
        self._obsolete = Struct(order + "HHIIII").unpack_from
        self._flags_head = Struct(order + "HH").pack(_FLAGS, 4)
        self._interfaces: list[_Interface] = []
        # For Pcapng._plain_frames(): a decoder of the head of an enhanced packet, and the plain options and interfaces.
        self.enhanced_head = Struct(order + "III8xII").unpack_from
        self.plain_options: set[bytes] = set()
        self.plain_interfaces: set[int] = set()

    def section_header(self, data: bytes, at: int, end: int) -> None:
        _must_have(28, end - at)
        major, minor = Struct(self._order + "HH").unpack_from(data, at + 12)
        if major != 1:
            raise VirtError(EINVAL, f'pcapng version "{major}.{minor}" is not supported: only 1.x is')

    def interface(self, data: bytes, at: int, end: int) -> None:
        _must_have(20, end - at)
        if len(self._interfaces) == INTERFACES_MAX:
            raise VirtError(EINVAL, f"the section has more than {INTERFACES_MAX} interfaces")
        linktype, snaplen = Struct(self._order + "HxxI").unpack_from(data, at + 8)
        frequency = 10**6  # clock ticks a second
        offset = 0  # seconds
        fcs = 0
        for code, value in self._options(data, at + 16, end - 4):
            if code == _IF_TSRESOL and len(value) == 1:
                frequency = (2 if value[0] & 0x80 else 10) ** (value[0] & 0x7F)
            elif code == _IF_TSOFFSET and len(value) == 8:
                offset = Struct(self._order + "q").unpack(value)[0]
            elif code == _IF_FCSLEN and len(value) == 1:
                # The text of the draft says that the value is in bits. But the example in the draft, and the programs
                # that write this option, give 4 for an FCS of 4 bytes.
                fcs = FCS if value[0] == FCS else value[0] // 8
            elif code in (_IF_TSRESOL, _IF_FCSLEN, _IF_TSOFFSET):
                raise VirtError(EINVAL, f'"{len(value)}" is not a valid length for option {code} of an interface')
        common = gcd(SECOND, frequency)
        clock = SECOND // common, frequency // common, offset * SECOND
        self._interfaces.append(_Interface(*clock, snaplen, linktype, fcs))

    def enhanced_packet(self, data: bytes, at: int, end: int) -> Record | None:
        _must_have(_ENHANCED_MIN, end - at)
        if data.startswith(MARK_HEAD, at + _ENHANCED_HEAD) and self._has_comment(data, at, end):
            return None  # a mark is not a frame (core.pcapng)
        number, upper, lower, captured, length = self._enhanced(data, at + 8)
        return self._record(number, upper << 32 | lower, data, at + _ENHANCED_HEAD, end, captured, length)

    def alike(self, data: bytes, at: int, length: int, most: int) -> int:
        """Return the number of enhanced packets in the run that begins at `at`; 1 if there is no run.

        at: offset of a packet block of any type. length: block length. most: maximum number of packets.
        The packets of a run have the same block length, interface, captured length, original length and options. The
        length of the FCS is then also the same.
        """
        if self.one(data, at)[0] != _ENHANCED:
            return 1
        options = _ENHANCED_HEAD + (self.one(data, at + 20)[0] + 3 & ~3)
        if length - options > _OPTIONS_MAX:
            return 1
        return alike(data, at, length, most, chain(range(12), range(20, _ENHANCED_HEAD), range(options, length)))

    def obsolete_packet(self, data: bytes, at: int, end: int) -> Record:
        _must_have(32, end - at)
        number, _drops, upper, lower, captured, length = self._obsolete(data, at + 8)
        return self._record(number, upper << 32 | lower, data, at + 28, end, captured, length)

    def simple_packet(self, data: bytes, at: int, end: int) -> Record:
        _must_have(16, end - at)
        length = self.one(data, at + 8)[0]
        captured = min(length, self._interface(0).snaplen or length)
        return self._record(0, None, data, at + 12, end, captured, length, options=False)

    def _record(
        self,
        number: int,
        time: int | None,
        data: bytes,
        begin: int,
        end: int,
        captured: int,
        length: int,
        options: bool = True,
    ) -> Record:
        interface = self._interface(number)
        if interface.linktype != ETHERNET:
            must_be_ethernet(interface.linktype)
        if captured > end - 4 - begin or captured > FRAME_MAX:
            must_be_a_frame(captured, min(end - 4 - begin, FRAME_MAX))
        if time is not None:
            time = time * interface.numerator // interface.denominator + interface.offset
        fcs = interface.fcs
        at = begin + (captured + 3 & ~3)
        if options and at + 4 < end:
            # Most programs write the flags as the first option. Checking the first option takes a tenth of the time of
            # a search through all options.
            first = data[at : at + 4] == self._flags_head
            flags = self.one(data, at + 4)[0] if first else self._flags(data, at, end - 4)
            fcs = flags >> 5 & 0xF or fcs
        if fcs:
            length = max(length - fcs, 0)
        elif options:
            self.plain_interfaces.add(number)
            found = data[at : end - 4]
            flags_alone = found.startswith(self._flags_head) and found[8:] in (b"", _END_OF_OPTIONS)
            if (not found or flags_alone) and len(self.plain_options) < _PLAIN_OPTIONS_MAX:
                self.plain_options.add(found)
        return Record(time, frame_of(data, begin, captured, length), number, length)

    def _flags(self, data: bytes, at: int, end: int) -> int:
        """Return the value of a packet's flags option, 0 if the packet has none."""
        found = (value for code, value in self._options(data, at, end) if code == _FLAGS and len(value) == 4)
        return int(self.one(next(found, bytes(4)))[0])

    def _has_comment(self, data: bytes, at: int, end: int) -> bool:
        captured = self.one(data, at + 20)[0]
        options = at + _ENHANCED_HEAD + (captured + 3 & ~3)
        return any(code == _COMMENT for code, _ in self._options(data, options, end - 4))

    def _interface(self, number: int) -> "_Interface":
        try:
            return self._interfaces[number]
        except IndexError:
            raise VirtError(EINVAL, f'the section has no interface number "{number}"') from None

    def _options(self, data: bytes, at: int, end: int) -> Iterator[tuple[int, bytes]]:
        head = Struct(self._order + "HH").unpack_from
        while at + 4 <= end:
            code, length = head(data, at)
            if code == 0:
                return
            at += 4
            if at + length > end:
                raise VirtError(EINVAL, f"option {code} has length {length} and extends past the end of its block")
            yield code, data[at : at + length]
            at += (length + 3) & ~3


class _Block(NamedTuple):
    """A decoded block.

    section: the section that the block belongs to or begins. record: None if the block has no frame. end: offset of
    the next block.
    """

    section: _Section
    record: Record | None
    end: int


class _Interface(NamedTuple):
    """An interface of a section.

    numerator, denominator: a clock tick is numerator / denominator nanoseconds. offset: nanoseconds added to each time.
    snaplen: maximum captured bytes of a frame, 0 for no limit. linktype: link type of the frames. It is checked with
    each packet, because an interface without packets may have any link type. fcs: length in bytes of the FCS at the end
    of each frame, unless the flags of the frame give another length.
    """

    numerator: int
    denominator: int
    offset: int
    snaplen: int
    linktype: int
    fcs: int


# Decoders by block type. Blocks of other types are skipped.
_BLOCKS: dict[int, Callable[[_Section, bytes, int, int], Record | None]] = {
    _SECTION: _Section.section_header,
    1: _Section.interface,
    2: _Section.obsolete_packet,
    3: _Section.simple_packet,
    _ENHANCED: _Section.enhanced_packet,
}


def _byte_order(magic: bytes) -> str:
    order = _ORDERS.get(magic)
    if order is None:
        raise VirtError(EINVAL, f'"{magic.hex()}" is not a byte-order magic: it must be 1a2b3c4d or 4d3c2b1a')
    return order


def _must_have(least: int, length: int) -> None:
    if length < least:
        raise VirtError(EINVAL, f"a block of {length} bytes is too short for its type: the minimum is {least} bytes")
