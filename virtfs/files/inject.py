"""inject: a pcap or pcapng that is written here is sent by virt, many frames a write.

With `pace` the frames keep their recorded distances: a write waits then until its frames are sent, and a signal ends it
between two frames.
"""

import errno
import select
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import islice
from time import monotonic_ns

import trio

from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.core.pace import Pace
from virtfs.core.savefile import Reader, Record, Run
from virtfs.files.device import DeviceFile, DeviceHandle, Opens, Waiters
from virtfs.forward.rows import RUN, Rows
from virtfs.forward.tasks import lasting
from virtfs.forward.wire import Wire
from virtfs.host.timer import Timer

BURST = 2048  # frames sent before others have their turn


class Inject(DeviceFile):
    """One opener at a time, for while one write waits a second writer of the same file would be stuck in the kernel.

    start: runs a task as long as the mount. told: what last_error is to say.
    """

    __slots__ = ("start", "told", "used", "waiters", "wire")

    gives = False
    takes = True

    def __init__(
        self,
        wire: Wire,
        opens: Opens,
        start: Callable[[Callable[[], Awaitable[None]]], None],
        told: Callable[[VirtError, User], None],
    ) -> None:
        super().__init__(wire.virt, "inject", opens)
        self.wire = wire
        self.start = start
        self.told = told
        self.used = False
        self.waiters = Waiters()
        wire.listeners.append(lambda: self.waiters.wake() and False)  # gone, or at another pace; no frame is waited for

    def open(self, flags: int, user: User) -> "InjectHandle":
        if self.used:
            raise VirtError(errno.EBUSY, f"{self.wire.virt.name}/inject is in use")
        if self.wire.virt.lost:
            raise VirtError(errno.ENXIO, f"{self.wire.virt.name} is gone")
        handle = InjectHandle(self, user)
        self.used = True
        self.start(handle.run)
        return handle


class InjectHandle(DeviceHandle):
    """One file on its way in."""

    __slots__ = (
        "_due",
        "_early",
        "_file",
        "_frames",
        "_next",
        "_pace",
        "_reader",
        "_records",
        "_rows",
        "_scope",
        "_timer",
        "_unpaced",
        "_writing",
    )

    def __init__(self, file: Inject, user: User) -> None:
        super().__init__(file, user, file.waiters)
        self._file = file
        self._reader = Reader()
        self._pace = Pace()
        self._scope = trio.CancelScope()
        self._records: Iterator[Record] = iter(())
        self._next: Record | None = None
        self._due = 0  # when _next is, in ns
        self._early: float | None = None  # the pace at which what follows a write that was cut is not due before _due
        self._unpaced: Iterator[bytes | Run] | None = None  # in place of _records, where times do not matter
        self._rows = Rows()
        self._frames = 0
        self._writing = 0  # bytes of the write that waits
        self._timer = Timer()  # the last, as nobody gives it back when something else fails

    def write(self, data: memoryview) -> int | None:
        if self._file.wire.virt.pace:
            self._records, self._unpaced = self._reader.feed(data), None
        else:
            self._unpaced = self._reader.feed_frames(data, self._longest_run)
            self._pace = Pace()
        self._writing = len(data)
        self._early = None
        return self.written()

    def written(self) -> int | None:
        """Go on with the write that waits: its length once all its frames are sent, None while some are to wait."""
        wire = self._file.wire
        if wire.virt.lost:
            raise VirtError(errno.ENXIO, f"{wire.virt.name} is gone")
        if self._unpaced is not None:
            return self._burst(wire, self._unpaced)
        for _ in range(BURST):
            record = self._next or self._record()
            if record is None:
                return self._writing
            now = monotonic_ns()
            try:
                due = self._pace.due(record.timestamp_ns, wire.virt.pace, now)
            except VirtError as error:
                self._next = None
                refusal = self._reader.refuse(error)
                self._tell(refusal)
                raise refusal from None
            if due > now:
                self._next, self._due = record, due
                self._timer.set(due)
                return None
            self._next = None
            self._frames += 1
            try:
                wire.out.put(memoryview(record.frame))
            except VirtError as refusal:  # strict
                self._tell(refusal)
                self._be_done()
                raise
        self._timer.set(monotonic_ns())
        return None

    def _longest_run(self) -> int:
        """With `strict` a write ends with the first frame that is refused, and those behind it are not done with."""
        return 1 if self._file.wire.virt.strict else RUN

    def _burst(self, wire: Wire, frames: Iterator[bytes | Run]) -> int | None:
        """One loop over many: what is done for each frame is felt here."""
        try:
            sent = wire.out.put_all(islice(frames, BURST), self._rows, BURST)
        except VirtError as error:
            self._tell(error)
            self._be_done()
            raise
        self._frames += sent
        if sent < BURST:
            return self._writing
        self._timer.set(monotonic_ns())
        return None

    def _record(self) -> Record | None:
        try:
            return next(self._records, None)
        except VirtError as error:
            self._tell(error)
            raise

    def _be_done(self) -> None:
        """With the last frame: the reader is, once it has been asked for the next, which stays with it."""
        with suppress(VirtError):
            next(self._records if self._unpaced is None else self._unpaced, None)

    def _tell(self, error: VirtError) -> None:
        said = f"{self._file.wire.virt.name}/inject: {error.strerror}"
        self._file.told(VirtError(error.errno, said), self.user)

    def interrupt(self) -> int:
        """A signal ends the write that waits: how many of its bytes are done with. What is not, is forgotten."""
        if self._next is None:
            self._be_done()
        else:
            self._early = self._file.wire.virt.pace
        self._next = None
        self._records, self._unpaced = iter(()), None
        return self._reader.give_back()

    async def run(self) -> None:
        """Wake the write that waits when its next frame is due, until the file is closed."""
        try:
            with self._scope:
                await lasting("inject", self._follow_timer)
        finally:
            self._timer.close()

    async def _follow_timer(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._timer.fd)
            self._timer.set(0)
            if self._early is not None and self._due > monotonic_ns():  # this was an earlier time
                self._timer.set(self._due)
            else:
                self._early = None
            self.waiters.wake()

    def taken(self) -> int:
        return self._frames

    def poll(self) -> int:
        """As in DeviceHandle; a write is taken for one that goes on where the last ended."""
        virt = self._file.wire.virt
        if virt.lost:
            return select.POLLOUT | select.POLLERR | select.POLLHUP
        return 0 if self._next is not None or self._early == virt.pace else select.POLLOUT

    def release(self) -> None:
        self._scope.cancel()
        self._file.used = False
        try:
            self._reader.finish()
        except VirtError as error:
            self._tell(error)
        super().release()
