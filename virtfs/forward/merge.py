"""What several recorders show, put in the order of its time.

Each recorder is a moment behind, each by another: of two frames that pass one after the other the later may be shown
first. So what is shown waits until every recorder has shown what passed until now, and goes on in the order of time.
"""

from collections.abc import Callable, Iterable
from operator import itemgetter
from time import time_ns

import trio

from virtfs.core.pcapng import split_packets
from virtfs.forward.recorder import Recorder


class Merge:
    """One stream's. deliver: takes the blocks, with how many of them are frames."""

    def __init__(self, recorders: Callable[[], Iterable[Recorder]], deliver: Callable[[bytes, int], None]) -> None:
        self._recorders = recorders
        self._deliver = deliver
        self._held: list[tuple[int, bytes, int]] = []  # time in ns, blocks, frames
        self._news = trio.Event()
        self._scope = trio.CancelScope()

    def __bool__(self) -> bool:
        """Something waits for its turn."""
        return bool(self._held)

    def add(self, packets: bytes) -> None:
        """Some frames' blocks."""
        self._held.extend((time, block, 1) for time, block in split_packets(packets))
        self._news.set()

    def add_block(self, block: bytes) -> None:
        """Another block, whose time is now."""
        self._held.append((time_ns(), block, 0))
        self._news.set()

    async def run(self) -> None:
        """Until `stop`."""
        with self._scope:
            while True:
                await self._news.wait()
                self._news = trio.Event()
                there, until = len(self._held), time_ns()
                for recorder in tuple(self._recorders()):
                    await recorder.flush()
                self._go_on(there, until)

    def _go_on(self, there: int, until: int) -> None:
        """Deliver what was there then, whatever its time (the clock may have been set back), and what is older."""
        due, later = self._held[:there], self._held[there:]
        due += [item for item in later if item[0] <= until]
        due.sort(key=itemgetter(0))
        self._held = [item for item in later if item[0] > until]
        if self._held:
            self._news.set()
        if due:
            self._deliver(b"".join(block for _, block, _ in due), sum(frames for *_, frames in due))

    def stop(self) -> None:
        """What waits is lost."""
        self._scope.cancel()
