"""The channel: one trio task between /dev/fuse and the two planes.

The channel answers requests on open device files itself, in the wire protocol. It forwards nearly all other requests
through a SOCK_SEQPACKET pair to libfuse in `names`, and forwards the answers back. doc/design.md explains why.

A wake-up through epoll(7) dominates the latency of FUSE. So after a request on a device file the channel polls
/dev/fuse up to LOOKS times before it waits in trio. Between two polls it calls sched_yield(2), so that a client on the
same processor can run. A client may run for any length of time, so there is no upper bound on how long LOOKS polls
take. Therefore the channel uses the clock to decide when to yield to other trio tasks. It yields at least every TURN
nanoseconds.
"""

import errno
import logging
import os
import select
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic_ns

import trio

from virtfs.core.errors import VirtError, refused
from virtfs.core.ids import Gid, Uid, User
from virtfs.files.device import DeviceFile, DeviceHandle, FixedHandle, ParkedRead, PollId, Unique
from virtfs.forward.tasks import Start
from virtfs.fuse import protocol as p
from virtfs.fuse.answers import Answers
from virtfs.fuse.inodes_handles import HandleId, Handles, Inodes
from virtfs.fuse.libfuse_pair import Pair, ProtocolTooOld
from virtfs.fuse.parked import Waiting, ready
from virtfs.fuse.split_calls import write_piece
from virtfs.fuse.trace import device_of
from virtfs.host.processes import process_of

log = logging.getLogger(__name__)

LOOKS = 50  # maximum number of polls of /dev/fuse before waiting
TURN = 2_000_000  # maximum time in ns that the channel polls and answers before it yields to other tasks
LARGE = 32768  # bytes; after a larger request the channel yields to other tasks at once
# FOPEN_NOFLUSH: there is no write-back, so close(2) has nothing to flush. Linux before 5.16 sends FLUSH anyway.
FIXED_FLAGS = p.FOPEN_DIRECT_IO | p.FOPEN_NOFLUSH
DEVICE_FLAGS = p.FOPEN_DIRECT_IO | p.FOPEN_NONSEEKABLE | p.FOPEN_STREAM | p.FOPEN_NOFLUSH
# Opcodes that the channel answers for text files too. libfuse would answer ENOSYS, and the kernel would then stop
# sending the opcode for any file of the connection.
FOR_ALL_FILES = frozenset((p.FUSE_POLL, p.FUSE_FLUSH, p.FUSE_COPY_FILE_RANGE))

TOO_SHORT = "the request is too short for its opcode"


class Channel:
    """The server of one FUSE connection.

    fuse: the non-blocking descriptor of /dev/fuse. pair: the channel's end of the socket pair; libfuse has the other
    end. The caller closes fuse and pair. longest: the size of the largest message that the pair carries, in bytes.
    report: called with the error and the user when an open fails or a write is too long.
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
        self._answers = Answers(device_of(fuse, inodes))
        self._waiting = Waiting(self._answers, handles.memory)
        self.pair = Pair(pair, longest, self._answers, handles.memory)
        self._inodes = inodes
        self._handles = handles
        self._report = report
        self._in = bytearray(p.LONGEST_REQUEST)
        self._data = memoryview(self._in)
        self._out = bytearray(p.LONGEST_REQUEST)
        self._reply = memoryview(self._out)
        # Opcodes that the channel answers itself. Each function takes unique, fh, and the length of the message in
        # self._in. It returns whether another request is likely to follow immediately.
        self._own: dict[int, Callable[[Unique, HandleId, int], bool]] = {
            p.FUSE_READ: self._read_at,  # only for fixed files; `run` answers the READs of other device files
            p.FUSE_WRITE: self._refused(errno.EINVAL),
            p.FUSE_RELEASE: self._release,
            p.FUSE_FLUSH: self._flush,
            p.FUSE_FSYNC: self._refused(errno.EINVAL),  # fsync(2) also fails with EINVAL on a character device
            p.FUSE_IOCTL: self._ioctl,
            p.FUSE_POLL: self._poll,
            p.FUSE_FALLOCATE: self._refused(errno.EOPNOTSUPP),
            p.FUSE_LSEEK: self._seek,
            # After EOPNOTSUPP or EXDEV the kernel itself would copy, by splicing. After EINVAL, cat and cp fall back to
            # read(2) and write(2).
            p.FUSE_COPY_FILE_RANGE: self._refused(errno.EINVAL),
        }

    # Requests

    async def run(self, start: Start) -> None:
        """Answer requests until the kernel ends the connection.

        start: starts a task for an open that has to wait. ProtocolTooOld: the kernel is too old.
        After any other exception, `run` can be called again.

        READ and WRITE of device files are nearly all of the traffic. They are handled inline, because a function call
        costs a measurable part of the 5 µs that a frame takes.
        """
        self._start = start
        data, devices = self._data, self._handles.devices
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
                if error.errno in (errno.ENOENT, errno.EINTR):  # the request was aborted
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
                if opcode == WRITE and length == DATA + size and fh in devices:
                    handle = devices[fh]
                    if offset or size >= handle.whole.get(thread, 0):
                        taken = self._write_piece(handle, thread, offset, flags, data[DATA:length])
                    else:
                        taken = handle.write(data[DATA:length])
                    if taken is not None:
                        write(written(24, 0, unique, taken, 0))
                    else:
                        self._waiting.park_write(unique, handle, flags)
                elif opcode == READ and length == DATA and how & DIRECT and fh in devices:
                    handle = devices[fh]
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
                log.exception("request %d (opcode %d) failed", unique, opcode)
                self._answers.fail(unique, errno.EIO)
            if clock() >= turn or length > LARGE:
                await trio.lowlevel.checkpoint()
                turn = clock() + TURN
            elif hot:
                looks = LOOKS
                look_again()

    def _other(self, opcode: int, unique: Unique, fh: HandleId, length: int) -> bool:
        """Answer or forward a request that `run` does not answer inline.

        Return whether another request is likely to follow immediately.
        """
        if length < p.BODY:
            raise VirtError(errno.EINVAL, "the request is shorter than a fuse_in_header")
        own = self._own.get(opcode)
        if own is not None:
            if length < p.BODY + p.fuse_fh.size:
                raise VirtError(errno.EINVAL, "the request is too short for a file handle")
            if fh in self._handles.devices or fh in self._handles.fixed or opcode in FOR_ALL_FILES:
                return own(unique, fh, length)
            if opcode == p.FUSE_READ and length == p.DATA and self._cached(unique, fh):
                return False
        elif opcode == p.FUSE_OPEN:
            node = self._inodes.node(p.fuse_in_header.unpack_from(self._in)[3])
            if isinstance(node, DeviceFile):
                return self._open(node, unique, length)
            if node is None:
                raise VirtError(errno.ENXIO, "the file has been removed")
        elif opcode == p.FUSE_INTERRUPT:
            if length < p.BODY + p.fuse_interrupt_in.size:
                raise VirtError(errno.EINVAL, TOO_SHORT)
            self._waiting.interrupt(*p.fuse_interrupt_in.unpack_from(self._in, p.BODY))
            return False
        elif opcode in (p.FUSE_FORGET, p.FUSE_BATCH_FORGET):
            return False  # inodes_handles does not need the kernel's lookup counts
        elif opcode == p.FUSE_INIT:
            self.pair.negotiate(unique, self._data[:length])
        try:
            self.pair.forward(opcode, self._data[:length])
        except VirtError as refusal:
            if (text := self._handles.texts.get(fh)) is not None:
                text.refused(refusal)
            raise
        return False

    # Device files

    def _device(self, fh: HandleId, length: int, layout: struct.Struct) -> DeviceHandle:
        if length < p.BODY + layout.size:
            raise VirtError(errno.EINVAL, TOO_SHORT)
        return self._handles.devices.get(fh) or self._handles.fixed[fh]

    def _user(self) -> User:
        _, _, _, _, uid, gid, pid, _, _ = p.fuse_in_header.unpack_from(self._in)
        return User(Uid(uid), Gid(gid), process_of(pid))

    def _open(self, node: DeviceFile, unique: Unique, length: int) -> bool:
        if length < p.BODY + p.fuse_open_in.size:
            raise VirtError(errno.EINVAL, TOO_SHORT)
        flags, _ = p.fuse_open_in.unpack_from(self._in, p.BODY)
        user = self._user()
        try:
            self._handles.begin(user)
            try:
                opened = node.admit(flags, user)
                if isinstance(opened, DeviceHandle):
                    self._opened(unique, opened)
                else:
                    work = partial(self._open_later, unique, opened, user)
                    self._start(work, name=f"opening {node.label}")
            except BaseException:
                self._handles.closed(user)
                raise
        except (OSError, MemoryError) as failure:
            refusal = refused(failure)
            self._report(refusal, user)
            raise refusal from failure
        return True

    def _opened(self, unique: Unique, handle: DeviceHandle) -> None:
        fh = self._handles.add_device(handle)
        flags = DEVICE_FLAGS
        if isinstance(handle, FixedHandle):
            flags = FIXED_FLAGS
            self.grow(self._inodes.number(handle.node), handle.length())
        self._answers.answer(unique, p.fuse_open_out.pack(fh, flags, 0))

    async def _open_later(self, unique: Unique, opening: Awaitable[DeviceHandle], user: User) -> None:
        try:
            handle = await opening
        except (OSError, MemoryError) as failure:
            self._handles.closed(user)
            refusal = refused(failure)
            self._report(refusal, user)
            self._answers.fail(unique, refusal.errno)
        except Exception:
            self._handles.closed(user)
            log.exception("open (request %d) failed", unique)
            self._answers.fail(unique, errno.EIO)
        else:
            self._opened(unique, handle)

    def grow(self, inode: int, size: int) -> None:
        """Raise the size that the kernel has cached for an inode to at least `size` bytes; see Answers.grow()."""
        self._answers.grow(inode, size)

    def _read_at(self, unique: Unique, fh: HandleId, length: int) -> bool:
        """Answer a READ of a fixed file, that is, of a device file that can be read at any offset.

        Refuse a READ that would fill the page cache of a device file. All opens of a file share its page cache, but
        each open of a device file has content of its own. So such a READ fails with EINVAL, and programs fall back to
        read(2).
        """
        handle = self._handles.fixed.get(fh)
        if length != p.DATA or handle is None:
            raise VirtError(errno.EINVAL, "a device file has no page cache: use read(2)")
        _, offset, size, how, _, _, _ = p.fuse_read_in.unpack_from(self._in, p.BODY)
        if not how & p.FUSE_READ_LOCKOWNER:
            raise VirtError(errno.EINVAL, "each open has its own content, so the file cannot be cached: use read(2)")
        end = p.REPLY
        for piece in handle.read_at(offset, min(size, p.MAX_WRITE)):
            self._reply[end : end + len(piece)] = piece
            end += len(piece)
        handle.reads += 1
        p.fuse_out_header.pack_into(self._out, 0, end, 0, unique)
        self._answers.emit(self._reply[:end])
        return True

    def _cached(self, unique: Unique, fh: HandleId) -> bool:
        """Answer a READ that fills the page cache of a text file. Return False for any other READ.

        The slow plane cannot answer such a READ. It limits answers to SLOW_REPLY bytes, and the kernel treats a short
        answer as the end of the file (fs/fuse/file.c fuse_short_read).
        """
        _, offset, size, how, _, _, _ = p.fuse_read_in.unpack_from(self._in, p.BODY)
        text = self._handles.texts.get(fh)
        if text is None or how & p.FUSE_READ_LOCKOWNER:
            return False
        self._answers.answer(unique, text.cached(offset, size))
        return True

    def _seek(self, unique: Unique, fh: HandleId, length: int) -> bool:
        """Answer lseek(2) with SEEK_DATA or SEEK_HOLE in a file without holes. The kernel handles other seeks."""
        if length < p.BODY + p.fuse_lseek_in.size:
            raise VirtError(errno.EINVAL, TOO_SHORT)
        _, offset, whence, _ = p.fuse_lseek_in.unpack_from(self._in, p.BODY)
        handle = self._handles.fixed.get(fh)
        if handle is None:
            raise VirtError(errno.ESPIPE, "a device file has no position")
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise VirtError(errno.EINVAL, "lseek takes SEEK_DATA or SEEK_HOLE")
        if offset >= handle.length():
            raise VirtError(errno.ENXIO, "the offset is beyond the end of the file")
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
            raise VirtError(errno.EINVAL, TOO_SHORT)
        _, kh, flags, _ = p.fuse_poll_in.unpack_from(self._in, p.BODY)
        device = self._handles.devices.get(fh)
        handle = device or self._handles.fixed.get(fh) or self._handles.texts.get(fh)
        if handle is None:
            raise VirtError(errno.EBADF, "the file handle is not open")
        revents = handle.poll()
        if flags & p.FUSE_POLL_SCHEDULE_NOTIFY:
            handle.kh = PollId(kh)
            if device is not None:
                device.told = revents
                device.waiters.park_poll(PollId(kh), device, self._waiting)
                device.waiters.started()
        self._answers.answer(unique, p.fuse_poll_out.pack(revents, 0))
        return device is not None

    async def texts_changed(self) -> None:
        """Wake pollers of texts that have changed. Yield to other tasks between two texts."""
        for handle in list(self._handles.texts.values()):
            if handle.kh is not None:
                await trio.lowlevel.checkpoint()
                if handle.kh is not None and ready(handle) & select.POLLPRI:
                    self._answers.notify(handle.kh)
                    handle.kh = None

    def _ioctl(self, unique: Unique, fh: HandleId, length: int) -> bool:
        handle = self._device(fh, length, p.fuse_ioctl_in)
        _, _, command, _, _, out_size = p.fuse_ioctl_in.unpack_from(self._in, p.BODY)
        argument = bytes(self._data[p.BODY + p.fuse_ioctl_in.size : length])
        answer = handle.ioctl(command, argument)[:out_size]
        self._answers.answer(unique, p.fuse_ioctl_out.pack(0, 0, 0, 0) + answer)
        return True

    def _flush(self, unique: Unique, fh: HandleId, length: int) -> bool:
        self._answers.answer(unique)
        return fh in self._handles.devices

    def _release(self, unique: Unique, fh: HandleId, length: int) -> bool:
        handle = self._handles.remove_device(fh)
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
        """Answer every waiting read and write with ENXIO, and wake every poller."""
        self._waiting.end()
        for handle in self._handles.devices.values():
            if handle.kh is not None:
                self._answers.notify(handle.kh)
