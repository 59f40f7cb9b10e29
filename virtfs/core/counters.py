"""What an impairment counts, and what a direction of a cable counts. core.virt.Counters has those of an interface.

Every frame is counted in the place where it ends. For a direction of a cable, at all times:

    frames that entered + duplicated = frames + lost + dropped + frames that wait in the impairment

The frames that enter a direction have been counted by the end that they come from, in rx_frames if that end is an
interface. `frames` are the frames that were handed to the other end. If that is an interface, it counts each of them in
tx_frames or tx_dropped.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields


@dataclass(slots=True)
class Counts:
    """The numbers of frames that an impairment has lost, dropped, duplicated and changed.

    lost: by `loss`. overlimit: dropped because `limit` frames were waiting, or for lack of memory. duplicated: the
    additional frames.
    """

    lost: int = 0
    overlimit: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0


@dataclass(slots=True)
class CableCounters:
    """Frames and bytes of one direction of a cable, since the cable was made.

    frames, bytes: handed to the other end. lost: by `loss`. dropped: because `limit` frames were waiting, for lack of
    memory, or because the impairment ended while it delayed them.
    """

    frames: int = 0
    bytes: int = 0
    lost: int = 0
    dropped: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0

    def count(self, frames: int, size: int) -> None:
        """Count frames that were handed to the other end. size: their total length in bytes."""
        self.frames += frames
        self.bytes += size

    def count_impaired(self, counts: Counts) -> None:
        """Add what the impairment of this direction has counted."""
        self.lost += counts.lost
        self.dropped += counts.overlimit
        self.duplicated += counts.duplicated
        self.reordered += counts.reordered
        self.corrupted += counts.corrupted

    def lose(self, frames: int) -> None:
        """Count frames that this direction has dropped."""
        self.dropped += frames


CABLE_COUNTERS = tuple(f.name for f in fields(CableCounters))


@dataclass(frozen=True, slots=True)
class Way:
    """One direction of a cable and its counters. source, sink: the names of the two ends, such as "virt3"."""

    source: str
    sink: str
    counters: CableCounters = field(default_factory=CableCounters)

    def items(self) -> Iterator[tuple[str, int]]:
        """Yield the name and the value of each counter, in the order of CABLE_COUNTERS."""
        yield from asdict(self.counters).items()
