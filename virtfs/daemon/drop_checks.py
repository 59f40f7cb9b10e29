"""Looks for frames that the kernel has dropped, so that the event `drop` does not wait until a program reads a counter.

The kernel reports nothing when the queue of a tap is full. Frames for an interface without a reader stay in that queue
until somebody looks (Wire.settle).
"""

import trio

from virtfs.daemon.follow import Follower
from virtfs.daemon.registry import Registry
from virtfs.files.events import Events

PAUSE = 1.0  # minimum number of seconds between two checks
SHARE = 0.1  # maximum share of the time that checks take; a tap in another network namespace needs a query of its own


class DropChecks:
    """Updates the drop counters about once a second while a program reads `events` and an interface is up."""

    def __init__(self, registry: Registry, follower: Follower, events: Events) -> None:
        self._registry = registry
        self._follower = follower
        self._events = events

    async def run(self) -> None:
        """Check until cancelled. May be called again after a failure."""
        while True:
            await self._events.wait_for_reader()
            began = trio.current_time()
            if any(interface.virt.host.up for interface in self._registry):
                await self._follower.refresh_all(only_up=True)
            await trio.sleep(max(PAUSE, (trio.current_time() - began) / SHARE))
