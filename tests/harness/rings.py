"""Packet rings that a test fills, and a recorder that reads them."""

import os
import struct
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from time import time_ns

import trio

from harness.in_trio import start_in
from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit
from virtfs.core.memory import Memory
from virtfs.core.virt import HostEnd, Virt
from virtfs.forward.recorder import Recorder, Rings
from virtfs.host.bpf import Program
from virtfs.host.fakes import FakeTap
from virtfs.host.ring import Block, Size
from virtfs.host.tap_protocol import Placed

SECOND = 10**9
FIRST, MAC = 48, 92  # offset of the first frame's header in a block; offset of a frame from its header
OUTGOING = 4


def laid(frame: bytes, time: int, kind: int = OUTGOING) -> bytes:
    """Return a frame as the kernel stores it in a ring (struct tpacket3_hdr, struct sockaddr_ll)."""
    size = MAC + len(frame)
    step = size + -size % 8
    seconds, nanoseconds = divmod(time, SECOND)
    head = struct.pack("=6I2H20x10xB9x", step, seconds, nanoseconds, len(frame), len(frame), 1, MAC, MAC + 14, kind)
    return (head.ljust(MAC, b"\0") + frame).ljust(step, b"\0")


class FakeRing:
    """A fake PacketRing. The test adds the frames and decides when a block is handed over.

    tap: name of the captured tap. program: the filter. A recorder closes its ring in a worker thread, perhaps during a
    call from the test. The lock keeps that call from using the number of the closed descriptor.
    """

    def __init__(self, tap: str, size: Size, program: Program | None) -> None:
        self.tap = tap
        self.size = size
        self.program = program
        self.closed = False
        self.broken: OSError | None = None  # what blocks() raises
        self._closing = threading.Lock()
        self._ready = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._handed: deque[tuple[list[bytes], int]] = deque()
        self._current: list[bytes] = []
        self._lost = 0

    def passes(self, *frames: bytes, time: int | None = None) -> None:
        """Add frames to the current block."""
        self._current += [laid(frame, time_ns() if time is None else time) for frame in frames]

    def hand_over(self) -> None:
        """Hand over the current block, as the kernel does when it is full or its time is up."""
        if self._current:
            self._handed.append((self._current, self._lost))
            self._current, self._lost = [], 0
        self._wake()

    def shows(self, *frames: bytes, time: int | None = None) -> None:
        """Add frames and hand over the block."""
        self.passes(*frames, time=time)
        self.hand_over()

    def loses(self, frames: int) -> None:
        """Count frames for which the ring had no room."""
        self._lost += frames
        self._wake()

    def _wake(self) -> None:
        with self._closing:
            if not self.closed:
                os.eventfd_write(self._ready, 1)

    def fileno(self) -> int:
        return self._ready

    def blocks(self) -> Iterator[Block]:
        if self.broken is not None:
            raise self.broken
        while self._handed:
            frames, lost = self._handed[0]
            memory = memoryview(bytearray(bytes(FIRST) + b"".join(frames)))
            yield Block(memory, len(frames), FIRST, len(memory), lost)
            memory.release()  # a later use of the block's memory raises ValueError
            self._handed.popleft()
        if self._lost and not self._current:
            lost, self._lost = self._lost, 0
            yield Block(memoryview(bytes(FIRST)), 0, 0, 0, lost)
        os.eventfd_read(self._ready)

    def ahead(self) -> int:
        return len(self._handed) + bool(self._current)

    def set_filter(self, program: Program | None) -> None:
        self.program = program

    def close(self) -> None:
        with self._closing:
            if not self.closed:
                self.closed = True
                os.close(self._ready)


class Bench:
    """The fake rings of a mount.

    made: every ring ever opened. refusal: the error with which opens fail. gate: opens wait until it is set.
    """

    def __init__(self, nursery: trio.Nursery, memory: Memory | None = None) -> None:
        self.made: list[FakeRing] = []
        self.refusal: VirtError | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = 0  # number of opens that wait for the gate
        self.rings = Rings(memory or Memory(), self._make)
        self.start = start_in(nursery)
        self._taps: list[FakeTap] = []

    def _make(self, tap: Placed, size: Size, program: Program | None) -> FakeRing:
        self.waiting += 1
        self.gate.wait()
        self.waiting -= 1
        if self.refusal is not None:
            raise self.refusal
        self.made.append(FakeRing(tap.name(), size, program))
        return self.made[-1]

    @property
    def open(self) -> list[FakeRing]:
        """The open rings."""
        return [ring for ring in self.made if not ring.closed]

    @property
    def ring(self) -> FakeRing:
        """The only open ring."""
        (ring,) = self.open
        return ring

    def ring_of(self, recorder: Recorder) -> FakeRing:
        """Return the open ring of a recorder. Rings requested at the same time may open in any order."""
        (ring,) = [ring for ring in self.open if ring.tap == recorder.virt.tap]
        return ring

    def recorder(self, unit: int = 3) -> Recorder:
        """Make a recorder."""
        tap = FakeTap(f"tap{unit}")
        self._taps.append(tap)
        virt = Virt(Unit(unit), bytes(6), HostEnd(f"tap{unit}", 7, True, 1500, bytes(6), True, queue=256))
        return Recorder(virt, tap, self.rings, self.start)

    def close(self) -> None:
        for tap in self._taps:
            tap.close()


@asynccontextmanager
async def bench(memory: Memory | None = None) -> AsyncIterator[Bench]:
    """Yield a bench, and assert at the end that all its rings are closed."""
    async with trio.open_nursery() as nursery:
        made = Bench(nursery, memory)
        try:
            yield made
            assert made.open == []
        finally:
            nursery.cancel_scope.cancel()
            made.gate.set()
            made.close()
