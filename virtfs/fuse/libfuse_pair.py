"""The connection to the slow plane: a SOCK_SEQPACKET socket pair. libfuse uses its end in place of /dev/fuse.

If the caller of a request gets a signal, the pair answers EINTR at once and drops libfuse's later answer. A request to
change attributes cannot be answered early, because it may still take effect. Instead, `interrupts` cancels it.
"""

import errno
import logging
from collections import deque
from typing import NamedTuple

import trio

from virtfs.core.errors import VirtError
from virtfs.core.ids import Uid
from virtfs.core.memory import REQUEST, Kind, Memory
from virtfs.files.device import Unique
from virtfs.fuse import protocol as p
from virtfs.fuse.answers import Answers
from virtfs.fuse.interrupts import Interrupts
from virtfs.fuse.turns import Turns

log = logging.getLogger(__name__)

# Upper bound on the length of libfuse's answers in bytes. libfuse never returns the contents of a file or directory.
SLOW_REPLY = 65536
# Requests that change nothing. They can be answered with EINTR while libfuse works on them.
INTERRUPTIBLE = frozenset((p.FUSE_STATFS, p.FUSE_FSYNC))


class ProtocolTooOld(VirtError):
    """The kernel's FUSE protocol is older than 7.34, the version of Linux 5.15. This error ends the mount."""


class _Asked(NamedTuple):
    """A request that libfuse has not answered yet. thread: the caller, 0 if unknown."""

    opcode: int
    uid: int
    thread: int


class Pair:
    """The channel's end of the socket pair.

    longest: the size of the largest message that the pair carries, in bytes.
    turns: records the users for whom libfuse works.
    memory: the memory accounts of the mount. Requests are charged to it until libfuse has received them.
    """

    def __init__(
        self, ours: trio.socket.SocketType, longest: int, answers: Answers, turns: Turns, memory: Memory
    ) -> None:
        self._turns = turns
        self._ours = ours
        self._memory = memory
        self._longest = longest
        self._answers = answers
        # Requests from forward() that requests() has not sent yet, and the user of each.
        self._waiting: deque[tuple[bytes, Uid]] = deque()
        self._sent: set[Unique] = set()  # requests that libfuse has received but not answered yet
        self._more = trio.Event()
        self.interrupts = Interrupts()
        self._asked: dict[Unique, _Asked] = {}  # requests answered neither by libfuse nor with EINTR
        self._cut: dict[Unique, _Asked] = {}  # requests answered with EINTR that libfuse has not answered yet
        self._init: Unique | None = None
        self._held: bytearray | None = None
        # Set once libfuse has answered FUSE_INIT. Call admit() only after that.
        self.negotiated = trio.Event()

    def forward(self, opcode: int, message: memoryview) -> None:
        """Queue a request for libfuse.

        VirtError: E2BIG, the pair cannot carry a request of this size; ENOBUFS, the user has too many requests waiting.
        """
        length = len(message)
        if length > self._longest:
            raise VirtError(errno.E2BIG, f"the request is longer than {self._longest} bytes")
        _, _, unique, _, uid, _, thread, _, _ = p.fuse_in_header.unpack_from(message)
        if opcode != p.FUSE_INIT:
            self._memory.check(Kind.REQUESTS, Uid(uid), REQUEST + length)
        self._done(Unique(unique))  # the kernel never reuses the number of a pending request
        self._asked[Unique(unique)] = _Asked(opcode, uid, thread)
        self._turns.begin(uid, slow=True)
        self._queue(bytes(message), Uid(uid))

    def _queue(self, message: bytes, uid: Uid) -> None:
        self._memory.add(Kind.REQUESTS, uid, REQUEST + len(message))
        self._waiting.append((message, uid))
        self._more.set()

    def caller(self, unique: Unique) -> int | None:
        """Return the thread that made a request, or None if libfuse has answered the request or never got it."""
        return self._asked[unique].thread if unique in self._asked else None

    def interrupt(self, unique: Unique) -> None:
        """End a forwarded request whose caller got a signal, if that is possible."""
        asked = self._asked[unique]
        if asked.opcode == p.FUSE_SETATTR:
            self.interrupts.interrupt(asked.thread)
        elif asked.opcode in INTERRUPTIBLE:
            self._cut[unique] = self._asked.pop(unique)
            self._answers.fail(unique, errno.EINTR)

    def negotiate(self, unique: Unique, message: memoryview) -> None:
        """Check a FUSE_INIT request before it is forwarded. Clear its splice flags, because the pair cannot splice.

        VirtError EPROTO: the request is too short. ProtocolTooOld: the kernel's protocol is too old.
        """
        if len(message) < p.BODY + p.fuse_init_in.size:
            raise VirtError(errno.EPROTO, "the FUSE_INIT request is too short")
        major, minor, readahead, flags = p.fuse_init_in.unpack_from(message, p.BODY)
        if (major, minor) < (p.MAJOR, p.OLDEST_MINOR):
            self._answers.fail(unique, errno.EPROTO)
            raise ProtocolTooOld(
                errno.EPROTO,
                f"this kernel speaks FUSE {major}.{minor}; {p.MAJOR}.{p.OLDEST_MINOR} (Linux 5.15) is needed",
            )
        flags &= ~(p.FUSE_SPLICE_READ | p.FUSE_SPLICE_WRITE | p.FUSE_SPLICE_MOVE)
        p.fuse_init_in.pack_into(message, p.BODY, major, minor, readahead, flags)
        self._init = unique

    @staticmethod
    def _negotiated(reply: bytearray) -> None:
        """Raise max_write and max_pages in libfuse's answer to FUSE_INIT to the maximum that the kernel allows."""
        if len(reply) >= p.REPLY + p.fuse_init_out.size:
            fields = list(p.fuse_init_out.unpack_from(reply, p.REPLY))
            fields[3] |= p.FUSE_MAX_PAGES
            fields[6], fields[8] = p.MAX_WRITE, p.PAGES
            p.fuse_init_out.pack_into(reply, p.REPLY, *fields)

    def admit(self) -> None:
        """Open the mount to users by sending the answer to FUSE_INIT, which replies() has kept.

        Until the kernel gets this answer, it holds back all other requests. Their callers block, but can be killed
        (fs/fuse/dev.c fuse_get_req). So no user sees the tree before the state file has been replayed.
        """
        if self._held is not None:
            self._answers.emit(memoryview(self._held))
            self._held = None

    async def requests(self) -> None:
        """Forward queued requests to libfuse, until cancelled. A request that cannot be forwarded fails with ENOMEM."""
        while True:
            await self._more.wait()
            while self._waiting:
                message, uid = self._waiting[0]
                unique = Unique(p.fuse_in_header.unpack_from(message)[2])
                self._sent.add(unique)
                try:
                    await self._ours.send(message)
                except OSError as failure:
                    log.warning("cannot forward request %d: %s", unique, failure.strerror)
                    self._sent.discard(unique)
                    self._fail(unique, errno.ENOMEM)
                self._waiting.popleft()
                self._memory.add(Kind.REQUESTS, uid, -(REQUEST + len(message)))
            self._more = trio.Event()

    def give_up(self) -> None:
        """Fail with EIO all requests that libfuse has received but not answered. Called after libfuse has failed."""
        while self._sent:
            self._fail(self._sent.pop(), errno.EIO)

    def _fail(self, unique: Unique, error: int) -> None:
        """Fail a request that libfuse will not answer, unless it was already answered with EINTR after a signal."""
        if (asked := self._cut.pop(unique, None)) is not None:
            self._turns.end(asked.uid, slow=True)
        else:
            self._done(unique)
            self._answers.fail(unique, error)

    async def replies(self) -> None:
        """Forward libfuse's answers to the kernel. Return when libfuse has closed its end.

        The answer to FUSE_INIT is kept for admit(). May be called again after a failure.
        """
        buffer = bytearray(p.LONGEST_REQUEST)
        view = memoryview(buffer)
        while length := await self._ours.recv_into(buffer):
            _, _, unique = p.fuse_out_header.unpack_from(buffer)
            self._sent.discard(Unique(unique))
            if unique in self._cut:
                self._turns.end(self._cut.pop(unique).uid, slow=True)
                continue
            self._done(unique)
            if self._init is not None and unique == self._init:
                self._held = bytearray(view[:length])
                self._negotiated(self._held)
                self._init = None
                self.negotiated.set()
            else:
                self._answers.emit(view[:length])

    def _done(self, unique: Unique) -> None:
        """Record that a request has been answered."""
        if (asked := self._asked.pop(unique, None)) is not None:
            self._turns.end(asked.uid, slow=True)
            if asked.opcode == p.FUSE_SETATTR:
                self.interrupts.answered(asked.thread)
