"""pcapng, read (draft-ietf-opsawg-pcapng): sections of blocks, with packets of any number of interfaces."""

from collections.abc import Callable, Iterator
from errno import EINVAL
from itertools import chain
from math import gcd
from struct import Struct
from typing import NamedTuple, cast

from virtfs.core.errors import VirtError
from virtfs.core.savefile_records import (
    ETHERNET,
    FCS,
    FRAME_MAX,
    SECOND,
    SHORTEST_RUN,
    SINGLES,
    Record,
    Run,
    alike,
    frame_of,
    must_be_a_frame,
    must_be_ethernet,
)

BLOCK_MAX = 16 << 20  # bytes; Wireshark's MAX_BLOCK_SIZE
INTERFACES_MAX = 65536  # of one section: what they need is the only memory that grows with a file

_SECTION = 0x0A0D0D0A
_ENHANCED = 6
_ENHANCED_HEAD = 28  # bytes: type, length, interface, time in two halves, captured length, original length
_BLOCK_MIN = 12  # bytes: type, length, and the length again at the end
_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}  # the byte-order magic 0x1a2b3c4d
_IF_TSRESOL, _IF_FCSLEN, _IF_TSOFFSET = 9, 13, 14
_FLAGS = 2  # the option epb_flags or pack_flags: bits 5 to 8 are the bytes of FCS, 0 if that is not known
_OPTIONS_MAX = 32  # bytes of options that are compared with those of the packets behind


class Pcapng:
    """The format from its first block on, a section header; its type is MAGIC in either byte order."""

    MAGIC = b"\n\r\r\n"

    def __init__(self) -> None:
        self.taken = self.needed = 0
        self._section = _Section("<")

    def records(self, data: bytes) -> Iterator[Record]:
        return cast(Iterator[Record], self._packets(data, lambda: 1))

    def frames(self, data: bytes, longest_run: Callable[[], int]) -> Iterator[bytes | Run]:
        return (found.frame if isinstance(found, Record) else found for found in self._packets(data, longest_run))

    def _packets(self, data: bytes, longest_run: Callable[[], int]) -> Iterator[Record | Run]:
        section, size = self._section, len(data)
        at = singles = 0
        self.needed = _BLOCK_MIN
        while at + _BLOCK_MIN <= size:
            kind, length = section.pair(data, at)
            if kind == _SECTION:
                section = _Section(_byte_order(data[at + 8 : at + 12]))
                kind, length = section.pair(data, at)
            if length < _BLOCK_MIN or length & 3 or length > BLOCK_MAX:
                raise VirtError(EINVAL, f'"{length}" is no length of a block: 12, 16 … {BLOCK_MAX}')
            end = at + length
            if end > size:
                self.needed = length
                return
            if data[at + 4 : at + 8] != data[end - 4 : end]:
                again = section.one(data, end - 4)[0]
                raise VirtError(EINVAL, f'the block has length "{length}" at its head, "{again}" at its end')
            decode = _BLOCKS.get(kind)
            if decode and (record := decode(section, data, at, end)):
                found: Record | Run = record
                if singles:
                    singles -= 1
                elif kind == _ENHANCED:
                    count = section.alike(data, at, length, longest_run())
                    if count >= SHORTEST_RUN:
                        found = Run(data, at + _ENHANCED_HEAD, len(record.frame), length, count)
                        end = at + count * length
                    else:
                        singles = SINGLES
                yield found
            self._section = section
            self.taken = at = end


class _Section:
    """What a section's blocks have in common, and their decoders.

    A decoder is told where in data its block begins and ends; that it has _BLOCK_MIN bytes is known.
    """

    def __init__(self, order: str) -> None:
        self.one = Struct(order + "I").unpack_from
        self.pair = Struct(order + "II").unpack_from
        self._order = order
        self._enhanced = Struct(order + "IIIII").unpack_from
        self._obsolete = Struct(order + "HHIIII").unpack_from
        self._flags_head = Struct(order + "HH").pack(_FLAGS, 4)
        self._interfaces: list[_Interface] = []

    def section_header(self, data: bytes, at: int, end: int) -> None:
        _must_have(28, end - at)
        major, minor = Struct(self._order + "HH").unpack_from(data, at + 12)
        if major != 1:
            raise VirtError(EINVAL, f'"{major}.{minor}" is not a version of pcapng that is in use: 1.0 is')

    def interface(self, data: bytes, at: int, end: int) -> None:
        _must_have(20, end - at)
        if len(self._interfaces) == INTERFACES_MAX:
            raise VirtError(EINVAL, f"the section has more than {INTERFACES_MAX} interfaces")
        linktype, snaplen = Struct(self._order + "HxxI").unpack_from(data, at + 8)
        frequency = 10**6  # ticks of the interface's clock in a second
        offset = 0  # seconds
        fcs = 0
        for code, value in self._options(data, at + 16, end - 4):
            if code == _IF_TSRESOL and len(value) == 1:
                frequency = (2 if value[0] & 0x80 else 10) ** (value[0] & 0x7F)
            elif code == _IF_TSOFFSET and len(value) == 8:
                offset = Struct(self._order + "q").unpack(value)[0]
            elif code == _IF_FCSLEN and len(value) == 1:
                # Bits, by the draft's text; its example, and what writes this option, has Ethernet's 4 bytes.
                fcs = FCS if value[0] == FCS else value[0] // 8
            elif code in (_IF_TSRESOL, _IF_FCSLEN, _IF_TSOFFSET):
                raise VirtError(EINVAL, f'"{len(value)}" is no length for option {code} of an interface')
        common = gcd(SECOND, frequency)
        clock = SECOND // common, frequency // common, offset * SECOND
        self._interfaces.append(_Interface(*clock, snaplen, linktype, fcs))

    def enhanced_packet(self, data: bytes, at: int, end: int) -> Record:
        _must_have(32, end - at)
        number, upper, lower, captured, length = self._enhanced(data, at + 8)
        return self._record(number, upper << 32 | lower, data, at + _ENHANCED_HEAD, end, captured, length)

    def alike(self, data: bytes, at: int, length: int, most: int) -> int:
        """Return how many enhanced packets of this one's block length, interface, lengths and options follow it.

        With the options the FCS is the same.
        """
        options = _ENHANCED_HEAD + (self.one(data, at + 20)[0] + 3 & ~3)
        if most < SHORTEST_RUN or length - options > _OPTIONS_MAX:
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
            # First, as most programs write them: to look there takes a tenth of what going through the options does.
            first = data[at : at + 4] == self._flags_head
            flags = self.one(data, at + 4)[0] if first else self._flags(data, at, end - 4)
            fcs = flags >> 5 & 0xF or fcs
        if fcs:
            length = max(length - fcs, 0)
        return Record(time, frame_of(data, begin, captured, length), number, length)

    def _flags(self, data: bytes, at: int, end: int) -> int:
        """Return the flags among a packet's options, 0 if there are none."""
        found = (value for code, value in self._options(data, at, end) if code == _FLAGS and len(value) == 4)
        return int(self.one(next(found, bytes(4)))[0])

    def _interface(self, number: int) -> "_Interface":
        try:
            return self._interfaces[number]
        except IndexError:
            raise VirtError(EINVAL, f'"{number}" is the number of no interface in this section') from None

    def _options(self, data: bytes, at: int, end: int) -> Iterator[tuple[int, bytes]]:
        head = Struct(self._order + "HH").unpack_from
        while at + 4 <= end:
            code, length = head(data, at)
            if code == 0:
                return
            at += 4
            if at + length > end:
                raise VirtError(EINVAL, f'option {code} has length "{length}", more than its block')
            yield code, data[at : at + length]
            at += (length + 3) & ~3


class _Interface(NamedTuple):
    """A tick of its clock has numerator / denominator nanoseconds, and offset is where they count from.

    snaplen: bytes of a frame that were captured at most, 0 for no limit. linktype: of its packets; it may have none,
    so only a packet is refused for it. fcs: bytes of FCS at the end of each frame, unless its flags say otherwise.
    """

    numerator: int
    denominator: int
    offset: int
    snaplen: int
    linktype: int
    fcs: int


_BLOCKS: dict[int, Callable[[_Section, bytes, int, int], Record | None]] = {  # all others are passed over
    _SECTION: _Section.section_header,
    1: _Section.interface,
    2: _Section.obsolete_packet,
    3: _Section.simple_packet,
    _ENHANCED: _Section.enhanced_packet,
}


def _byte_order(magic: bytes) -> str:
    order = _ORDERS.get(magic)
    if order is None:
        raise VirtError(EINVAL, f'"{magic.hex()}" is not the byte-order magic of a section, 1a2b3c4d')
    return order


def _must_have(least: int, length: int) -> None:
    if length < least:
        raise VirtError(EINVAL, f'"{length}" bytes are too few for a block of this type: {least} at least')
