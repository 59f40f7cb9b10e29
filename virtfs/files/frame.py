"""frame: one read is one frame, one write is one frame, as on /dev/tapN."""

import errno
import os
import select
import struct

from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.core.virt import Exclusive
from virtfs.files.node import Rights
from virtfs.files.stream import Stream, StreamHandle, Waiters
from virtfs.forward.wire import Wire

# tap(4) of NetBSD: _IOR('e', 0, struct ifreq); linux/if_tun.h for the others.
TAPGIFNAME = 0x80286500
TUNSETIFF = 0x400454CA
TUNGETFEATURES = 0x800454CF
TUNGETIFF = 0x800454D2
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFNAMSIZ = 16


def reads(flags: int) -> bool:
    """An open(2) with these flags may read."""
    return flags & os.O_ACCMODE != os.O_WRONLY


def writes(flags: int) -> bool:
    """An open(2) with these flags may write."""
    return flags & os.O_ACCMODE != os.O_RDONLY


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

    def leave(self, flags: int) -> None:
        """The handle opened with these flags is closed."""
        self.readers -= reads(flags)
        self.writers -= writes(flags)


class Frame(Stream):
    """The frame file of one interface."""

    __slots__ = ("seats", "waiters", "wire")

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire.virt, Rights.STREAM)
        self.wire = wire
        self.seats = Seats()
        self.waiters = Waiters(started=wire.want)
        wire.ready = self._ready

    def _ready(self) -> bool:
        self.waiters.wake()
        return bool(self.waiters)

    def size(self) -> int:
        """The next frame's length: what the kernel answers to FIONREAD after an fstat."""
        return self.wire.peek()

    def times(self) -> tuple[int, int]:
        return self.wire.taken_at, self.wire.put_at

    def open(self, flags: int, user: User) -> "FrameHandle":
        virt = self.wire.virt
        if virt.lost:
            raise VirtError(errno.ENXIO, f"{virt.name} is gone")
        self.seats.take(virt.name, virt.exclusive, flags)
        if reads(flags):
            self.wire.opened()
        return FrameHandle(self, user, flags)


class FrameHandle(StreamHandle):
    """One open of a frame file."""

    __slots__ = ("file", "flags", "read", "wire", "write")

    def __init__(self, file: Frame, user: User, flags: int) -> None:
        super().__init__(user, file.waiters)
        self.file = file
        self.wire = file.wire
        self.flags = flags
        # The wire's own methods in the place of StreamHandle's: a call less for each frame.
        self.read = file.wire.take  # type: ignore[method-assign]
        self.write = file.wire.put  # type: ignore[method-assign,assignment]

    def poll(self) -> int:
        if self.wire.virt.lost:
            return select.POLLERR | select.POLLHUP
        return select.POLLOUT | (select.POLLIN if reads(self.flags) and self.wire.waiting() else 0)

    def ioctl(self, command: int, argument: bytes) -> bytes:
        name = self.wire.virt.host.name.encode()
        if self.wire.virt.lost:
            raise VirtError(errno.ENXIO, f"{self.wire.virt.name} is gone")
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
        self.file.seats.leave(self.flags)
        if reads(self.flags):
            self.wire.closed()
