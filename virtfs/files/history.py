"""history: the last frames of an interface, as pcapng, for who comes later. Reading takes nothing away."""

from collections import deque

from virtfs.core.ids import User
from virtfs.core.pcapng import whole_blocks
from virtfs.core.virt import Virt
from virtfs.files.capture import file_header, interface_block
from virtfs.files.stream import Opens, Stream, StreamHandle, TextStreamHandle, Waiters
from virtfs.forward.recorder import Passed, Recorder


class History:
    """The last frames of one interface, as many bytes of pcapng as its history_size says."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._pieces: deque[bytes] = deque()  # blocks
        self._size = 0
        self._watches = False

    @property
    def _bound(self) -> int:
        return self._recorder.virt.history_size

    async def update(self) -> None:
        """history_size is another now. Errors: as PacketRing.open."""
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
        self._pieces.append(packets)
        self._size += len(packets)
        self._trim()

    def _trim(self) -> None:
        """Pieces that are too much as a whole go; what is too much of the oldest that stays, `blocks` leaves out."""
        while self._pieces and self._size - len(self._pieces[0]) >= self._bound:
            self._size -= len(self._pieces.popleft())

    async def blocks(self) -> list[bytes | memoryview]:
        """The frames as they are now."""
        await self._recorder.flush()
        pieces: list[bytes | memoryview] = list(self._pieces)
        over = self._size - self._bound
        if over > 0:
            oldest = memoryview(pieces[0])
            left = 0
            while left < over:
                left += whole_blocks(oldest[left:], 0, least=1)[0]
            pieces[:1] = [oldest[left:]] if left < len(oldest) else []
        return pieces


class HistoryFile(Stream):
    """Reading it takes nothing away."""

    __slots__ = ("application", "history", "virt")

    def __init__(self, virt: Virt, opens: Opens, history: History, application: str) -> None:
        super().__init__(virt, "history", opens)
        self.virt = virt
        self.history = history
        self.application = application

    async def open(self, flags: int, user: User) -> StreamHandle:
        return HistoryHandle(self, await self.history.blocks(), user)


class HistoryHandle(TextStreamHandle):
    """One reader, of what there was at its open."""

    __slots__ = ("_pieces",)

    def __init__(self, file: HistoryFile, blocks: list[bytes | memoryview], user: User) -> None:
        super().__init__(file, user, Waiters())
        self._pieces = iter((file_header(file.application) + interface_block(file.virt), *blocks))

    def more(self) -> bytes:
        return bytes(next(self._pieces, b""))

    def ready(self) -> bool:
        return True
