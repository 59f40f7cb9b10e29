"""pcap and history: what passes, as pcapng.

A capture copies; it never takes a frame from a reader. Each reader has a bounded buffer of its own. When that is full
frames are left out, and the stream says so: the next frame's block counts them, and an interface statistics block sums
up.
"""

import platform
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import time_ns

from virtfs.core.ids import User
from virtfs.core.pcapng import enhanced_packet, interface_description, interface_statistics, section_header
from virtfs.core.virt import Virt
from virtfs.files.node import Owner
from virtfs.files.stream import Opens, Stream, TextStreamHandle, Waiters
from virtfs.forward.wire import HEADROOM, Sink, Wire

READERS = 32  # as many that do not read, each with all it may have, are still no harm
PACKET_BLOCK = b"\x06\0\0\0"  # how an enhanced packet block begins
PIECE = 65536  # bytes of a history made ready at a time
SNAPLEN = 0  # frames are captured whole


def file_header(application: str) -> bytes:
    """The block that begins every capture."""
    return section_header(platform.machine(), f"{platform.system()} {platform.release()}", application)


def interface_block(virt: Virt) -> bytes:
    """The block that introduces an interface."""
    return interface_description(virt.name, virt.description, virt.address, SNAPLEN, virt.filter or None)


@dataclass(slots=True)
class Budget:
    """What waits for the readers of all captures of a mount, in bytes; each: for one of them at most."""

    each: int
    held: int = 0

    @property
    def most(self) -> int:
        """For all of them together."""
        return READERS * self.each


class Capture(Stream):
    """A pcap file: of one interface, or of all (`wires` says which there are now).

    ends: the capture ends with its interface.
    """

    __slots__ = ("application", "budget", "ends", "wires")

    def __init__(
        self,
        owner: Owner,
        label: str,
        opens: Opens,
        wires: Callable[[], list[Wire]],
        budget: Budget,
        application: str,
        ends: bool,
    ) -> None:
        super().__init__(owner, label, opens)
        self.wires = wires
        self.budget = budget
        self.application = application
        self.ends = ends

    def open(self, flags: int, user: User) -> "CaptureHandle":
        handle = CaptureHandle(self, user)
        for wire in self.wires():
            handle.appear(wire)
        return handle

    def appear(self, wire: Wire) -> None:
        """A new interface: every reader sees it from now on."""
        for handle in self.opens:
            if isinstance(handle, CaptureHandle) and handle.stream is self:
                handle.appear(wire)

    def vanish(self, wire: Wire) -> None:
        """It is gone: its statistics close its part, or the whole."""
        for handle in self.opens:
            if isinstance(handle, CaptureHandle) and handle.stream is self:
                handle.vanish(wire)


class _Watched:
    """One interface in one reader's stream."""

    __slots__ = ("begun", "dropped", "missed", "number", "received", "sink")

    def __init__(self, number: int, begun: int) -> None:
        self.number = number
        self.begun = begun
        self.sink: Sink = lambda direction, frame: None
        self.received = self.dropped = self.missed = 0

    def statistics(self) -> bytes:
        """The block that sums up."""
        return interface_statistics(self.number, time_ns(), self.received, self.dropped, self.begun)


class CaptureHandle(TextStreamHandle):
    """One reader. A read gives as many whole blocks as fit; a block that is larger goes on in the next."""

    __slots__ = ("_blocks", "_budget", "_capture", "_introduced", "_over", "_size", "_watched")

    def __init__(self, capture: Capture, user: User) -> None:
        super().__init__(capture, user, Waiters())
        self._capture = capture
        self._budget = capture.budget
        self._blocks: deque[bytes] = deque()
        self._size = 0
        self._add(file_header(capture.application))
        self._watched: dict[Wire, _Watched] = {}
        self._introduced = 0
        self._over = False

    def appear(self, wire: Wire) -> None:
        """See this interface too."""
        watched = self._watched[wire] = _Watched(self._introduced, time_ns())
        self._introduced += 1
        self._add(interface_block(wire.virt))
        watched.sink = self._sink(watched)
        wire.watch(watched.sink)

    def vanish(self, wire: Wire) -> None:
        """It is gone."""
        if (watched := self._watched.pop(wire, None)) is not None:
            wire.unwatch(watched.sink)
            self._add(watched.statistics())
            self._over = self._capture.ends
            self.waiters.wake()

    def _sink(self, watched: _Watched) -> Sink:
        blocks, budget, number, waiters = self._blocks, self._budget, watched.number, self.waiters
        bound, most = budget.each, budget.most

        def see(direction: int, frame: memoryview | bytes) -> None:
            length = len(frame)
            watched.received += 1
            if self._size + length > bound or budget.held > most:
                watched.missed += 1
                watched.dropped += 1
                self.dropped += 1
                return
            block = enhanced_packet(number, time_ns(), frame, length, direction, watched.missed)
            watched.missed = 0
            self.frames += 1
            blocks.append(block)
            self._size += len(block)
            budget.held += len(block)
            if waiters.reads or waiters.polls:
                waiters.wake()

        return see

    def _add(self, block: bytes) -> None:
        self._blocks.append(block)
        self._size += len(block)
        self._budget.held += len(block)

    def _given(self, size: int) -> None:
        """So many bytes wait no more."""
        self._size -= size
        self._budget.held -= size

    def read(self, room: memoryview, size: int) -> int | None:
        blocks = self._blocks
        at, end = HEADROOM, HEADROOM + size
        if not self._rest:
            if not blocks:
                return 0 if self._over else None
            while blocks and at + len(blocks[0]) <= end:
                block = blocks.popleft()
                room[at : at + len(block)] = block
                at += len(block)
            if at == HEADROOM:
                self._rest = blocks.popleft()
                self._given(len(self._rest))
        taken = super().read(room, size) if self._rest else at - HEADROOM
        self._given(at - HEADROOM)
        if not blocks and not self._rest:
            self._sum_up()
        return taken

    def _sum_up(self) -> None:
        """The reader has caught up; had it lagged, it is told by how much."""
        for watched in self._watched.values():
            if watched.missed:
                watched.missed = 0
                self._add(watched.statistics())

    def more(self) -> bytes | None:
        return None

    def ready(self) -> bool:
        return bool(self._blocks) or self._over

    def pending(self) -> int:
        return sum(block.startswith(PACKET_BLOCK) for block in self._blocks)

    def taken(self) -> int:
        return self.frames - self.pending()

    def release(self) -> None:
        for wire, watched in self._watched.items():
            wire.unwatch(watched.sink)
        self._given(self._size)
        super().release()


class History:
    """The last frames of one interface, as many bytes of pcapng as its history_size says."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._blocks: deque[bytes] = deque()
        self._size = 0
        self._watches = False
        self._sink: Sink = self._see

    def update(self) -> None:
        """history_size is another now."""
        wanted = bool(self._wire.virt.history_size)
        if wanted != self._watches:
            self._watches = wanted
            (self._wire.watch if wanted else self._wire.unwatch)(self._sink)
        self._trim()

    def _see(self, direction: int, frame: memoryview | bytes) -> None:
        block = enhanced_packet(0, time_ns(), frame, len(frame), direction)
        self._blocks.append(block)
        self._size += len(block)
        if self._size > self._wire.virt.history_size:
            self._trim()

    def _trim(self) -> None:
        while self._size > self._wire.virt.history_size:
            self._size -= len(self._blocks.popleft())

    def blocks(self) -> tuple[bytes, ...]:
        """The frames as they are now."""
        return tuple(self._blocks)


class HistoryFile(Stream):
    """Reading it takes nothing away."""

    __slots__ = ("application", "history", "virt")

    def __init__(self, virt: Virt, opens: Opens, history: History, application: str) -> None:
        super().__init__(virt, "history", opens)
        self.virt = virt
        self.history = history
        self.application = application

    def open(self, flags: int, user: User) -> "HistoryHandle":
        return HistoryHandle(self, user)


class HistoryHandle(TextStreamHandle):
    """One reader, of what there was at its open."""

    __slots__ = ("_blocks",)

    def __init__(self, file: HistoryFile, user: User) -> None:
        super().__init__(file, user, Waiters())
        head = file_header(file.application) + interface_block(file.virt)
        self._blocks = iter((head, *file.history.blocks()))

    def more(self) -> bytes:
        piece, size = [], 0
        for block in self._blocks:
            piece.append(block)
            size += len(block)
            if size >= PIECE:
                break
        return b"".join(piece)

    def ready(self) -> bool:
        return True
