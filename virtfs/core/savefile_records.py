"""What the formats of a capture file have in common: what they yield, how they are driven, what they refuse.

A format decodes what is whole in the bytes it is given, says how much of them it is done with, and is then
given the rest with what follows. It keeps only what earlier blocks say of later ones: byte order, interfaces.
"""

from collections.abc import Callable, Iterable, Iterator
from errno import EINVAL
from typing import NamedTuple, Protocol

from virtfs.core.errors import VirtError

SHORTEST_RUN = 8  # frames
SINGLES = 32  # frames from one look for a run to the next, where there was none
FRAME_MAX = 262144  # bytes; libpcap's MAXIMUM_SNAPLEN: more is a sign of a broken file
SECOND = 10**9  # nanoseconds
ETHERNET = 1  # https://www.tcpdump.org/linktypes.html
FCS = 4  # bytes of Ethernet's frame check sequence (IEEE 802.3)

_LINKTYPES = {  # those a user is likely to have: https://www.tcpdump.org/linktypes.html
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
    """A frame as the file has it.

    timestamp_ns: since 1970, None for a block that has no time. interface: its number in its section, 0 in a
    pcap. original_length: bytes of the frame on the wire without its FCS, more than len(frame) if the capture cut it.
    """

    timestamp_ns: int | None
    frame: bytes
    interface: int
    original_length: int


class Run(NamedTuple):
    """So many frames of one length in bytes, the first at `begin`, each `stride` bytes behind the one before."""

    data: bytes
    begin: int
    length: int
    stride: int
    frames: int

    def singly(self) -> Iterator[bytes]:
        """One after the other."""
        for begin in range(self.begin, self.begin + self.frames * self.stride, self.stride):
            yield self.data[begin : begin + self.length]


class Format(Protocol):
    """taken: how many bytes of what records() was given are done with; its caller takes them away and sets 0.

    needed: how many there must be from there on, for records() to get any further.
    """

    taken: int
    needed: int

    def records(self, data: bytes) -> Iterator[Record]:
        """The records that are whole in data. VirtError: what begins at `taken` is broken."""

    def frames(self, data: bytes, longest_run: Callable[[], int]) -> Iterator[bytes | Run]:
        """Of the same records only their frames, at less expense, those that are alike in runs."""


def frame_of(data: bytes, begin: int, captured: int, length: int) -> bytes:
    """Return the captured bytes up to the frame's length, as Wireshark and tcpreplay do.

    length: bytes on the wire without the FCS.
    """
    return data[begin : begin + (captured if captured < length else length)]


def alike(data: bytes, at: int, stride: int, most: int, places: Iterable[int]) -> int:
    """How many records of `stride` bytes, from the one at `at` on, have the same bytes in these places; `most` at most.

    It looks at a place of all records at once: for each record alone it would take longer than what it saves.
    """
    count = min(most, (len(data) - at) // stride)
    for place in places:
        column = data[at + place : at + count * stride : stride]
        count -= len(column.lstrip(column[:1]))
    return count


def must_be_a_frame(captured: int, most: int) -> None:
    """EINVAL for a frame that has more bytes than it can have."""
    if captured > most:
        raise VirtError(EINVAL, f'"{captured}" bytes are too many for a frame here: {most} at most')


def must_be_ethernet(linktype: int) -> None:
    """EINVAL, with the link type's name, for one whose frames are not Ethernet's."""
    if linktype != ETHERNET:
        name = f"LINKTYPE_{_LINKTYPES[linktype]}" if linktype in _LINKTYPES else "linktype"
        raise VirtError(EINVAL, f'"{name} {linktype}" is not Ethernet: its frames cannot be sent')
