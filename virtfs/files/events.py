"""events: what happens to the interfaces, one line an event, from the moment of the open."""

import time
from collections import deque
from collections.abc import Callable

from virtfs.core.ids import User
from virtfs.files.device import DeviceFile, Opens, TextDeviceHandle, Waiters
from virtfs.files.node import ROOT, Rights

MOST = 4096  # lines kept for readers that do not read


class Events(DeviceFile):
    """`<unix time> <what> <name> [key=value …]`. told: called after each event."""

    __slots__ = ("count", "lines", "told")

    def __init__(self, opens: Opens) -> None:
        super().__init__(ROOT, "events", opens, Rights.REPORT)
        self.lines: deque[bytes] = deque(maxlen=MOST)
        self.count = 0  # of all there have been
        self.told: Callable[[], None] = lambda: None

    def emit(self, what: str, name: str, **keys: object) -> None:
        """Tell every reader. Values contain no blanks."""
        text = " ".join([f"{time.time():.6f}", what, name, *(f"{key}={value}" for key, value in keys.items())])
        self.lines.append(f"{text}\n".encode())
        self.count += 1
        for handle in self.opens:
            handle.waiters.wake()
        self.told()

    def open(self, flags: int, user: User) -> "EventsHandle":
        return EventsHandle(self, user)


class EventsHandle(TextDeviceHandle):
    """One reader. One that is too slow gets, in its turn, one line that says how many it missed."""

    __slots__ = ("_events", "_next")

    def __init__(self, events: Events, user: User) -> None:
        super().__init__(events, user, Waiters())
        self._events = events
        self._next = events.count  # the number of the event that it gets next

    def more(self) -> bytes | None:
        events = self._events
        first = events.count - len(events.lines)
        if self._next < first:
            lost, self._next = first - self._next, first
            self.dropped += lost
            return f"{time.time():.6f} lost {lost}\n".encode()
        if self._next == events.count:
            return None
        line = events.lines[self._next - first]
        self._next += 1
        self.frames += 1
        return line

    def ready(self) -> bool:
        return self._next < self._events.count

    def pending(self) -> int:
        return self._events.count - self._next
