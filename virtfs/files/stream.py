"""stream: an interface's frames as a byte stream, for pipes, sockets and programs that move many frames per call."""

import errno
import select
from collections.abc import Awaitable, Callable

from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.core.memory import Kind
from virtfs.files.device import DeviceFile, DeviceHandle, Opens
from virtfs.files.frame import Frame
from virtfs.forward.records import RecordReader, RecordWriter


class Stream(DeviceFile):
    """The stream file. It shares with `frame` one queue, and the limit on opens that the verb `exclusive` sets.

    report: called with an error and the user, to set the user's last_error.
    """

    __slots__ = ("frame", "report")

    takes = True

    def __init__(self, frame: Frame, opens: Opens, report: Callable[[VirtError, User], None]) -> None:
        super().__init__(frame.owner, "stream", opens)
        self.frame = frame
        self.report = report

    def open(self, flags: int, user: User) -> DeviceHandle | Awaitable[DeviceHandle]:
        return self.frame.seat(flags, lambda: StreamHandle(self, user, flags))


class StreamHandle(DeviceHandle):
    """One open of stream. It keeps the unread rest of a record, and the beginning of a partly written record."""

    __slots__ = ("_begin", "_file", "_flags", "_frames", "_input", "_left", "_reader", "_taken", "_unread", "_writer")

    def __init__(self, file: Stream, user: User, flags: int) -> None:
        super().__init__(file, user, file.frame.waiters)
        wire = file.frame.wire
        self._file = file
        self._flags = flags
        self._input = wire.memory.hold(Kind.INPUT, user.uid)
        self._unread = wire.memory.hold(Kind.CONTENTS, user.uid)
        self._reader = RecordReader(wire, self._unread)
        self._writer = RecordWriter(wire.out)
        self._frames = 0  # number of frames read
        # The unsent rest of the waiting write, and the number of bytes taken from this write so far.
        self._left = memoryview(b"")
        self._taken = 0
        self._begin = 0  # the position in the stream where this write began

    def read(self, room: memoryview, size: int) -> int | None:
        length, frames = self._reader.read(room, size)
        self._frames += frames
        return length or None

    def write(self, data: memoryview) -> int | None:
        self._taken, self._begin = 0, self._writer.position
        taken = self._send(data)
        if taken == len(data):
            return taken
        rest = data[taken:]
        try:
            self._input.resize(len(rest))
        except VirtError:
            return taken  # a short write: the caller keeps the rest
        self._left = memoryview(bytearray(rest))  # `data` is valid only during this call
        return None

    def written(self) -> int | None:
        self._left = self._left[self._send(self._left) :]
        return None if self._left else self._taken

    def waits_for_turn(self) -> bool:
        return True

    def _send(self, data: memoryview) -> int:
        """Send the next frames of a write, and return the number of bytes taken."""
        wire = self._file.frame.wire
        try:
            if wire.virt.lost:
                raise VirtError(errno.ENXIO, f"{wire.virt.name} is gone")
            taken = self._writer.write(data)
            if taken == len(data) and self._input.size != self._writer.unfinished():
                self._input.resize(self._writer.unfinished())
        except VirtError as error:
            self._writer.begin_again(self._begin)
            self._left = memoryview(b"")
            self._input.release()
            self._report(error)
            raise
        self._taken += taken
        return taken

    def interrupt(self) -> int:
        self._left = memoryview(b"")
        self._input.resize(self._writer.unfinished())
        return self._taken

    def taken(self) -> int:
        return self._frames

    def seated(self) -> int:
        return self._flags

    def poll(self) -> int:
        events = self._file.frame.poll(self._flags)
        if self._reader.rest:  # the next read returns it, even if the interface is down
            events |= select.POLLIN
            if not events & select.POLLHUP:
                events &= ~select.POLLERR
        return events

    def _report(self, error: VirtError) -> None:
        where = f"{self._file.frame.wire.virt.name}/stream"
        self._file.report(VirtError(error.errno, f"{where}: {error.strerror}"), self.user)

    def release(self) -> None:
        if kept := self._writer.unfinished():
            sentence = f"the last frame was not sent: the file was closed after {kept} bytes of its record"
            self._report(VirtError(errno.EINVAL, sentence))
        self._input.release()
        self._unread.release()
        super().release()
        self._file.frame.leave(self._flags)
