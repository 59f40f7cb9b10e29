"""The channel: one trio task between /dev/fuse and the two planes; see doc/design.md.

The channel itself answers the requests that programs make often, in the wire protocol. `answerers` has the table. The
channel forwards all other requests through a SOCK_SEQPACKET pair to libfuse in `names`, and forwards the answers back.

A wake-up through epoll(7) dominates the latency of FUSE. So after it has answered a request, the channel polls
/dev/fuse up to LOOKS times before it waits in trio. After a poll that finds nothing it calls sched_yield(2), so that a
client on the same processor can run. Usually the answer itself has already made that client run (wakeup preemption,
kernel/sched/fair.c), and the first poll finds its next request. A client may run for any length of time, so there is no
upper bound on how long LOOKS polls take. Therefore the channel uses the clock to decide when to yield to other trio
tasks. It yields at least every TURN nanoseconds.
"""

import errno
import logging
import os
import select
from collections.abc import Callable
from functools import partial
from time import monotonic_ns

import trio

from virtfs.core.errors import VirtError, forget_frames
from virtfs.core.ids import User
from virtfs.files.device import DeviceHandle, ParkedRead, Unique
from virtfs.forward.tapwatch import TapWatch
from virtfs.forward.tasks import Start, Task
from virtfs.fuse import protocol as p
from virtfs.fuse.answerers import Answerers
from virtfs.fuse.answers import Answers
from virtfs.fuse.attributes import Attributes
from virtfs.fuse.devices import Devices
from virtfs.fuse.directories import Directories
from virtfs.fuse.idle import Idle
from virtfs.fuse.inodes_handles import HandleId, Handles, Inodes
from virtfs.fuse.later import Later, Reports
from virtfs.fuse.libfuse_pair import Pair, ProtocolTooOld
from virtfs.fuse.lookups import Lookups
from virtfs.fuse.loops import plain_loop
from virtfs.fuse.parked import Waiting
from virtfs.fuse.request import Request
from virtfs.fuse.signals import ends_calls, until_it_ends
from virtfs.fuse.split_calls import write_piece
from virtfs.fuse.texts import Texts
from virtfs.fuse.trace import device_of
from virtfs.fuse.turns import NOBODY, SHORT_TURN, Got, Turns

log = logging.getLogger(__name__)

LOOKS = 50  # maximum number of polls of /dev/fuse before waiting
# While another program computes on this processor, each sched_yield(2) costs a time slice. A program that sleeps is
# woken at once. So after a yield longer than LONG ns, do not poll for REST times its length.
LONG, REST = 200_000, 20
TURN = 2_000_000  # maximum time in ns that the channel polls and answers before it yields to other tasks
EACH = 32  # number of requests after which the channel looks at the taps of waiting readers
LARGE = 32768  # bytes; after a larger request the channel yields to other tasks at once


def _let_clients_run() -> int:
    """Call sched_yield(2). Return until when not to poll, in ns (monotonic_ns), or 0 to go on polling."""
    began = monotonic_ns()
    os.sched_yield()
    length = monotonic_ns() - began
    return began + (1 + REST) * length if length > LONG else 0


class Channel:
    """The server of one FUSE connection.

    fuse: the non-blocking descriptor of /dev/fuse.
    pair: the channel's end of the socket pair; libfuse has the other end. The caller closes fuse and pair.
    longest: the size of the largest message that the pair carries, in bytes.
    reports: applies the reports of the kernel before a request for a name, an attribute or a text is answered.
    report: called with the error and the user when an open or a readlink fails, a frame is refused or a write is too
    long.
    watch: its look() serves the readers of taps that have become readable.
    idle: lets the channel sleep outside trio. A test that runs in the same trio loop as the channel must pass None.
    answers: sends messages to the kernel.
    """

    def __init__(
        self,
        fuse: int,
        pair: trio.socket.SocketType,
        longest: int,
        inodes: Inodes,
        handles: Handles,
        reports: Reports,
        report: Callable[[VirtError, User], None],
        watch: TapWatch,
        idle: Idle | None = None,
    ) -> None:
        self._watch = watch
        self._idle = idle
        self._both = select.epoll(flags=select.EPOLL_CLOEXEC)  # /dev/fuse and the taps
        self._both.register(fuse, select.EPOLLIN)
        self._both.register(watch.fileno(), select.EPOLLIN)
        self._fuse = fuse
        self.answers = Answers(device_of(fuse, inodes))
        self._turns = Turns(handles, self.answers.fail)
        self._waiting = Waiting(self.answers, self._turns, handles.memory, self._start_task)
        self._later = Later(self.answers, handles, report, self._turns)
        self.pair = Pair(pair, longest, self.answers, self._turns, handles.memory)
        self.attributes = Attributes(inodes, self.answers)
        lookups = Lookups(self.answers, inodes, handles, self.attributes, reports, self._later, report)
        self._answerers = Answerers(
            self.answers,
            handles,
            Devices(self.answers, inodes, handles, self._waiting, self._later, report),
            Texts(self.answers, handles, self.attributes.lasting, reports, self._later, report),
            lookups,
            Directories(self.answers, inodes, handles, self.attributes, lookups, reports, report),
            self._later,
        )
        self._inodes = inodes
        self._handles = handles
        self._report = report
        room = bytearray(p.LONGEST_REQUEST)
        self._room = memoryview(room)
        self._data = self._room  # the request that is being answered: in _room, or in a queue of _turns
        self._out = bytearray(p.LONGEST_REQUEST)
        self._reply = memoryview(self._out)
        self._left = EACH  # as `left` in run(), while there are several users
        self._loop = None
        if (compiled := plain_loop()) is not None:
            self._loop = compiled(
                fuse, room, self._out, handles.devices, self.answers.fail, LARGE, LONG, REST, watch.due, EACH
            )

    # Requests

    async def run(self, start: Start) -> None:
        """Answer requests until the kernel ends the connection.

        start: starts a task for an open that has to wait, or for a write to a text.
        ProtocolTooOld: the kernel is too old. After any other exception, `run` can be called again.

        READ and WRITE of device files are nearly all of the traffic. They are handled inline, because a function call
        costs a measurable part of the 5 µs that a frame takes. While there is one user, the compiled loop (plainloop)
        answers those that it can, and returns any other request.
        """
        self._start = start
        self._later.begin_in(start)
        data = room = self._room
        devices, turns, slow = self._handles.devices, self._turns, self._answerers.slow
        read, write, unpack = self.answers.device.readinto, self.answers.device.write, p.request_head.unpack_from
        written, head, out, reply = p.written_reply.pack, p.fuse_out_header.pack_into, self._out, self._reply
        WRITE, READ, DATA, HEAD, NONBLOCK = p.FUSE_WRITE, p.FUSE_READ, p.DATA, p.REPLY, os.O_NONBLOCK
        DIRECT = p.FUSE_READ_LOCKOWNER
        looks, alone, contended = 0, NOBODY, 0
        clock, turn, began = monotonic_ns, 0, 0
        left, look_at_taps = EACH, self._watch.look
        answer_plain = self._loop.answer if self._loop is not None else None
        while True:
            if not left:
                left = EACH
                look_at_taps()
            try:
                if turns.crowded:
                    data, length = turns.next(self._read, room, slow, turn)
                    self._data, began = data, clock()
                elif answer_plain is None:
                    length = read(room)
                else:
                    length, looks, left = answer_plain(alone, looks, LOOKS, left, turn)
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.ECONNABORTED):  # unmounted, or aborted
                    return
                if error.errno in (errno.ENOENT, errno.EINTR):  # the request was aborted
                    continue
                raise
            except Exception:
                log.exception("cannot read the next request")
                turns.end_all(errno.EIO)
                continue
            if length is None:
                now = clock()
                if now < contended:
                    looks = 0
                if turns.crowded and turns.waiting:
                    if turns.held and contended <= now < turn:
                        contended = _let_clients_run()
                        continue
                    await self._proceed(began)
                elif not looks or (turns.crowded and turns.elsewhere):
                    await self._wait()
                elif now < turn:
                    looks -= 1
                    contended = _let_clients_run()
                    continue
                else:
                    await trio.lowlevel.checkpoint()
                if look_at_taps():
                    looks = LOOKS  # a reader that got a frame probably writes an answer soon
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
                if opcode == WRITE:
                    self._tell(fh, error)
                self.answers.fail(unique, error.errno or errno.EIO)
                forget_frames(error)
            except MemoryError:
                self.answers.fail(unique, errno.ENOMEM)
            except Exception:
                log.exception("request %d (opcode %d) failed", unique, opcode)
                self.answers.fail(unique, errno.EIO)
            left -= 1
            now = clock()
            if turns.crowded:
                turns.spent(now - began, now)
                if now >= (turn - TURN + SHORT_TURN if turns.elsewhere else turn):
                    await self._let_others_work()
                    turn = clock() + TURN
                looks = LOOKS if hot and answer_plain is None else 0  # the compiled loop polls by itself
            elif now >= turn or length > LARGE:
                await trio.lowlevel.checkpoint()
                turn = clock() + TURN
            elif hot:
                looks = LOOKS

    def _read(self, uid: int, polls: bool, until: int) -> Got:
        """Read a request; see turns.Read."""
        loop = self._loop
        if loop is None or uid == NOBODY:
            length = self.answers.device.readinto(self._room)
            return Got(length, empty=monotonic_ns() if length is None else 0)
        looks = LOOKS if polls else 0
        length, _, left = loop.answer(uid, looks, looks, self._left, until)
        self._left = left or EACH
        return Got(length, loop.requests, loop.spent, loop.ended, loop.empty)

    def _start_task(self, work: Task, /, *, name: str) -> None:
        self._start(work, name=name)

    async def _proceed(self, began: int) -> None:
        """Continue the write or script whose turn it is. If there is none, wait for an event.

        began: when Turns.next() returned, in ns (monotonic_ns).
        """
        if (continued := self._turns.continued()) is None:
            await self._wait()
            return
        if isinstance(continued, trio.Event):
            continued.set()  # the script's task works later, and spent_elsewhere() charges its time
        else:
            self._waiting.proceed(continued)
            now = monotonic_ns()
            self._turns.spent(now - began, now)
        await self._let_others_work()

    async def _wait(self) -> None:
        """Wait for a request, for a frame in a tap, or for another event that ends Turns.wait()."""
        if self._watch.more:
            await trio.lowlevel.checkpoint()
        elif self._turns.crowded or self._idle is None or not await self._idle.wait(self._both.fileno()):
            await self._turns.wait(self._both.fileno())

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
        if (answer := self._answerers.find(opcode, fh)) is not None:
            return answer(Request.parse(self._data[:length]))
        if opcode == p.FUSE_INTERRUPT:
            self._interrupt(*Request.parse(self._data[:length]).body(p.fuse_interrupt_in))
            return False
        if opcode in (p.FUSE_FORGET, p.FUSE_BATCH_FORGET):
            return False  # inodes_handles does not need the kernel's lookup counts
        if opcode == p.FUSE_INIT:
            self.pair.negotiate(unique, self._data[:length])
        self.pair.forward(opcode, self._data[:length])
        return False

    def _interrupt(self, unique: Unique) -> None:
        """End a request whose caller got a signal.

        A request on a device file ends at once. Any other request ends only if the signal ends calls (ends_calls).
        """
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

    def _write_piece(self, handle: DeviceHandle, thread: int, offset: int, flags: int, data: memoryview) -> int | None:
        try:
            return write_piece(handle, thread, offset, flags, data)
        except VirtError as refusal:
            if refusal.errno == errno.EFBIG and not handle.messages:
                self._report(refusal, handle.user)
            raise

    def _tell(self, fh: HandleId, error: OSError) -> None:
        """Report the refusal of a frame. Other files report their errors themselves, with the place in the data."""
        handle = self._handles.devices.get(fh)
        if handle is not None and handle.messages and isinstance(error, VirtError):
            self._report(handle.node.about(error), handle.user)

    # The end

    def end(self) -> None:
        """Answer every waiting read and write with ENXIO, and wake every poller."""
        self._turns.end_all(errno.ENXIO)
        self._waiting.end()
        self._later.end()
        for handle in self._handles.devices.values():
            if handle.kh is not None:
                self.answers.notify(handle.kh)

    def close(self) -> None:
        """Close the descriptor of the channel. A second call does nothing."""
        self._both.close()
