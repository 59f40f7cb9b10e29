"""Notifies tasks of changes. A change happens when a command or the kernel alters the text that a file shows."""

import trio


class Changes:
    """Counts changes and wakes the tasks that wait for the next one. Changes to frame counters are not included."""

    def __init__(self) -> None:
        self.count = 0
        self._next = trio.Event()

    def publish(self) -> None:
        """Count a change, and wake the waiting tasks."""
        self.count += 1
        self._next.set()
        self._next = trio.Event()

    async def after(self, count: int) -> None:
        """Wait until the number of changes differs from `count`."""
        while self.count == count:
            await self._next.wait()
