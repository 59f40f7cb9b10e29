"""The counters of impairments, and of each direction of a cable. core.virt.Counters has those of an interface.

Every frame is counted at the place where it is delivered, lost or dropped. For each direction of a cable, this equation
always holds:

    frames that entered + duplicated = frames + lost + dropped + frames that wait in the impairment

A frame that enters the direction has already been counted by its source. If the source is an interface, it counts the
frame in rx_frames. `frames` is the number of frames that were handed to the other end. If the other end is an
interface, it counts each of these frames in tx_frames or tx_dropped.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields


@dataclass(slots=True)
class Counts:
    """The numbers of frames that an impairment has lost, dropped, duplicated and changed.

    lost: frames lost by `loss`. overlimit: frames dropped because `limit` frames were already waiting, or because a
    memory limit was reached. duplicated: the additional frames.
    """

    lost: int = 0
    overlimit: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0


@dataclass(slots=True)
class CableCounters:
    """The counters of one direction of a cable, since the cable was created.

    frames, bytes: those handed to the other end. lost: frames lost by `loss`. dropped: frames dropped because `limit`
    frames were already waiting, because a memory limit was reached, or because the impairment ended while it delayed
    them. Towards a socket, this includes frames that arrived while there was no connection or the queue was full.
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
        """Add the counts of this direction's impairment."""
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
