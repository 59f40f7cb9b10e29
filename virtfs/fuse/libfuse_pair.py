"""The connection to the slow plane: a SOCK_SEQPACKET socket pair. libfuse uses its end in place of /dev/fuse."""

import errno
import logging
from collections import deque

import trio

from virtfs.core.errors import VirtError
from virtfs.core.ids import Uid
from virtfs.core.memory import REQUEST, Kind, Memory
from virtfs.files.device import Unique
from virtfs.fuse import protocol as p
from virtfs.fuse.answers import Answers

log = logging.getLogger(__name__)

# Maximum number of bytes of a text file or directory in one answer from the slow plane.
SLOW_REPLY = 65536
# Requests that are never refused: INIT begins the connection, and refusing the others would leak a handle.
_ALWAYS = frozenset((p.FUSE_INIT, p.FUSE_RELEASE, p.FUSE_RELEASEDIR))


class ProtocolTooOld(VirtError):
    """The kernel's FUSE protocol is older than 7.34, the version of Linux 5.15. This error ends the mount."""


class Pair:
    """The channel's end of the socket pair.

    longest: the size of the largest message that the pair carries, in bytes.
    memory: the accountant of the mount. It charges the requests that libfuse has not taken yet.
    """

    def __init__(self, ours: trio.socket.SocketType, longest: int, answers: Answers, memory: Memory) -> None:
        self._ours = ours
        self._memory = memory
        self._longest = longest
        self._answers = answers
        # Requests from forward() that requests() has not sent yet, and the user of each.
        self._waiting: deque[tuple[bytes, Uid]] = deque()
        self._sent: set[Unique] = set()  # requests that libfuse has not answered yet
        self._more = trio.Event()
        self._init: Unique | None = None
        self._held: bytearray | None = None
        # Set once libfuse has answered FUSE_INIT. Call admit() only after that.
        self.negotiated = trio.Event()

    def forward(self, opcode: int, message: memoryview) -> None:
        """Queue a request for libfuse.

        VirtError E2BIG: a WRITE is larger than the pair carries, or may be the first piece of a write(2) of more than
        1 MiB. The kernel splits such a write at page boundaries into WRITEs of up to 1 MiB. ENOBUFS: too many requests
        of the user wait.
        """
        length = len(message)
        if length > self._longest or (opcode == p.FUSE_WRITE and length > p.DATA + p.MAX_WRITE - 4096):
            most = min(self._longest - p.DATA, p.MAX_WRITE - 4096)
            raise VirtError(errno.E2BIG, f"one write takes at most {most} bytes: split the text at a newline")
        if opcode in (p.FUSE_READ, p.FUSE_READDIR, p.FUSE_READDIRPLUS) and length >= p.DATA:
            fields = list(p.fuse_read_in.unpack_from(message, p.BODY))
            fields[2] = min(fields[2], SLOW_REPLY)
            p.fuse_read_in.pack_into(message, p.BODY, *fields)
        uid = Uid(p.fuse_in_header.unpack_from(message)[4])
        if opcode not in _ALWAYS:
            self._memory.check(Kind.REQUESTS, uid, REQUEST + length)
        self._memory.add(Kind.REQUESTS, uid, REQUEST + length)
        self._waiting.append((bytes(message), uid))
        self._more.set()

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
                    self._answers.fail(unique, errno.ENOMEM)
                self._waiting.popleft()
                self._memory.add(Kind.REQUESTS, uid, -(REQUEST + len(message)))
            self._more = trio.Event()

    def give_up(self) -> None:
        """Answer the requests that libfuse has received but not answered with EIO. libfuse has failed."""
        while self._sent:
            self._answers.fail(self._sent.pop(), errno.EIO)

    async def replies(self) -> None:
        """Forward libfuse's answers to the kernel. Return when libfuse has closed its end.

        The answer to FUSE_INIT is kept for admit(). May be called again after a failure.
        """
        buffer = bytearray(p.LONGEST_REQUEST)
        view = memoryview(buffer)
        while length := await self._ours.recv_into(buffer):
            _, _, unique = p.fuse_out_header.unpack_from(buffer)
            self._sent.discard(Unique(unique))
            if self._init is not None and unique == self._init:
                self._held = bytearray(view[:length])
                self._negotiated(self._held)
                self._init = None
                self.negotiated.set()
            else:
                self._answers.emit(view[:length])
