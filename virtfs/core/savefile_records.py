"""What the decoders of both capture file formats share: records, the Format protocol, and checks.

A decoder gets some bytes of the file, decodes the complete records in them, and reports how many bytes it has consumed.
The next call gets the unconsumed bytes and those that follow in the file. A decoder keeps only what it needs for later
blocks: the byte order and the interfaces.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from errno import EINVAL
from struct import Struct
from typing import NamedTuple, Protocol

from virtfs.core.errors import VirtError

SHORTEST_RUN = 8  # frames
SINGLES = 64  # maximum number of frames that are decoded one by one before the next search for a run
FRAME_MAX = 262144  # bytes; libpcap's MAXIMUM_SNAPLEN. A longer frame is a sign of a broken file
SECOND = 10**9  # nanoseconds
ETHERNET = 1  # https://www.tcpdump.org/linktypes.html
_SPAN = Struct("=II")
NATIVE = "<" if sys.byteorder == "little" else ">"  # byte order, as in struct
FCS = 4  # bytes of Ethernet's frame check sequence (IEEE 802.3)

_LINKTYPES = {  # names of the link types that users are likely to meet: https://www.tcpdump.org/linktypes.html
    0: "NULL",
    9: "PPP",
    101: "RAW",
    105: "IEEE802_11",
    108: "LOOP",
    113: "LINUX_SLL",
    127: "IEEE802_11_RADIOTAP",
    195: "IEEE802_15_4_WITHFCS",
    201: "BLUETOOTH_HCI_H4_WITH_PHDR",
    220: "USB_LINUX_MMAPPED",
    227: "CAN_SOCKETCAN",
    228: "IPV4",
    229: "IPV6",
    239: "NFLOG",
    249: "USBPCAP",
    252: "WIRESHARK_UPPER_PDU",
    253: "NETLINK",
    276: "LINUX_SLL2",
}


class Record(NamedTuple):
    """A frame as recorded in the file.

    timestamp_ns: nanoseconds since 1970, None for a block without a time. interface: number of the interface in its
    section, 0 in a pcap file. original_length: bytes of the frame on the wire, without the FCS. It is more than
    len(frame) if the capture truncated the frame.
    """

    timestamp_ns: int | None
    frame: bytes
    interface: int
    original_length: int


class Run(NamedTuple):
    """Consecutive frames of equal length in a piece of a capture file.

    data: bytes of the file. begin: offset of the first frame in data. length: bytes of a frame. stride: bytes from the
    beginning of a frame to the beginning of the next. frames: number of frames.
    """

    data: bytes
    begin: int
    length: int
    stride: int
    frames: int

    def singly(self) -> Iterator[bytes]:
        """Yield the frames one by one."""
        for begin in range(self.begin, self.begin + self.frames * self.stride, self.stride):
            yield self.data[begin : begin + self.length]


class Spans(NamedTuple):
    """Consecutive frames of any lengths in a piece of a capture file, found by the module `plainrecords`.

    data: bytes of the file. spans: for each frame, two numbers of 32 bits in the machine's byte order: its offset in
    data, and its length.
    """

    data: bytes
    spans: bytes

    @property
    def frames(self) -> int:
        """The number of frames."""
        return len(self.spans) // _SPAN.size

    def frame(self, number: int) -> bytes:
        """Return the frame with this number, from 0."""
        begin, length = _SPAN.unpack_from(self.spans, number * _SPAN.size)
        return self.data[begin : begin + length]

    def singly(self) -> Iterator[bytes]:
        """Yield the frames one by one."""
        return (self.data[begin : begin + length] for begin, length in _SPAN.iter_unpack(self.spans))


# Consecutive frames of a file: a Run, Spans, or an iterator of at least one frame. A group must be used before the next
# one is requested.
Group = Run | Spans | Iterator[bytes]


class Format(Protocol):
    """A decoder of one capture file format.

    taken: number of bytes that records() or frames() has consumed. The caller removes them and sets `taken` to 0.
    needed: number of unconsumed bytes that the next call must get to make progress.
    """

    taken: int
    needed: int

    def records(self, data: bytes) -> Iterator[Record]:
        """Yield the complete records in data. VirtError: the record or block at the offset `taken` is broken."""

    def frames(self, data: bytes, most: Callable[[], int]) -> Iterator[Group]:
        """Yield the frames of the complete records in data, in groups. This is cheaper than records().

        most: a function that returns the maximum number of frames in a group. It is called before each group.
        A Run or a Spans counts as consumed when the next group is requested. A frame from an iterator counts as
        consumed when it is yielded.
        VirtError: as for records(), but only after the frames before the broken record or block have been yielded.
        """


def frame_of(data: bytes, begin: int, captured: int, length: int) -> bytes:
    """Return the captured bytes of a frame, cut to `length` bytes as in Wireshark and tcpreplay. This removes the FCS.

    begin: offset of the frame in data. captured: number of captured bytes. length: bytes on the wire, without the FCS.
    """
    return data[begin : begin + (captured if captured < length else length)]


def alike(data: bytes, at: int, stride: int, most: int, places: Iterable[int]) -> int:
    """Return the number of consecutive records whose bytes at the offsets `places` equal those of the first record.

    Return 1 if the number is less than SHORTEST_RUN.
    at: offset of the first record in data. stride: bytes of a record. most: maximum number of records to compare.
    places: offsets in a record. One comparison per offset covers all records, which is cheaper than decoding them.
    """
    count = min(most, (len(data) - at) // stride)
    for place in places:
        if count < SHORTEST_RUN:
            return 1
        column = data[at + place : at + count * stride : stride]
        count -= len(column.lstrip(column[:1]))
    return count if count >= SHORTEST_RUN else 1


def must_be_a_frame(captured: int, most: int) -> None:
    """Raise EINVAL for a frame of more than `most` bytes."""
    if captured > most:
        raise VirtError(EINVAL, f"a frame of {captured} bytes is too long: the maximum is {most} bytes")


def must_be_ethernet(linktype: int) -> None:
    """Raise EINVAL, with the name of the link type, unless the link type is Ethernet."""
    if linktype != ETHERNET:
        name = f"LINKTYPE_{_LINKTYPES[linktype]}" if linktype in _LINKTYPES else "linktype"
        raise VirtError(EINVAL, f'"{name} {linktype}" is not Ethernet: its frames cannot be sent')
