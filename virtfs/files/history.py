"""history: the last frames of an interface, as pcapng. Reading does not consume them."""

from bisect import bisect_right
from collections import deque
from itertools import accumulate, islice

from virtfs.core.ids import User
from virtfs.core.memory import Kind
from virtfs.core.pcapng import whole_blocks
from virtfs.core.virt import Virt
from virtfs.files.capture_blocks import file_header, interface_block
from virtfs.files.device import DeviceFile, FixedHandle, Opens, Waiters
from virtfs.forward.recorder import Passed, Recorder

PIECE = 65536  # maximum length in bytes of a piece, which consists of joined packet blocks


class History:
    """The last frames of one interface: at most `history_size` bytes of pcapng packet blocks.

    The blocks are charged to the owner of the interface. If a limit on memory is reached, fewer frames are kept.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.memory = recorder.memory
        self._recorder = recorder
        self._pieces: deque[bytes] = deque()  # one or more packet blocks each, oldest first
        self._size = 0
        self._hold = recorder.memory.hold(Kind.HISTORY, lambda: recorder.virt.owner)
        self._watches = False

    @property
    def _bound(self) -> int:
        return self._recorder.virt.history_size

    async def update(self) -> None:
        """Apply a change to history_size. Errors: those of PacketRing.open()."""
        if bool(self._bound) != self._watches:
            if self._bound:
                await self._recorder.watch(self._see)
            else:
                self._recorder.unwatch(self._see)
            self._watches = bool(self._bound)
        self._trim()

    def _see(self, passed: Passed) -> None:
        if not passed.frames:
            return
        packets = passed.pcapng(0)
        self._size += len(packets)
        # Keep the number of pieces small, because each open copies the list of pieces.
        if self._pieces and len(self._pieces[-1]) + len(packets) <= min(PIECE, self._bound // 8):
            self._pieces[-1] += packets
        else:
            self._pieces.append(packets)
        self._trim()
        while self._size > self._hold.size and not self._hold.cover(self._size):
            self._size -= len(self._pieces.popleft())

    def _trim(self) -> None:
        """Drop the oldest pieces that lie entirely beyond the bound.

        The first remaining piece may still be partly beyond the bound. _oldest() leaves out that part.
        """
        while self._pieces and self._size - len(self._pieces[0]) >= self._bound:
            self._size -= len(self._pieces.popleft())
        self._hold.relax(self._size)

    def end(self) -> None:
        """Drop all frames, because the interface is destroyed. Open files keep their content."""
        self._pieces.clear()
        self._size = 0
        self._hold.release()

    def _oldest(self) -> memoryview:
        """Return the oldest piece, minus the leading blocks that put the history over its size limit."""
        oldest = memoryview(self._pieces[0] if self._pieces else b"")
        over, left = self._size - self._bound, 0
        while left < over:
            left += whole_blocks(oldest[left:], 0, least=1)[0]
        return oldest[left:]

    def length(self) -> int:
        """Return the length of the kept packet blocks in bytes, not counting frames still in the packet ring."""
        return self._size - (len(self._pieces[0]) - len(self._oldest()) if self._pieces else 0)

    async def blocks(self) -> list[memoryview]:
        """Return the packet blocks of the last frames, including frames still in the packet ring."""
        await self._recorder.flush()
        return [self._oldest(), *(memoryview(piece) for piece in islice(self._pieces, 1, None))]


class HistoryFile(DeviceFile):
    """The history file: a pcapng file whose content is fixed at each open."""

    __slots__ = ("application", "history", "virt")

    live = False
    lasting = False  # it grows with every frame

    def __init__(self, virt: Virt, opens: Opens, history: History, application: str) -> None:
        super().__init__(virt, "history", opens)
        self.virt = virt
        self.history = history
        self.application = application

    def head(self) -> bytes:
        """Return the section header and interface description blocks."""
        return file_header(self.application) + interface_block(self.virt)

    def size(self, user: User | None) -> int:
        """Return the length in bytes of the content of the latest open.

        If the file is not open, return the length for a new open, not counting frames still in the packet ring.
        """
        for handle in reversed(tuple(self.opens)):
            if isinstance(handle, HistoryHandle) and handle.node is self:
                return handle.length()
        return len(self.head()) + self.history.length()

    async def open(self, flags: int, user: User) -> FixedHandle:
        """Return a handle with the frames currently kept. VirtError ENOBUFS: they would exceed a memory limit."""
        return HistoryHandle(self, await self.history.blocks(), user)


class HistoryHandle(FixedHandle):
    """One open of history. Its content is the frames that were kept when the file was opened."""

    __slots__ = ("_ends", "_hold", "_pieces")

    def __init__(self, file: HistoryFile, blocks: list[memoryview], user: User) -> None:
        super().__init__(file, user, Waiters())
        self._pieces = [memoryview(file.head()), *blocks]
        self._ends = list(accumulate(map(len, self._pieces)))
        self._hold = file.history.memory.hold(Kind.CONTENTS, user.uid)
        self._hold.resize(self._ends[-1])

    def length(self) -> int:
        return self._ends[-1]

    def read_at(self, offset: int, size: int) -> list[memoryview]:
        end = min(offset + size, self._ends[-1])
        pieces = []
        number = bisect_right(self._ends, offset)
        while offset < end:
            piece, last = self._pieces[number], self._ends[number]
            begin = offset - (last - len(piece))
            pieces.append(piece[begin : begin + end - offset])
            offset, number = last, number + 1
        return pieces

    def release(self) -> None:
        self._hold.release()
        super().release()
