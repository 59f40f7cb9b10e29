"""events: one line for each event (core.events) that happens while the file is open."""

import time
from collections import deque
from collections.abc import Callable

import trio

from virtfs.core.events import EVENTS, Event
from virtfs.core.ids import User
from virtfs.core.quoting import word
from virtfs.files.device import DeviceFile, Opens, TextDeviceHandle, Waiters
from virtfs.files.node import ROOT, Rights
from virtfs.forward.tasks import Start

MOST = 4096  # lines kept for slow readers
GRACE = 0.25  # seconds that the end of the mount waits for readers to see the end of the file
AT_ONCE = 64  # maximum number of readers to wake before other tasks run


class Events(DeviceFile):
    """The events file. `emit` publishes an event.

    changed: called after each event. start: starts a background task.
    """

    __slots__ = ("_new_reader", "_start", "_waking", "changed", "count", "ended", "lines")

    def __init__(self, opens: Opens, changed: Callable[[], None], start: Start) -> None:
        super().__init__(ROOT, "events", opens, Rights.REPORT)
        self.lines: deque[bytes] = deque(maxlen=MOST)
        self.count = 0  # number of events so far
        self.ended = False  # whether a reader of all lines gets the end of the file
        self.changed = changed
        self._start = start
        self._waking = False  # whether the task that wakes the readers is running
        self._new_reader = trio.Event()  # set by an open; replaced while a task waits for one

    def emit(self, what: Event, name: str, **keys: object) -> None:
        """Report an event to every reader.

        name: the name of the interface or bridge. keys: the event's values by key.
        ValueError: the keys are not those of this event.
        """
        if tuple(keys) != EVENTS[what].keys:
            raise ValueError(f"{what} has the keys {EVENTS[what].keys}, not {tuple(keys)}")
        text = " ".join(
            [f"{time.time():.6f}", what, word(name), *(f"{key}={word(str(value))}" for key, value in keys.items())]
        )
        self.lines.append(f"{text}\n".encode())
        self.count += 1
        readers = tuple(self.opens)
        if len(readers) <= AT_ONCE:
            for handle in readers:
                handle.waiters.wake()
        elif not self._waking:
            self._waking = True
            self._start(self._wake, name="waking readers of events")
        self.changed()

    async def _wake(self) -> None:
        """Wake all readers. Let other tasks run after every AT_ONCE readers."""
        seen = -1
        try:
            while seen != self.count:
                seen = self.count
                for number, handle in enumerate(self.opens, start=1):
                    handle.waiters.wake()
                    if not number % AT_ONCE:
                        await trio.lowlevel.checkpoint()
        finally:
            self._waking = False

    async def end(self) -> None:
        """End the file, because the mount ends. Wait up to GRACE until the readers have seen the end.

        A reader may be busy with the last lines. If it read again after the end of the mount, it would get an error.
        """
        self.ended = True
        self._start(self._wake, name="ending events")
        with trio.move_on_after(GRACE):
            while any(isinstance(handle, EventsHandle) and not handle.ended for handle in self.opens):
                await trio.sleep(GRACE / 50)

    @property
    def is_read(self) -> bool:
        """Whether a program has the file open."""
        return next(iter(self.opens), None) is not None

    async def wait_for_reader(self) -> None:
        """Wait until a program has the file open."""
        while not self.is_read:
            self._new_reader = trio.Event()
            await self._new_reader.wait()

    def open(self, flags: int, user: User) -> "EventsHandle":
        self._new_reader.set()
        return EventsHandle(self, user)


class EventsHandle(TextDeviceHandle):
    """One open of events.

    A reader that is too slow misses events. In their place, it gets one line: `<unix time> lost <number>`.
    """

    __slots__ = ("_events", "_next", "ended")

    def __init__(self, events: Events, user: User) -> None:
        super().__init__(events, user, Waiters())
        self._events = events
        self._next = events.count  # the number of the next event for this reader
        self.ended = False  # whether the reader has seen the end of the file

    def more(self) -> bytes | None:
        events = self._events
        first = events.count - len(events.lines)
        if self._next < first:
            lost, self._next = first - self._next, first
            self.dropped += lost
            return f"{time.time():.6f} lost {lost}\n".encode()
        if self._next == events.count:
            self.ended = events.ended
            return b"" if events.ended else None
        line = events.lines[self._next - first]
        self._next += 1
        self.frames += 1
        return line

    def ready(self) -> bool:
        return self._events.ended or self._next < self._events.count

    def pending(self) -> int:
        return self._events.count - self._next
