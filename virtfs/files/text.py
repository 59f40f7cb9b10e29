"""Text files: a value, a report, or a script of commands.

A read at offset 0 takes a new snapshot, and reads at higher offsets continue in it. poll(2) reports POLLPRI|POLLERR,
as on sysfs, once the text differs from the snapshot.

splice(2), sendfile(2) and mmap(2) read from the page cache, which all opens share. The page cache ends at the file
size that virtfs last reported to the kernel, so a text that has grown since then would be cut off. `measured` keeps the
text whose length was last reported, and the page cache is filled only from that text.
"""

import errno
import select
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from math import inf
from time import monotonic, thread_time

import trio

from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.core.memory import Kind, Memory
from virtfs.core.quoting import encode
from virtfs.files.device import PollId
from virtfs.files.node import Node, Owner, Rights
from virtfs.files.readers import Readers
from virtfs.forward.slices import Slices, in_slices, metered

# While a write is applied, its data may exist in four copies: the pieces as received, the joined bytes, the decoded
# text, and the current line.
_COPIES = 4
# Bytes. A longer text about the whole mount may take more than 2 ms to generate, so it is generated only in slices. A
# stat or a poll cannot wait that long, so neither generates such a text. The limit is not a time, because times depend
# on the load.
LONG = 8192
PIECES = 32  # a text with more pieces also counts as long

# The minimum pause between two generations of the text shared by pollers, as a multiple of the time that one takes.
PAUSE = 20

Turn = Callable[[User], Awaitable[None]]


async def nothing() -> None:
    """Do nothing. This is the refresh of a text that is always up to date."""


class Text(Node):
    """A file whose text is made when it is read.

    text: returns the whole text for a user, or yields it in pieces. Other tasks may run between two pieces.
    write: applies the data of one write(2) completely, or raises an error and changes nothing. Cancellation takes
    effect before anything is applied, or between two lines of a script. None for a read-only file.
    refresh: queries the kernel for the state that `text` shows.
    refused: called with the error of a write that was rejected before it reached `write`, and with the user.
    personal: whether the text differs by user.
    unsteady: the bytes that mark the start of a final part that is different at every read, or b"" if the text has no
    such part. The bytes occur once in the text. poll(2) and stat(2) ignore changes in this part.
    rights: how the permission bits derive from the owner's mode. None selects Rights.VALUE for a writable file and
    Rights.REPORT for a read-only file.
    lasting: False if making the text has a side effect. Then it should not be made for a mere listing.
    always: whether a user who has reached a limit can still open and read the text. Such a text is short.
    written: returns when the text of a user was last set, even to an equal text, in ns since 1970; 0 if never. None for
    texts that do not tell it.
    changes: returns a number that is different after every change of state. Counters do not affect this number. Only
    texts about the whole mount have `changes`, because they may be long.

    Requests for a text that has `changes` share one text if they wait together (files.readers).
    """

    __slots__ = (
        "_claimed",
        "_latest",
        "_made",
        "_made_at",
        "_readers",
        "_renewing",
        "_unsteady",
        "_work",
        "_written",
        "always",
        "changed",
        "changes",
        "lasting",
        "measured",
        "personal",
        "refresh",
        "refused",
        "reported",
        "rights",
        "text",
        "write",
    )

    def __init__(
        self,
        owner: Owner,
        text: Callable[[User], str | Iterator[str]],
        write: Callable[[bytes, User], Awaitable[None]] | None = None,
        refresh: Callable[[], Awaitable[None]] = nothing,
        refused: Callable[[VirtError, User], None] = lambda error, user: None,
        personal: bool = False,
        changes: Callable[[], int] | None = None,
        rights: Rights | None = None,
        unsteady: bytes = b"",
        lasting: bool = True,
        always: bool = False,
        written: Callable[[User], int] | None = None,
    ) -> None:
        super().__init__(owner)
        self.text = text
        self.write = write
        self.refresh = refresh
        self.refused = refused
        self.personal = personal
        self.always = always
        # Counters are lasting too: if an open finds a new value, the kernel is first told to forget the old attributes.
        self.lasting = lasting and changes is None and not personal
        self._written = written
        self._unsteady = unsteady
        self.changes = changes
        self.measured = b""
        self.reported = 0  # the length that the kernel has cached, in bytes
        self.changed = self.born
        self.rights = rights or (Rights.VALUE if write else Rights.REPORT)
        self._latest = b""
        self._made = -1  # the value of changes() when _latest was made
        self._made_at = self._work = 0.0  # when _latest was made (monotonic()), and the processor time of that, in s
        self._claimed = False  # whether a task has claimed the regeneration of the text shared by pollers
        self._renewing: trio.Event | None = None  # set when the running regeneration ends; None if none runs
        self._readers = None if changes is None else Readers()

    def permissions(self) -> int:
        return self.rights.bits(self.owner.mode)

    def times(self, user: User | None) -> tuple[int, int]:
        """Return atime and mtime in ns since 1970.

        mtime is the time at which virtfs last noticed a change to the text. Programs like rsync rely on it.
        """
        if self._written is None or user is None:
            return self.born, self.changed
        return self.born, max(self.changed, self._written(user))

    def size(self, user: User | None) -> int:
        """Return the length of the text in bytes, without a refresh.

        A long text is not made just for this: the result is the length of its last version. If user is None, return the
        length that was last reported to the kernel.
        """
        if user is not None:
            text = self._latest if self._long() else self._make(user)
            # tar(1) fails if a file grows, or if its time changes, while it is read.
            self.reported = len(self.measured if self._alike(text, self.measured) else self._measure(text))
        return self.reported

    def _long(self) -> bool:
        return self.changes is not None and len(self._latest) > LONG

    @property
    def waits(self) -> bool:
        """Whether a new text may take time: it needs a refresh first, or it is about the whole mount."""
        return self.refresh is not nothing or self.changes is not None

    def opened(self, text: bytes) -> int:
        """Record the text that an open for reading gets, and return its length in bytes.

        splice(2) needs the length before its first read.
        """
        return len(self._measure(text))

    async def fresh(self, user: User) -> bytes:
        """Return the encoded text, made after a refresh. It shows all that happened before the call."""
        if self._readers is None:
            return await self._renewed(user)
        return await self._readers.text(user, self._renewed)

    async def _renewed(self, user: User) -> bytes:
        await self.refresh()
        return await self._make_in_slices(user)

    def ready(self, user: User) -> bytes | None:
        """Return what fresh() returns, or None if that may take time."""
        return None if self.waits else self._make(user)

    def lasts(self, user: User) -> float:
        """Return until when the text that fresh() has just returned may be used again, for the same open."""
        return 0.0 if self._readers is None else self._readers.lasts(user)

    def now(self, user: User) -> bytes:
        """Return the encoded text without a refresh."""
        text = self.text(user)
        return encode(text if isinstance(text, str) else "".join(text))

    def known(self, user: User) -> bytes:
        """Return the encoded text for poll(2), without a refresh.

        All pollers of a file with `changes` share one text. After a change, the text is regenerated, but only after a
        pause that is PAUSE times as long as the last generation took. So pollers of a long text cannot keep the server
        busy. During the pause, known() returns the old text, and outdated() returns the rest of the pause. This
        method never makes a long text; renew() does.
        """
        if self.changes is None:
            return self.now(user)
        if not self._long() and self.outdated() <= 0:
            self._make(user)
        return self._latest

    async def renew(self, user: User) -> None:
        """Regenerate the text shared by pollers, in slices, if it is due. If another task is doing so, wait for it."""
        if self._renewing is not None:
            await self._renewing.wait()
        elif self.outdated() <= 0:
            self._renewing = trio.Event()
            try:
                await self._make_in_slices(user)
            finally:
                self._renewing.set()
                self._renewing = None

    def claim(self) -> bool:
        """Claim the regeneration of the text shared by pollers. Return whether the caller now has the claim.

        If so, the caller must start a task that calls renewed(). If not, the text is up to date or already claimed.
        """
        if self._claimed or self.outdated() == inf:
            return False
        self._claimed = True
        return True

    async def renewed(self, user: User) -> None:
        """Regenerate the text shared by pollers once outdated() allows it. Call this after claim() returns True."""
        try:
            while 0 < (wait := self.outdated()) < inf:
                await trio.sleep(wait)
            await self.renew(user)
        finally:
            self._claimed = False

    def unchanged(self) -> bool:
        """Return whether only counters can have changed since the latest text was made."""
        return self.changes is not None and self._made == self.changes()

    def outdated(self) -> float:
        """Return the number of seconds until the text shared by pollers may be regenerated.

        Return inf if the text is up to date.
        """
        if self.changes is None or self.unchanged():
            return inf
        return max(self._made_at + PAUSE * self._work - monotonic(), 0.0)

    def differs(self, snapshot: bytes, user: User) -> bool:
        """Return whether the text has changed since a snapshot, as poll(2) reports it."""
        now = self.known(user)
        return now != snapshot and not self._alike(now, snapshot)

    def _alike(self, one: bytes, other: bytes) -> bool:
        """Return whether two versions of the text are equal up to the unsteady part. False if there is no such part."""
        if not (unsteady := self._unsteady):
            return False
        # The texts may have several MB. So search from the end, which is near, and compare without copies.
        end = one.rfind(unsteady)
        if one is other or end != other.rfind(unsteady):
            return one is other
        return one == other if end < 0 else other.startswith(memoryview(one)[:end])

    def _measure(self, text: bytes) -> bytes:
        if not self.personal and text != self.measured:
            if not self._alike(text, self.measured):
                self.changed = time.time_ns()
            self.measured = text
        return text

    def _make(self, user: User) -> bytes:
        """Make the text in one step and return it. If it turns out to be long, stop.

        In that case, return the last complete text, or the beginning of this one if there is none.
        """
        version, began, text = self._version(), thread_time(), self.text(user)
        if not isinstance(text, str):
            pieces, size = [], 0
            for piece in text:
                pieces.append(piece)
                size += len(piece)
                if self.changes is not None and (size > LONG or len(pieces) > PIECES):
                    return self._latest or encode("".join(pieces))
            text = "".join(pieces)
        return self._take(encode(text), version, thread_time() - began)

    def _version(self) -> int:
        return 0 if self.changes is None else self.changes()

    async def _make_in_slices(self, user: User) -> bytes:
        version = self._version()
        text, work = await metered(_in_slices(self.text(user)))
        return self._take(text, version, work)

    def _take(self, text: bytes, version: int, work: float) -> bytes:
        """Store a new text as the latest. version: changes() before it was made. work: the processor time of that."""
        if version < self._made and self.changes is not None:
            return text  # another task has made a later text in the meantime
        if text != self._latest:
            # If the text has not changed, keep the old object, so that all snapshots share one object.
            self._latest = text
        self._made, self._made_at, self._work = version, monotonic(), work
        return self._latest

    def open(self, user: User, memory: Memory) -> "TextHandle":
        """Return a new handle. The kernel has already checked the permission bits.

        memory: the memory accounts of the mount.
        """
        return TextHandle(self, user, memory)


def _encoded(pieces: Iterable[str]) -> Iterator[bytes]:
    """Encode a text as parts of about LONG bytes. Yield b"" after each other piece, so that other tasks can run."""
    some, size = [], 0
    for piece in pieces:
        some.append(piece)
        size += len(piece)
        if size < LONG:
            yield b""
        else:
            yield encode("".join(some))
            some, size = [], 0
    yield encode("".join(some))


async def _in_slices(text: str | Iterator[str]) -> bytes:
    """Encode a text. If it comes in pieces, other tasks may run between two of them."""
    if isinstance(text, str):
        return encode(text)
    slices = Slices()
    encoded = await in_slices(_encoded(text), slices)
    joined = b"".join(encoded)
    await slices.pause()
    return joined


class TextHandle:
    """One open of a text file. The user is charged for the snapshot, and for the data of a write that is being applied.

    waiting: the number of reads that wait for a refresh.
    """

    __slots__ = ("_content", "_input", "_offered", "_released", "kh", "node", "snapshot", "user", "waiting")

    def __init__(self, node: Text, user: User, memory: Memory) -> None:
        self.node = node
        self.user = user
        self._content = memory.hold(Kind.CONTENTS, user.uid)
        self._input = memory.hold(Kind.INPUT, user.uid)
        self._released = False
        self._offered = 0.0  # until when the first read may use the text of the open (monotonic())
        self.snapshot: bytes | None = None
        self.kh: PollId | None = None
        self.waiting = 0

    def continues(self, offset: int) -> bool:
        """Return whether a read at this offset continues reading the snapshot. Any other read takes a new one."""
        return offset != 0 and self.snapshot is not None

    def take(self, snapshot: bytes) -> None:
        """Keep a text as the snapshot.

        VirtError: ENOBUFS, the snapshot would exceed a limit on memory; EBADF, the file has been closed, which can
        happen after a signal has ended the read(2).
        """
        if self._released:
            raise VirtError(errno.EBADF, "the file is closed")
        if self.node.always:
            self._content.force(len(snapshot))
        else:
            self._content.resize(len(snapshot))
        self.snapshot = snapshot

    def offer(self, text: bytes) -> None:
        """Keep the text that the open has made, if it took long, for a read that follows at once."""
        if (until := self.node.lasts(self.user)) > monotonic():
            with suppress(VirtError):
                self.take(text)
                self._offered = until

    def offered(self) -> bytes | None:
        """Return the text of the open if a read may use it now, but only once. Otherwise return None."""
        until, self._offered = self._offered, 0.0
        return self.snapshot if monotonic() < until and self.node.unchanged() else None

    async def renew(self) -> None:
        """Take a new snapshot after a refresh. Errors: those of take()."""
        self.take(await self.node.fresh(self.user))

    def read(self, offset: int, size: int) -> bytes:
        """Return at most `size` bytes of the snapshot, starting at `offset`. Return b"" at the end."""
        return (self.snapshot or b"")[offset : offset + size]

    def cached(self, offset: int, size: int) -> bytes:
        """Return at most `size` bytes for the page cache, starting at `offset`.

        VirtError EINVAL: the text differs between users, so it cannot be cached.
        """
        if self.node.personal:
            raise VirtError(errno.EINVAL, "the text differs between users, so it cannot be cached: use read(2)")
        return self.node.measured[offset : offset + size]

    def writes(self) -> None:
        """Record that the file is open for writing."""

    async def write(self, data: bytes, turn: Turn) -> int:
        """Apply the data of one write(2). Return the number of bytes that have taken effect.

        turn: waits until it is the user's turn.

        Cancellation takes effect before anything is applied, or between two lines of a script.
        OSError EACCES: the file cannot be written. VirtError ENOBUFS: there is no memory for the data.
        """
        charged = _COPIES * len(data)
        try:
            self._input.grow(charged)
        except VirtError as refusal:
            self.refused(refusal)
            raise
        try:
            return await self.apply(data, turn)
        finally:
            self._input.resize(self._input.size - charged)

    async def apply(self, data: bytes, turn: Turn) -> int:
        """Implement write(). The memory for the data has already been charged."""
        if self.node.write is None:
            raise OSError(errno.EACCES, "this file cannot be written")
        await turn(self.user)
        await self.node.write(data, self.user)
        return len(data)

    def interrupt(self) -> int:
        """Clean up after a write that a signal has cancelled. Return the number of bytes that have taken effect."""
        return 0

    def refused(self, error: VirtError) -> None:
        """Report the error of a write that was rejected before it reached `write`."""
        self.node.refused(error, self.user)

    def poll(self) -> int:
        """Return POLLIN|POLLOUT, and POLLPRI|POLLERR if the text differs from the snapshot."""
        ready = select.POLLIN | select.POLLOUT
        if self.snapshot is not None and self.node.differs(self.snapshot, self.user):
            ready |= select.POLLPRI | select.POLLERR
        return ready

    def release(self) -> None:
        """Clean up after the last descriptor is closed."""
        self._released = True
        self._content.release()
        self._input.release()
