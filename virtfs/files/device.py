"""Device files: the base classes of files that behave like character devices, and their wait queues.

A read returns the available data, or waits if there is none. A write normally completes at once. poll(2) reports
which of the two would not wait. Handles never block. If there is no data, `read` returns None. The caller then adds
the read to the `Waiters` of the handle, as the kernel adds a process to a wait_queue_head_t. The source of the data
calls `wake()` when another attempt may succeed.
"""

import errno
import os
import select
from collections.abc import Awaitable, Callable, Iterator
from typing import Literal, NamedTuple, NewType, Protocol

from virtfs.core.errors import VirtError, refused
from virtfs.core.ids import User
from virtfs.files.node import Node, Owner, Rights, virt_of
from virtfs.forward.wire import HEADROOM

Unique = NewType("Unique", int)  # the kernel's number for a request
PollId = NewType("PollId", int)  # the kernel's number for a poller (kh in linux/fuse.h)

# What a loop needs to pass frames directly between a file and a tap: the descriptor to read from (-1 if frames cannot
# be read directly), the descriptor to write to, and the minimum and maximum length of a written frame.
Plain = tuple[int, int, int, int]

SLICE = 1_000_000  # ns after which a long write yields to other requests, until the channel calls written()


def reads(flags: int) -> bool:
    """Return whether an open(2) with these flags may read."""
    return flags & os.O_ACCMODE != os.O_WRONLY


def writes(flags: int) -> bool:
    """Return whether an open(2) with these flags may write."""
    return flags & os.O_ACCMODE != os.O_RDONLY


def walks(flags: int) -> bool:
    """Return whether an open(2) with these flags comes from a program that walks a directory tree.

    cp -a, cp -r, grep -r, tar, rsync, restic and borg use O_NOFOLLOW to open files that they have found in a directory.
    Some of them also use O_NOATIME. cat, a shell's `<` and programs that were given a file by name use neither flag.
    """
    return not writes(flags) and bool(flags & (os.O_NOFOLLOW | os.O_NOATIME))


class Server(Protocol):
    """Answers waiting calls. Implemented by the FUSE channel."""

    def serve(self, waiters: "Waiters") -> None:
        """Answer those calls in `waiters` that can finish now."""


class Waiters:
    """The wait queue of one source of data.

    reads: the waiting reads, in order of arrival.
    writes: the handle of each waiting write.
    polls: the handle of each poller. A poller is woken once.
    started: called when a read or a poller begins to wait.
    one_queue: whether all reads take from one queue. If so, and one of them finds nothing, the others are not tried.
    """

    __slots__ = ("_server", "one_queue", "polls", "reads", "started", "writes")

    def __init__(self, started: Callable[[], None] = lambda: None, one_queue: bool = False) -> None:
        self.reads: dict[Unique, ParkedRead] = {}
        self.polls: dict[PollId, DeviceHandle] = {}
        self.writes: dict[Unique, DeviceHandle] = {}
        self._server: Server | None = None
        self.started = started
        self.one_queue = one_queue

    def __bool__(self) -> bool:
        return bool(self.reads or self.polls or self.writes)

    def wake(self) -> bool:
        """Serve the waiting calls after the source has changed. Return whether any of them still wait."""
        # A call of __bool__ would be too slow here: a frame can wake ten sources, and most have no waiting calls.
        if not (self.reads or self.polls or self.writes):
            return False
        if self._server is not None:
            self._server.serve(self)
        return bool(self.reads or self.polls or self.writes)

    def park_read(self, unique: Unique, read: "ParkedRead", server: Server) -> None:
        """Add a read that found nothing. The server answers it later."""
        self.reads[unique] = read
        self._server = server
        self.started()

    def park_write(self, unique: Unique, handle: "DeviceHandle", server: Server) -> None:
        """Add a write that must wait."""
        self.writes[unique] = handle
        self._server = server

    def park_poll(self, kh: PollId, handle: "DeviceHandle", server: Server) -> None:
        """Add a poller, to be woken once."""
        self.polls[kh] = handle
        self._server = server


class DeviceHandle:
    """One open of a device file. Methods are named after system calls.

    If a method raises OSError, the system call fails with this error.

    node: the file.
    reads: the number of answered reads.
    dropped: the number of frames that were dropped because the reader was too slow.
    kh: the poller to wake, or None. told: the events that were last reported to that poller.
    parked: the number of reads and writes that wait.

    The other attributes belong to fuse/split_calls.py:
    whole: a size in bytes for each writing thread, by thread id. Writes of at least this size are checked, because they
    may be pieces of a split call.
    unfinished: the part of a split frame that has not been written yet, as (id of the writing thread, offset, length).
    None if there is no such part.
    splits: whether a piece of a split call has been seen.
    later: whether the current write is a later piece of a split call. hidden: the error of such a piece, or None.
    """

    __slots__ = (
        "_filled",
        "_heir",
        "dropped",
        "hidden",
        "kh",
        "later",
        "node",
        "parked",
        "reads",
        "splits",
        "told",
        "unfinished",
        "user",
        "waiters",
        "whole",
    )

    messages = False  # whether one write(2) is one frame, which must not be split

    def __init__(self, file: "DeviceFile", user: User, waiters: Waiters) -> None:
        self.node = file
        self.user = user
        self.waiters = waiters
        self.kh: PollId | None = None
        self.told = 0
        self.whole: dict[int, int] = {}
        self.unfinished: tuple[int, int, int] | None = None
        self.splits = self.later = False
        self.hidden: VirtError | None = None
        self._filled = self._heir = 0
        self.reads = self.dropped = self.parked = 0

    def read(self, room: memoryview, size: int) -> int | None:
        """Put up to `size` bytes into `room` at offset HEADROOM. Return how many, or None if there is no data yet.

        `room` has scratch space before HEADROOM, and space for the longest frame even if `size` is smaller. So a frame,
        with the header that the tap puts before it, can be read from the tap straight into the reply buffer.
        """
        raise OSError(errno.EBADF, "the file is not open for reading")

    def filled(self, end: int) -> None:
        """Record that a FUSE_READ was filled completely, up to offset `end`.

        If the kernel has split a read(2), the next piece of this call starts at `end`.
        """
        self._filled = end

    def read_on(self, room: memoryview, size: int, offset: int) -> int | None:
        """Answer a FUSE_READ at an offset above 0. Parameters and result are those of `read`.

        Every read(2) of a device file begins at offset 0. The kernel splits a call of more than 256 buffers or 1 MiB
        into several FUSE_READs, called pieces. It sends a piece only if the previous one was filled completely
        (fs/fuse/file.c fuse_direct_io). So a later piece is recognized by its offset, which is the end of the previous
        one. A later piece never waits: if there is no data, the result is 0, which ends the call. Any other offset was
        chosen by io_uring and is ignored.
        """
        taken = self.read(room, size)
        return taken or 0 if offset == self._filled else taken

    def interrupted(self, room: memoryview, size: int) -> int:
        """End a waiting read after a signal.

        Put filler data into `room`, as `read` does, and return its length. Return 0 to make the read fail with EINTR.
        """
        return 0

    def soon(self) -> bool:
        """Return whether data will arrive within a few ms. If so, even a read with O_NONBLOCK waits for the data."""
        return False

    def write(self, data: memoryview) -> int | None:
        """Take `data`, which is valid only during the call.

        Return the number of bytes taken, or None if the write must wait. A write that takes longer than SLICE ns must
        also return None.
        """
        raise OSError(errno.EBADF, "the file is not open for writing")

    def plain(self) -> Plain | None:
        """Return what fuse/plainloop.pyx needs to move this open's frames by itself, or None if it must not."""
        return None

    def cut(self) -> None:
        """Count a frame that was sent without its end, because `write` mistook its first piece for a whole frame."""

    def failed(self, error: OSError) -> None:
        """Keep the error of a write, if the kernel hides it: a call returns the length of the pieces before the error.

        The program then writes the rest as a new call, which fails with this error.
        """
        if self.later and isinstance(error, VirtError):
            self.hidden = error

    def written(self) -> int | None:
        """Continue a waiting write. Called whenever `waiters` is woken.

        Return the number of bytes taken, or None if the write must wait longer.
        """
        raise NotImplementedError

    def waits_for_turn(self) -> bool:
        """Return whether the waiting write has merely yielded to other requests. If so, it can continue at any time."""
        return False

    def interrupt(self) -> int:
        """End a waiting write after a signal. Return the number of bytes taken so far."""
        raise NotImplementedError

    def poll(self) -> int:
        """Return the events for poll(2).

        POLLIN means that a read would not wait: it would return data, report the end of file, or fail at once. POLLOUT
        means that a write would not wait. POLLIN is set only if the file is open for reading, POLLOUT only if it is
        open for writing. POLLERR is added if a read would fail, and POLLERR|POLLHUP once the interface is gone. When
        the result changes, `waiters` is woken.
        """
        raise NotImplementedError

    def ioctl(self, command: int, argument: bytes) -> bytes:
        """Return the output bytes of an ioctl. OSError ENOTTY: the ioctl is unknown."""
        raise OSError(errno.ENOTTY, f"unknown ioctl {command:#x}")

    def process(self) -> int:
        """Return the id of the process that has the file open, as far as it is known."""
        return self._heir or self.user.pid

    def inherited(self, pid: int) -> None:
        """Record that the process that opened the file has ended, and that this one has inherited the descriptor."""
        self._heir = pid

    def seated(self) -> int | None:
        """Return the flags of the open(2) if files.frame.Seats counts this open, else None."""
        return None

    def sync(self) -> None:
        """Check, for fsync(2), that everything written is complete. OSError EINVAL: as on a character device."""
        raise OSError(errno.EINVAL, "fsync does not apply to the file")

    def taken(self) -> int:
        """Return the number of frames taken through this handle, for `clients`."""
        return self.reads

    def pending(self) -> int:
        """Return the number of frames queued for this handle alone, for the file `clients`."""
        return 0

    def release(self) -> None:
        """Clean up after the last descriptor of this open is closed."""
        self.node.opens.remove(self)


class FixedHandle(DeviceHandle):
    """An open of a file whose content no longer changes after open(2).

    The content has a known length and can be read at any offset.
    """

    __slots__ = ()

    def length(self) -> int:
        """Return the length of the content in bytes."""
        raise NotImplementedError

    def read_at(self, offset: int, size: int) -> list[memoryview]:
        """Return at most `size` bytes, starting at `offset`, as a list of pieces. The list is empty at the end."""
        raise NotImplementedError

    def poll(self) -> int:
        return select.POLLIN


class WalkHandle(DeviceHandle):
    """An open by a program that walks the tree (see `walks`). Reads return `length` zero bytes in total.

    Such an open consumes no frames and does not affect the interface.
    """

    __slots__ = ("_rest",)

    def __init__(self, file: "DeviceFile", user: User, length: int) -> None:
        super().__init__(file, user, Waiters())
        self._rest = length

    def read(self, room: memoryview, size: int) -> int:
        taken = min(size, self._rest)
        room[HEADROOM : HEADROOM + taken] = bytes(taken)
        self._rest -= taken
        return taken

    def poll(self) -> int:
        return select.POLLIN


class ParkedRead(NamedTuple):
    """A waiting read of at most `size` bytes at `offset`. thread: the id of the calling thread, as in /proc."""

    handle: DeviceHandle
    size: int
    offset: int
    thread: int


class Opens:
    """The open device files of one interface, or of the mount itself."""

    def __init__(self, report: Callable[[Literal["open", "close"], DeviceHandle], None] | None = None) -> None:
        """report: called with each open and close. It is None for files of the mount, which report nothing."""
        self._handles: dict[DeviceHandle, None] = {}
        self._report = report

    def __iter__(self) -> Iterator[DeviceHandle]:
        return iter(tuple(self._handles))

    def add(self, handle: DeviceHandle) -> None:
        """Add a handle. Idempotent."""
        if handle not in self._handles:
            self._handles[handle] = None
            if self._report is not None:
                self._report("open", handle)

    def remove(self, handle: DeviceHandle) -> None:
        """Remove a handle. Idempotent."""
        if self._handles.pop(handle, self) is None and self._report is not None:
            self._report("close", handle)


class DeviceFile(Node):
    """A file that behaves like a character device.

    label: the path of the file, relative to the directory of the interface or to the mount point.
    gives: whether this kind of file can be read. If not, opens for reading fail, whatever the permission bits are.
    takes: whether this kind of file can be written. If not, opens for writing fail, whatever the permission bits are.
    live: whether a read may wait or consume data. If so, a program that walks the tree gets a WalkHandle.
    """

    __slots__ = ("label", "opens", "rights")

    gives = True
    takes = False
    live = True
    lasting = True

    def __init__(self, owner: Owner, label: str, opens: Opens, rights: Rights = Rights.DEVICE) -> None:
        super().__init__(owner)
        self.label = label
        self.opens = opens
        self.rights = rights

    @property
    def path(self) -> str:
        """The path of the file, relative to the mount point."""
        virt = virt_of(self.owner)
        return f"{virt.name}/{self.label}" if virt is not None else self.label

    def about(self, failure: OSError | MemoryError) -> VirtError:
        """Return a failure as a VirtError whose sentence begins with the path of the file.

        A program that reads last_error after a failure can so tell whether the sentence is about its file.
        """
        refusal = refused(failure)
        if refusal.strerror.startswith(self.path):
            return refusal
        return VirtError(refusal.errno, f"{self.path}: {refusal.strerror}")

    def permissions(self) -> int:
        return self.rights.bits(self.owner.mode)

    def size(self, user: User | None) -> int:
        """Return 1 for a readable file, else 0.

        With a size of 0, splice(2) and io_uring would read nothing, because they never read beyond the size.
        """
        return int(self.gives)

    def admit(self, flags: int, user: User) -> DeviceHandle | Awaitable[DeviceHandle]:
        """Carry out an open(2): call `open`, add the new handle to `opens`, and return it.

        If the file is live and the program walks the tree (see `walks`), return a WalkHandle instead, and add nothing.
        VirtError EACCES: this kind of file cannot be read, or cannot be written. Other errors are those of `open`.
        """
        if self.live and walks(flags):
            return WalkHandle(self, user, self.size(user))
        if (reads(flags) and not self.gives) or (writes(flags) and not self.takes):
            raise VirtError(errno.EACCES, f"{self.label} cannot be {'written to' if self.gives else 'read'}")
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
        """Return a new handle. flags: as in open(2). The kernel has checked the permission bits.

        If the open has to wait for the kernel, return an awaitable, so that only this open(2) waits.
        """
        raise NotImplementedError


class TextDeviceHandle(DeviceHandle):
    """An open of a device file that is a stream of text or bytes. It can be read in pieces of any size.

    `more` is called when all earlier data has been read.
    frames: the number of frames that `more` has returned (in `events`, the number of events).
    """

    __slots__ = ("_rest", "frames")

    def __init__(self, file: DeviceFile, user: User, waiters: Waiters) -> None:
        super().__init__(file, user, waiters)
        self._rest = b""
        self.frames = 0

    def more(self) -> bytes | None:
        """Return the next data. Return None if there is none yet, and b"" at the end."""
        raise NotImplementedError

    def taken(self) -> int:
        return self.frames

    def ready(self) -> bool:
        """Return whether `more` would now return data or b"", or raise an error. If not, it would return None."""
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
