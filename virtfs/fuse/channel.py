"""The channel: one trio task between /dev/fuse and the two planes; see doc/design.md.

The channel answers requests on open device files itself, in the wire protocol. It forwards nearly all other requests
through a SOCK_SEQPACKET pair to libfuse in `names`, and forwards the answers back.

A wake-up through epoll(7) dominates the latency of FUSE. So after a request on a device file the channel polls
/dev/fuse up to LOOKS times before it waits in trio. Between two polls it calls sched_yield(2), so that a client on the
same processor can run. A client may run for any length of time, so there is no upper bound on how long LOOKS polls
take. Therefore the channel uses the clock to decide when to yield to other trio tasks. It yields at least every TURN
nanoseconds.
"""

import errno
import logging
import os
import struct
from collections.abc import Callable
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
from virtfs.fuse.later import Later
from virtfs.fuse.libfuse_pair import Pair, ProtocolTooOld
from virtfs.fuse.offsets import TOO_SHORT, Offsets
from virtfs.fuse.parked import Waiting
from virtfs.fuse.signals import ends_calls, until_it_ends
from virtfs.fuse.split_calls import write_piece
from virtfs.fuse.trace import device_of
from virtfs.fuse.turns import NOBODY, Turns
from virtfs.host.processes import process_of

log = logging.getLogger(__name__)

LOOKS = 50  # maximum number of polls of /dev/fuse before waiting
TURN = 2_000_000  # maximum time in ns that the channel polls and answers before it yields to other tasks
CROWDED_TURN = 100_000  # replaces TURN while there are several users and other tasks work on a request
LARGE = 32768  # bytes; after a larger request the channel yields to other tasks at once
# FOPEN_NOFLUSH: there is no write-back, so close(2) has nothing to flush. Linux before 5.16 sends FLUSH anyway.
DEVICE_FLAGS = p.FOPEN_DIRECT_IO | p.FOPEN_NONSEEKABLE | p.FOPEN_STREAM | p.FOPEN_NOFLUSH
# Opcodes that the channel answers for text files too. libfuse would answer ENOSYS, and the kernel would then stop
# sending the opcode for any file of the connection.
FOR_ALL_FILES = frozenset((p.FUSE_POLL, p.FUSE_FLUSH, p.FUSE_COPY_FILE_RANGE))


class Channel:
    """The server of one FUSE connection.

    fuse: the non-blocking descriptor of /dev/fuse. pair: the channel's end of the socket pair; libfuse has the other
    end. The caller closes fuse and pair. longest: the size of the largest message that the pair carries, in bytes.
    report: called with the error and the user when an open fails or a write is too long. answers: sends messages to the
    kernel.
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
        self.answers = Answers(device_of(fuse, inodes))
        self._turns = Turns(handles, self.answers.fail)
        self._waiting = Waiting(self.answers, self._turns, handles.memory)
        self._later = Later(self.answers, handles, report, self._turns)
        self.pair = Pair(pair, longest, self.answers, self._turns, handles.memory)
        self._offsets = Offsets(self.answers, handles)
        self._inodes = inodes
        self._handles = handles
        self._report = report
        self._room = memoryview(bytearray(p.LONGEST_REQUEST))
        self._data = self._room  # the request that is being answered: in _room, or in a queue of _turns
        self._out = bytearray(p.LONGEST_REQUEST)
        self._reply = memoryview(self._out)
        # Opcodes that the channel answers itself. Each function takes unique, fh, and the length of the message in
        # self._data. It returns whether another request is likely to follow immediately.
        self._own: dict[int, Callable[[Unique, HandleId, int], bool]] = {
            p.FUSE_READ: self._read_fixed,  # `run` answers the READs of other device files
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

        start: starts a task for an open that has to wait, or for a write to a text.
        ProtocolTooOld: the kernel is too old. After any other exception, `run` can be called again.

        READ and WRITE of device files are nearly all of the traffic. They are handled inline, because a function call
        costs a measurable part of the 5 µs that a frame takes.
        """
        self._start = start
        data = room = self._room
        devices, turns = self._handles.devices, self._turns
        read, write, look_again, unpack = (
            self.answers.device.readinto,
            self.answers.device.write,
            os.sched_yield,
            p.request_head.unpack_from,
        )
        written, head, out, reply = p.written_reply.pack, p.fuse_out_header.pack_into, self._out, self._reply
        WRITE, READ, DATA, HEAD, NONBLOCK = p.FUSE_WRITE, p.FUSE_READ, p.DATA, p.REPLY, os.O_NONBLOCK
        DIRECT = p.FUSE_READ_LOCKOWNER
        looks, alone = 0, NOBODY
        clock, turn, began = monotonic_ns, 0, 0
        while True:
            try:
                if turns.crowded:
                    data, length = turns.next(read, room)
                    self._data, began = data, clock()
                else:
                    length = read(room)
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.ECONNABORTED):  # unmounted, or aborted
                    return
                if error.errno in (errno.ENOENT, errno.EINTR):  # the request was aborted
                    continue
                raise
            except Exception:
                log.exception("sharing the server between users failed")
                turns.end_all(errno.EIO)
                continue
            if length is None:
                if turns.crowded and turns.waiting:
                    if turns.held and clock() < turn:
                        look_again()
                        continue
                    await self._proceed(began)
                elif not looks:
                    await turns.wait(self._fuse)
                elif clock() < turn:
                    looks -= 1
                    look_again()
                    continue
                else:
                    await trio.lowlevel.checkpoint()
                turn = clock() + TURN
                continue
            opcode, unique, uid, thread, fh, offset, size, how, flags = unpack(data)
            if uid != alone:
                if not turns.crowded:
                    turns.meet(uid, opcode)
                    began = clock()
                alone = turns.alone
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
                        self.answers.fail(unique, errno.EAGAIN)
                    else:
                        self._waiting.park(unique, ParkedRead(handle, size, offset, thread))
                else:
                    hot = self._other(opcode, unique, fh, length)
            except ProtocolTooOld:
                raise
            except OSError as error:
                self.answers.fail(unique, error.errno or errno.EIO)
            except MemoryError:
                self.answers.fail(unique, errno.ENOMEM)
            except Exception:
                log.exception("request %d (opcode %d) failed", unique, opcode)
                self.answers.fail(unique, errno.EIO)
            now = clock()
            if turns.crowded:
                turns.spent(now - began, now)
                if turns.elsewhere and now + TURN >= turn + CROWDED_TURN:
                    await self._let_others_work()
                    turn = clock() + TURN
            elif now >= turn or length > LARGE:
                await trio.lowlevel.checkpoint()
                turn = clock() + TURN
            elif hot:
                looks = LOOKS
                look_again()

    async def _proceed(self, began: int) -> None:
        """Continue the write or script whose turn it is, or wait until it is the turn of one.

        began: when the choice of the turn began, in ns.
        """
        if (continued := self._turns.continued()) is None:
            await self._turns.wait(self._fuse)
            return
        if isinstance(continued, trio.Event):
            continued.set()
        else:
            self._waiting.proceed(continued)
        now = monotonic_ns()
        self._turns.spent(now - began, now)
        await self._let_others_work()

    async def _let_others_work(self) -> None:
        """Let other tasks run, and charge the time to the users for whom they work."""
        began = monotonic_ns()
        await trio.lowlevel.checkpoint()
        self._turns.spent_elsewhere(monotonic_ns() - began)

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
            if (
                opcode == p.FUSE_READ
                and length == p.DATA
                and self._offsets.read_cached(unique, fh, self._data[:length])
            ):
                return False
            if opcode == p.FUSE_WRITE:
                thread = p.fuse_in_header.unpack_from(self._data)[6]
                self._later.begin_write(self._start, unique, thread, fh, self._data[p.DATA : length])
                return False
        elif opcode == p.FUSE_OPEN:
            node = self._inodes.node(p.fuse_in_header.unpack_from(self._data)[3])
            if isinstance(node, DeviceFile):
                return self._open(node, unique, length)
            if node is None:
                raise VirtError(errno.ENXIO, "the file has been removed")
        elif opcode == p.FUSE_INTERRUPT:
            if length < p.BODY + p.fuse_interrupt_in.size:
                raise VirtError(errno.EINVAL, TOO_SHORT)
            self._interrupt(*p.fuse_interrupt_in.unpack_from(self._data, p.BODY))
            return False
        elif opcode in (p.FUSE_FORGET, p.FUSE_BATCH_FORGET):
            return False  # inodes_handles does not need the kernel's lookup counts
        elif opcode == p.FUSE_INIT:
            self.pair.negotiate(unique, self._data[:length])
        self.pair.forward(opcode, self._data[:length])
        return False

    def _interrupt(self, unique: Unique) -> None:
        """End a request whose caller got a signal: one of a device file at once, another if the signal ends calls."""
        if (read := self._turns.interrupt(unique)) is not None:
            self._waiting.end_read(unique, read)
        self._waiting.interrupt(unique)
        thread = self._caller(unique)
        if thread is None:
            return
        if ends_calls(thread):
            self._cancel(unique)
        else:
            self._start(partial(self._cancel_later, unique, thread), name=f"checking the signals of thread {thread}")

    def _caller(self, unique: Unique) -> int | None:
        for requests in (self._turns, self._later, self.pair):
            if (thread := requests.caller(unique)) is not None:
                return thread
        return None

    async def _cancel_later(self, unique: Unique, thread: int) -> None:
        if await until_it_ends(thread, waits=lambda: self._caller(unique) is not None):
            self._cancel(unique)

    def _cancel(self, unique: Unique) -> None:
        self._turns.cancel(unique)
        if self._later.caller(unique) is not None:
            self._later.cancel(unique)
        elif self.pair.caller(unique) is not None:
            self.pair.interrupt(unique)

    # Device files

    def _device(self, fh: HandleId, length: int, layout: struct.Struct) -> DeviceHandle:
        if length < p.BODY + layout.size:
            raise VirtError(errno.EINVAL, TOO_SHORT)
        return self._handles.devices.get(fh) or self._handles.fixed[fh]

    def _user(self) -> User:
        _, _, _, _, uid, gid, pid, _, _ = p.fuse_in_header.unpack_from(self._data)
        return User(Uid(uid), Gid(gid), process_of(pid))

    def _open(self, node: DeviceFile, unique: Unique, length: int) -> bool:
        if length < p.BODY + p.fuse_open_in.size:
            raise VirtError(errno.EINVAL, TOO_SHORT)
        flags, _ = p.fuse_open_in.unpack_from(self._data, p.BODY)
        user, thread = self._user(), p.fuse_in_header.unpack_from(self._data)[6]
        try:
            self._handles.begin(user)
            try:
                opened = node.admit(flags, user)
                if isinstance(opened, DeviceHandle):
                    self._opened(unique, opened)
                else:
                    work = partial(self._later.open, unique, thread, opened, user, self._opened)
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
        if isinstance(handle, FixedHandle):
            inode = self._inodes.number(handle.node)
            self._start(partial(self._offsets.opened, unique, fh, inode), name=f"opening {handle.node.label}")
        else:
            self.answers.answer(unique, p.fuse_open_out.pack(fh, DEVICE_FLAGS, 0))

    def _read_fixed(self, unique: Unique, fh: HandleId, length: int) -> bool:
        self._offsets.read(unique, fh, self._data[:length])
        return True

    def _seek(self, unique: Unique, fh: HandleId, length: int) -> bool:
        self._offsets.seek(unique, fh, self._data[:length])
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
        _, kh, flags, _ = p.fuse_poll_in.unpack_from(self._data, p.BODY)
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
        self.answers.answer(unique, p.fuse_poll_out.pack(revents, 0))
        return device is not None

    def _ioctl(self, unique: Unique, fh: HandleId, length: int) -> bool:
        handle = self._device(fh, length, p.fuse_ioctl_in)
        _, _, command, _, _, out_size = p.fuse_ioctl_in.unpack_from(self._data, p.BODY)
        argument = bytes(self._data[p.BODY + p.fuse_ioctl_in.size : length])
        answer = handle.ioctl(command, argument)[:out_size]
        self.answers.answer(unique, p.fuse_ioctl_out.pack(0, 0, 0, 0) + answer)
        return True

    def _flush(self, unique: Unique, fh: HandleId, length: int) -> bool:
        self.answers.answer(unique)
        return fh in self._handles.devices

    def _release(self, unique: Unique, fh: HandleId, length: int) -> bool:
        handle = self._handles.remove_device(fh)
        if handle.kh is not None:
            handle.waiters.polls.pop(handle.kh, None)
        handle.release()
        self.answers.answer(unique)
        return True

    def _refused(self, error: int) -> Callable[[Unique, HandleId, int], bool]:
        def refuse(unique: Unique, fh: HandleId, length: int) -> bool:
            self.answers.fail(unique, error)
            return True

        return refuse

    # The end

    def end(self) -> None:
        """Answer every waiting read and write with ENXIO, and wake every poller."""
        self._turns.end_all(errno.ENXIO)
        self._waiting.end()
        self._later.end()
        for handle in self._handles.devices.values():
            if handle.kh is not None:
                self.answers.notify(handle.kh)
