"""inject: sends the frames of a pcap or pcapng file that is written to it, many frames per write.

If `pace` is not 0, the recorded intervals between frames are kept, or scaled by a factor. A write then waits until its
frames are sent. A signal ends a waiting write at a frame boundary.
"""

import errno
import select
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic_ns

import trio

from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.core.memory import Kind
from virtfs.core.pace import Pace
from virtfs.core.savefile import Group, Reader, Record
from virtfs.files.device import SLICE, DeviceFile, DeviceHandle, Opens, Waiters
from virtfs.forward.frame_runs import ROOM, RUN, Rows
from virtfs.forward.tasks import Start, lasting
from virtfs.forward.wire import Wire
from virtfs.host.timer import Timer

BURST = 512  # frames sent between two readings of the clock
PIECE = 49152  # maximum number of bytes of a write that are decoded at a time


class Inject(DeviceFile):
    """The inject file. Only one open is allowed at a time.

    A second open is refused, because its writes would be stuck in the kernel while a write of the first open waits.
    start: runs a task until the mount ends. told: called with an error and the user, to set the user's last_error.
    """

    __slots__ = ("start", "told", "used", "waiters", "wire")

    gives = False
    takes = True

    def __init__(
        self,
        wire: Wire,
        opens: Opens,
        start: Start,
        told: Callable[[VirtError, User], None],
    ) -> None:
        super().__init__(wire.virt, "inject", opens)
        self.wire = wire
        self.start = start
        self.told = told
        self.used = False
        self.waiters = Waiters()
        wire.changed.append(self._wake)

    def open(self, flags: int, user: User) -> "InjectHandle":
        if self.used:
            raise VirtError(
                errno.EBUSY, f"{self.wire.virt.name}/inject is already open: only one open is allowed (see clients)"
            )
        if self.wire.virt.lost:
            raise VirtError(errno.ENXIO, f"{self.wire.virt.name} is gone")
        handle = InjectHandle(self, user)
        self.used = True
        self.start(handle.run, name=f"{self.wire.virt.name}: waking the writer of inject")
        return handle

    def _wake(self) -> None:
        self.waiters.wake()


class InjectHandle(DeviceHandle):
    """One open of inject, and the capture file written to it."""

    __slots__ = (
        "_base",
        "_data",
        "_due",
        "_early",
        "_fed",
        "_file",
        "_frames",
        "_hold",
        "_next",
        "_pace",
        "_paced",
        "_reader",
        "_records",
        "_rows",
        "_scope",
        "_timer",
        "_unpaced",
    )

    def __init__(self, file: Inject, user: User) -> None:
        super().__init__(file, user, file.waiters)
        self._file = file
        self._reader = Reader()
        self._pace = Pace()
        self._scope = trio.CancelScope()
        self._records: Iterator[Record] = iter(())
        self._next: Record | None = None
        self._due = 0  # when _next is due, in ns (monotonic_ns)
        # The value of `pace` when a write was interrupted, or None if no write was interrupted or _due has passed. If
        # `pace` is still the same, the next write must wait until _due before it sends a frame.
        self._early: float | None = None
        self._unpaced: Iterator[Group] | None = None  # used instead of _records while `pace` is 0
        self._hold = file.wire.memory.hold(Kind.INPUT, user.uid)
        self._rows = Rows()
        self._frames = 0
        self._data = b""  # the waiting write
        self._base = self._fed = 0  # start and end, in _data, of the piece that was last fed to the reader
        self._paced = False  # whether `pace` was set when the write began
        self._timer = Timer()  # created last: if a later statement failed, nothing would close the timer

    def write(self, data: memoryview) -> int | None:
        """Accept a piece of a capture file. VirtError ENOBUFS: there is no memory for it, so nothing is accepted."""
        needed = ROOM + self._reader.memory(len(data)) + len(data)
        if needed > self._hold.size:
            try:
                self._hold.resize(needed)
            except VirtError as error:
                self._report(error)
                raise
        self._data = bytes(data)
        self._fed = 0
        self._paced = bool(self._file.wire.virt.pace)
        if not self._paced:
            self._pace = Pace()
        self._early = None
        self._feed()
        return self.written()

    def _feed(self) -> None:
        """Pass the next piece of the write to the reader."""
        piece = memoryview(self._data)[self._fed : self._fed + PIECE]
        self._base, self._fed = self._fed, self._fed + len(piece)
        if self._paced:
            self._records, self._unpaced = self._reader.feed(piece), None
        else:
            self._unpaced = self._reader.feed_frames(piece, self._largest_group)

    def written(self) -> int | None:
        """Continue the waiting write.

        Return its length in bytes if all its frames are sent, or None if some must be sent later.
        """
        wire = self._file.wire
        if wire.virt.lost:
            raise VirtError(errno.ENXIO, f"{wire.virt.name} is gone")
        end = monotonic_ns() + SLICE
        while True:
            through = self._replay(wire, end) if self._unpaced is None else self._burst(wire, self._unpaced)
            if through:
                if self._fed == len(self._data):
                    return len(self._data)
                self._feed()
            if self._next is not None or monotonic_ns() > end:
                return None

    def _replay(self, wire: Wire, end: int) -> bool:
        """Send those records of this piece that are due. Return whether all are sent.

        end: when to stop, in ns (monotonic_ns).
        """
        while True:
            record = self._next or self._record()
            if record is None:
                return True
            now = monotonic_ns()
            try:
                due = self._pace.due(record.timestamp_ns, wire.virt.pace, now)
            except VirtError as error:
                self._next = None
                refusal = self._reader.refuse(error)
                self._report(refusal)
                raise refusal from None
            if due > now:
                self._next, self._due = record, due
                self._timer.set(due)
                return False
            self._next = None
            self._frames += 1
            try:
                wire.out.put(memoryview(record.frame))
            except VirtError as refusal:  # `strict` is set and the frame was dropped, or the tap has vanished
                raise self._refused(refusal) from None
            if now > end:
                return False

    def waits_for_turn(self) -> bool:
        return self._next is None

    def _largest_group(self) -> int:
        """Return the maximum number of frames in a group.

        With `strict` the maximum is 1, because an error must end the write at the frame that causes it.
        """
        return 1 if self._file.wire.virt.strict else RUN

    def _burst(self, wire: Wire, groups: Iterator[Group]) -> bool:
        """Send whole groups of frames until at least BURST frames are sent. Return whether all groups are sent."""
        try:
            sent = wire.out.put_all(groups, self._rows, BURST)
        except VirtError as refusal:
            raise self._refused(refusal) from None
        self._frames += sent
        return sent < BURST

    def _record(self) -> Record | None:
        try:
            return next(self._records, None)
        except VirtError as error:
            self._report(error)
            raise

    def _refused(self, refusal: VirtError) -> VirtError:
        """Report an error of the last frame, or of the file. Return the error of the write.

        The next write goes on after this frame.
        """
        refusal = self._reader.about_last(refusal)
        self._report(refusal)
        self._consume_last()
        return refusal

    def _consume_last(self) -> None:
        """Mark the last frame as consumed by advancing the reader. The next frame stays in the reader, unconsumed."""
        with suppress(VirtError):
            next(self._records if self._unpaced is None else self._unpaced, None)

    def _report(self, error: VirtError) -> None:
        said = f"{self._file.wire.virt.name}/inject: {error.strerror}"
        self._file.told(VirtError(error.errno, said), self.user)

    def interrupt(self) -> int:
        """End the waiting write after a signal.

        Return the number of bytes consumed from this write, up to the last frame sent. Drop the remaining bytes.
        """
        if self._next is None:
            self._consume_last()
        else:
            self._early = self._file.wire.virt.pace
        self._next = None
        self._records, self._unpaced = iter(()), None
        return self._base + self._reader.give_back()

    async def run(self) -> None:
        """Wake the waiting write whenever its next frame is due, until the file is closed."""
        try:
            with self._scope:
                await lasting("inject", self._follow_timer)
        finally:
            self._timer.close()

    async def _follow_timer(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._timer.fd)
            self._timer.set(0)
            # After an interrupted write, the timer may have expired for an earlier frame. If so, set it again.
            if self._early is not None and self._due > monotonic_ns():
                self._timer.set(self._due)
            else:
                self._early = None
            self.waiters.wake()

    def taken(self) -> int:
        return self._frames

    def poll(self) -> int:
        """Return the events for poll(2). After an interrupted write, assume that the next write continues it."""
        virt = self._file.wire.virt
        if virt.lost:
            return select.POLLOUT | select.POLLERR | select.POLLHUP
        return 0 if self._next is not None or self._early == virt.pace else select.POLLOUT

    def sync(self) -> None:
        """Check that the file may end here. VirtError EINVAL: it is truncated.

        close(2) cannot report this: a process that has passed the descriptor to another may close it at any time.
        """
        try:
            self._reader.finish()
        except VirtError as error:
            self._report(error)
            raise

    def release(self) -> None:
        self._scope.cancel()
        self._file.used = False
        with suppress(VirtError):
            self.sync()
        self._hold.release()
        super().release()
