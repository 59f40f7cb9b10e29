"""One epoll descriptor for all taps of a mount. It tells a wire that its tap has become readable.

A tap is watched edge-triggered (epoll(7)), because a program that polls edge-triggered must be woken for a new frame
while an older one is still unread. One task and one epoll descriptor for each tap would also work, but would take a
second descriptor and 8 KiB for each interface.
"""

import logging
import select
from collections.abc import Callable
from contextlib import suppress

import trio

log = logging.getLogger(__name__)

AT_ONCE = 16  # maximum number of taps to serve before other tasks run
_WATCHED = select.EPOLLIN | select.EPOLLET

# A tap's callback. Its argument is the tap's epoll events. It returns whether it must be called again soon, because the
# tap may hold more frames.
Ready = Callable[[int], bool]


class TapWatch:
    """Watches taps. OSError: EMFILE, ENFILE, ENOMEM."""

    def __init__(self) -> None:
        self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._epoll, select.POLLIN)
        self._taps: dict[int, Ready] = {}
        self._more: dict[int, None] = {}  # the taps that may hold more frames

    def add(self, tap: int, ready: Ready) -> None:
        """Register a tap without watching it yet. Later calls for this tap cannot fail. OSError: ENOSPC, ENOMEM."""
        self._epoll.register(tap, select.EPOLLET)
        self._taps[tap] = ready

    def watch(self, tap: int) -> None:
        """From now on, call the tap's callback for each new frame. If a frame is already waiting, call it at once."""
        self._set(tap, _WATCHED)

    def rest(self, tap: int) -> None:
        """Stop watching a tap."""
        self._set(tap, select.EPOLLET)

    def _set(self, tap: int, events: int) -> None:
        if tap in self._taps:
            with suppress(OSError):  # a lost tap may have been closed
                self._epoll.modify(tap, events)

    def remove(self, tap: int, ready: Ready) -> None:
        """Unregister a tap. Do nothing if its descriptor number now belongs to another tap."""
        if self._taps.get(tap) == ready:
            del self._taps[tap]
            self._more.pop(tap, None)
            with suppress(OSError):
                self._epoll.unregister(tap)

    async def run(self) -> None:
        """Serve the taps until cancelled. Only for tests without a channel; otherwise the channel serves the taps."""
        while True:
            if self._more:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
            self.look()

    def fileno(self) -> int:
        """Return the descriptor. It is readable while a tap has an event for look()."""
        return self._epoll.fileno()

    @property
    def more(self) -> bool:
        """Whether look() should be called again soon, even if the descriptor is not readable."""
        return bool(self._more)

    def due(self) -> bool:
        """Return whether look() would serve a tap."""
        return bool(self._more or self._poll.poll(0))

    def look(self) -> bool:
        """Serve the taps that have become readable, at most AT_ONCE of them. Return whether there were any."""
        ready = self._epoll.poll(0, AT_ONCE)
        if self._more:
            ready = list({**dict.fromkeys(self._more, 0), **dict(ready)}.items())
            self._more.clear()
        for tap, events in ready:
            if (serve := self._taps.get(tap)) is None:
                continue
            try:
                if serve(events):
                    self._more[tap] = None
            except Exception:
                log.exception("serving a tap failed")
        return bool(ready)

    def close(self) -> None:
        """Close the epoll descriptor. Idempotent."""
        self._epoll.close()
