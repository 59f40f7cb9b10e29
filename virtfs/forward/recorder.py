"""The recorder of a tap: delivers copies of the frames that pass the tap to captures and the history.

While a recorder has sinks, the kernel copies the frames of both directions into a packet ring on the tap (host.ring).
The wire is not involved, so a capture does not slow down reading and writing. Captured frames wait in the ring, not in
the tap's queue.
"""

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from time import time_ns
from typing import Protocol

import trio

from virtfs.core.errors import VirtError
from virtfs.core.memory import Hold, Kind, Memory
from virtfs.core.pcapng import mark
from virtfs.core.tpacket import pcapng
from virtfs.core.virt import Virt
from virtfs.forward.tasks import Start, in_thread, lasting, surely_in_thread
from virtfs.host.bpf import Program
from virtfs.host.descriptors import NONE_LEFT
from virtfs.host.ring import Block, PacketRing, Size
from virtfs.host.tap_protocol import Placed

log = logging.getLogger(__name__)

# Sizes are in bytes. A block of a large ring can hold the largest segment that a tap gets from TCP. With little traffic
# the kernel closes a block every `wait` ms, full or not. So no frame is lost if the server stalls for less than `wait`
# times `blocks` ms.
LARGE = Size(block=128 << 10, blocks=32, wait=4)
SMALL = Size(block=16 << 10, blocks=4, wait=10)
LARGE_ONES = 32  # maximum number of large rings per mount; a mount may have thousands of rings
BLOCKS = 4  # blocks delivered before other tasks run


class Ring(Protocol):
    """The part of PacketRing that a recorder uses."""

    def fileno(self) -> int: ...

    def blocks(self) -> Iterator[Block]: ...

    def ahead(self) -> int: ...

    def set_filter(self, program: Program | None) -> None: ...

    def close(self) -> None: ...


class Passed:
    """Consecutive frames that have passed a tap. A sink must not use this object after the sink has returned.

    frames: the number of these frames. lost: the number of frames that were lost before them.
    size: an upper bound on the length of these frames as pcapng, in bytes.
    """

    def __init__(self, block: Block) -> None:
        self.frames = block.frames
        self.lost = block.lost
        self.size = block.used
        self._block = block
        self._texts: dict[int, bytes] = {}

    def pcapng(self, interface_id: int) -> bytes:
        """Return the frames as pcapng packet blocks of the interface `interface_id`. The result is cached."""
        text = self._texts.get(interface_id)
        if text is None:
            block = self._block
            text = self._texts[interface_id] = pcapng(block.memory, block.first, block.frames, interface_id)
        return text


class Mark(Passed):
    """A moment that a user has marked. Sinks get it between two frames, and treat it as a frame.

    A capture of several interfaces gets the same mark from the recorder of each interface, and keeps only the first.
    """

    def __init__(self, text: str) -> None:
        self.frames, self.lost = 1, 0
        self._text = text
        self._time = time_ns()
        self.size = len(self.pcapng(0))

    def pcapng(self, interface_id: int) -> bytes:
        """Return the mark as a pcapng packet block of the interface `interface_id`."""
        return mark(interface_id, self._time, self._text)


Sink = Callable[[Passed], None]


class Rings:
    """The packet rings of a mount.

    While LARGE_ONES large rings are open, new rings are small. The more rings are open, the longer the `wait` of a new
    ring. memory: the memory accounts of the mount. If they have no room for a large ring, the new ring is small too.
    """

    def __init__(self, memory: Memory, make: Callable[[Placed, Size, Program | None], Ring] = PacketRing.open) -> None:
        self.memory = memory
        self._make = make
        self._open = self._large = 0
        # Several threads are useful, because opening and closing a ring wait for an RCU grace period.
        self._threads = trio.CapacityLimiter(16)

    async def open(self, tap: Placed, program: Program | None, hold: Hold) -> tuple[Ring, Size]:
        """Open a ring on a tap, and return it with its size.

        program: the filter, or None to copy all frames. hold: the Hold to charge. Errors: those of PacketRing.open.
        """
        size = self._charged(hold)
        large = size is LARGE
        # Each ring has a kernel timer that fires every `wait` ms, whether frames pass or not. Rings that are opened
        # later get a longer `wait`. This limits the total to about 30 timer events per ms for 400 rings, and 50 for
        # 1000 rings.
        size = Size(size.block, size.blocks, size.wait + self._open // LARGE_ONES)
        self._open += 1
        self._large += large
        try:
            return await in_thread(self._make, tap, size, program, limiter=self._threads), size
        except BaseException:
            self._forget(size)
            hold.release()
            raise

    def _charged(self, hold: Hold) -> Size:
        """Choose the size of a ring, charge it to `hold`, and return it.

        A small ring is never refused. Otherwise `pcap` in the mount's root would lack the interfaces of an owner
        who uses much memory.
        """
        if self._large < LARGE_ONES:
            with suppress(VirtError):
                hold.resize(LARGE.bytes)
                return LARGE
        hold.force(SMALL.bytes)
        return SMALL

    def _forget(self, size: Size) -> None:
        self._open -= 1
        self._large -= size.block == LARGE.block

    async def close(self, ring: Ring, size: Size, hold: Hold) -> None:
        """Close a ring. size: the Size that open() returned. hold: the Hold that was passed to open()."""
        self._forget(size)
        with trio.CancelScope(shield=True):
            await surely_in_thread(ring.close, self._threads)
        hold.release()


class Recorder:
    """The recorder of one tap. It has a ring only while there are sinks.

    start: starts a background task, which is cancelled when the mount ends.
    memory: the memory accounts of the mount. The ring is charged to the owner of the interface.
    """

    def __init__(self, virt: Virt, tap: Placed, rings: Rings, start: Start) -> None:
        self.virt = virt
        self._tap = tap
        self.memory = rings.memory
        self._rings = rings
        self._hold = rings.memory.hold(Kind.RINGS, lambda: virt.owner)
        self._start = start
        self._program: Program | None = None
        self._sinks: dict[Sink, None] = {}
        self._ring: Ring | None = None
        self._size = SMALL
        self._over = False
        self._changing = trio.Lock()
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._given = 0  # non-empty blocks delivered so far
        self._shown = trio.Event()  # set after each non-empty block and at the end of a ring, then replaced

    async def watch(self, sink: Sink) -> None:
        """Deliver to `sink` all frames that pass the tap from now on.

        VirtError ENXIO: `end` has been called. Other errors are those of PacketRing.open.
        """
        async with self._changing:
            if self._over:
                raise VirtError(errno.ENXIO, f"{self.virt.name} is gone")
            if self._ring is None:
                await self._open()
            else:
                await self.flush()
            self._sinks[sink] = None

    def unwatch(self, sink: Sink) -> None:
        """Stop delivering frames to a sink. Idempotent. The ring is closed when no sink is left."""
        if self._sinks.pop(sink, sink) is None and not self._sinks:
            self._start(self._close_unused, name=f"{self.virt.name}: closing the capture ring")

    @property
    def program(self) -> Program | None:
        """The filter for the frames that virt receives, or None if all of them are delivered."""
        return self._program

    async def refilter(self, program: Program | None) -> None:
        """Deliver only those frames towards virt that `program` accepts, or all of them if `program` is None."""
        async with self._changing:
            if self._ring is not None:
                self._ring.set_filter(program)
            self._program = program

    async def moved(self) -> None:
        """Replace the ring after the tap has moved to another network namespace."""
        async with self._changing:
            await self.flush()
            await self._close()
            if not self._sinks:
                return
            try:
                await self._open()
            except OSError as refusal:
                if refusal.errno in NONE_LEFT:
                    name = f"capturing {self.virt.name}"
                    self._start(partial(lasting, name, self._open_again), name=name)
                    return
                log.warning("%s: capturing has stopped: %s", self.virt.name, refusal.strerror)

    async def _open_again(self) -> None:
        """Open the ring that `moved` could not open for lack of descriptors or memory."""
        async with self._changing:
            if self._sinks and self._ring is None:
                await self._open()

    async def settled(self) -> None:
        """Wait until all changes requested so far are in effect."""
        async with self._changing:
            pass

    def pending(self) -> bool:
        """Return whether frames that have passed the tap still await delivery. Delivery takes a few ms."""
        return self._ring is not None and bool(self._ring.ahead())

    async def flush(self) -> None:
        """Wait until all frames that have passed the tap so far have been delivered."""
        ring = self._ring
        if ring is not None:
            until = self._given + ring.ahead()
            while ring is self._ring and self._given < until and not self._ended.is_set():
                await self._shown.wait()

    async def mark(self, mark: Mark) -> None:
        """Deliver a mark to all sinks, after the frames that have passed the tap so far."""
        await self.flush()
        self._give(mark)

    async def end(self) -> None:
        """Drop all sinks and close the ring. Called when the interface is removed."""
        if self._ring is None and not self._changing.locked():
            self._over = True  # without a checkpoint, because most interfaces are never captured
            self._sinks.clear()
            return
        async with self._changing:
            self._over = True
            self._sinks.clear()
            await self._close()

    async def _open(self) -> None:
        self._ring, self._size = await self._rings.open(self._tap, self._program, self._hold)
        self._scope, self._ended = trio.CancelScope(), trio.Event()
        work = partial(self._run, self._ring, self._scope, self._ended)
        self._start(work, name=f"{self.virt.name}: capturing")

    async def _close_unused(self) -> None:
        async with self._changing:
            if not self._sinks:
                await self._close()

    async def _close(self) -> None:
        ring, self._ring = self._ring, None
        if ring is not None:
            self._scope.cancel()
            await self._ended.wait()
            await self._rings.close(ring, self._size, self._hold)
            self._notify()

    async def _run(self, ring: Ring, scope: trio.CancelScope, ended: trio.Event) -> None:
        try:
            with scope:
                while True:
                    await trio.lowlevel.wait_readable(ring.fileno())
                    for number, block in enumerate(ring.blocks()):
                        if number and not number % BLOCKS:
                            # Yield before _show, not after it. After _show, both _given and ahead() include this block,
                            # so `flush` would count the block twice.
                            await trio.lowlevel.checkpoint()
                        self._show(block)
        except Exception:
            log.exception("%s: capturing has stopped", self.virt.name)
        finally:
            ended.set()
            self._notify()

    def _show(self, block: Block) -> None:
        self._give(Passed(block))
        if block.frames:
            self._given += 1
            self._notify()

    def _give(self, passed: Passed) -> None:
        for sink in tuple(self._sinks):
            try:
                sink(passed)
            except Exception:
                log.exception("%s: a sink of the recorder failed", self.virt.name)

    def _notify(self) -> None:
        self._shown.set()
        self._shown = trio.Event()
