"""What must have happened to the frames of one interface, compared with its counters and with those of the kernel."""

import os
from dataclasses import dataclass, field
from itertools import pairwise

from harness.process import File
from harness.programs import EXPERIMENTAL

_ORDERED = {"virt": b"\x02\x00\x00\x00\x01", "host": b"\x02\x00\x00\x00\x02"}


def frame(end: str, unit: int, number: int, length: int) -> bytes:
    """Return a broadcast frame that names its sender (an end and a unit) and has a sequence number."""
    head = b"\xff" * 6 + _ORDERED[end] + bytes((unit,)) + EXPERIMENTAL + number.to_bytes(4, "big")
    return (head + bytes(length))[: max(length, 0)]


def sequences(frames: list[bytes]) -> dict[bytes, list[int]]:
    """Return the sequence numbers in frames, by sender. Frames that are too short for a number are left out."""
    found: dict[bytes, list[int]] = {}
    for one in frames:
        if len(one) >= 18 and one[12:14] == EXPERIMENTAL:
            found.setdefault(one[6:12], []).append(int.from_bytes(one[14:18], "big"))
    return found


def outgoing(stats: dict[str, int]) -> int:
    """Return the number of frames that were written to an interface, or came from a cable, and do not wait."""
    return stats["tx_frames"] + stats["tx_dropped"] - stats["tx_duplicated"]


def incoming(stats: dict[str, int]) -> int:
    """Return the number of frames that have come in from the host, except those that wait."""
    return stats["rx_frames"] + stats["rx_dropped"] - stats["rx_duplicated"]


@dataclass
class Ledger:
    """The frames of one interface since its creation.

    sent: frames that the test has sent through the tap. written: frames written that virtfs must have counted,
    and frames that removed cables have handed to the interface. read: frames read by programs.
    base: the kernel's counters when this ledger began.
    mixed: whether senders other than the test can use the tap, because it has been in a bridge.
    unread: whether frames unknown to the test were read, by a killed program or as copies from a cable.
    disturbed: whether an impairment may have changed the order of the frames.
    """

    sent: int = 0
    written: int = 0
    read: int = 0
    base: tuple[int, int, int] = (0, 0, 0)
    mixed: bool = False
    unread: bool = False
    disturbed: bool = False
    number: int = 0
    wire: File | None = None  # the host's packet socket on the tap
    reader: File | None = None
    frames_in: list[bytes] = field(default_factory=list)  # read by programs, since the last check
    frames_out: list[bytes] = field(default_factory=list)  # received by the host, since the last check

    def numbered(self, end: str, unit: int, lengths: list[int]) -> list[bytes]:
        """Return frames with the next sequence numbers."""
        begin, self.number = self.number, self.number + len(lengths)
        return [frame(end, unit, begin + index, length) for index, length in enumerate(lengths)]

    def take_in(self, frames: list[bytes]) -> None:
        """Enter frames that a program has read."""
        self.read += len(frames)
        self.frames_in += frames

    def wrong_counts(self, stats: dict[str, int], kernel: tuple[int, int, int], carried: int) -> list[str]:
        """Return the sums that do not add up. No frame may be waiting.

        kernel: the received, transmitted and dropped packets of the tap. carried: frames that the cable of the
        interface has handed to it.
        """
        received, transmitted, refused = (now - then for now, then in zip(kernel, self.base, strict=True))
        sums = {
            "frames in, and the packets that the tap gave and dropped": (incoming(stats), transmitted + refused),
            "frames out, and the packets that the tap received": (stats["tx_frames"], received),
            "frames out, and frames written": (outgoing(stats), self.written + carried),
        }
        if not self.mixed:
            sums["frames in, and frames sent"] = incoming(stats), self.sent
        if not self.unread:
            sums["frames received, and frames read"] = stats["rx_frames"], self.read
        return [f"{what}: {one} and {other}" for what, (one, other) in sums.items() if one != other]

    def wrong_order(self) -> list[str]:
        """Return the senders whose frames arrived out of order, and forget the frames."""
        wrong = []
        for way, frames in (("in", self.frames_in), ("out", self.frames_out)):
            for sender, numbers in sequences(frames).items():
                if not self.disturbed and any(b <= a for a, b in pairwise(numbers)):
                    wrong.append(f"{way}, from {sender.hex(':')}: {numbers}")
            frames.clear()
        return wrong

    def close(self) -> None:
        """Close the files."""
        for file in (self.wire, self.reader):
            if file is not None:
                file.close()
        self.wire = self.reader = None


NONBLOCK = os.O_RDONLY | os.O_NONBLOCK
