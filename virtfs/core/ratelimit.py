"""A limit on how often events of one kind are reported, so that a client cannot fill the log."""

from collections.abc import Hashable
from typing import Generic, TypeVar

Kind = TypeVar("Kind", bound=Hashable)


class RateLimit(Generic[Kind]):
    """Admit at most `most` events of each kind in an interval, and count the rest.

    interval: in seconds. The interval of a kind begins with the first event of that kind. Callers pass the time.
    """

    def __init__(self, most: int, interval: float) -> None:
        self._most = most
        self._interval = interval
        self._intervals: dict[Kind, tuple[float, int]] = {}  # by kind: the end of the interval, the number of events

    def admit(self, kind: Kind, now: float) -> bool:
        """Count an event, and return whether to report it. Call due() first."""
        end, count = self._intervals.get(kind, (now + self._interval, 0))
        self._intervals[kind] = end, count + 1
        return count < self._most

    def due(self, now: float) -> list[tuple[Kind, int]]:
        """Forget the intervals that have ended.

        Return the kinds that had more than `most` events in such an interval, each with the number of excess events.
        """
        ended = [kind for kind, (end, _) in self._intervals.items() if end <= now]
        counts = [(kind, self._intervals.pop(kind)[1] - self._most) for kind in ended]
        return [(kind, count) for kind, count in counts if count > 0]

    def next_due(self) -> float | None:
        """Return the earliest time at which due() will return a kind; None if it will return none."""
        return min((end for end, count in self._intervals.values() if count > self._most), default=None)
