"""hex: the frames of an interface as lines of hexadecimal digits, for shells."""

import errno
import select
from collections.abc import Awaitable, Callable

from virtfs.core.errors import VirtError
from virtfs.core.hexlines import Lines, format_frame
from virtfs.core.ids import User
from virtfs.files.device import DeviceFile, DeviceHandle, Opens, TextDeviceHandle
from virtfs.files.frame import Frame
from virtfs.forward.wire import HEADROOM, LONGEST


class Hex(DeviceFile):
    """The hex file. `hex` and `frame` share one queue, and one limit on opens, set by the verb `exclusive`.

    told: called with an error and the user, to set the user's last_error.
    """

    __slots__ = ("frame", "room", "told")

    takes = True

    def __init__(self, frame: Frame, opens: Opens, told: Callable[[VirtError, User], None]) -> None:
        super().__init__(frame.owner, "hex", opens)
        self.frame = frame
        self.told = told
        # Holds a frame only while it is being formatted, so all readers can share one buffer.
        self.room = memoryview(bytearray(LONGEST + HEADROOM))

    def open(self, flags: int, user: User) -> DeviceHandle | Awaitable[DeviceHandle]:
        return self.frame.seat(flags, lambda: HexHandle(self, user, flags))


class HexHandle(TextDeviceHandle):
    """One open of hex. It keeps the unread rest of a line, and the beginning of a line that is only partly written."""

    __slots__ = ("_file", "_flags", "_lines", "_room", "_wire")

    def __init__(self, file: Hex, user: User, flags: int) -> None:
        super().__init__(file, user, file.frame.waiters)
        self._file = file
        self._flags = flags
        self._wire = file.frame.wire
        self._lines = Lines()
        self._room = file.room

    def more(self) -> bytes | None:
        length = self._wire.take(self._room, LONGEST)
        if length is None:
            return None
        self.frames += 1
        return format_frame(self._room[HEADROOM : HEADROOM + length])

    def poll(self) -> int:
        events = self._file.frame.poll(self._flags)
        return events | select.POLLIN if self._rest else events

    def write(self, data: memoryview) -> int:
        try:
            for frame in self._lines.feed(data):
                self._wire.out.put(memoryview(frame))
        except VirtError as error:
            self._lines.forget()
            self._report(error)
            raise
        return len(data)

    def _report(self, error: VirtError) -> None:
        where = f"{self._wire.virt.name}/hex"
        self._file.told(VirtError(error.errno, f"{where}: {error.strerror}"), self.user)

    def release(self) -> None:
        if self._lines.rest():
            self._report(VirtError(errno.EINVAL, "the last line was not sent: the file was closed before its newline"))
        super().release()
        self._file.frame.leave(self._flags)
