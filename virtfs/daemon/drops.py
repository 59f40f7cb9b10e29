"""The event `drop`: emitted at the first dropped frame, then at most once a second.

The rate is limited because the host may send any number of frames that nobody reads.
"""

import trio

from virtfs.files.events import Events
from virtfs.forward.tasks import Start

PAUSE = 1  # minimum number of seconds between two events


class Drops:
    """Reports the frames that one interface drops. start: runs a task until the mount ends."""

    def __init__(self, name: str, events: Events, start: Start) -> None:
        self._name = name
        self._events = events
        self._start = start
        self._unreported = 0  # number of dropped frames that no event has reported yet
        self._reporting = False
        self._ended = False

    def add(self, frames: int) -> None:
        """Count dropped frames, and report them now or with the next event."""
        self._unreported += frames
        if self._unreported and not self._reporting and not self._ended:
            self._reporting = True
            self._start(self._report, name=f"{self._name}: reporting drops")

    def end(self) -> None:
        """Report the remaining drops. The interface is being destroyed, and `destroy` is to be its last event."""
        self._emit()
        self._ended = True

    async def _report(self) -> None:
        while self._unreported and not self._ended:
            self._emit()
            await trio.sleep(PAUSE)
        self._reporting = False

    def _emit(self) -> None:
        frames, self._unreported = self._unreported, 0
        if frames:
            self._events.emit("drop", self._name, frames=frames)
