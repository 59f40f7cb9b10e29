"""events: what happens to the interfaces, one line an event, from the moment of the open."""

import time
from collections import deque
from collections.abc import Callable

from virtfs.core.ids import User
from virtfs.files.node import ROOT, Rights
from virtfs.files.stream import Opens, Stream, TextStreamHandle, Waiters

MOST = 4096  # lines kept for one reader that does not read


class Events(Stream):
    """`<unix time> <what> <name> [key=value …]`. told: called after each event."""

    __slots__ = ("told",)

    def __init__(self, opens: Opens) -> None:
        super().__init__(ROOT, "events", opens, Rights.REPORT)
        self.told: Callable[[], None] = lambda: None

    def emit(self, what: str, name: str, **keys: object) -> None:
        """Tell every reader. Values contain no blanks."""
        text = " ".join([f"{time.time():.6f}", what, name, *(f"{key}={value}" for key, value in keys.items())])
        for handle in self.opens:
            if isinstance(handle, EventsHandle):
                handle.add(f"{text}\n".encode())
        self.told()

    def open(self, flags: int, user: User) -> "EventsHandle":
        return EventsHandle(self, user)


class EventsHandle(TextStreamHandle):
    """One reader. One that is too slow gets, in its turn, one line that says how many it missed."""

    __slots__ = ("_lines",)

    def __init__(self, stream: Events, user: User) -> None:
        self._lines: deque[bytes] = deque()
        super().__init__(stream, user, Waiters())

    def add(self, line: bytes) -> None:
        """One more event."""
        if len(self._lines) < MOST and not self.dropped:
            self._lines.append(line)
        else:
            self.dropped += 1
        self.waiters.wake()

    def more(self) -> bytes | None:
        if self._lines:
            return self._lines.popleft()
        if self.dropped:
            lost, self.dropped = self.dropped, 0
            return f"{time.time():.6f} lost {lost}\n".encode()
        return None

    def ready(self) -> bool:
        return bool(self._lines or self.dropped)

    def pending(self) -> int:
        return len(self._lines)
