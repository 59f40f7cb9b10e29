"""A channel between a fake kernel and a fake libfuse, with streams that the test controls."""

import os
import select
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec

import trio
import trio.testing

from harness.in_trio import start_in
from virtfs.core.ids import Gid, Uid, User
from virtfs.core.memory import Memory
from virtfs.files.device import DeviceFile, DeviceHandle, Opens, Waiters
from virtfs.files.node import ROOT, Directory
from virtfs.files.text import Text
from virtfs.forward.tapwatch import TapWatch
from virtfs.forward.wire import HEADROOM
from virtfs.fuse import protocol as p
from virtfs.fuse.channel import Channel
from virtfs.fuse.inodes_handles import Handles, Inodes

P = ParamSpec("P")

SO_SNDBUFFORCE = 32  # asm-generic/socket.h
ROOM = 4 << 20  # bytes, for several messages of the largest size
CALLER = (1 << 22) + 1  # a thread id that no thread has: above PID_MAX_LIMIT (include/linux/threads.h)
LARGE_ENOUGH = p.LONGEST_REQUEST

NOTIFICATIONS = (p.FUSE_NOTIFY_POLL, p.FUSE_NOTIFY_INVAL_INODE, p.FUSE_NOTIFY_STORE)

Say = bytes | OSError | ValueError


class Talk(DeviceFile):
    """A device file whose reads return the items of `to_say`, or raise those that are exceptions.

    first: called with the method's name at the beginning of each read, write, poll and ioctl.
    """

    takes = True

    __slots__ = ("first", "heard", "opened", "released", "started", "to_say", "waiters")

    def __init__(self, *to_say: Say) -> None:
        super().__init__(ROOT, "talk", Opens())
        self.to_say: deque[Say] = deque(to_say)
        self.first: Callable[[str], None] = lambda method: None
        self.heard: list[bytes] = []
        self.opened: list[tuple[int, User]] = []
        self.released = 0
        self.started = 0
        self.waiters = Waiters(self._count)

    def _count(self) -> None:
        self.started += 1

    def open(self, flags: int, user: User) -> "TalkHandle":
        self.opened.append((flags, user))
        return TalkHandle(self, user)

    def say(self, *more: Say) -> None:
        """Add items for the readers and wake them."""
        self.to_say.extend(more)
        self.waiters.wake()


class TalkHandle(DeviceHandle):
    """One open of a Talk."""

    __slots__ = ("talk",)

    def __init__(self, talk: Talk, user: User) -> None:
        super().__init__(talk, user, talk.waiters)
        self.talk = talk

    def read(self, room: memoryview, size: int) -> int | None:
        self.talk.first("read")
        if not self.talk.to_say:
            return None
        said = self.talk.to_say.popleft()
        if isinstance(said, Exception):
            raise said
        said = said[:size]
        room[HEADROOM : HEADROOM + len(said)] = said
        return len(said)

    def write(self, data: memoryview) -> int:
        self.talk.first("write")
        self.talk.heard.append(bytes(data))
        return len(data)

    def poll(self) -> int:
        self.talk.first("poll")
        return select.POLLOUT | (select.POLLIN if self.talk.to_say else 0)

    def ioctl(self, command: int, argument: bytes) -> bytes:
        self.talk.first("ioctl")
        if command == 0:
            return super().ioctl(command, argument)
        return argument[::-1]

    def release(self) -> None:
        super().release()
        self.talk.released += 1


@dataclass(frozen=True, slots=True)
class Answer:
    """One message to the kernel. A notification has unique 0 and its code in `error`."""

    error: int
    unique: int
    body: bytes


def request(opcode: int, unique: int, inode: int, body: bytes = b"", uid: int = 1000) -> bytes:
    """A request of user 1000, group 1001, process CALLER."""
    return p.fuse_in_header.pack(p.BODY + len(body), opcode, unique, inode, uid, 1001, CALLER, 0, 0) + body


class Quiet:
    """A kernel that reports no changes."""

    def up_to_date(self) -> bool:
        return True

    async def caught_up(self) -> None:
        await trio.lowlevel.checkpoint()


class Bench:
    """The two sides of a channel as a test sees them: messages to the kernel, and messages to libfuse."""

    def __init__(self, kernel: socket.socket, libfuse: socket.socket, channel: Channel, root: Directory) -> None:
        self._kernel = kernel
        self._libfuse = libfuse
        self.channel = channel
        self.inodes = channel._inodes
        self.handles = channel._handles
        self.root = root
        self._unique = 0

    @property
    def has_room(self) -> bool:
        """Whether the kernel's socket has room for hundreds of answers. Only root can make it so large (_pair)."""
        return self._kernel.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= ROOM

    # The kernel's side

    def send(self, message: bytes) -> None:
        """Send bytes to the channel as one message from the kernel."""
        self._kernel.send(message)

    def request(self, opcode: int, inode: int = 1, body: bytes = b"") -> int:
        """Send a request. Returns its unique number, which is even, as with the kernel."""
        self._unique += 2
        self.send(request(opcode, self._unique, inode, body))
        return self._unique

    async def answers(self) -> list[Answer]:
        """Wait until the channel has nothing to do. Returns its messages to the kernel since the last call."""
        await trio.testing.wait_all_tasks_blocked()
        return [_answer(message) for message in _drain(self._kernel)]

    async def ask(self, opcode: int, inode: int = 1, body: bytes = b"") -> Answer:
        """Send a request and return its answer, which must be the only message to the kernel."""
        unique = self.request(opcode, inode, body)
        (answer,) = await self.answers()
        assert answer.unique == unique
        return answer

    # libfuse's side

    async def forwarded(self) -> list[bytes]:
        """Wait until the channel has nothing to do. Returns its messages to libfuse since the last call."""
        await trio.testing.wait_all_tasks_blocked()
        return list(_drain(self._libfuse))

    async def refuse_all(self) -> None:
        """Refuse what libfuse has got. While a user has unanswered requests, others of that user are held."""
        while messages := await self.forwarded():
            for message in messages:
                self.reply(p.fuse_out_header.pack(p.REPLY, -2, p.fuse_in_header.unpack_from(message)[2]))
            await self.answers()

    def reply(self, message: bytes) -> None:
        """Send an answer to the channel as libfuse does."""
        self._libfuse.send(message)

    # Streams, as the kernel uses them

    def place(self, stream: DeviceFile, name: str = "talk") -> int:
        """Add a stream to the root directory. Returns its inode number."""
        self.root.add({name: stream})
        return self.inodes.number(stream)

    async def open(self, stream: DeviceFile, flags: int = os.O_RDWR) -> int:
        """Open a stream. Returns its file handle (fh)."""
        answer = await self.ask(p.FUSE_OPEN, self.place(stream), p.fuse_open_in.pack(flags, 0))
        assert answer.error == 0
        fh: int = p.fuse_open_out.unpack(answer.body)[0]
        return fh

    def read(self, fh: int, size: int = 4096, flags: int = os.O_RDWR, offset: int = 0) -> int:
        """Begin a read(2). Returns its unique number."""
        how = p.FUSE_READ_LOCKOWNER
        return self.request(p.FUSE_READ, 2, p.fuse_read_in.pack(fh, offset, size, how, 7, flags, 0))

    def read_cached(self, fh: int, size: int = 4096, offset: int = 0) -> int:
        """Begin a read for the kernel's page cache. Returns its unique number."""
        return self.request(p.FUSE_READ, 2, p.fuse_read_in.pack(fh, offset, size, 0, 0, os.O_RDONLY, 0))

    async def answer_to(self, unique: int) -> Answer:
        """Return the answer to a pending request, which must be the only message to the kernel."""
        (answer,) = await self.answers()
        assert answer.unique == unique
        return answer

    def write(self, fh: int, data: bytes) -> int:
        """Begin a write(2). Returns its unique number."""
        return self.request(p.FUSE_WRITE, 2, p.fuse_write_in.pack(fh, 0, len(data), 0, 0, os.O_RDWR, 0) + data)

    async def poll(self, fh: int, kh: int, schedule: bool) -> int:
        """Send a poll request and return the events. kh: the kernel's poll handle. schedule: ask for a wake-up."""
        answer = await self.ask(p.FUSE_POLL, 2, p.fuse_poll_in.pack(fh, kh, int(schedule), select.POLLIN))
        assert answer.error == 0
        events: int = p.fuse_poll_out.unpack(answer.body)[0]
        return events

    def open_text(self, text: Callable[[User], str]) -> int:
        """Open a text file as the name space does. Returns its file handle (fh)."""
        return self.handles.add_text(Text(ROOT, text).open(User(Uid(0), Gid(0), 1), self.handles.memory))


def notification(kh: int) -> Answer:
    """Return the message that wakes a poll: FUSE_NOTIFY_POLL, which is 1, with unique 0."""
    return Answer(1, 0, kh.to_bytes(8, "little"))


@asynccontextmanager
async def channel(longest: int = LARGE_ENOUGH, memory: Memory | None = None) -> AsyncIterator[Bench]:
    """Run a channel while the body runs, and assert that its tasks do not end.
    longest: maximum length of a message to libfuse, in bytes.
    """
    kernel, fuse = _pair()
    libfuse, ours = _pair()
    try:
        root = Directory(ROOT)
        made = Channel(
            fuse.fileno(),
            trio.socket.from_stdlib_socket(ours),
            longest,
            Inodes(root),
            Handles(memory or Memory()),
            Quiet(),
            lambda refusal, user: None,
            TapWatch(),
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_never_ending, partial(made.run, start_in(nursery)))
            nursery.start_soon(_never_ending, made.pair.requests)
            nursery.start_soon(_never_ending, made.pair.replies)
            yield Bench(kernel, libfuse, made, root)
            nursery.cancel_scope.cancel()
    finally:
        for end in (kernel, fuse, libfuse, ours):
            end.close()


async def _never_ending(task: Callable[[], Coroutine[Any, Any, None]]) -> None:
    await task()
    raise AssertionError(f"{task} has ended")


def _pair() -> tuple[socket.socket, socket.socket]:
    """Return sockets that work like /dev/fuse: they keep message boundaries, and EAGAIN means no message."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
        with suppress(PermissionError):
            end.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, ROOM)
    return ends


def _drain(end: socket.socket) -> Iterable[bytes]:
    with suppress(BlockingIOError):
        while message := end.recv(ROOM):
            yield message


def _answer(message: bytes) -> Answer:
    length, error, unique = p.fuse_out_header.unpack_from(message)
    assert length == len(message), "the kernel refuses an answer with a wrong length"
    told = -512 < error <= 0 or error in NOTIFICATIONS
    assert told, "the kernel refuses such an errno, and the calling program waits for ever"
    return Answer(error, unique, message[p.REPLY :])
