"""Feeds the FIFO `rx` of an interface: frames at the speed of a pipe, while somebody reads there and nobody frame."""

import os
from collections.abc import Awaitable, Callable

import trio

from virtfs.core.errors import VirtError
from virtfs.forward.wire import HEADROOM, LONGEST, Wire
from virtfs.host.fifo import PACKET, Fifo, read_by_somebody

BURST = 128  # frames before others have their turn


class Feed:
    """One FIFO and its wire. Nothing tells when a reader comes or goes: `look` is to be called a few times a second.

    busy: somebody has the interface's frame or hex open for reading.
    """

    def __init__(self, wire: Wire, fifo: Fifo, busy: Callable[[], bool]) -> None:
        self.fifo = fifo
        self._wire = wire
        self._busy = busy
        self._fd = -1
        self._scope: trio.CancelScope | None = None
        self._news = trio.Event()

    def look(self, start: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
        """A reader has come: feed it, in a task of its own. It has gone: stop."""
        if self._fd < 0:
            fd = self.fifo.open()
            if fd is not None:
                self._fd = fd
                start(self._run)
        elif not read_by_somebody(self._fd) and self._scope is not None:
            self._scope.cancel()

    def stop(self) -> None:
        """The interface goes."""
        if self._scope is not None:
            self._scope.cancel()
        self.fifo.remove()

    def _heard(self) -> bool:
        self._news.set()
        return True

    async def _run(self) -> None:
        wire = self._wire
        wire.listeners.append(self._heard)
        wire.opened()
        try:
            with trio.CancelScope() as self._scope:
                await self._feed(memoryview(bytearray(HEADROOM + LONGEST)))
        except (BrokenPipeError, VirtError):
            pass  # the reader has gone, or the tap
        finally:
            os.close(self._fd)
            self._fd, self._scope = -1, None
            wire.listeners.remove(self._heard)
            wire.closed()

    async def _feed(self, room: memoryview) -> None:
        wire, fd = self._wire, self._fd
        while True:
            self._news = trio.Event()
            if wire.virt.lost:
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
                if taken > PACKET:
                    wire.disown(taken)
                    continue
                packet = room[HEADROOM : HEADROOM + taken]
                while True:
                    try:
                        os.write(fd, packet)
                        break
                    except BlockingIOError:
                        await trio.lowlevel.wait_writable(fd)
            else:
                await trio.lowlevel.checkpoint()
