"""The channel: one trio task between /dev/fuse and the two planes.

A request for an open stream is answered here, in the wire protocol; any other goes on unchanged, through a
SOCK_SEQPACKET pair, to libfuse in `namespace`, whose answers come back the same way. See doc/design.md for why.

A wake-up through epoll is what makes FUSE slow, so while requests come in quick succession the channel does not wait:
it gives the processor away (sched_yield, so that a client on the same one can run) and looks again, LOOKS times,
before it asks trio. Every TURN requests the other tasks have theirs.
"""

import errno
import logging
import os
import select
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from io import FileIO

import trio

from virtfs.core.errors import VirtError
from virtfs.core.ids import Gid, Uid, User
from virtfs.files.stream import PollId, Stream, StreamHandle, Unique, Waiters
from virtfs.files.text import TextHandle
from virtfs.fuse import protocol as p
from virtfs.fuse.numbers import HandleId, Handles, Inodes

log = logging.getLogger(__name__)

LOOKS = 50
TURN = 256
SLOW_REPLY = 65536  # bytes of a text or a directory in one answer of the slow plane
# Nothing is written behind, so closing has nothing to flush. Linux before 5.16 asks nevertheless.
STREAM_FLAGS = p.FOPEN_DIRECT_IO | p.FOPEN_NONSEEKABLE | p.FOPEN_STREAM | p.FOPEN_NOFLUSH


# Answered here for text files too: their ENOSYS, libfuse's answer, would hold for the streams as well.
EVERYBODYS = frozenset((p.FUSE_POLL, p.FUSE_FLUSH, p.FUSE_COPY_FILE_RANGE))


class Channel:
    """Serves one FUSE connection.

    fuse: the descriptor of /dev/fuse, non-blocking. pair: our end of the pair, whose other is libfuse's.
    longest: the largest message, in bytes, that the pair takes.
    """

    def __init__(self, fuse: int, pair: trio.socket.SocketType, longest: int, inodes: Inodes, handles: Handles) -> None:
        self._fuse = fuse
        self._device = FileIO(fuse, "r+b", closefd=False)  # its read says None where os.read raises BlockingIOError
        self._pair = pair
        self._longest = longest
        self._inodes = inodes
        self._handles = handles
        self._in = bytearray(p.LONGEST_REQUEST)
        self._data = memoryview(self._in)
        self._out = bytearray(p.LONGEST_REQUEST)
        self._reply = memoryview(self._out)
        self._woken_reply = memoryview(bytearray(p.LONGEST_REQUEST))
        self._woken: dict[Waiters, None] = {}
        self._serving = False
        self._parked: dict[Unique, Waiters] = {}
        self._slow: deque[bytes] = deque()  # for libfuse, while the pair is full
        self._more = trio.Event()
        self._init: Unique | None = None
        self.answers = trio.Event()  # FUSE_INIT has been answered: the mount works
        # What is done here and not by libfuse; the body begins at p.BODY, its length is given.
        self._own: dict[int, Callable[[Unique, HandleId, int], bool]] = {
            p.FUSE_READ: self._refused(errno.EINVAL),  # the loop takes every whole one
            p.FUSE_WRITE: self._refused(errno.EINVAL),
            p.FUSE_RELEASE: self._release,
            p.FUSE_FLUSH: self._flush,
            p.FUSE_FSYNC: self._refused(errno.EINVAL),  # as on a character device
            p.FUSE_IOCTL: self._ioctl,
            p.FUSE_POLL: self._poll,
            p.FUSE_FALLOCATE: self._refused(errno.EOPNOTSUPP),
            p.FUSE_LSEEK: self._refused(errno.ESPIPE),
            # Any errno but EOPNOTSUPP and EXDEV, on which the kernel would splice: cat and cp then read and write.
            p.FUSE_COPY_FILE_RANGE: self._refused(errno.EINVAL),
        }

    # Coming in

    async def run(self, tasks: trio.Nursery) -> None:
        """Answer requests until the kernel ends the connection. Opens that have to wait do so in `tasks`.

        Reading and writing streams, nearly all of the traffic, is done within the loop: a call less is felt here.
        """
        self._tasks = tasks
        data, streams = self._data, self._handles.streams
        read, write, look_again, unpack = (
            self._device.readinto,
            self._device.write,
            os.sched_yield,
            p.request_head.unpack_from,
        )
        written, head, out, reply = p.written_reply.pack, p.fuse_out_header.pack_into, self._out, self._reply
        WRITE, READ, DATA, HEAD, NONBLOCK = p.FUSE_WRITE, p.FUSE_READ, p.DATA, p.REPLY, os.O_NONBLOCK
        PIECE = p.SECOND_PIECE
        looks = served = 0
        while True:
            try:
                length = read(data)
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.ECONNABORTED):  # unmounted, or aborted
                    return
                if error.errno in (errno.ENOENT, errno.EINTR):  # the request was taken back
                    continue
                raise
            if length is None:
                if looks:
                    looks -= 1
                    look_again()
                else:
                    await trio.lowlevel.wait_readable(self._fuse)
                continue
            opcode, unique, fh, offset, size, flags = unpack(data)
            try:
                if opcode == WRITE and length == DATA + size and fh in streams:
                    handle = streams[fh]
                    taken = (handle.write if offset < PIECE else handle.write_on)(data[DATA:length])
                    if taken is not None:
                        write(written(24, 0, unique, taken, 0))
                    else:
                        self._park_write(unique, handle, flags)
                elif opcode == READ and length == DATA and fh in streams:
                    handle = streams[fh]
                    taken = handle.read(reply, size)
                    if taken is not None:
                        handle.reads += 1
                        taken += HEAD
                        head(out, 0, taken, 0, unique)
                        write(reply[:taken])
                    elif flags & NONBLOCK:
                        self._fail(unique, errno.EAGAIN)
                    else:
                        self._park(unique, handle, size)
                elif not self._other(opcode, unique, fh, length):
                    continue
            except ProtocolTooOld:
                raise
            except OSError as error:
                self._fail(unique, error.errno or errno.EIO)
            except Exception:
                log.exception("request %d of opcode %d failed", unique, opcode)
                self._fail(unique, errno.EIO)
            served += 1
            if served % TURN:
                looks = LOOKS
                look_again()
            else:
                await trio.lowlevel.checkpoint()

    def _other(self, opcode: int, unique: Unique, fh: HandleId, length: int) -> bool:
        """Answer any other request or send it on. True: it was a stream's, another may follow at once."""
        if length < p.BODY:
            raise VirtError(errno.EINVAL, "a message shorter than its header")
        own = self._own.get(opcode)
        if own is not None:
            if length < p.BODY + p.fuse_fh.size:
                raise VirtError(errno.EINVAL, "a message without its handle")
            if fh in self._handles.streams or opcode in EVERYBODYS:
                return own(unique, fh, length)
        elif opcode == p.FUSE_OPEN:
            node = self._inodes.node(p.fuse_in_header.unpack_from(self._in)[3])
            if isinstance(node, Stream):
                return self._open(node, unique, length)
            if node is None:
                raise VirtError(errno.ENXIO, "a file that is gone")
        elif opcode == p.FUSE_INTERRUPT:
            return self._interrupt(length)
        elif opcode in (p.FUSE_FORGET, p.FUSE_BATCH_FORGET):
            return False  # see numbers
        elif opcode == p.FUSE_INIT:
            self._negotiate(unique, length)
        self._send_on(opcode, fh, length)
        return False

    # Going out

    def _answer(self, unique: Unique, body: bytes = b"") -> None:
        self._emit(p.fuse_out_header.pack(p.REPLY + len(body), 0, unique) + body)

    def _fail(self, unique: Unique, error: int) -> None:
        """Answer with an errno. Never ENOSYS, which the kernel takes to hold for every file, for ever.

        Nor one of those above 511, such as ENOTSUPP (524), which are the kernel's own and which it does not take.
        """
        if error == errno.ENOSYS:
            error = errno.EOPNOTSUPP
        self._emit(p.fuse_out_header.pack(p.REPLY, -(error if 0 < error < 512 else errno.EIO), unique))

    def _emit(self, message: bytes | memoryview) -> None:
        try:
            self._device.write(message)
        except OSError as error:
            # ENOENT: nobody waits for this answer any more. ENODEV: the connection is over; reading will tell.
            if error.errno in (errno.ENOENT, errno.ENODEV, errno.ECONNABORTED):
                return
            log.error("answer of %d bytes refused: %s", len(message), error.strerror)
            unique = p.fuse_out_header.unpack_from(message)[2]
            if unique and len(message) > p.REPLY:  # whoever asked is not left waiting
                self._fail(unique, errno.EIO)

    # Streams

    def _stream(self, fh: HandleId, length: int, layout: struct.Struct) -> StreamHandle:
        if length < p.BODY + layout.size:
            raise VirtError(errno.EINVAL, "a message cut short")
        return self._handles.streams[fh]

    def _user(self) -> User:
        _, _, _, _, uid, gid, pid, _, _ = p.fuse_in_header.unpack_from(self._in)
        return User(Uid(uid), Gid(gid), pid)

    def _open(self, node: Stream, unique: Unique, length: int) -> bool:
        if length < p.BODY + p.fuse_open_in.size:
            raise VirtError(errno.EINVAL, "a message cut short")
        flags, _ = p.fuse_open_in.unpack_from(self._in, p.BODY)
        opened = node.open(flags, self._user())
        if isinstance(opened, StreamHandle):
            self._opened(unique, opened)
        else:
            self._tasks.start_soon(self._open_later, unique, opened)
        return True

    def _opened(self, unique: Unique, handle: StreamHandle) -> None:
        self._answer(unique, p.fuse_open_out.pack(self._handles.add_stream(handle), STREAM_FLAGS, 0))

    async def _open_later(self, unique: Unique, opening: Awaitable[StreamHandle]) -> None:
        try:
            handle = await opening
        except OSError as error:
            self._fail(unique, error.errno or errno.EIO)
        except Exception:
            log.exception("open %d failed", unique)
            self._fail(unique, errno.EIO)
        else:
            self._opened(unique, handle)

    def _park(self, unique: Unique, handle: StreamHandle, size: int) -> None:
        """Nothing to read yet: keep the request among those who wait."""
        waiters = handle.waiters
        waiters.reads[unique] = handle, size
        waiters.serve = self._serve
        self._parked[unique] = waiters
        waiters.started()

    def _park_write(self, unique: Unique, handle: StreamHandle, flags: int) -> None:
        """It takes its time. Without waiting allowed, what is taken by now is all."""
        if flags & os.O_NONBLOCK:
            self._cut(unique, handle, errno.EAGAIN)
            return
        handle.waiters.writes[unique] = handle
        handle.waiters.serve = self._serve
        self._parked[unique] = handle.waiters

    def _cut(self, unique: Unique, handle: StreamHandle, error: int) -> None:
        """End a write that waits: with how much was taken, or the error if that is nothing."""
        if taken := handle.interrupt():
            self._answer(unique, p.fuse_write_out.pack(taken, 0))
        else:
            self._fail(unique, error)

    def _serve(self, waiters: Waiters) -> None:
        """The source has changed: answer what can be answered now.

        Reading from one source may wake another (a capture sees what a frame's reader takes), so a wake-up that comes
        meanwhile is served afterwards: there is one buffer for these answers, apart from the loop's own.
        """
        self._woken[waiters] = None
        if self._serving:
            return
        self._serving = True
        try:
            while self._woken:
                waiters, _ = self._woken.popitem()
                self._serve_reads(waiters)
                self._serve_writes(waiters)
                self._serve_polls(waiters)
        finally:
            self._serving = False

    def _serve_reads(self, waiters: Waiters) -> None:
        reply = self._woken_reply
        for unique, (handle, size) in list(waiters.reads.items()):
            if unique not in waiters.reads:
                continue
            try:
                taken = handle.read(reply, size)
            except OSError as error:
                self._fail(unique, error.errno or errno.EIO)
            except Exception:
                log.exception("waiting read %d failed", unique)
                self._fail(unique, errno.EIO)
            else:
                if taken is None:
                    continue
                handle.reads += 1
                p.fuse_out_header.pack_into(reply, 0, p.REPLY + taken, 0, unique)
                self._emit(reply[: p.REPLY + taken])
            waiters.reads.pop(unique, None)
            self._parked.pop(unique, None)

    def _serve_writes(self, waiters: Waiters) -> None:
        for unique, handle in list(waiters.writes.items()):
            try:
                taken = handle.written()
            except OSError as error:
                self._fail(unique, error.errno or errno.EIO)
            except Exception:
                log.exception("waiting write %d failed", unique)
                self._fail(unique, errno.EIO)
            else:
                if taken is None:
                    continue
                self._answer(unique, p.fuse_write_out.pack(taken, 0))
            waiters.writes.pop(unique, None)
            self._parked.pop(unique, None)

    def _serve_polls(self, waiters: Waiters) -> None:
        for kh, handle in list(waiters.polls.items()):
            if self._ready(handle) & ~select.POLLOUT:
                waiters.polls.pop(kh, None)
                self._notify(kh)

    @staticmethod
    def _ready(handle: StreamHandle | TextHandle) -> int:
        """What poll answers; a handle that fails has an error to tell."""
        try:
            return handle.poll()
        except Exception:
            log.exception("poll of a handle failed")
            return select.POLLERR

    def _interrupt(self, length: int) -> bool:
        """A signal came for somebody who waits. Others are answered soon anyway, and libfuse is not told."""
        if length < p.BODY + p.fuse_interrupt_in.size:
            raise VirtError(errno.EINVAL, "a message cut short")
        (unique,) = p.fuse_interrupt_in.unpack_from(self._in, p.BODY)
        waiters = self._parked.pop(unique, None)
        if waiters is None:
            return False
        if waiters.reads.pop(unique, None) is not None:
            self._fail(unique, errno.EINTR)
        elif (handle := waiters.writes.pop(unique, None)) is not None:
            self._cut(unique, handle, errno.EINTR)
        return False

    def _poll(self, unique: Unique, fh: HandleId, length: int) -> bool:
        if length < p.BODY + p.fuse_poll_in.size:
            raise VirtError(errno.EINVAL, "a message cut short")
        _, kh, flags, _ = p.fuse_poll_in.unpack_from(self._in, p.BODY)
        stream = self._handles.streams.get(fh)
        handle = stream or self._handles.texts.get(fh)
        if handle is None:
            raise VirtError(errno.EBADF, "not an open file")
        ready = handle.poll()
        if flags & p.FUSE_POLL_SCHEDULE_NOTIFY:
            handle.kh = PollId(kh)
            if stream is not None:
                stream.waiters.polls[PollId(kh)] = stream
                stream.waiters.serve = self._serve
                stream.waiters.started()
        self._answer(unique, p.fuse_poll_out.pack(ready, 0))
        return stream is not None

    def _notify(self, kh: PollId) -> None:
        size = p.REPLY + p.fuse_notify_poll_wakeup_out.size
        self._emit(p.fuse_out_header.pack(size, p.FUSE_NOTIFY_POLL, 0) + p.fuse_notify_poll_wakeup_out.pack(kh))

    async def texts_changed(self) -> None:
        """Wake who polls a text that is another now. Others have their turn in between."""
        for handle in list(self._handles.texts.values()):
            if handle.kh is not None and self._ready(handle) & select.POLLPRI:
                self._notify(handle.kh)
                handle.kh = None
                await trio.lowlevel.checkpoint()

    def _ioctl(self, unique: Unique, fh: HandleId, length: int) -> bool:
        handle = self._stream(fh, length, p.fuse_ioctl_in)
        _, _, command, _, _, out_size = p.fuse_ioctl_in.unpack_from(self._in, p.BODY)
        argument = bytes(self._data[p.BODY + p.fuse_ioctl_in.size : length])
        answer = handle.ioctl(command, argument)[:out_size]
        self._answer(unique, p.fuse_ioctl_out.pack(0, 0, 0, 0) + answer)
        return True

    def _flush(self, unique: Unique, fh: HandleId, length: int) -> bool:
        self._answer(unique)
        return fh in self._handles.streams

    def _release(self, unique: Unique, fh: HandleId, length: int) -> bool:
        handle = self._handles.streams.pop(fh)
        if handle.kh is not None:
            handle.waiters.polls.pop(handle.kh, None)
        handle.release()
        self._answer(unique)
        return True

    def _refused(self, error: int) -> Callable[[Unique, HandleId, int], bool]:
        def refuse(unique: Unique, fh: HandleId, length: int) -> bool:
            self._fail(unique, error)
            return True

        return refuse

    # The slow plane

    def _negotiate(self, unique: Unique, length: int) -> None:
        """FUSE_INIT on its way in: refuse an older protocol, offer no splicing, which the pair cannot do."""
        if length < p.BODY + p.fuse_init_in.size:
            raise VirtError(errno.EPROTO, "FUSE_INIT cut short")
        major, minor, readahead, flags = p.fuse_init_in.unpack_from(self._in, p.BODY)
        if (major, minor) < (p.MAJOR, p.OLDEST_MINOR):
            self._fail(unique, errno.EPROTO)
            raise ProtocolTooOld(
                errno.EPROTO,
                f"this kernel speaks FUSE {major}.{minor}; {p.MAJOR}.{p.OLDEST_MINOR} (Linux 5.15) is needed",
            )
        flags &= ~(p.FUSE_SPLICE_READ | p.FUSE_SPLICE_WRITE | p.FUSE_SPLICE_MOVE)
        p.fuse_init_in.pack_into(self._in, p.BODY, major, minor, readahead, flags)
        self._init = unique

    def _negotiated(self, reply: bytearray) -> None:
        """libfuse's answer to FUSE_INIT on its way out: writes as large as the kernel makes them."""
        if len(reply) >= p.REPLY + p.fuse_init_out.size:
            fields = list(p.fuse_init_out.unpack_from(reply, p.REPLY))
            fields[3] |= p.FUSE_MAX_PAGES
            fields[6], fields[8] = p.MAX_WRITE, p.PAGES
            p.fuse_init_out.pack_into(reply, p.REPLY, *fields)
        self._init = None

    def _send_on(self, opcode: int, fh: HandleId, length: int) -> None:
        if length > self._longest or (opcode == p.FUSE_WRITE and length > p.DATA + p.MAX_WRITE - 4096):
            # A write(2) of more than 1 MiB comes in pieces of this size, by the kernel's cut, page by page.
            refusal = VirtError(errno.E2BIG, "more than 1 MiB in one write")
            if (handle := self._handles.texts.get(fh)) is not None:
                handle.refused(refusal)
            raise refusal
        if opcode in (p.FUSE_READ, p.FUSE_READDIR, p.FUSE_READDIRPLUS) and length >= p.DATA:
            fields = list(p.fuse_read_in.unpack_from(self._in, p.BODY))
            fields[2] = min(fields[2], SLOW_REPLY)
            p.fuse_read_in.pack_into(self._in, p.BODY, *fields)
        self._slow.append(bytes(self._data[:length]))
        self._more.set()

    async def requests(self) -> None:
        """Hand requests to libfuse as fast as it takes them."""
        while True:
            await self._more.wait()
            while self._slow:
                await self._pair.send(self._slow.popleft())
            self._more = trio.Event()

    async def replies(self) -> None:
        """Hand libfuse's answers to the kernel. Ends when libfuse has closed its end."""
        buffer = bytearray(p.LONGEST_REQUEST)
        view = memoryview(buffer)
        while length := await self._pair.recv_into(buffer):
            _, _, unique = p.fuse_out_header.unpack_from(buffer)
            if self._init is not None and unique == self._init:
                reply = bytearray(view[:length])
                self._negotiated(reply)
                self._emit(memoryview(reply))
                self.answers.set()
            else:
                self._emit(view[:length])

    # The end

    def end(self) -> None:
        """Answer every waiting read with ENXIO, and let go of every open stream."""
        for unique, waiters in self._parked.items():
            waiters.reads.pop(unique, None)
            waiters.writes.pop(unique, None)
            self._fail(unique, errno.ENXIO)
        self._parked.clear()
        for handle in self._handles.streams.values():
            if handle.kh is not None:
                self._notify(handle.kh)


class ProtocolTooOld(VirtError):
    """The kernel's FUSE is too old to serve; ends the mount."""
