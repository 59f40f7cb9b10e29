"""What a stream file has to answer, and who waits for it.

A stream is a character device in all but name: a read takes what is there or waits, a write is done at once, poll
tells. Its handles never wait themselves: a read that finds nothing says so, and whoever called keeps it among the
handle's `Waiters`, as the kernel keeps a process on a wait_queue_head_t. The source of the
stream says `wake()` when it may be worth another look.
"""

import errno
import os
import select
from collections.abc import Awaitable, Callable, Iterator
from typing import Literal, NamedTuple, NewType, Protocol

from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.files.node import Node, Owner, Rights
from virtfs.forward.wire import HEADROOM

Unique = NewType("Unique", int)  # the kernel's number of one request
PollId = NewType("PollId", int)  # the kernel's number of one poll to be woken (kh)


def reads(flags: int) -> bool:
    """An open(2) with these flags may read."""
    return flags & os.O_ACCMODE != os.O_WRONLY


def writes(flags: int) -> bool:
    """An open(2) with these flags may write."""
    return flags & os.O_ACCMODE != os.O_RDONLY


def looks(flags: int) -> bool:
    """An open(2) with these flags is by a program that goes through all files, and does not mean this one.

    cp -a, cp -r, grep -r, tar, rsync, restic and borg open what they found in a directory with O_NOFOLLOW, some with
    O_NOATIME; cat, a shell's `<`, and programs that are given a name, with neither.
    """
    return not writes(flags) and bool(flags & (os.O_NOFOLLOW | os.O_NOATIME))


class Server(Protocol):
    """Answers requests that wait; the channel."""

    def serve(self, waiters: "Waiters") -> None:
        """The source has changed: answer what can be answered now."""


class Waiters:
    """The reads and polls that wait for one source.

    reads: in the order they came.
    polls: to be woken once, when the handle has something to tell.
    writes: of files whose writes may wait, each with its handle.
    """

    __slots__ = ("_server", "polls", "reads", "started", "writes")

    def __init__(self, started: Callable[[], None] = lambda: None) -> None:
        self.reads: dict[Unique, ParkedRead] = {}
        self.polls: dict[PollId, DeviceHandle] = {}
        self.writes: dict[Unique, DeviceHandle] = {}
        self._server: Server | None = None
        self.started = started  # called when somebody begins to wait

    def __bool__(self) -> bool:
        return bool(self.reads or self.polls or self.writes)

    def wake(self) -> bool:
        """The source has changed: whoever can be answered is. True: somebody still waits."""
        if self and self._server is not None:
            self._server.serve(self)
        return bool(self)

    def park_read(self, unique: Unique, read: "ParkedRead", server: Server) -> None:
        """Keep a read that finds nothing yet, for this server to answer."""
        self.reads[unique] = read
        self._server = server
        self.started()

    def park_write(self, unique: Unique, handle: "DeviceHandle", server: Server) -> None:
        """Keep a write that takes its time."""
        self.writes[unique] = handle
        self._server = server

    def park_poll(self, kh: PollId, handle: "DeviceHandle", server: Server) -> None:
        """Keep a poll that is to be woken."""
        self.polls[kh] = handle
        self._server = server


class DeviceHandle:
    """One open of a stream file. Methods are named after the system call; an OSError becomes its errno.

    reads: reads answered. dropped: frames it was too slow for.
    kh, told: the poll to be woken, and what it was told last.
    whole, unfinished, splits: fuse/pieces.py's. For each thread that writes, the size in bytes from which on its
    writes are looked at; thread, offset and length of what is still to come of a message; pieces have been seen.
    """

    __slots__ = (
        "_filled",
        "dropped",
        "kh",
        "reads",
        "splits",
        "stream",
        "told",
        "unfinished",
        "user",
        "waiters",
        "whole",
    )

    messages = False  # one write(2) is one message, which must not be cut

    def __init__(self, stream: "DeviceFile", user: User, waiters: Waiters) -> None:
        self.stream = stream
        self.user = user
        self.waiters = waiters
        self.kh: PollId | None = None
        self.told = 0
        self.whole: dict[int, int] = {}
        self.unfinished: tuple[int, int, int] | None = None
        self.splits = False
        self._filled = 0
        self.reads = self.dropped = 0

    def read(self, room: memoryview, size: int) -> int | None:
        """Put at most `size` bytes into `room` at HEADROOM and say how many; None when there is nothing yet.

        What lies before HEADROOM is scratch, and there is more room behind `size` than any frame needs, so that a
        frame can be read with whatever head its device gives it, where it is to be sent from.
        """
        raise OSError(errno.EBADF, "not open for reading")

    def filled(self, end: int) -> None:
        """A READ has been filled to its last byte, at the offset `end`: the kernel may ask for more of it."""
        self._filled = end

    def read_on(self, room: memoryview, size: int, offset: int) -> int | None:
        """Answer a READ at an offset above 0, as `read`.

        Every read(2) of a stream begins at 0. The kernel splits one of more than 256 buffers or 1 MiB and sends the
        next piece once the last was filled (fs/fuse/file.c: fuse_direct_io). Such a piece never waits: 0 ends the
        call with what it has. Any other offset is one that io_uring was given, and means nothing.
        """
        taken = self.read(room, size)
        return taken or 0 if offset == self._filled else taken

    def interrupted(self, room: memoryview, size: int) -> int:
        """Put something without meaning into `room`, as `read`, for a waiting read that a signal ends; 0: EINTR."""
        return 0

    def soon(self) -> bool:
        """A read that finds nothing now will find something within some ms, so that it may wait even if told not to."""
        return False

    def write(self, data: memoryview) -> int | None:
        """Take `data` (valid during the call only) and say how much of it was taken; None where that has to wait."""
        raise OSError(errno.EBADF, "not open for writing")

    def cut(self) -> None:
        """The rest of a message, which `write` took for whole, is dropped: count it."""

    def written(self) -> int | None:
        """Asked of a write that waits, at each wake: how much was taken, None while it waits on."""
        raise NotImplementedError

    def interrupt(self) -> int:
        """A write that waits is to end now: how much of it was taken."""
        raise NotImplementedError

    def poll(self) -> int:
        """Return what poll(2) tells now.

        POLLIN (POLLOUT) holds exactly when a read (a write) would not be EAGAIN, also when it would fail with another
        error, in the directions that the descriptor has. POLLERR is added where a read would fail, POLLERR|POLLHUP
        once the interface is gone. Whatever may change the answer wakes `waiters`.
        """
        raise NotImplementedError

    def ioctl(self, command: int, argument: bytes) -> bytes:
        """The answer's bytes for an ioctl, ENOTTY when it is unknown."""
        raise OSError(errno.ENOTTY, "no such ioctl")

    def taken(self) -> int:
        """Frames it has taken, for `clients`."""
        return self.reads

    def pending(self) -> int:
        """Frames that wait for this handle alone, for `clients`."""
        return 0

    def release(self) -> None:
        """The last descriptor of this open is closed."""
        self.stream.opens.remove(self)


class FixedHandle(DeviceHandle):
    """An open of a file that stays as it was at the open: it has a length, can be seeked and read at any offset."""

    __slots__ = ()

    def length(self) -> int:
        """How many bytes there are."""
        raise NotImplementedError

    def read_at(self, offset: int, size: int) -> list[memoryview]:
        """At most `size` bytes from `offset` on, in pieces; none at the end."""
        raise NotImplementedError

    def poll(self) -> int:
        return select.POLLIN


class Look(DeviceHandle):
    """An open of a stream by who goes through all files: it has no effect, and reads as `length` zero bytes at once."""

    __slots__ = ("_rest",)

    def __init__(self, stream: "DeviceFile", user: User, length: int) -> None:
        super().__init__(stream, user, Waiters())
        self._rest = length

    def read(self, room: memoryview, size: int) -> int:
        taken = min(size, self._rest)
        room[HEADROOM : HEADROOM + taken] = bytes(taken)
        self._rest -= taken
        return taken

    def poll(self) -> int:
        return select.POLLIN


class ParkedRead(NamedTuple):
    """A read that waits: at most `size` bytes at `offset`, for a thread."""

    handle: DeviceHandle
    size: int
    offset: int
    thread: int


class Opens:
    """The open streams of one interface, or of the mount."""

    def __init__(self, report: Callable[[Literal["open", "close"], DeviceHandle], None] | None = None) -> None:
        """report: called with each open and close; None for the mount's own files, which report nothing."""
        self._handles: dict[DeviceHandle, None] = {}
        self._report = report

    def __iter__(self) -> Iterator[DeviceHandle]:
        return iter(tuple(self._handles))

    def add(self, handle: DeviceHandle) -> None:
        """One more; nothing happens if it is there."""
        if handle not in self._handles:
            self._handles[handle] = None
            if self._report is not None:
                self._report("open", handle)

    def remove(self, handle: DeviceHandle) -> None:
        """One less; nothing happens if it is not there."""
        if self._handles.pop(handle, self) is None and self._report is not None:
            self._report("close", handle)


class DeviceFile(Node):
    """A stream file. label: its name below the interface's directory, or the mount's.

    gives, takes: what it can be opened for, whatever its permission bits. live: reading it waits, or takes something
    away.
    """

    __slots__ = ("label", "opens", "rights")

    gives = True
    takes = False
    live = True

    def __init__(self, owner: Owner, label: str, opens: Opens, rights: Rights = Rights.STREAM) -> None:
        super().__init__(owner)
        self.label = label
        self.opens = opens
        self.rights = rights

    def permissions(self) -> int:
        return self.rights.bits(self.owner.mode)

    def size(self, user: User | None) -> int:
        """1, so that splice(2) and io_uring, which end at the size, ask at all. 0 of what cannot be read."""
        return int(self.gives)

    def admit(self, flags: int, user: User) -> DeviceHandle | Awaitable[DeviceHandle]:
        """`open`, or EACCES for a direction that this file does not have. A look at a live stream opens nothing."""
        if self.live and looks(flags):
            return Look(self, user, self.size(user))
        if (reads(flags) and not self.gives) or (writes(flags) and not self.takes):
            raise VirtError(errno.EACCES, f"{self.label} cannot be {'written' if self.gives else 'read'}")
        opening = self.open(flags, user)
        if not isinstance(opening, DeviceHandle):
            return self._opened(opening)
        self.opens.add(opening)
        return opening

    async def _opened(self, opening: Awaitable[DeviceHandle]) -> DeviceHandle:
        handle = await opening
        self.opens.add(handle)
        return handle

    def open(self, flags: int, user: User) -> DeviceHandle | Awaitable[DeviceHandle]:
        """One more open(2), the kernel has checked the permission bits. flags: as in open(2).

        Something to await where the kernel has to be asked first; the opener waits then, nobody else.
        """
        raise NotImplementedError


class TextDeviceHandle(DeviceHandle):
    """An open of a stream that gives text, in reads of any size, one byte at a time too.

    `more` is asked when all that it gave before has been read.
    """

    __slots__ = ("_rest", "frames")

    def __init__(self, stream: DeviceFile, user: User, waiters: Waiters) -> None:
        super().__init__(stream, user, waiters)
        self._rest = b""
        self.frames = 0

    def more(self) -> bytes | None:
        """The next piece; None when there is none yet, b"" at the end."""
        raise NotImplementedError

    def taken(self) -> int:
        return self.frames

    def ready(self) -> bool:
        """`more` would not say None."""
        raise NotImplementedError

    def read(self, room: memoryview, size: int) -> int | None:
        text = self._rest or self.more()
        if text is None:
            return None
        now, self._rest = text[:size], text[size:]
        room[HEADROOM : HEADROOM + len(now)] = now
        return len(now)

    def poll(self) -> int:
        return select.POLLIN if self._rest or self.ready() else 0
