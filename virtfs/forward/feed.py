"""The feed of the FIFO `rx`.

It writes the frames of an interface into the FIFO while the FIFO has a reader and while nobody reads `frame`, `hex` or
`stream`.
"""

import os
from collections.abc import Callable
from contextlib import suppress

import trio

from virtfs.core.errors import VirtError
from virtfs.forward.tasks import Start
from virtfs.forward.wire import HEADROOM, LONGEST, Wire
from virtfs.host.fifo import PACKET, Fifo, has_reader

BURST = 256  # maximum number of frames written before other tasks run: the default queue of a tap


class Feed:
    """The feed of one FIFO.

    A FIFO does not notify its writer when a reader opens or closes it. So the Feed's owner calls `look` a few times a
    second.
    busy: returns whether `frame`, `hex` or `stream` of the interface is open for reading.
    """

    def __init__(self, wire: Wire, fifo: Fifo, busy: Callable[[], bool]) -> None:
        self.fifo = fifo
        self._wire = wire
        self._busy = busy
        self._fd = -1
        self._scope: trio.CancelScope | None = None
        self._counted = False  # whether the wire counts the reader of the FIFO
        self._news = trio.Event()

    def look(self, start: Start) -> None:
        """If the FIFO has a new reader, start feeding it. If the last reader has gone, stop, and no longer count it.

        start: starts a background task.
        """
        if self._fd < 0:
            fd = self.fifo.open()
            if fd is not None:
                self._fd = fd
                start(self._run, name=f"{self._wire.virt.name}: feeding rx")
        elif not has_reader(self._fd):
            self._end()

    @property
    def fed(self) -> bool:
        """Whether the FIFO had a reader when look() was last called."""
        return self._fd >= 0

    async def settled(self) -> bool:
        """Wait until a feed whose reader has gone has ended. Return whether the FIFO has a reader."""
        while self._fd >= 0 and not has_reader(self._fd):
            self._end()
            await trio.lowlevel.checkpoint()
        return self.fed

    def stop(self) -> None:
        """End the feed and remove the FIFO. Called when the interface is removed."""
        if self._scope is not None:
            self._scope.cancel()
        self.fifo.remove()

    def _end(self) -> None:
        """Cancel the feed's task. It ends later, but the wire stops counting the reader now."""
        if self._scope is not None:
            self._scope.cancel()
            self._uncount()

    def _uncount(self) -> None:
        if self._counted:
            self._counted = False
            self._wire.closed()

    def _heard(self) -> bool:
        self._news.set()
        return True

    async def _run(self) -> None:
        wire = self._wire
        wire.listeners.append(self._heard)
        self._counted = True
        wire.opened()
        try:
            with trio.CancelScope() as self._scope:
                await self._feed(memoryview(bytearray(HEADROOM + LONGEST)))
        except (BrokenPipeError, VirtError):
            pass  # the last reader has closed the FIFO, or the interface is down or gone
        finally:
            os.close(self._fd)
            self._fd, self._scope = -1, None
            wire.ignore(self._heard)
            self._uncount()

    async def _feed(self, room: memoryview) -> None:
        wire, fd, write = self._wire, self._fd, os.write
        while True:
            self._news = trio.Event()
            if wire.virt.lost or not self._counted:
                return
            if self._busy() or not wire.virt.host.up:
                await self._news.wait()
                continue
            for _ in range(BURST):
                taken = wire.take(room, LONGEST)
                if taken is None:
                    wire.want()
                    await self._news.wait()
                    break
                counted, passed, waited = wire.counted, False, False
                try:
                    if taken <= PACKET:
                        packet = room[HEADROOM : HEADROOM + taken]
                        try:
                            write(fd, packet)
                        except BlockingIOError:  # the FIFO is full
                            await _put(fd, packet)
                            waited = True
                        passed = True
                finally:
                    if counted and not passed:
                        wire.disown(taken)
                if waited:
                    break  # meanwhile the interface may be down, or another program may read frames
            else:
                await trio.lowlevel.checkpoint()


async def _put(fd: int, packet: memoryview) -> None:
    """Write one packet into the FIFO when it has room for it. BrokenPipeError: the FIFO has no reader."""
    while True:
        await trio.lowlevel.wait_writable(fd)
        with suppress(BlockingIOError):
            os.write(fd, packet)
            return
