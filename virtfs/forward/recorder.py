"""Shows what passes a tap, both ways, to those who watch: captures and the history.

While somebody watches, the kernel writes every frame into a ring on the tap (host.ring). The wire has no part in it, so
what is captured costs whoever sends and reads nothing here, and a burst is held by the ring, not by the tap's queue.
"""

import errno
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import trio

from virtfs.core.errors import VirtError
from virtfs.core.tpacket import pcapng
from virtfs.core.virt import Virt
from virtfs.forward.tasks import Start, in_thread, lasting, surely_in_thread
from virtfs.host.bpf import Program
from virtfs.host.descriptors import NONE_LEFT
from virtfs.host.ring import Block, PacketRing, Size
from virtfs.host.tapdevice import Placed

log = logging.getLogger(__name__)

# A block of a large ring holds the largest piece that TCP segmentation leaves to a tap. `wait` times the number of
# blocks is how long a server may be held up while few frames come: each moment takes a block, whatever it holds.
LARGE = Size(block=128 << 10, blocks=32, wait=4)
SMALL = Size(block=16 << 10, blocks=4, wait=10)
LARGE_ONES = 32  # rings of a mount that are large; it can have thousands
BLOCKS = 4  # shown before others have their turn


class Ring(Protocol):
    """What a recorder needs of a ring; see PacketRing."""

    def fileno(self) -> int: ...

    def blocks(self) -> Iterator[Block]: ...

    def ahead(self) -> int: ...

    def set_filter(self, program: Program | None) -> None: ...

    def close(self) -> None: ...


class Passed:
    """Some frames in a row that have passed, valid during the call only.

    frames: how many. lost: how many passed unseen before them. size: bytes that they take as pcapng, at most.
    """

    def __init__(self, block: Block) -> None:
        self.frames = block.frames
        self.lost = block.lost
        self.size = block.used
        self._block = block
        self._texts: dict[int, bytes] = {}

    def pcapng(self, interface_id: int) -> bytes:
        """Their blocks, for the interface of that number in a stream; made once for all who ask for the same."""
        text = self._texts.get(interface_id)
        if text is None:
            block = self._block
            text = self._texts[interface_id] = pcapng(block.memory, block.first, block.frames, interface_id)
        return text


Sink = Callable[[Passed], None]


class Rings:
    """The rings of a mount. The more there are, the smaller is the next, and the longer it keeps a block."""

    def __init__(self, make: Callable[[Placed, Size, Program | None], Ring] = PacketRing.open) -> None:
        self._make = make
        self._open = self._large = 0
        self._threads = trio.CapacityLimiter(16)  # each waits for the kernel's RCU

    async def open(self, tap: Placed, program: Program | None) -> tuple[Ring, Size]:
        """One more, on a tap. Errors: as PacketRing.open."""
        large = self._large < LARGE_ONES
        size = LARGE if large else SMALL
        # The kernel looks after each ring every `wait` ms, busy or not: together some 30 times a ms at most.
        size = Size(size.block, size.blocks, size.wait + self._open // LARGE_ONES)
        self._open += 1
        self._large += large
        try:
            return await in_thread(self._make, tap, size, program, limiter=self._threads), size
        except BaseException:
            self._forget(size)
            raise

    def _forget(self, size: Size) -> None:
        self._open -= 1
        self._large -= size.block == LARGE.block

    async def close(self, ring: Ring, size: Size) -> None:
        """One less."""
        self._forget(size)
        with trio.CancelScope(shield=True):
            await surely_in_thread(ring.close, self._threads)


class Recorder:
    """One tap's. start: runs a task as long as the mount."""

    def __init__(self, virt: Virt, tap: Placed, rings: Rings, start: Start) -> None:
        self.virt = virt
        self._tap = tap
        self._rings = rings
        self._start = start
        self._program: Program | None = None
        self._sinks: dict[Sink, None] = {}
        self._ring: Ring | None = None
        self._size = SMALL
        self._over = False
        self._changing = trio.Lock()
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._given = 0  # blocks
        self._shown = trio.Event()  # set, and made anew, with each

    async def watch(self, sink: Sink) -> None:
        """Show what passes from now on. Errors: as PacketRing.open."""
        async with self._changing:
            if self._over:
                raise VirtError(errno.ENXIO, f"{self.virt.name} is gone")
            if self._ring is None:
                await self._open()
            else:
                await self.flush()
            self._sinks[sink] = None

    def unwatch(self, sink: Sink) -> None:
        """No more. Nothing happens if it did not watch."""
        if self._sinks.pop(sink, sink) is None and not self._sinks:
            self._start(self._close_unused)

    @property
    def program(self) -> Program | None:
        """What is shown of what is on its way to virt; None: all."""
        return self._program

    async def refilter(self, program: Program | None) -> None:
        """Show only what a program accepts, of what is on its way to virt."""
        async with self._changing:
            if self._ring is not None:
                self._ring.set_filter(program)
            self._program = program

    async def moved(self) -> None:
        """The tap is in another network namespace: look there."""
        async with self._changing:
            await self.flush()
            await self._close()
            if not self._sinks:
                return
            try:
                await self._open()
            except OSError as refusal:
                if refusal.errno in NONE_LEFT:
                    self._start(partial(lasting, f"capturing {self.virt.name}", self._open_again))
                    return
                log.warning("%s is captured no more: %s", self.virt.name, refusal.strerror)

    async def _open_again(self) -> None:
        """What `moved` could not open."""
        async with self._changing:
            if self._sinks and self._ring is None:
                await self._open()

    async def settled(self) -> None:
        """Wait until what has been asked for by now holds."""
        async with self._changing:
            pass

    def pending(self) -> bool:
        """Frames have passed that are not shown yet; they will be within some ms."""
        return self._ring is not None and bool(self._ring.ahead())

    async def flush(self) -> None:
        """Wait until everything is shown that has passed by now."""
        ring = self._ring
        if ring is not None:
            until = self._given + ring.ahead()
            while ring is self._ring and self._given < until and not self._ended.is_set():
                await self._shown.wait()

    async def end(self) -> None:
        """The interface goes."""
        async with self._changing:
            self._over = True
            self._sinks.clear()
            await self._close()

    async def _open(self) -> None:
        self._ring, self._size = await self._rings.open(self._tap, self._program)
        self._scope, self._ended = trio.CancelScope(), trio.Event()
        self._start(partial(self._run, self._ring, self._scope, self._ended))

    async def _close_unused(self) -> None:
        async with self._changing:
            if not self._sinks:
                await self._close()

    async def _close(self) -> None:
        ring, self._ring = self._ring, None
        if ring is not None:
            self._scope.cancel()
            await self._ended.wait()
            await self._rings.close(ring, self._size)
            self._tell()

    async def _run(self, ring: Ring, scope: trio.CancelScope, ended: trio.Event) -> None:
        try:
            with scope:
                while True:
                    await trio.lowlevel.wait_readable(ring.fileno())
                    for number, block in enumerate(ring.blocks()):
                        if number and not number % BLOCKS:
                            await trio.lowlevel.checkpoint()  # before, not after: this block is still ahead then
                        self._show(block)
        except Exception:
            log.exception("%s is captured no more", self.virt.name)
        finally:
            ended.set()
            self._tell()

    def _show(self, block: Block) -> None:
        passed = Passed(block)
        for sink in tuple(self._sinks):
            try:
                sink(passed)
            except Exception:
                log.exception("%s: a capture failed", self.virt.name)
        if block.frames:
            self._given += 1
            self._tell()

    def _tell(self) -> None:
        self._shown.set()
        self._shown = trio.Event()
