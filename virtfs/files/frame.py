"""frame: one read is one frame, one write is one frame, as on /dev/tapN."""

import errno
import select
import struct
from collections.abc import Awaitable, Callable

import trio

from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.core.virt import Exclusive
from virtfs.files.stream import Opens, Stream, StreamHandle, Waiters, reads, writes
from virtfs.forward.wire import Wire

# tap(4) of NetBSD: _IOR('e', 0, struct ifreq); linux/if_tun.h for the others.
TAPGIFNAME = 0x80286500
TUNSETIFF = 0x400454CA
TUNGETFEATURES = 0x800454CF
TUNGETIFF = 0x800454D2
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFNAMSIZ = 16


class Seats:
    """Who may open one interface's frame files together, by its `exclusive`."""

    __slots__ = ("readers", "writers")

    def __init__(self) -> None:
        self.readers = 0
        self.writers = 0

    def take(self, name: str, exclusive: Exclusive, flags: int) -> None:
        """A seat for an open with these flags, or EBUSY."""
        if exclusive != "none" and reads(flags) and self.readers:
            raise VirtError(errno.EBUSY, f"{name} is being read by another (exclusive {exclusive})")
        if exclusive == "both" and writes(flags) and self.writers:
            raise VirtError(errno.EBUSY, f"{name} is being written by another (exclusive both)")
        self.readers += reads(flags)
        self.writers += writes(flags)

    def others(self, flags: int) -> bool:
        """Somebody else than the one with these flags has a seat."""
        return self.readers > reads(flags) or self.writers > writes(flags)

    def empty(self) -> bool:
        """Nobody has a seat."""
        return not self.readers and not self.writers

    def leave(self, flags: int) -> None:
        """The handle opened with these flags is closed."""
        self.readers -= reads(flags)
        self.writers -= writes(flags)


class Frame(Stream):
    """The frame file of one interface.

    first: done before the first open is answered, and last after the last close, where the interface follows its
    opening (upopen, carrier open).
    """

    __slots__ = ("first", "last", "seats", "waiters", "wire")

    takes = True

    def __init__(self, wire: Wire, opens: Opens) -> None:
        super().__init__(wire.virt, "frame", opens)
        self.wire = wire
        self.seats = Seats()
        self.waiters = Waiters(started=wire.want)
        self.first: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self.last: Callable[[], None] = lambda: None
        wire.listeners.append(self.waiters.wake)

    @property
    def followed(self) -> bool:
        """Being open means something to the interface."""
        return self.wire.virt.upopen or self.wire.virt.carrier == "open"

    def size(self, user: User | None) -> int:
        """The next frame's length: what the kernel answers to FIONREAD after an fstat. 1 when there is none."""
        return self.wire.peek() or super().size(user)

    def times(self) -> tuple[int, int]:
        return self.wire.taken_at, self.wire.out.put_at

    def open(self, flags: int, user: User) -> StreamHandle | Awaitable[StreamHandle]:
        return self.seat(flags, lambda: FrameHandle(self, user, flags))

    def seat(self, flags: int, make: Callable[[], StreamHandle]) -> StreamHandle | Awaitable[StreamHandle]:
        """An open of one of the files that share the interface's queue; its handle has to `leave`."""
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
        return self._after(self.first, handle)

    async def _after(self, first: Callable[[], Awaitable[None]], handle: StreamHandle) -> StreamHandle:
        try:
            await first()
        except BaseException:
            handle.release()
            raise
        return handle

    def leave(self, flags: int) -> None:
        """The handle opened with these flags is closed."""
        self.seats.leave(flags)
        if reads(flags):
            self.wire.closed()
        if self.followed and self.seats.empty():
            self.last()


class FrameHandle(StreamHandle):
    """One open of a frame file."""

    __slots__ = ("file", "flags", "read", "wire", "write")

    def __init__(self, file: Frame, user: User, flags: int) -> None:
        super().__init__(file, user, file.waiters)
        self.file = file
        self.wire = file.wire
        self.flags = flags
        # The wire's own methods in the place of StreamHandle's: a call less for each frame.
        self.read = file.wire.take  # type: ignore[method-assign]
        self.write = file.wire.out.put  # type: ignore[method-assign,assignment]

    def write_on(self, data: memoryview) -> int:
        """The rest of a frame that was too long by far, and is dropped and counted already."""
        return len(data)

    def poll(self) -> int:
        if self.wire.virt.lost:
            return select.POLLERR | select.POLLHUP
        return select.POLLOUT | (select.POLLIN if reads(self.flags) and self.wire.waiting() else 0)

    def ioctl(self, command: int, argument: bytes) -> bytes:
        if self.wire.virt.lost:
            raise VirtError(errno.ENXIO, f"{self.wire.virt.name} is gone")
        name = self.wire.tap.name().encode()
        if command == TAPGIFNAME:
            return name.ljust(IFNAMSIZ, b"\0") + bytes(24)
        if command == TUNGETFEATURES:
            return struct.pack("<I", IFF_TAP | IFF_NO_PI)
        # The kernel hands over as many bytes as the number's size field says, 4: the name's beginning.
        if command == TUNGETIFF:
            return name[:4].ljust(4, b"\0")
        if command == TUNSETIFF:
            return self._attach(argument[:4], name)
        return super().ioctl(command, argument)

    def _attach(self, asked: bytes, name: bytes) -> bytes:
        """A tap program names its interface: any name's beginning will do that does not speak of another tap."""
        asked = asked.split(b"\0")[0].split(b"%")[0]
        if asked[:3] == b"tap" and not name.startswith(asked):
            raise VirtError(errno.EBUSY, f'this is {name.decode()}, not "{asked.decode(errors="replace")}…"')
        return b""

    def release(self) -> None:
        super().release()
        self.file.leave(self.flags)
