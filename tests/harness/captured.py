"""Parses capture files with python-pcapng, and builds pcap files to inject."""

import io
import struct
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

from pcapng import FileScanner
from pcapng.blocks import EnhancedPacket, InterfaceDescription, InterfaceStatistics

SECOND = 10**9
WAYS = {"inbound": "in", "outbound": "out"}


class Packet(NamedTuple):
    """One captured frame.

    way: "in", "out" or "" (unknown). time: ns since 1970. lost: number of frames lost just before this one. interface:
    name of the interface.
    """

    frame: bytes
    way: str
    time: int
    lost: int
    interface: str


class Captured:
    """The content of a capture."""

    def __init__(self, data: bytes) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # raised by python-pcapng itself
            self.blocks: list[Any] = list(FileScanner(io.BytesIO(data)))

    @property
    def packets(self) -> list[Packet]:
        """The frames with their details."""
        return [_packet(block) for block in self.blocks if isinstance(block, EnhancedPacket)]

    @property
    def frames(self) -> list[bytes]:
        """The content of the frames."""
        return [packet.frame for packet in self.packets]

    @property
    def interfaces(self) -> list[str]:
        """The names of the interfaces, in the order they were introduced."""
        return [block.options["if_name"] for block in self.blocks if isinstance(block, InterfaceDescription)]

    @property
    def statistics(self) -> list[tuple[int, int]]:
        """The numbers of frames received and dropped, for each statistics block."""
        blocks = [block for block in self.blocks if isinstance(block, InterfaceStatistics)]
        return [(block.options["isb_ifrecv"], block.options["isb_ifdrop"]) for block in blocks]


def _packet(block: EnhancedPacket) -> Packet:
    options = block.options
    flags = options.get("epb_flags")
    return Packet(
        block.packet_data,
        "" if flags is None else WAYS.get(flags.inout, ""),
        block.timestamp_high << 32 | block.timestamp_low,
        options.get("epb_dropcount", 0),
        block.interface.options["if_name"],
    )


def pcap(frames: Iterable[tuple[float, bytes]], order: str = "<", nano: bool = False) -> bytes:
    """Return a pcap file. frames: pairs of time in seconds and content. nano: whether timestamps have nanoseconds."""
    blocks = [struct.pack(order + "IHHiIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)]
    for time, frame in frames:
        seconds, fraction = divmod(round(time * SECOND), SECOND)
        fraction //= 1 if nano else 1000
        blocks += struct.pack(order + "IIII", seconds, fraction, len(frame), len(frame)), frame
    return b"".join(blocks)
