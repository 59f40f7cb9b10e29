"""Text files: one value, a report, or a script of commands.

A read at offset 0 takes a fresh snapshot, later offsets go on in it. poll tells, as on sysfs, POLLPRI|POLLERR when
the text is no longer what this handle has read.

The page cache (splice(2), sendfile(2), mmap(2)) is shared by all who have the file open, and ends at the size that the
kernel was last told. So the text of which the kernel was told the size is kept, `measured`, and the page cache is
filled from that text alone: it is never cut short, whatever has changed since.
"""

import errno
import select
import time
from collections.abc import Awaitable, Callable
from time import monotonic

from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.files.device import PollId
from virtfs.files.node import Node, Owner, Rights

CHEAP = 0.005  # seconds; a text that takes less to make is made whenever it is asked for


async def nothing() -> None:
    """The refresh of a text that is always up to date."""


class Text(Node):
    """A file whose text is made when it is read.

    text: the whole text, for the user who reads it. write: takes one write(2) whole, or raises and has changed
    nothing. refresh: what has to be asked of the kernel before `text` is right. refused: told of a write that did not
    come here. personal: the text differs by user. changes: for a text about the whole mount, which may be long: a
    number that another change than of counters makes another. While it stays, a text that took more than CHEAP to make
    is given again for as long as it took, so that at most half of the server's time goes into it.
    """

    __slots__ = (
        "_cost",
        "_fresh",
        "_latest",
        "_made",
        "_made_at",
        "changed",
        "changes",
        "measured",
        "personal",
        "refresh",
        "refused",
        "rights",
        "text",
        "write",
    )

    def __init__(
        self,
        owner: Owner,
        text: Callable[[User], str],
        write: Callable[[bytes, User], Awaitable[None]] | None = None,
        refresh: Callable[[], Awaitable[None]] = nothing,
        refused: Callable[[VirtError, User], None] = lambda error, user: None,
        personal: bool = False,
        changes: Callable[[], int] | None = None,
    ) -> None:
        super().__init__(owner)
        self.text = text
        self.write = write
        self.refresh = refresh
        self.refused = refused
        self.personal = personal
        self.changes = changes
        self.measured = b""
        self.changed = self.born
        self.rights = Rights.VALUE if write else Rights.REPORT
        self._latest = b""
        self._made = 0  # changes
        self._made_at = self._cost = 0.0  # seconds
        self._fresh = False  # made after a refresh

    def permissions(self) -> int:
        return self.rights.bits(self.owner.mode)

    def times(self) -> tuple[int, int]:
        """mtime is when the text was first measured to be another: what copies by size and mtime sees a change."""
        return self.born, self.changed

    def size(self, user: User | None) -> int:
        """The length of the text as it is known, without asking the kernel; without a user, what was said last."""
        if user is None:
            return len(self.measured)
        return len(self._measure(self._latest if self._kept() else self._make(user, monotonic())))

    async def opened(self, user: User) -> int:
        """Measure the text for an open that may read, which splice(2) may follow at once: its length in bytes."""
        return len(self._measure(await self.fresh(user)))

    async def fresh(self, user: User) -> bytes:
        """Make the text as it is now."""
        if self._kept() and self._fresh:
            return self._latest
        began = monotonic()
        await self.refresh()
        return self._make(user, began, fresh=True)

    def now(self, user: User) -> bytes:
        """The text without a refresh."""
        return self.text(user).encode(errors="surrogateescape")

    def _measure(self, text: bytes) -> bytes:
        if not self.personal and text != self.measured:
            self.measured = text
            self.changed = time.time_ns()
        return text

    def _make(self, user: User, began: float, fresh: bool = False) -> bytes:
        if self.changes is not None:
            self._made = self.changes()
        text = self.now(user)
        if text != self._latest:
            self._latest = text  # one copy for all handles that have read the same
        self._made_at = monotonic()
        self._cost = self._made_at - began
        self._fresh = fresh
        return self._latest

    def _kept(self) -> bool:
        return (
            self.changes is not None
            and self._cost > CHEAP
            and self._made == self.changes()
            and monotonic() - self._made_at < self._cost
        )

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

    async def read(self, offset: int, size: int) -> bytes:
        """Bytes offset to offset + size of the snapshot; b"" at its end."""
        if offset == 0 or self.snapshot is None:
            self.snapshot = await self.node.fresh(self.user)
        return self.snapshot[offset : offset + size]

    def cached(self, offset: int, size: int) -> bytes:
        """Bytes for the page cache; EINVAL where users must not see each other's, on which programs read(2)."""
        if self.node.personal:
            raise VirtError(errno.EINVAL, "this file is not the same for all users")
        return self.node.measured[offset : offset + size]

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
        if self.snapshot is not None and self.node.now(self.user) != self.snapshot:
            ready |= select.POLLPRI | select.POLLERR
        return ready

    def release(self) -> None:
        """Nothing of a text file outlives its last descriptor."""
