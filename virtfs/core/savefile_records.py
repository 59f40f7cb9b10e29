"""The parts that both capture file formats share: records, the Format protocol, and the checks.

A format decodes the complete records in the bytes it gets and reports how many bytes it has consumed. The next call
gets the rest and what follows. A format keeps only what it needs to decode later blocks: byte order and interfaces.
"""

from collections.abc import Callable, Iterable, Iterator
from errno import EINVAL
from typing import NamedTuple, Protocol

from virtfs.core.errors import VirtError

SHORTEST_RUN = 8  # frames
SINGLES = 32  # frames to decode one by one after a failed search for a run
FRAME_MAX = 262144  # bytes; libpcap's MAXIMUM_SNAPLEN. More is a sign of a broken file
SECOND = 10**9  # nanoseconds
ETHERNET = 1  # https://www.tcpdump.org/linktypes.html
FCS = 4  # bytes of Ethernet's frame check sequence (IEEE 802.3)

_LINKTYPES = {  # those that users are likely to have: https://www.tcpdump.org/linktypes.html
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

    timestamp_ns: since 1970, None for a block without a time. interface: number in its section, 0 in a pcap file.
    original_length: bytes of the frame on the wire without its FCS; more than len(frame) if the capture truncated it.
    """

    timestamp_ns: int | None
    frame: bytes
    interface: int
    original_length: int


class Run(NamedTuple):
    """A run of frames of one length in bytes: the first at `begin`, each `stride` bytes after the one before."""

    data: bytes
    begin: int
    length: int
    stride: int
    frames: int

    def singly(self) -> Iterator[bytes]:
        """Yield the frames one by one."""
        for begin in range(self.begin, self.begin + self.frames * self.stride, self.stride):
            yield self.data[begin : begin + self.length]


class Format(Protocol):
    """A decoder of one format.

    taken: bytes consumed of the data passed to records(); the caller removes them and resets `taken` to 0.
    needed: bytes that must follow those for records() to make progress.
    """

    taken: int
    needed: int

    def records(self, data: bytes) -> Iterator[Record]:
        """Yield the complete records in data. VirtError: the data at `taken` is broken."""

    def frames(self, data: bytes, longest_run: Callable[[], int]) -> Iterator[bytes | Run]:
        """Yield only the frames of these records, and consecutive similar ones as a Run. Cheaper than records()."""


def frame_of(data: bytes, begin: int, captured: int, length: int) -> bytes:
    """Return the captured bytes up to the frame's length, as Wireshark and tcpreplay do.

    length: bytes on the wire without the FCS.
    """
    return data[begin : begin + (captured if captured < length else length)]


def alike(data: bytes, at: int, stride: int, most: int, places: Iterable[int]) -> int:
    """Return the number of consecutive records that have equal bytes in these places; at most `most`.

    at: offset of the first record. stride: bytes of a record. places: offsets in a record. One place is compared in all
    records at a time, which is cheaper than decoding them.
    """
    count = min(most, (len(data) - at) // stride)
    for place in places:
        column = data[at + place : at + count * stride : stride]
        count -= len(column.lstrip(column[:1]))
    return count


def must_be_a_frame(captured: int, most: int) -> None:
    """Raise EINVAL for a frame of more than `most` bytes."""
    if captured > most:
        raise VirtError(EINVAL, f'"{captured}" bytes are too many for this frame: at most {most} are possible')


def must_be_ethernet(linktype: int) -> None:
    """Raise EINVAL with the link type's name, unless it is Ethernet."""
    if linktype != ETHERNET:
        name = f"LINKTYPE_{_LINKTYPES[linktype]}" if linktype in _LINKTYPES else "linktype"
        raise VirtError(EINVAL, f'"{name} {linktype}" is not Ethernet: its frames cannot be sent')
