"""The channel: one trio task between /dev/fuse and the two planes.

A request for an open stream is answered here, in the wire protocol; any other goes on unchanged, through a
SOCK_SEQPACKET pair, to libfuse in `namespace`, whose answers come back the same way. See doc/design.md for why.

A wake-up through epoll is what makes FUSE slow, so while requests come in quick succession the channel does not wait:
it gives the processor away (sched_yield, so that a client on the same one can run) and looks again, LOOKS times,
before it asks trio. Others run meanwhile, so it is by the clock that the other tasks have their TURN.
"""

import errno
import logging
import os
import select
import struct
from collections.abc import Awaitable, Callable
from time import monotonic_ns

import trio

from virtfs.core.errors import VirtError, refused
from virtfs.core.ids import Gid, Uid, User
from virtfs.files.device import DeviceFile, DeviceHandle, FixedHandle, ParkedRead, PollId, Unique
from virtfs.fuse import protocol as p
from virtfs.fuse.answers import Answers
from virtfs.fuse.numbers import HandleId, Handles, Inodes
from virtfs.fuse.pair import Pair, ProtocolTooOld
from virtfs.fuse.pieces import write_piece
from virtfs.fuse.waiting import Waiting, ready
from virtfs.host.processes import process_of

log = logging.getLogger(__name__)

LOOKS = 50
TURN = 2_000_000  # ns
LARGE = 32768  # bytes of a request that takes long enough for others to have their turn after it
# Nothing is written behind, so closing has nothing to flush. Linux before 5.16 asks nevertheless.
FIXED_FLAGS = p.FOPEN_DIRECT_IO | p.FOPEN_NOFLUSH
STREAM_FLAGS = p.FOPEN_DIRECT_IO | p.FOPEN_NONSEEKABLE | p.FOPEN_STREAM | p.FOPEN_NOFLUSH
# Answered here for text files too: their ENOSYS, libfuse's answer, would hold for the streams as well.
EVERYBODYS = frozenset((p.FUSE_POLL, p.FUSE_FLUSH, p.FUSE_COPY_FILE_RANGE))


class Channel:
    """Serves one FUSE connection.

    fuse: the descriptor of /dev/fuse, non-blocking. pair: our end of the pair, whose other is libfuse's.
    longest: the largest message, in bytes, that the pair takes. report: told why an open or a write was refused.
    """

    def __init__(
        self,
        fuse: int,
        pair: trio.socket.SocketType,
        longest: int,
        inodes: Inodes,
        handles: Handles,
        report: Callable[[VirtError, User], None],
    ) -> None:
        self._fuse = fuse
        self._answers = Answers(fuse)
        self._waiting = Waiting(self._answers)
        self.pair = Pair(pair, longest, self._answers)
        self._inodes = inodes
        self._handles = handles
        self._report = report
        self._in = bytearray(p.LONGEST_REQUEST)
        self._data = memoryview(self._in)
        self._out = bytearray(p.LONGEST_REQUEST)
        self._reply = memoryview(self._out)
        # What is done here and not by libfuse; the body begins at p.BODY, its length is given.
        self._own: dict[int, Callable[[Unique, HandleId, int], bool]] = {
            p.FUSE_READ: self._read_at,  # the loop takes every whole one of a live stream
            p.FUSE_WRITE: self._refused(errno.EINVAL),
            p.FUSE_RELEASE: self._release,
            p.FUSE_FLUSH: self._flush,
            p.FUSE_FSYNC: self._refused(errno.EINVAL),  # as on a character device
            p.FUSE_IOCTL: self._ioctl,
            p.FUSE_POLL: self._poll,
            p.FUSE_FALLOCATE: self._refused(errno.EOPNOTSUPP),
            p.FUSE_LSEEK: self._seek,
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
            self._answers.device.readinto,
            self._answers.device.write,
            os.sched_yield,
            p.request_head.unpack_from,
        )
        written, head, out, reply = p.written_reply.pack, p.fuse_out_header.pack_into, self._out, self._reply
        WRITE, READ, DATA, HEAD, NONBLOCK = p.FUSE_WRITE, p.FUSE_READ, p.DATA, p.REPLY, os.O_NONBLOCK
        DIRECT = p.FUSE_READ_LOCKOWNER
        looks = 0
        clock, turn = monotonic_ns, 0
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
                if not looks:
                    await trio.lowlevel.wait_readable(self._fuse)
                elif clock() < turn:
                    looks -= 1
                    look_again()
                    continue
                else:
                    await trio.lowlevel.checkpoint()
                turn = clock() + TURN
                continue
            opcode, unique, thread, fh, offset, size, how, flags = unpack(data)
            hot = True
            try:
                if opcode == WRITE and length == DATA + size and fh in streams:
                    handle = streams[fh]
                    if offset or size >= handle.whole.get(thread, 0):
                        taken = self._write_piece(handle, thread, offset, flags, data[DATA:length])
                    else:
                        taken = handle.write(data[DATA:length])
                    if taken is not None:
                        write(written(24, 0, unique, taken, 0))
                    else:
                        self._waiting.park_write(unique, handle, flags)
                elif opcode == READ and length == DATA and how & DIRECT and fh in streams:
                    handle = streams[fh]
                    taken = handle.read_on(reply, size, offset) if offset else handle.read(reply, size)
                    if taken is not None:
                        handle.reads += 1
                        if taken == size:
                            handle.filled(offset + size)
                        taken += HEAD
                        head(out, 0, taken, 0, unique)
                        write(reply[:taken])
                    elif flags & NONBLOCK and not handle.soon():
                        self._answers.fail(unique, errno.EAGAIN)
                    else:
                        self._waiting.park(unique, ParkedRead(handle, size, offset, thread))
                else:
                    hot = self._other(opcode, unique, fh, length)
            except ProtocolTooOld:
                raise
            except OSError as error:
                self._answers.fail(unique, error.errno or errno.EIO)
            except MemoryError:
                self._answers.fail(unique, errno.ENOMEM)
            except Exception:
                log.exception("request %d of opcode %d failed", unique, opcode)
                self._answers.fail(unique, errno.EIO)
            if clock() >= turn or length > LARGE:
                await trio.lowlevel.checkpoint()
                turn = clock() + TURN
            elif hot:
                looks = LOOKS
                look_again()

    def _other(self, opcode: int, unique: Unique, fh: HandleId, length: int) -> bool:
        """Answer any other request or send it on. True: it was a stream's, another may follow at once."""
        if length < p.BODY:
            raise VirtError(errno.EINVAL, "a message shorter than its header")
        own = self._own.get(opcode)
        if own is not None:
            if length < p.BODY + p.fuse_fh.size:
                raise VirtError(errno.EINVAL, "a message without its handle")
            if fh in self._handles.streams or fh in self._handles.fixed or opcode in EVERYBODYS:
                return own(unique, fh, length)
            if opcode == p.FUSE_READ and length == p.DATA and self._cached(unique, fh):
                return False
        elif opcode == p.FUSE_OPEN:
            node = self._inodes.node(p.fuse_in_header.unpack_from(self._in)[3])
            if isinstance(node, DeviceFile):
                return self._open(node, unique, length)
            if node is None:
                raise VirtError(errno.ENXIO, "a file that is gone")
        elif opcode == p.FUSE_INTERRUPT:
            if length < p.BODY + p.fuse_interrupt_in.size:
                raise VirtError(errno.EINVAL, "a message cut short")
            self._waiting.interrupt(*p.fuse_interrupt_in.unpack_from(self._in, p.BODY))
            return False
        elif opcode in (p.FUSE_FORGET, p.FUSE_BATCH_FORGET):
            return False  # see numbers
        elif opcode == p.FUSE_INIT:
            self.pair.negotiate(unique, self._data[:length])
        try:
            self.pair.send_on(opcode, self._data[:length])
        except VirtError as refusal:
            if (text := self._handles.texts.get(fh)) is not None:
                text.refused(refusal)
            raise
        return False

    # Streams

    def _stream(self, fh: HandleId, length: int, layout: struct.Struct) -> DeviceHandle:
        if length < p.BODY + layout.size:
            raise VirtError(errno.EINVAL, "a message cut short")
        return self._handles.streams.get(fh) or self._handles.fixed[fh]

    def _user(self) -> User:
        _, _, _, _, uid, gid, pid, _, _ = p.fuse_in_header.unpack_from(self._in)
        return User(Uid(uid), Gid(gid), process_of(pid))

    def _open(self, node: DeviceFile, unique: Unique, length: int) -> bool:
        if length < p.BODY + p.fuse_open_in.size:
            raise VirtError(errno.EINVAL, "a message cut short")
        flags, _ = p.fuse_open_in.unpack_from(self._in, p.BODY)
        user = self._user()
        try:
            opened = node.admit(flags, user)
            if isinstance(opened, DeviceHandle):
                self._opened(unique, opened)
            else:
                self._tasks.start_soon(self._open_later, unique, opened, user)
        except (OSError, MemoryError) as failure:
            refusal = refused(failure)
            self._report(refusal, user)
            raise refusal from failure
        return True

    def _opened(self, unique: Unique, handle: DeviceHandle) -> None:
        try:
            fh = self._handles.add_stream(handle)
        except VirtError:
            handle.release()
            raise
        flags = STREAM_FLAGS
        if isinstance(handle, FixedHandle):
            flags = FIXED_FLAGS
            self.grow(self._inodes.number(handle.stream), handle.length())
        self._answers.answer(unique, p.fuse_open_out.pack(fh, flags, 0))

    async def _open_later(self, unique: Unique, opening: Awaitable[DeviceHandle], user: User) -> None:
        try:
            self._opened(unique, await opening)
        except (OSError, MemoryError) as failure:
            refusal = refused(failure)
            self._report(refusal, user)
            self._answers.fail(unique, refusal.errno)
        except Exception:
            log.exception("open %d failed", unique)
            self._answers.fail(unique, errno.EIO)

    def grow(self, inode: int, size: int) -> None:
        """Tell the kernel that a file has at least so many bytes, before its open is answered."""
        self._answers.grow(inode, size)

    def _read_at(self, unique: Unique, fh: HandleId, length: int) -> bool:
        """A READ of a file that can be seeked, or for the page cache.

        The page cache is shared by all opens, of which each has bytes of its own: EINVAL, on which programs read(2).
        """
        handle = self._handles.fixed.get(fh)
        if length != p.DATA or handle is None:
            raise VirtError(errno.EINVAL, "only read(2) reads a stream")
        _, offset, size, how, _, _, _ = p.fuse_read_in.unpack_from(self._in, p.BODY)
        if not how & p.FUSE_READ_LOCKOWNER:
            raise VirtError(errno.EINVAL, "this file is not the same for each open")
        end = p.REPLY
        for piece in handle.read_at(offset, min(size, p.MAX_WRITE)):
            self._reply[end : end + len(piece)] = piece
            end += len(piece)
        handle.reads += 1
        p.fuse_out_header.pack_into(self._out, 0, end, 0, unique)
        self._answers.emit(self._reply[:end])
        return True

    def _cached(self, unique: Unique, fh: HandleId) -> bool:
        """Fill the page cache with a text. False: another READ.

        Here, for the answer must not be cut as one of the slow plane: the kernel takes a short one for the file's end
        (fs/fuse/file.c fuse_short_read).
        """
        _, offset, size, how, _, _, _ = p.fuse_read_in.unpack_from(self._in, p.BODY)
        text = self._handles.texts.get(fh)
        if text is None or how & p.FUSE_READ_LOCKOWNER:
            return False
        self._answers.answer(unique, text.cached(offset, size))
        return True

    def _seek(self, unique: Unique, fh: HandleId, length: int) -> bool:
        """SEEK_DATA and SEEK_HOLE, the only ones that the kernel does not answer itself: one piece without holes."""
        if length < p.BODY + p.fuse_lseek_in.size:
            raise VirtError(errno.EINVAL, "a message cut short")
        _, offset, whence, _ = p.fuse_lseek_in.unpack_from(self._in, p.BODY)
        handle = self._handles.fixed.get(fh)
        if handle is None:
            raise VirtError(errno.ESPIPE, "a stream has no position")
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise VirtError(errno.EINVAL, "neither SEEK_DATA nor SEEK_HOLE")
        if offset >= handle.length():
            raise VirtError(errno.ENXIO, "beyond the end")
        self._answers.answer(unique, p.fuse_lseek_out.pack(handle.length() if whence == os.SEEK_HOLE else offset))
        return True

    def _write_piece(self, handle: DeviceHandle, thread: int, offset: int, flags: int, data: memoryview) -> int | None:
        try:
            return write_piece(handle, thread, offset, flags, data)
        except VirtError as refusal:
            if refusal.errno == errno.EFBIG:
                self._report(refusal, handle.user)
            raise

    def _poll(self, unique: Unique, fh: HandleId, length: int) -> bool:
        if length < p.BODY + p.fuse_poll_in.size:
            raise VirtError(errno.EINVAL, "a message cut short")
        _, kh, flags, _ = p.fuse_poll_in.unpack_from(self._in, p.BODY)
        stream = self._handles.streams.get(fh)
        handle = stream or self._handles.fixed.get(fh) or self._handles.texts.get(fh)
        if handle is None:
            raise VirtError(errno.EBADF, "not an open file")
        revents = handle.poll()
        if flags & p.FUSE_POLL_SCHEDULE_NOTIFY:
            handle.kh = PollId(kh)
            if stream is not None:
                stream.told = revents
                stream.waiters.park_poll(PollId(kh), stream, self._waiting)
                stream.waiters.started()
        self._answers.answer(unique, p.fuse_poll_out.pack(revents, 0))
        return stream is not None

    async def texts_changed(self) -> None:
        """Wake who polls a text that is another now. Others have their turn in between."""
        for handle in list(self._handles.texts.values()):
            if handle.kh is not None:
                await trio.lowlevel.checkpoint()
                if handle.kh is not None and ready(handle) & select.POLLPRI:
                    self._answers.notify(handle.kh)
                    handle.kh = None

    def _ioctl(self, unique: Unique, fh: HandleId, length: int) -> bool:
        handle = self._stream(fh, length, p.fuse_ioctl_in)
        _, _, command, _, _, out_size = p.fuse_ioctl_in.unpack_from(self._in, p.BODY)
        argument = bytes(self._data[p.BODY + p.fuse_ioctl_in.size : length])
        answer = handle.ioctl(command, argument)[:out_size]
        self._answers.answer(unique, p.fuse_ioctl_out.pack(0, 0, 0, 0) + answer)
        return True

    def _flush(self, unique: Unique, fh: HandleId, length: int) -> bool:
        self._answers.answer(unique)
        return fh in self._handles.streams

    def _release(self, unique: Unique, fh: HandleId, length: int) -> bool:
        handle = self._handles.remove_stream(fh)
        if handle.kh is not None:
            handle.waiters.polls.pop(handle.kh, None)
        handle.release()
        self._answers.answer(unique)
        return True

    def _refused(self, error: int) -> Callable[[Unique, HandleId, int], bool]:
        def refuse(unique: Unique, fh: HandleId, length: int) -> bool:
            self._answers.fail(unique, error)
            return True

        return refuse

    # The end

    def end(self) -> None:
        """Answer whoever waits with ENXIO, and wake every poll."""
        self._waiting.end()
        for handle in self._handles.streams.values():
            if handle.kh is not None:
                self._answers.notify(handle.kh)
