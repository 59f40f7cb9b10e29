"""The one publisher of "something changed": a command or the kernel has changed what a text file shows."""

import trio


class Changes:
    """Counts changes and wakes the tasks that wait for the next. Frame counters are not included."""

    def __init__(self) -> None:
        self.count = 0
        self._next = trio.Event()

    def publish(self) -> None:
        """Announce a change."""
        self.count += 1
        self._next.set()
        self._next = trio.Event()

    async def after(self, count: int) -> None:
        """Return once there are more changes than `count`."""
        while self.count == count:
            await self._next.wait()
