"""Text files: a value, a report, or a script of commands.

A read at offset 0 takes a new snapshot, and reads at higher offsets continue in it. poll(2) reports POLLPRI|POLLERR,
as on sysfs, once the text differs from the snapshot.

All opens share the page cache (splice(2), sendfile(2), mmap(2)), which ends at the file size that the kernel has
cached. So the text whose length the kernel was last told is kept in `measured`, and the page cache is filled from it
alone. Thus a later change cannot cut off the end of the cached text.
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

CHEAP = 0.005  # seconds; a text that takes less time to make is never reused


async def nothing() -> None:
    """Do nothing: the refresh of a text that is always up to date."""


class Text(Node):
    """A file whose text is made when it is read.

    text: returns the whole text for a user. write: applies the data of one write(2) completely, or raises and changes
    nothing. refresh: asks the kernel for what `text` needs. refused: called with the error of a write that was rejected
    before it reached `write`. personal: the text differs by user.

    changes: given for texts about the whole mount, which may be long. It returns a number that differs after each
    change, except changes of counters. While the number stays the same, a text that took longer than CHEAP to make is
    reused for as long as it took. So making texts takes at most half of the server's time.
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
        self._made = 0  # changes() when _latest was made
        self._made_at = self._cost = 0.0  # seconds
        self._fresh = False  # whether _latest was made after a refresh

    def permissions(self) -> int:
        return self.rights.bits(self.owner.mode)

    def times(self) -> tuple[int, int]:
        """Return the times in ns. mtime is when a change of the text was first noticed, for programs like rsync."""
        return self.born, self.changed

    def size(self, user: User | None) -> int:
        """Return the length of the text in bytes, without a refresh. If user is None: the length reported last."""
        if user is None:
            return len(self.measured)
        return len(self._measure(self._latest if self._kept() else self._make(user, monotonic())))

    async def opened(self, user: User) -> int:
        """Refresh the text at an open for reading, and return its length in bytes.

        splice(2) needs the length before its first read.
        """
        return len(self._measure(await self.fresh(user)))

    async def fresh(self, user: User) -> bytes:
        """Return the text after a refresh, encoded."""
        if self._kept() and self._fresh:
            return self._latest
        began = monotonic()
        await self.refresh()
        return self._make(user, began, fresh=True)

    def now(self, user: User) -> bytes:
        """Return the text without a refresh, encoded."""
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
            self._latest = text  # all snapshots of an equal text share one object
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
        """Return a new handle. The kernel has checked the permission bits."""
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
        """Return at most `size` bytes of the snapshot from `offset` on, b"" at its end."""
        if offset == 0 or self.snapshot is None:
            self.snapshot = await self.node.fresh(self.user)
        return self.snapshot[offset : offset + size]

    def cached(self, offset: int, size: int) -> bytes:
        """Return bytes for the page cache. VirtError EINVAL: the text differs by user, so programs must read(2)."""
        if self.node.personal:
            raise VirtError(errno.EINVAL, "the text differs by user, so it cannot be cached: use read(2)")
        return self.node.measured[offset : offset + size]

    async def write(self, data: bytes) -> None:
        """Apply the data of one write(2). OSError EACCES: the file cannot be written."""
        if self.node.write is None:
            raise OSError(errno.EACCES, "this file cannot be written")
        await self.node.write(data, self.user)

    def refused(self, error: VirtError) -> None:
        """Report the error of a write that was rejected before `write`."""
        self.node.refused(error, self.user)

    def poll(self) -> int:
        """Return POLLIN|POLLOUT, and POLLPRI|POLLERR if the text differs from the snapshot."""
        ready = select.POLLIN | select.POLLOUT
        if self.snapshot is not None and self.node.now(self.user) != self.snapshot:
            ready |= select.POLLPRI | select.POLLERR
        return ready

    def release(self) -> None:
        """Clean up after the last descriptor is closed; there is nothing to do."""
