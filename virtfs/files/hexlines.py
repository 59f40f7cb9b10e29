"""hex: the frames of an interface as lines of hexadecimal digits, for shells."""

import errno
import select
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from time import monotonic_ns

from virtfs.core.errors import VirtError, located
from virtfs.core.hexlines import Lines, format_frame
from virtfs.core.ids import User
from virtfs.core.memory import Kind
from virtfs.files.device import SLICE, DeviceFile, DeviceHandle, Opens, TextDeviceHandle
from virtfs.files.frame import Frame
from virtfs.forward.wire import HEADROOM, LONGEST

PIECE = 65536  # maximum number of bytes of a write that are split into lines at a time
# It holds a frame only while the frame is formatted, so one buffer serves all readers.
_ROOM = memoryview(bytearray(LONGEST + HEADROOM))


class Hex(DeviceFile):
    """The hex file. `hex` and `frame` share one queue, and one limit on opens, set by the verb `exclusive`.

    told: called with an error and the user, to set the user's last_error.
    """

    __slots__ = ("frame", "told")

    takes = True

    def __init__(self, frame: Frame, opens: Opens, told: Callable[[VirtError, User], None]) -> None:
        super().__init__(frame.owner, "hex", opens)
        self.frame = frame
        self.told = told

    def open(self, flags: int, user: User) -> DeviceHandle | Awaitable[DeviceHandle]:
        return self.frame.seat(flags, lambda: HexHandle(self, user, flags))


class HexHandle(TextDeviceHandle):
    """One open of hex. It keeps the unread rest of a line, and the beginning of a line that is only partly written."""

    __slots__ = (
        "_base",
        "_data",
        "_fed",
        "_file",
        "_flags",
        "_input",
        "_items",
        "_line",
        "_lines",
        "_several",
        "_unread",
        "_wire",
    )

    def __init__(self, file: Hex, user: User, flags: int) -> None:
        super().__init__(file, user, file.frame.waiters)
        self._file = file
        self._flags = flags
        self._wire = file.frame.wire
        self._lines = Lines()
        self._data = b""  # the write in progress
        self._base = self._fed = 0  # start and end, in _data, of the piece that was last passed to _lines
        self._line, self._several = 1, False  # the number of the line at _fed; whether the write has several lines
        self._items: Iterator[bytes | None] = iter(())  # the decoded lines of this piece
        self._input = self._wire.memory.hold(Kind.INPUT, user.uid)
        self._unread = self._wire.memory.hold(Kind.CONTENTS, user.uid)

    def read(self, room: memoryview, size: int) -> int | None:
        """Read the next bytes of a line. VirtError ENOBUFS: there is no memory to keep the rest of a long line."""
        taken = super().read(room, size)
        if taken is not None and len(self._rest) > self._unread.size:
            try:
                self._unread.resize(len(self._rest))
            except VirtError as error:
                if self._wire.counted:
                    self._wire.disown((taken + len(self._rest)) // 2)
                self.frames -= 1
                self._rest = b""
                self._report(error)
                raise
        elif not self._rest and self._unread.size:
            self._unread.release()
        return taken

    def more(self) -> bytes | None:
        length = self._wire.take(_ROOM, LONGEST)
        if length is None:
            return None
        self.frames += 1
        return format_frame(_ROOM[HEADROOM : HEADROOM + length])

    def seated(self) -> int:
        return self._flags

    def poll(self) -> int:
        events = self._file.frame.poll(self._flags)
        if self._rest:  # the next read returns it, even if the interface is down
            events |= select.POLLIN
            if not events & select.POLLHUP:
                events &= ~select.POLLERR
        return events

    def write(self, data: memoryview) -> int | None:
        try:
            self._input.resize(self._lines.size + len(data))  # before the first frame is sent
        except VirtError as error:
            self._lines.forget()
            self._input.release()
            self._report(error)
            raise
        self._data = bytes(data)
        self._base = self._fed = 0
        self._line, self._several = 1, self._data.count(b"\n") > 1
        self._items = iter(())
        return self.written()

    def written(self) -> int | None:
        put, end = self._wire.out.put, monotonic_ns() + SLICE
        try:
            if self._wire.virt.lost:  # also for a write that sends no frame
                raise VirtError(errno.ENXIO, f"{self._wire.virt.name} is gone")
            while True:
                for frame in self._items:
                    if frame is not None:
                        try:
                            put(memoryview(frame))
                        except VirtError as refusal:
                            raise located(refusal, self._lines.where) from None
                    if monotonic_ns() > end:
                        return None
                if self._fed == len(self._data):
                    self._end()
                    return self._fed
                if monotonic_ns() > end:
                    return None
                piece = self._data[self._fed : self._fed + PIECE]
                self._items = self._lines.feed(piece, self._line, self._several)
                self._base, self._fed = self._fed, self._fed + len(piece)
                self._line += piece.count(b"\n")
        except VirtError as error:
            self._lines.forget()
            self._input.release()
            self._report(error)
            raise

    def waits_for_turn(self) -> bool:
        return True

    def interrupt(self) -> int:
        with suppress(VirtError):
            next(self._items, None)  # the last frame has been sent, so mark it as consumed
        self._items = iter(())
        taken = self._base + self._lines.give_back()
        self._end()
        return taken

    def _end(self) -> None:
        """Free the memory of a write that has ended, except for its unfinished line."""
        self._data = b""
        self._input.resize(self._lines.size)

    def _report(self, error: VirtError) -> None:
        where = f"{self._wire.virt.name}/hex"
        self._file.told(VirtError(error.errno, f"{where}: {error.strerror}"), self.user)

    def release(self) -> None:
        if self._lines.rest():
            self._report(VirtError(errno.EINVAL, "the last line was not sent: it does not end with a newline"))
        self._input.release()
        self._unread.release()
        super().release()
        self._file.frame.leave(self._flags)
