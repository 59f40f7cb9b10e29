"""The way to the slow plane and back: a SOCK_SEQPACKET pair, at whose other end libfuse believes to hold /dev/fuse."""

import errno
from collections import deque

import trio

from virtfs.core.errors import VirtError
from virtfs.files.device import Unique
from virtfs.fuse import protocol as p
from virtfs.fuse.answers import Answers

SLOW_REPLY = 65536  # bytes of a text or a directory in one answer of the slow plane


class ProtocolTooOld(VirtError):
    """The kernel's FUSE is too old to serve; ends the mount."""


class Pair:
    """Our end. longest: the largest message, in bytes, that it takes."""

    def __init__(self, ours: trio.socket.SocketType, longest: int, answers: Answers) -> None:
        self._ours = ours
        self._longest = longest
        self._answers = answers
        self._waiting: deque[bytes] = deque()  # while the pair is full
        self._more = trio.Event()
        self._init: Unique | None = None
        self._held: bytearray | None = None
        self.negotiated = trio.Event()  # libfuse has answered FUSE_INIT, and `admit` may follow

    def send_on(self, opcode: int, message: memoryview) -> None:
        """A request for libfuse.

        Errors: E2BIG, a write that the pair does not take, or that may be the first piece of one of over 1 MiB, which
        the kernel cuts into WRITEs of that size, page by page.
        """
        length = len(message)
        if length > self._longest or (opcode == p.FUSE_WRITE and length > p.DATA + p.MAX_WRITE - 4096):
            raise VirtError(errno.E2BIG, "more than 1 MiB in one write")
        if opcode in (p.FUSE_READ, p.FUSE_READDIR, p.FUSE_READDIRPLUS) and length >= p.DATA:
            fields = list(p.fuse_read_in.unpack_from(message, p.BODY))
            fields[2] = min(fields[2], SLOW_REPLY)
            p.fuse_read_in.pack_into(message, p.BODY, *fields)
        self._waiting.append(bytes(message))
        self._more.set()

    def negotiate(self, unique: Unique, message: memoryview) -> None:
        """FUSE_INIT on its way in: refuse an older protocol, offer no splicing, which the pair cannot do."""
        if len(message) < p.BODY + p.fuse_init_in.size:
            raise VirtError(errno.EPROTO, "FUSE_INIT cut short")
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
        """libfuse's answer to FUSE_INIT on its way out: writes as large as the kernel makes them."""
        if len(reply) >= p.REPLY + p.fuse_init_out.size:
            fields = list(p.fuse_init_out.unpack_from(reply, p.REPLY))
            fields[3] |= p.FUSE_MAX_PAGES
            fields[6], fields[8] = p.MAX_WRITE, p.PAGES
            p.fuse_init_out.pack_into(reply, p.REPLY, *fields)

    def admit(self) -> None:
        """Send the held answer to FUSE_INIT, and with it let everybody in.

        Until then the kernel sends no other request, and whoever makes one waits, killably (fs/fuse/dev.c
        fuse_get_req). Nobody sees a file before what it describes is complete.
        """
        if self._held is not None:
            self._answers.emit(memoryview(self._held))
            self._held = None

    async def requests(self) -> None:
        """Hand requests to libfuse as fast as it takes them."""
        while True:
            await self._more.wait()
            while self._waiting:
                await self._ours.send(self._waiting.popleft())
            self._more = trio.Event()

    async def replies(self) -> None:
        """Hand libfuse's answers to the kernel. Ends when libfuse has closed its end."""
        buffer = bytearray(p.LONGEST_REQUEST)
        view = memoryview(buffer)
        while length := await self._ours.recv_into(buffer):
            _, _, unique = p.fuse_out_header.unpack_from(buffer)
            if self._init is not None and unique == self._init:
                self._held = bytearray(view[:length])
                self._negotiated(self._held)
                self._init = None
                self.negotiated.set()
            else:
                self._answers.emit(view[:length])
