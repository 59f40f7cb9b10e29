"""clone: opening it makes an interface, reading it tells which, its last close destroys it (Plan 9's, /dev/tap's).

As Plan 9's it is opened for reading and writing, so that whoever only looks at all files makes nothing.
"""

import errno
import select
from collections.abc import Awaitable, Callable

from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit, User
from virtfs.files.device import DeviceFile, Opens, TextDeviceHandle, Waiters, reads, writes
from virtfs.files.node import ROOT

Make = Callable[[User], Awaitable[tuple[Unit, Callable[[], None]]]]


class Clone(DeviceFile):
    """make: gives the unit of a new interface, and what destroys it."""

    __slots__ = ("make",)

    takes = True

    def __init__(self, opens: Opens, make: Make) -> None:
        super().__init__(ROOT, "clone", opens)
        self.make = make

    def open(self, flags: int, user: User) -> "Awaitable[CloneHandle]":
        if not (reads(flags) and writes(flags)):
            raise VirtError(errno.EACCES, "clone has to be opened for reading and writing: exec 3<>clone")
        return self._make(user)

    async def _make(self, user: User) -> "CloneHandle":
        unit, destroy = await self.make(user)
        return CloneHandle(self, user, unit, destroy)


class CloneHandle(TextDeviceHandle):
    """One open, which is its interface's life."""

    __slots__ = ("_destroy", "_text")

    def __init__(self, stream: Clone, user: User, unit: Unit, destroy: Callable[[], None]) -> None:
        super().__init__(stream, user, Waiters())
        self._text = f"{unit}\n".encode()
        self._destroy = destroy

    def more(self) -> bytes:
        text, self._text = self._text, b""
        return text

    def ready(self) -> bool:
        return True

    def write(self, data: memoryview) -> int:
        raise VirtError(errno.EINVAL, "clone takes no commands: the interface's own ctl does")

    def poll(self) -> int:
        return select.POLLIN | select.POLLOUT  # a write would fail at once

    def release(self) -> None:
        super().release()
        self._destroy()
