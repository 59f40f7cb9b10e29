"""Text files: one value, a report, or a script of commands.

A read at offset 0 takes a fresh snapshot, later offsets go on in it. poll tells, as on sysfs, POLLPRI|POLLERR when
the text is no longer what this handle has read.
"""

import errno
import select
from collections.abc import Awaitable, Callable

from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.files.node import Node, Owner, Rights
from virtfs.files.stream import PollId


async def nothing() -> None:
    """The refresh of a text that is always up to date."""


class Text(Node):
    """A file whose text is made when it is read.

    text: the whole text, for the user who reads it. write: takes one write(2) whole, or raises and has changed
    nothing. refresh: what has to be asked of the kernel before `text` is right. refused: told of a write that did not
    come here.
    """

    __slots__ = ("_latest", "refresh", "refused", "rights", "text", "write")

    def __init__(
        self,
        owner: Owner,
        text: Callable[[User], str],
        write: Callable[[bytes, User], Awaitable[None]] | None = None,
        refresh: Callable[[], Awaitable[None]] = nothing,
        refused: Callable[[VirtError, User], None] = lambda error, user: None,
    ) -> None:
        super().__init__(owner)
        self.text = text
        self.write = write
        self.refresh = refresh
        self.refused = refused
        self._latest = b""
        self.rights = Rights.VALUE if write else Rights.REPORT

    def permissions(self) -> int:
        return self.rights.bits(self.owner.mode)

    def shared(self, text: bytes) -> bytes:
        """The same bytes, one copy for all handles that have read the same."""
        if text != self._latest:
            self._latest = text
        return self._latest

    def open(self, user: User) -> "TextHandle":
        """One more open(2); the kernel has checked the permission bits."""
        return TextHandle(self, user)


class TextHandle:
    """One open of a text file."""

    __slots__ = ("kh", "node", "snapshot", "user")

    def __init__(self, node: Text, user: User) -> None:
        self.node = node
        self.user = user
        self.snapshot: bytes | None = None
        self.kh: PollId | None = None

    def _now(self) -> bytes:
        return self.node.text(self.user).encode(errors="surrogateescape")

    async def read(self, offset: int, size: int) -> bytes:
        """Bytes offset to offset + size of the snapshot; b"" at its end."""
        if offset == 0 or self.snapshot is None:
            await self.node.refresh()
            self.snapshot = self.node.shared(self._now())
        return self.snapshot[offset : offset + size]

    async def write(self, data: bytes) -> None:
        """Apply one write(2)."""
        if self.node.write is None:
            raise OSError(errno.EACCES, "this file only tells")
        await self.node.write(data, self.user)

    def refused(self, error: VirtError) -> None:
        """A write was refused before it came here."""
        self.node.refused(error, self.user)

    def poll(self) -> int:
        """Always readable and writable; POLLPRI|POLLERR when the text is another than the one read."""
        ready = select.POLLIN | select.POLLOUT
        if self.snapshot is not None and self._now() != self.snapshot:
            ready |= select.POLLPRI | select.POLLERR
        return ready

    def release(self) -> None:
        """Nothing of a text file outlives its last descriptor."""
