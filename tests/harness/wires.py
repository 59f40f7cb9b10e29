"""A wire on a fake tap, as the frame file and the daemon use it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import ParamSpec

from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit
from virtfs.core.memory import Memory
from virtfs.core.virt import HostEnd, Virt
from virtfs.files.device import Opens
from virtfs.files.frame import Frame, Seats
from virtfs.forward.tapwatch import TapWatch
from virtfs.forward.wire import HEADROOM, LONGEST, Wire
from virtfs.host.fakes import FakeTap

P = ParamSpec("P")

HEAD = bytes.fromhex("020000000001 020000000002 88b5")


def frame(number: int, size: int = 60) -> bytes:
    """Return a frame whose content depends on its number."""
    return (HEAD + number.to_bytes(4, "big") * (size // 4 + 1))[:size]


def plain_wire(virt: Virt, tap: FakeTap, gone: Callable[[], None] = lambda: None) -> Wire:
    """Return a wire that reports no drops, on a host that reports no changes."""
    return Wire(
        virt,
        tap,
        watch=TapWatch(),
        gone=gone,
        catch_up=lambda: None,
        dropped=lambda frames: None,
        memory=Memory(),
    )


class Unfollowed:
    """An interface that does not follow the opens of frame (files.frame.Opening)."""

    async def first_open(self) -> None:
        raise AssertionError("nothing follows this open")

    def last_close(self) -> None:
        raise AssertionError("nothing follows this close")


def frame_file(wire: Wire, opens: Opens | None = None) -> Frame:
    """Return a frame file on a wire."""
    return Frame(wire, opens or Opens(), Seats(), Unfollowed())


class Bench:
    """A wire whose two ends the test uses. gone: called when the wire finds that its tap is gone."""

    def __init__(self, tap: FakeTap, queue: int) -> None:
        self.tap = tap
        self.virt = Virt(Unit(3), bytes(6), HostEnd("tap3", 7, True, 1500, bytes(6), True, queue=queue))
        self.gone: Callable[[], None] = lambda: None
        self.wire = plain_wire(self.virt, tap, lambda: self.gone())
        self.counters = self.virt.counters
        self._room = memoryview(bytearray(HEADROOM + LONGEST))
        self._filled = 0

    def take(self, size: int = LONGEST) -> bytes | None:
        """Return the frame that a reader gets, or None if the reader would wait."""
        taken = self.wire.take(self._room, size)
        return None if taken is None else bytes(self._room[HEADROOM : HEADROOM + taken])

    def on_ready(self, listener: Callable[[], bool]) -> None:
        """Set the only listener for new frames. The listener returns whether it waits for more."""
        self.wire.listeners[:] = [listener]

    def take_all(self) -> list[bytes]:
        frames = []
        while (one := self.take()) is not None:
            frames.append(one)
        return frames

    def put(self, data: bytes) -> int:
        return self.wire.out.put(memoryview(data))

    def down(self) -> None:
        """Set the tap down. Also fill the fake: a tap that is down is not writable (drivers/net/tun.c: no EPOLLOUT)."""
        try:
            while True:
                os.write(self.tap.fd, b"filler" * 700)
                self._filled += 1
        except BlockingIOError:
            self.virt.set_host(replace(self.virt.host, up=False))

    def up(self) -> None:
        while self._filled:
            self._filled -= self.tap.peer.recv(1 << 13)[:6] == b"filler"
        self.virt.set_host(replace(self.virt.host, up=True))

    def set_backlog(self, frames: int) -> None:
        self.virt.set(backlog=frames)

    def lose(self) -> None:
        if not self.virt.lost:
            self.virt.lose()


@contextmanager
def wire(queue: int = 256) -> Iterator[Bench]:
    """Make a wire that is up."""
    with FakeTap("tap3") as tap:
        bench = Bench(tap, queue)
        try:
            yield bench
        finally:
            bench.on_ready(lambda: False)
            bench.lose()
            bench.wire.close()


def refusal(call: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> int:
    """Return the errno with which a call fails, or 0 if it succeeds."""
    try:
        call(*args, **kwargs)
    except VirtError as error:
        return error.errno
    return 0


def received(bench: Bench) -> list[bytes]:
    """Return the frames that the host has received since the last call."""
    frames = []
    try:
        while True:
            frames.append(bench.tap.host_receive())
    except BlockingIOError:
        return frames
