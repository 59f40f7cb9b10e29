"""Merge the frames of several recorders in the order of their timestamps.

Each recorder delivers its frames with a different delay, so a later frame from one recorder may arrive before an
earlier frame from another. A Merge therefore holds each frame until every recorder has delivered all earlier frames.
Then the Merge delivers the held frames in order.
"""

from collections.abc import Callable, Iterable
from operator import itemgetter
from time import time_ns

import trio

from virtfs.core.pcapng import split_packets
from virtfs.forward.recorder import Recorder
from virtfs.forward.tasks import lasting


class Merge:
    """Merges the frames of one capture.

    recorders: returns the recorders to wait for.
    deliver: called with pcapng blocks in order, and the number of frames in them.
    """

    def __init__(self, recorders: Callable[[], Iterable[Recorder]], deliver: Callable[[bytes, int], None]) -> None:
        self._recorders = recorders
        self._deliver = deliver
        self._held: list[tuple[int, bytes, int]] = []  # timestamp in ns, blocks, number of frames in them
        self._news = trio.Event()
        self._scope = trio.CancelScope()

    def __bool__(self) -> bool:
        """Return whether any blocks are held."""
        return bool(self._held)

    def add(self, packets: bytes) -> None:
        """Add frames, given as pcapng packet blocks."""
        self._held.extend((time, block, 1) for time, block in split_packets(packets))
        self._news.set()

    def add_block(self, block: bytes) -> None:
        """Add a block that is not a frame. Its timestamp is the current time."""
        self._held.append((time_ns(), block, 0))
        self._news.set()

    async def run(self) -> None:
        """Deliver the added blocks until `stop` is called."""
        with self._scope:
            await lasting("merging the frames of a capture", self._merge)

    async def _merge(self) -> None:
        self._news.set()  # after a failure, there may be held blocks
        while True:
            await self._news.wait()
            self._news = trio.Event()
            there, until = len(self._held), time_ns()
            for recorder in tuple(self._recorders()):
                await recorder.flush()
            self._deliver_due(there, until)

    def _deliver_due(self, there: int, until: int) -> None:
        """Deliver held items: the first `there` of them, and any later ones whose timestamp is at most `until` (ns).

        The first items are delivered whatever their timestamps are, because the clock may have been set back.
        """
        due, later = self._held[:there], self._held[there:]
        due += [item for item in later if item[0] <= until]
        due.sort(key=itemgetter(0))
        self._held = [item for item in later if item[0] > until]
        if self._held:
            self._news.set()
        if due:
            self._deliver(b"".join(block for _, block, _ in due), sum(frames for *_, frames in due))

    def stop(self) -> None:
        """End `run`. Drop the blocks that are still held, and forget the capture."""
        self._scope.cancel()
        self._held = []
        self._recorders, self._deliver = lambda: (), lambda blocks, frames: None
