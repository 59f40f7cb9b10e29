"""hex: the frames of an interface as lines of hexadecimal digits, for shells."""

import errno
import select
from collections.abc import Awaitable, Callable

from virtfs.core.errors import VirtError
from virtfs.core.hexlines import Lines, format_frame
from virtfs.core.ids import User
from virtfs.core.memory import Kind
from virtfs.files.device import DeviceFile, DeviceHandle, Opens, TextDeviceHandle
from virtfs.files.frame import Frame
from virtfs.forward.wire import HEADROOM, LONGEST

# Holds a frame only while it is formatted, so that one buffer serves all readers.
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

    __slots__ = ("_file", "_flags", "_input", "_lines", "_unread", "_wire")

    def __init__(self, file: Hex, user: User, flags: int) -> None:
        super().__init__(file, user, file.frame.waiters)
        self._file = file
        self._flags = flags
        self._wire = file.frame.wire
        self._lines = Lines()
        self._input = self._wire.memory.hold(Kind.INPUT, user.uid)
        self._unread = self._wire.memory.hold(Kind.CONTENTS, user.uid)

    def read(self, room: memoryview, size: int) -> int | None:
        """Return the next bytes of a line. VirtError ENOBUFS: there is no memory for the rest of a long line."""
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

    def poll(self) -> int:
        events = self._file.frame.poll(self._flags)
        if self._rest:  # the next read returns it, even if the interface is down
            events |= select.POLLIN
            if not events & select.POLLHUP:
                events &= ~select.POLLERR
        return events

    def write(self, data: memoryview) -> int:
        try:
            frames = self._lines.feed(data)
            self._input.resize(self._lines.size)  # before the first frame is sent
            for frame in frames:
                self._wire.out.put(memoryview(frame))
        except VirtError as error:
            self._lines.forget()
            self._input.release()
            self._report(error)
            raise
        return len(data)

    def _report(self, error: VirtError) -> None:
        where = f"{self._wire.virt.name}/hex"
        self._file.told(VirtError(error.errno, f"{where}: {error.strerror}"), self.user)

    def release(self) -> None:
        if self._lines.rest():
            self._report(VirtError(errno.EINVAL, "the last line was not sent: the file was closed before its newline"))
        self._input.release()
        self._unread.release()
        super().release()
        self._file.frame.leave(self._flags)
