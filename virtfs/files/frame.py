"""frame: one read is one frame, one write is one frame, as on /dev/tapN."""

import errno
import select
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from virtfs.core.bytestext import to_bytes
from virtfs.core.errors import VirtError
from virtfs.core.ids import Uid, User
from virtfs.core.virt import Exclusive
from virtfs.files.device import DeviceFile, DeviceHandle, Opens, Plain, Waiters, reads, writes
from virtfs.files.tunioctl import TunIoctls
from virtfs.forward.wire import HEADROOM, Wire
from virtfs.host.processes import exists

TAPGIFNAME = 0x80286500  # ioctl of NetBSD's tap(4): _IOR('e', 0, struct ifreq)
IFNAMSIZ = 16
# Seconds to wait until virtfs has the tap of a program that has ended. It takes 20 ms, and half a second if a process
# keeps a copy of the descriptor.
PATIENCE: Final = 2.0


class TapReturning(VirtError):
    """EBUSY: the program that had the tap has ended; virtfs is taking the tap back. Await regained(), then retry."""

    def __init__(self, sentence: str, seats: "Seats") -> None:
        super().__init__(errno.EBUSY, sentence)
        self.regained = seats.regained


@dataclass(slots=True)
class Holder:
    """A program that has the tap, through the file `fd`.

    pid: the process that asked for the tap. Once look() has found that it no longer has the connection, a process that
    has inherited the connection from it.
    alone: whether virtfs is detached from the tap while the program has it. If so, no other program can write.
    ended: returns whether the program has closed its connection, so that virtfs takes the tap back.
    find: returns a process that has the connection, or its argument if that has it or none is found. Blocks.
    """

    pid: int
    uid: Uid
    alone: bool
    ended: Callable[[], bool]
    find: Callable[[int], int]

    def look(self) -> None:
        """Update `pid`. Blocks."""
        self.pid = self.find(self.pid)

    def __str__(self) -> str:
        if self.pid and not exists(self.pid):  # 0: it is in another PID namespace
            return f"process {self.pid} has ended, but a process that it started"
        return f"process {self.pid}"


class Seats:
    """Counts the opens of frame, hex and stream of one interface, and refuses opens that `exclusive` forbids."""

    __slots__ = ("_back", "holder", "readers", "writers")

    def __init__(self) -> None:
        self.readers = 0
        self.writers = 0
        self.holder: Holder | None = None
        self._back = trio.Event()  # set when the holder has given the tap back

    def give(self, name: str, holder: "Holder", opens: Opens, rx: bool) -> None:
        """Record a program that gets the tap through the file `fd`. It is the only reader until `regain` is called.

        opens: the open files of the interface, for the error message. rx: whether `rx` has a reader.
        VirtError EBUSY: another program has the tap or reads frames; or one writes frames, and `holder.alone` is true.
        """
        self.expect_no_holder(f"{name}/fd")
        if self.readers or rx:
            raise _occupied(name, holder.pid, opens, reads, "reading")
        if self.writers and holder.alone:
            raise _occupied(name, holder.pid, opens, writes, "writing to")
        self.holder, self._back = holder, trio.Event()

    def regain(self) -> None:
        """Forget the program that had the tap."""
        self.holder = None
        self._back.set()

    async def regained(self) -> None:
        """Wait until virtfs has the tap of a program that has ended, at most PATIENCE seconds."""
        with trio.move_on_after(PATIENCE):
            await self._back.wait()

    def expect_no_holder(self, name: str = "") -> None:
        """Raise VirtError EBUSY if a program has the tap. It is TapReturning if this program has ended.

        name: the interface or the file, for the error message.
        """
        if self.holder is not None:
            sentence = f"{name and f'{name}: '}{self.holder} has the tap (see clients)"
            raise TapReturning(sentence, self) if self.holder.ended() else VirtError(errno.EBUSY, sentence)

    def take(self, name: str, exclusive: Exclusive, flags: int) -> None:
        """Count an open with these flags. VirtError EBUSY: `exclusive` forbids it, or a program has the tap.

        name: the interface, for the error message.
        """
        if self.holder is not None and (reads(flags) or self.holder.alone):
            self.expect_no_holder()
        if exclusive != "none" and reads(flags) and self.readers:
            raise VirtError(errno.EBUSY, f"{name} is already open for reading (exclusive {exclusive}; see clients)")
        if exclusive == "both" and writes(flags) and self.writers:
            raise VirtError(errno.EBUSY, f"{name} is already open for writing (exclusive both; see clients)")
        self.readers += reads(flags)
        self.writers += writes(flags)

    def others(self, flags: int) -> bool:
        """Return whether there are other opens, or a program has the tap.

        flags: the flags of the caller's own open, which is already counted.
        """
        return self.readers > reads(flags) or self.writers > writes(flags) or self.holder is not None

    def empty(self) -> bool:
        """Return whether none of frame, hex and stream is open, and no program has the tap."""
        return not self.readers and not self.writers and self.holder is None

    def leave(self, flags: int) -> None:
        """Uncount an open that had these flags. Called when it is closed."""
        self.readers -= reads(flags)
        self.writers -= writes(flags)


def _occupied(name: str, asking: int, opens: Opens, way: Callable[[int], bool], doing: str) -> VirtError:
    """Return the error for a program that asks for the tap while a file that Seats counts is open in this way.

    asking: the id of the program's process. `virtfs exec` has the descriptors that the shell opened for its program.
    """
    found = [one for one in opens if (flags := one.seated()) is not None and way(flags)]
    own = next((one for one in found if one.process() == asking), None)
    if own is not None:
        what = f"this program has {name}/{own.node.label} open itself"
        return VirtError(errno.EBUSY, f"{name}/fd: {what}: leave out that redirection to get the tap")
    process = next((one.process() for one in found), 0)  # rx has no process, nor does another PID namespace
    who = f"process {process}" if process else "another program"
    return VirtError(errno.EBUSY, f"{name}/fd: {who} is {doing} {name} (see clients)")


class Opening(Protocol):
    """Acts on the first open and the last close of frame, hex and stream, for the verbs upopen and carrier."""

    async def first_open(self) -> None:
        """Act on the first open, before open(2) returns. If this raises an OSError, the open fails."""

    def last_close(self) -> None:
        """Act on the last close. Start the necessary task and return without waiting for it."""


class Frame(DeviceFile):
    """The frame file of one interface."""

    __slots__ = ("_opening", "seats", "tail", "waiters", "wire")

    takes = True
    lasting = False  # the file's size changes: it is the length of the next frame

    def __init__(self, wire: Wire, opens: Opens, seats: Seats, opening: Opening) -> None:
        super().__init__(wire.virt, "frame", opens)
        self.wire = wire
        self.seats = seats
        self.waiters = Waiters(started=wire.want, one_queue=True)
        # The handle of the last read that returned only the beginning of a frame, and the rest of that frame.
        self.tail: tuple[DeviceHandle | None, bytes] = None, b""
        self._opening = opening
        wire.listeners.append(self.waiters.wake)

    @property
    def followed(self) -> bool:
        """Whether opens and closes change the host's end, because of the verb `upopen` or `carrier open`."""
        return self.wire.virt.upopen or self.wire.virt.carrier == "open"

    def size(self, user: User | None) -> int:
        """Return the length of the next frame in bytes, or 1 if there is none.

        After an fstat(2) the kernel answers FIONREAD with this size.
        """
        return self.wire.peek() or super().size(user)

    def times(self, user: User | None) -> tuple[int, int]:
        return self.wire.taken_at, self.wire.out.put_at

    def open(self, flags: int, user: User) -> DeviceHandle | Awaitable[DeviceHandle]:
        return self.seat(flags, lambda: FrameHandle(self, user, flags))

    def seat(self, flags: int, make: Callable[[], DeviceHandle]) -> DeviceHandle | Awaitable[DeviceHandle]:
        """Open frame, hex or stream, the files that share the interface's queue.

        make: creates the handle, which must call `leave` when it is released.
        VirtError: ENXIO, the tap is gone; EBUSY, the verb `exclusive` forbids the open.
        Other errors are those of Opening.first_open.
        """
        try:
            return self._seat(flags, make)
        except TapReturning as refusal:
            return self._seat_later(refusal, flags, make)

    def _seat(self, flags: int, make: Callable[[], DeviceHandle]) -> DeviceHandle | Awaitable[DeviceHandle]:
        virt = self.wire.virt
        if virt.lost:
            raise VirtError(errno.ENXIO, f"{virt.name} is gone")
        self.seats.take(virt.name, virt.exclusive, flags)
        if reads(flags):
            self.wire.opened()
        try:
            handle = make()
        except BaseException:
            self.leave(flags)
            raise
        if not self.followed or self.seats.others(flags):
            return handle
        return self._after_first_open(handle)

    async def _seat_later(self, refusal: TapReturning, flags: int, make: Callable[[], DeviceHandle]) -> DeviceHandle:
        await refusal.regained()
        opened = self._seat(flags, make)
        return opened if isinstance(opened, DeviceHandle) else await opened

    async def _after_first_open(self, handle: DeviceHandle) -> DeviceHandle:
        try:
            await self._opening.first_open()
        except BaseException:
            handle.release()
            raise
        return handle

    def poll(self, flags: int) -> int:
        """Return the events for poll(2) on a descriptor opened with these flags.

        A writer always gets POLLOUT, because writes never wait.
        """
        events = self.wire.ready() if reads(flags) else 0
        if writes(flags):
            events |= select.POLLOUT
        if self.wire.virt.lost:
            events |= select.POLLERR | select.POLLHUP
        return events

    def leave(self, flags: int) -> None:
        """Record that a handle opened with these flags is closed."""
        self.seats.leave(flags)
        if reads(flags):
            self.wire.closed()
        if self.followed and self.seats.empty():
            self._opening.last_close()


class FrameHandle(DeviceHandle):
    """One open of a frame file."""

    __slots__ = ("_tun", "file", "flags", "read", "wire", "write")

    messages = True

    def __init__(self, file: Frame, user: User, flags: int) -> None:
        super().__init__(file, user, file.waiters)
        self.file = file
        self.wire = file.wire
        self.flags = flags
        self._tun = TunIoctls()
        # The methods of the wire replace those of DeviceHandle directly. This saves one call per frame.
        self.read = file.wire.take  # type: ignore[method-assign]
        self.write = file.wire.out.put  # type: ignore[method-assign,assignment]

    def filled(self, end: int) -> None:
        super().filled(end)
        self.file.tail, self.wire.rest = (self, self.wire.rest), b""

    def read_on(self, room: memoryview, size: int, offset: int) -> int | None:
        if offset != self._filled:
            return self.read(room, size)
        owner, tail = self.file.tail
        now = tail[:size] if owner is self else b""
        self.wire.rest = tail[size:]  # `filled` stores it as the next tail
        room[HEADROOM : HEADROOM + len(now)] = now
        # The caller counts one frame per FUSE_READ, but this frame was counted with its first piece.
        self.reads -= 1
        return len(now)

    def plain(self) -> Plain:
        return self.wire.source(), *self.wire.out.plain()

    def taken_plainly(self, frames: int, size: int, ago: int) -> None:
        """Add frames that were read from the tap to the counters.

        size: their total length in bytes. ago: the time since the last of them was read, in ns.
        """
        self.reads += frames
        self.wire.count(frames, size, ago)

    def put_plainly(self, frames: int, size: int, ago: int) -> None:
        """Count frames that were written into the tap. The parameters are those of `taken_plainly`."""
        self.wire.out.count_put(frames, size, ago)

    def put_back(self, frame: bytes) -> None:
        """Put back a frame that was read from the tap, so that the next `read` returns it."""
        self.wire.put_back(frame)

    def cut(self) -> None:
        self.wire.out.cut()

    def seated(self) -> int:
        return self.flags

    def poll(self) -> int:
        return self.file.poll(self.flags)

    def ioctl(self, command: int, argument: bytes) -> bytes:
        if self.wire.virt.lost:
            raise VirtError(errno.ENXIO, f"{self.wire.virt.name} is gone")
        self.wire.catch_up()  # the host may just have renamed the tap
        name = to_bytes(self.wire.virt.host.name)
        if command == TAPGIFNAME:
            return name.ljust(IFNAMSIZ, b"\0") + bytes(24)
        answer = self._tun.answer(command, argument, name)
        return super().ioctl(command, argument) if answer is None else answer

    def release(self) -> None:
        super().release()
        if self.file.tail[0] is self:
            self.file.tail = None, b""
        self.file.leave(self.flags)
