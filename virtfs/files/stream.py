"""What a stream file has to answer, and who waits for it.

A stream is a character device in all but name: a read takes what is there or waits, a write is done at once, poll
tells. Its handles never wait themselves: a read that finds nothing says so, and whoever called keeps it among the
handle's `Waiters`, as the kernel keeps a process on a wait_queue_head_t. The source of the
stream says `wake()` when it may be worth another look.
"""

import errno
from collections.abc import Callable
from typing import NewType

from virtfs.core.ids import User
from virtfs.files.node import Node, Owner, Rights

Unique = NewType("Unique", int)  # the kernel's number of one request
PollId = NewType("PollId", int)  # the kernel's number of one poll to be woken (kh)


class Waiters:
    """The reads and polls that wait for one source.

    reads: in the order they came, each with its handle and how many bytes it takes at most.
    polls: to be woken once, when the handle has something to tell.
    """

    __slots__ = ("polls", "reads", "serve", "started")

    def __init__(self, started: Callable[[], None] = lambda: None) -> None:
        self.reads: dict[Unique, tuple[StreamHandle, int]] = {}
        self.polls: dict[PollId, StreamHandle] = {}
        self.serve: Callable[[Waiters], None] = lambda waiters: None
        self.started = started  # called when somebody begins to wait

    def __bool__(self) -> bool:
        return bool(self.reads or self.polls)

    def wake(self) -> None:
        """The source has changed: whoever can be answered is."""
        if self.reads or self.polls:
            self.serve(self)


class StreamHandle:
    """One open of a stream file. Methods are named after the system call; an OSError becomes its errno."""

    __slots__ = ("kh", "user", "waiters")

    def __init__(self, user: User, waiters: Waiters) -> None:
        self.user = user
        self.waiters = waiters
        self.kh: PollId | None = None

    def read(self, room: memoryview, size: int) -> int | None:
        """Put at most `size` bytes into `room` at HEADROOM and say how many; None when there is nothing yet.

        What lies before HEADROOM is scratch, and there is more room behind `size` than any frame needs, so that a
        frame can be read with whatever head its device gives it, where it is to be sent from.
        """
        raise OSError(errno.EBADF, "not open for reading")

    def write(self, data: memoryview) -> int:
        """Take `data` (valid during the call only) and say how much of it was taken; never waits."""
        raise OSError(errno.EBADF, "not open for writing")

    def poll(self) -> int:
        """select.POLLIN and so on, as they hold now."""
        raise NotImplementedError

    def ioctl(self, command: int, argument: bytes) -> bytes:
        """The answer's bytes for an ioctl, ENOTTY when it is unknown."""
        raise OSError(errno.ENOTTY, "no such ioctl")

    def release(self) -> None:
        """The last descriptor of this open is closed."""


class Stream(Node):
    """A stream file."""

    __slots__ = ("rights",)

    def __init__(self, owner: Owner, rights: Rights = Rights.STREAM) -> None:
        super().__init__(owner)
        self.rights = rights

    def permissions(self) -> int:
        return self.rights.bits(self.owner.mode)

    def open(self, flags: int, user: User) -> StreamHandle:
        """One more open(2), the kernel has checked the permission bits. flags: as in open(2)."""
        raise NotImplementedError
