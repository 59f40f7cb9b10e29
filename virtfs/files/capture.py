"""pcap: the frames that pass an interface, as pcapng.

A capture copies frames: readers of `frame` still get all of them. Each open of a capture has its own bounded buffer.
When the buffer is full, frames are dropped. The dropcount option of the next packet block reports their number. If the
reader catches up before another frame passes, an interface statistics block reports the number instead.
"""

import errno
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.core.memory import Kind, Memory
from virtfs.core.pcapng import no_names, whole_blocks, with_dropcount
from virtfs.files.capture_blocks import Watched, file_header, interface_block
from virtfs.files.device import DeviceFile, DeviceHandle, Opens, TextDeviceHandle, Waiters
from virtfs.files.node import Owner
from virtfs.forward.merge import Merge
from virtfs.forward.recorder import Mark, Passed, Recorder, Sink
from virtfs.forward.supervisor import together
from virtfs.forward.tasks import Start
from virtfs.forward.wire import HEADROOM
from virtfs.host.descriptors import NONE_LEFT

log = logging.getLogger(__name__)

_MERGING = 160  # bytes of memory that a frame takes, in addition to its block, while it is in the merge
_WATCHED = 1024  # bytes of memory that each interface of a capture takes


@dataclass(slots=True)
class Budget:
    """The limits on the buffers of open captures.

    each: the maximum number of bytes in the buffer of one open.
    memory: the memory accounts of the mount. A buffer is charged to the user who opened the capture.
    """

    each: int
    memory: Memory


class Capture(DeviceFile):
    """A pcap file of one interface, or of all interfaces of the mount.

    recorders: returns the recorders of the captured interfaces.
    budget: the limits on buffers, shared by all captures of the mount.
    application: the name of the program in the section header.
    start: runs a task until the mount ends.
    alone: true for the pcap file of one interface, false for that of the mount. If true, frames need no merging, and an
    open fails if the interface cannot be captured.
    """

    __slots__ = ("_handles", "alone", "application", "budget", "recorders", "start")

    def __init__(
        self,
        owner: Owner,
        label: str,
        opens: Opens,
        recorders: Callable[[], list[Recorder]],
        budget: Budget,
        application: str,
        start: Start,
        alone: bool,
    ) -> None:
        super().__init__(owner, label, opens)
        self.recorders = recorders
        self.budget = budget
        self.application = application
        self.start = start
        self.alone = alone
        self._handles: dict[CaptureHandle, None] = {}  # open handles, and those whose open is in progress

    def open(self, flags: int, user: User) -> Awaitable[DeviceHandle]:
        return self._open(user)

    async def _open(self, user: User) -> DeviceHandle:
        handle = CaptureHandle(self, user)
        # `appear` and `vanish` must reach the handle while `begin` runs. The handle is added to `opens` only later:
        # once the file `clients` lists it, programs may rely on every later frame being captured.
        self._handles[handle] = None
        try:
            await handle.begin()
        except BaseException:
            handle.release()
            raise
        return handle

    async def appear(self, recorder: Recorder) -> None:
        """Add a new interface to every open capture."""
        for handle in tuple(self._handles):
            await handle.appear(recorder)

    def vanish(self, recorder: Recorder) -> None:
        """Stop capturing an interface in every open capture, and add its statistics block."""
        for handle in tuple(self._handles):
            handle.vanish(recorder)

    def forget(self, handle: "CaptureHandle") -> None:
        """Remove a released handle. Idempotent."""
        self._handles.pop(handle, None)


class CaptureHandle(TextDeviceHandle):
    """One open of a capture.

    A read returns as many whole blocks as fit. A block that is longer than the read continues in the next read.
    """

    __slots__ = (
        "_budget",
        "_capture",
        "_full",
        "_hold",
        "_introduced",
        "_last",
        "_mark",
        "_merge",
        "_over",
        "_pending",
        "_pieces",
        "_released",
        "_sinks",
        "_size",
        "_used",
        "_watched",
    )

    def __init__(self, capture: Capture, user: User) -> None:
        super().__init__(capture, user, Waiters())
        self._capture = capture
        self._budget = capture.budget
        self._hold = capture.budget.memory.hold(Kind.CAPTURES, user.uid)
        # Each piece is (joined blocks, number of frames in them, length in bytes before any block was read).
        self._pieces: deque[tuple[memoryview, int, int]] = deque()
        self._size = self._pending = 0
        self._used = 0  # memory in bytes: the overhead, and each piece in full until its last block is read
        self._watched: dict[Recorder, Watched] = {}
        self._sinks: dict[Recorder, Sink] = {}  # what the recorders call with the frames of `_watched`
        self._introduced = 0  # number of interface description blocks so far
        # An interrupted read returns this block if the capture has no interface left. It is the latest statistics
        # block, or a name resolution block without names if there never was an interface.
        self._last = no_names()
        self._over = self._released = False
        self._mark: Mark | None = None  # the mark that was delivered last
        self._full = False  # whether a frame was dropped and nothing has been read since
        self._merge = None if capture.alone else Merge(lambda: self._watched, self._deliver_merged)
        self._add(file_header(capture.application))

    async def begin(self) -> None:
        """Start capturing.

        A capture of one interface raises the errors of PacketRing.open.
        A capture of all interfaces raises EMFILE, ENFILE or ENOMEM if any interface fails with one of these, and EPERM
        if no interface can be captured. For any other failure of an interface, it logs a warning and captures the
        remaining interfaces.
        """
        refused: list[OSError] = []
        if self._merge is not None:
            self._capture.start(self._merge.run, name="merging the frames of a capture")
        while new := [recorder for recorder in self._capture.recorders() if recorder not in self._watched]:
            introduced = [(recorder, self._introduce(recorder)) for recorder in new]
            if self._capture.alone:
                await self._watch(*introduced[0])
                break
            await together(*(partial(self._watch, *one, refused) for one in introduced))
        short = [refusal for refusal in refused if refusal.errno in NONE_LEFT]
        if short or (refused and not any(watched.sees for watched in self._watched.values())):
            refusal = (short or refused)[0]
            raise VirtError(refusal.errno or errno.EIO, f"pcap: {refusal.strerror}")

    async def appear(self, recorder: Recorder) -> None:
        """Capture one more interface. If interface blocks have piled up because the reader is slow, end the capture."""
        if self._size > 2 * self._budget.each:
            self._end()
        elif recorder not in self._watched and not recorder.virt.lost and not self._released:
            await self._watch(recorder, self._introduce(recorder))

    def _end(self) -> None:
        """Stop capturing. The reader gets the blocks in the buffer, then the end of the file."""
        self._over = True
        for recorder, sink in self._sinks.items():
            recorder.unwatch(sink)
        self._watched, self._sinks = {}, {}

    def _introduce(self, recorder: Recorder) -> Watched:
        watched = self._watched[recorder] = Watched(self._introduced)
        self._introduced += 1
        self._use(_WATCHED)
        self._sinks[recorder] = self._sink(watched)
        self._add(interface_block(recorder.virt))
        return watched

    async def _watch(self, recorder: Recorder, watched: Watched, refused: list[OSError] | None = None) -> None:
        sink = self._sinks.get(recorder)
        if sink is None:  # vanish() or release() has been called
            return
        try:
            await recorder.watch(sink)
            watched.sees = True
        except OSError as refusal:
            if self._capture.alone:
                sentence = f"{recorder.virt.name}/pcap: {refusal.strerror}"
                raise VirtError(refusal.errno or errno.EIO, sentence) from refusal
            log.warning("cannot include %s in pcap: %s", recorder.virt.name, refusal.strerror)
            if refused is not None and (refusal.errno == errno.EPERM or refusal.errno in NONE_LEFT):
                refused.append(OSError(refusal.errno, refusal.strerror))  # a copy: this frame refers to the list
        if self._watched.get(recorder) is not watched:  # vanish() or release() was called during watch()
            recorder.unwatch(sink)
        self.waiters.wake()

    def vanish(self, recorder: Recorder) -> None:
        """Stop capturing an interface, and add its statistics block to the capture.

        The recorder must already have delivered all frames of the interface.
        """
        watched = self._watched.pop(recorder, None)
        if watched is None:
            return
        recorder.unwatch(self._sinks.pop(recorder))
        self._last = statistics = watched.statistics()
        if self._merge is None:
            self._add(statistics)
            self._over = True
        else:
            self._size += len(statistics)
            self._use(len(statistics) - _WATCHED)
            self._merge.add_block(statistics)
        self.waiters.wake()

    def _sink(self, watched: Watched) -> Sink:
        budget, number = self._budget, watched.number
        bound, hold = budget.each, self._hold
        overhead = _MERGING if self._merge is not None else 0

        def see(passed: Passed) -> None:
            if type(passed) is Mark and not self._is_first(passed):
                return
            watched.received += passed.lost + passed.frames
            watched.miss(passed.lost)
            self.dropped += passed.lost
            room, frames = 0 if self._full else bound - self._size, passed.frames
            used = self._used + passed.size + frames * overhead
            if frames and room > 0 and used > hold.size and not hold.cover(used):
                room = 0
            if passed.size <= room:
                packets = passed.pcapng(number)
            elif room > 0:
                packets = passed.pcapng(number)
                fitting, frames = whole_blocks(packets, room)
                packets = packets[:fitting]
            else:
                frames = 0
            if frames:
                if watched.missed:
                    packets = with_dropcount(packets, watched.missed)
                    watched.missed = 0
                self._size += len(packets)
                self._used += len(packets) + frames * overhead
                self.frames += frames
                if self._merge is None:
                    self._deliver(packets, frames)
                else:
                    self._merge.add(packets)
            self._full = frames < passed.frames
            watched.miss(passed.frames - frames)
            self.dropped += passed.frames - frames
            if not frames:
                self._add_statistics()
                self.waiters.wake()

        return see

    def _is_first(self, mark: Mark) -> bool:
        """Return whether the mark is new to this capture. Every interface of the capture delivers each mark."""
        first, self._mark = self._mark is not mark, mark
        return first

    def _deliver_merged(self, blocks: bytes, frames: int) -> None:
        self._used -= frames * _MERGING
        self._deliver(blocks, frames)

    def _deliver(self, blocks: bytes, frames: int) -> None:
        self._pieces.append((memoryview(blocks), frames, len(blocks)))
        self._pending += frames
        self.waiters.wake()

    def _use(self, size: int) -> None:
        """Charge `size` more bytes for data other than frames. A negative `size` reduces the charge."""
        self._used += size
        self._hold.force(max(self._used, self._hold.size))
        self._hold.relax(self._used)

    def _add(self, block: bytes) -> None:
        self._size += len(block)
        self._use(len(block))
        self._pieces.append((memoryview(block), 0, len(block)))

    def read(self, room: memoryview, size: int) -> int | None:
        if not self._rest:
            at, end = HEADROOM, HEADROOM + size
            while self._pieces and (blocks := self._next(end - at)):
                room[at : at + len(blocks)] = blocks
                at += len(blocks)
            if at > HEADROOM or not self._pieces:
                self._add_statistics()
                return at - HEADROOM or (0 if self._over else None)
            self._rest = bytes(self._next(0, least=1))
            self._use(len(self._rest))
        before = len(self._rest)
        taken = super().read(room, size)
        self._use(len(self._rest) - before)
        if not self._rest:
            self._add_statistics()
        return taken

    def _next(self, size: int, least: int = 0) -> memoryview:
        """Remove as many whole blocks from the start of the first piece as fit into `size` bytes, and return them.

        least: the minimum number of blocks to remove, even if they are longer than `size` (see whole_blocks).
        """
        blocks, frames, whole = self._pieces[0]
        length = len(blocks)
        if length > size:
            length, taken = whole_blocks(blocks, size, least)
            if length == len(blocks):
                self._drop_piece()
            elif length:
                self._pieces[0] = blocks[length:], frames - taken, whole
        else:
            self._drop_piece()
            taken = frames
        self._pending -= taken
        self._size -= length
        self._full = False
        return blocks[:length]

    def _drop_piece(self) -> None:
        """Remove the first piece and free its memory. Reading only some of its blocks does not free any memory."""
        self._used -= self._pieces.popleft()[2]
        self._hold.relax(self._used)

    def _add_statistics(self) -> None:
        """If the reader has caught up, add a statistics block for each interface with unreported drops."""
        if self._pieces or self._merge:
            return
        for watched in self._watched.values():
            if watched.missed:
                watched.missed = 0
                self._add(watched.statistics())

    def interrupted(self, room: memoryview, size: int) -> int:
        """End a waiting read after a signal. The read returns a block without frames as filler.

        Fillers do not pile up in the buffer, because a read waits only while the buffer is empty.
        """
        watched = next(iter(self._watched.values()), None)
        if watched is not None:
            watched.missed = 0
            self._last = watched.statistics()
        self._add(self._last)
        return self.read(room, size) or 0

    def more(self) -> bytes | None:
        return None

    def ready(self) -> bool:
        return bool(self._pieces) or self._over or self.soon()

    def soon(self) -> bool:
        return bool(self._merge) or any(
            watched.sees and recorder.pending() for recorder, watched in self._watched.items()
        )

    def pending(self) -> int:
        return self._pending

    def taken(self) -> int:
        return self.frames - self._pending

    def release(self) -> None:
        self._capture.forget(self)
        self._end()
        self._released = True
        if self._merge is not None:
            self._merge.stop()
        self._pieces.clear()
        self._rest = b""
        self._hold.release()
        super().release()
