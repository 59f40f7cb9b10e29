"""Decode pcap (draft-ietf-opsawg-pcap, pcap-savefile(5)): a file header, then a record for each frame."""

from collections.abc import Callable, Iterator
from errno import EINVAL
from struct import Struct
from typing import ClassVar

from virtfs.core.compiled import compiled
from virtfs.core.errors import VirtError
from virtfs.core.savefile_records import (
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

# The link type field also holds the length of the FCS at the end of each frame, in one of two encodings. libpcap
# (pcap/pcap.h) and Wireshark set the flag LT_FCS_LENGTH_PRESENT, and store the length in LT_FCS_LENGTH, in 16-bit
# words. draft-gharris-opsawg-pcap-01 puts the length into the three highest bits, and a flag "f" into the bit below
# them. Some programs interpret this length as bytes, others as 16-bit words.
_LINKTYPE = 0x0000FFFF
_FCS_PRESENT = 0x04000000
_FCS_PRESENT_IN_DRAFT = 0x10000000
_RECORD_HEAD = 16  # bytes of the fields seconds, fraction, captured length, original length
_LENGTHS = range(8, 16)  # offsets of the captured and the original length in a record's header


class Pcap:
    """A decoder of pcap. head: the file header, HEAD bytes that begin with one of MAGICS."""

    HEAD = 24
    # Maps each magic number to the byte order, and to the unit of the field `fraction` in nanoseconds.
    MAGICS: ClassVar = {
        b"\xd4\xc3\xb2\xa1": ("<", 1000),
        b"\xa1\xb2\xc3\xd4": (">", 1000),
        b"\x4d\x3c\xb2\xa1": ("<", 1),
        b"\xa1\xb2\x3c\x4d": (">", 1),
    }

    def __init__(self, head: bytes) -> None:
        order, self._unit = self.MAGICS[head[:4]]
        major, minor, linktype = Struct(order + "4xHH12xI").unpack(head)
        if major != 2:
            raise VirtError(EINVAL, f'pcap version "{major}.{minor}" is not supported: only 2.x is')
        must_be_ethernet(linktype & _LINKTYPE)
        self._fcs = _fcs_length(linktype)
        self._unpack = Struct(order + "IIII").unpack_from
        self._lengths = Struct(order + "8xII").unpack_from
        self.taken = self.HEAD
        self.needed = 0
        # Finds the frames of many records at once, if the file and this installation allow it.
        self._find_plain: Callable[[bytes, int, int], tuple[bytes, int]] | None = None
        if order == NATIVE and not self._fcs:
            self._find_plain = compiled("virtfs.core.plainrecords", "pcap")

    def records(self, data: bytes) -> Iterator[Record]:
        unpack, unit, fcs, size = self._unpack, self._unit, self._fcs, len(data)
        at = 0
        self.needed = _RECORD_HEAD
        while at + _RECORD_HEAD <= size:
            seconds, fraction, captured, length = unpack(data, at)
            begin = at + _RECORD_HEAD
            end = begin + captured
            if captured > FRAME_MAX:
                must_be_a_frame(captured, FRAME_MAX)
            if end > size:
                self.needed = end - at
                return
            time = seconds * SECOND + fraction * unit
            if fcs:
                length = max(length - fcs, 0)
            yield Record(time, frame_of(data, begin, captured, length), 0, length)
            self.taken = at = end

    def frames(self, data: bytes, most: Callable[[], int]) -> Iterator[Group]:
        at, size = 0, len(data)
        self.needed = _RECORD_HEAD
        while at + _RECORD_HEAD <= size:
            if self._find_plain:
                spans, end = self._find_plain(data, at, most())
                if spans:
                    yield Spans(data, spans)
                    self.taken = at = end
                    continue
            captured, length = self._lengths(data, at)
            stride = _RECORD_HEAD + captured
            must_be_a_frame(captured, FRAME_MAX)
            if at + stride > size:
                self.needed = stride
                return
            limit = most()
            count = alike(data, at, stride, limit, _LENGTHS)
            if count > 1:
                length = min(captured, max(length - self._fcs, 0))
                yield Run(data, at + _RECORD_HEAD, length, stride, count)
                self.taken = at + count * stride
            else:
                yield self._singles(data, at, min(limit, SINGLES))
            at = self.taken

    def _singles(self, data: bytes, at: int, most: int) -> Iterator[bytes]:
        """Yield the frames of the records, starting with the record at offset `at`. Update `taken` for each.

        Stop at an incomplete or invalid record, or after `most` frames.
        """
        lengths, fcs, size = self._lengths, self._fcs, len(data)
        last = size - _RECORD_HEAD
        for _ in range(most):
            if at > last:
                break
            captured, length = lengths(data, at)
            begin = at + _RECORD_HEAD
            end = begin + captured
            if end > size or captured > FRAME_MAX:
                break
            if fcs:
                length = max(length - fcs, 0)
            self.taken = at = end
            yield data[begin:end] if captured <= length else frame_of(data, begin, captured, length)


def _fcs_length(linktype: int) -> int:
    """Return the length in bytes of the FCS at the end of each frame, from the link type field of the file header."""
    if linktype & _FCS_PRESENT:
        return (linktype >> 28) * 2
    if linktype & _FCS_PRESENT_IN_DRAFT and linktype >> 29 in (FCS // 2, FCS):
        return FCS
    return 0
