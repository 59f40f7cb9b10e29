"""clone: an open creates an interface, a read returns its unit, and the last close destroys it.

The design is that of Plan 9's clone files and NetBSD's /dev/tap. As in Plan 9, clone must be opened for both reading
and writing. So a program that reads every file (cat *) creates no interface.
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
    """The clone file. make: creates an interface, and returns its unit and a function that destroys it."""

    __slots__ = ("make",)

    takes = True

    def __init__(self, opens: Opens, make: Make) -> None:
        super().__init__(ROOT, "clone", opens)
        self.make = make

    def open(self, flags: int, user: User) -> "Awaitable[CloneHandle]":
        if not (reads(flags) and writes(flags)):
            raise VirtError(errno.EACCES, "clone must be opened for reading and writing: exec 3<>clone")
        return self._make(user)

    async def _make(self, user: User) -> "CloneHandle":
        unit, destroy = await self.make(user)
        try:
            return CloneHandle(self, user, unit, destroy)
        except BaseException:
            destroy()
            raise


class CloneHandle(TextDeviceHandle):
    """One open of clone. The interface that it created exists until the last close."""

    __slots__ = ("_destroy", "_text")

    def __init__(self, file: Clone, user: User, unit: Unit, destroy: Callable[[], None]) -> None:
        super().__init__(file, user, Waiters())
        self._text = f"{unit}\n".encode()
        self._destroy = destroy

    def more(self) -> bytes:
        text, self._text = self._text, b""
        return text

    def ready(self) -> bool:
        return True

    def write(self, data: memoryview) -> int:
        raise VirtError(errno.EINVAL, "clone takes no commands: write them to the ctl of the interface")

    def poll(self) -> int:
        return select.POLLIN | select.POLLOUT  # POLLOUT, because a write fails at once instead of waiting

    def release(self) -> None:
        super().release()
        self._destroy()
