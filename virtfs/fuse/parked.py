"""Reads, writes and polls that wait. Each of them is an entry in a table and needs no task."""

import errno
import logging
import os
import select
from itertools import islice
from typing import Literal

import trio

from virtfs.core.memory import REQUEST, Kind, Memory
from virtfs.files.device import DeviceHandle, ParkedRead, PollId, Unique, Waiters
from virtfs.files.text import TextHandle
from virtfs.forward.tasks import Start
from virtfs.fuse import protocol as p
from virtfs.fuse.answers import Answers
from virtfs.fuse.signals import handles_ending
from virtfs.fuse.turns import Turns

AT_ONCE = 64  # maximum number of calls served in one step, if more wait for the same source

log = logging.getLogger(__name__)

_Call = tuple[Unique, Literal["read"]] | tuple[PollId, Literal["poll"]]


def ready(handle: DeviceHandle | TextHandle) -> int:
    """Return the poll(2) events of a handle. If poll() raises, log the exception and return POLLERR."""
    try:
        return handle.poll()
    except Exception:
        log.exception("polling a handle failed")
        return select.POLLERR


class Waiting:
    """The waiting calls of one FUSE connection.

    Each source of data has a wait queue (Waiters). Answering a call may wake another source. For example, a write of a
    frame that is too long first processes pending kernel notifications, and these may change any interface. All answers
    share one buffer, so a source that is woken during serve() is queued and served after the current one.
    """

    def __init__(self, answers: Answers, turns: Turns, memory: Memory, start: Start) -> None:
        """start: starts a task, which serves some of the calls if many are waiting.

        turns: queues a write that yields to other requests.
        memory: the memory accounts of the mount. core.memory.OPEN includes the first waiting call of an open file. Each
        further one is charged separately.
        """
        self._answers = answers
        self._turns = turns
        self._memory = memory
        self._parked: dict[Unique, Waiters] = {}
        self._reply = memoryview(bytearray(p.LONGEST_REQUEST))
        self._woken: dict[Waiters, None] = {}
        self._serving = False
        self._start = start
        # The calls that `_serve_rest` must still serve, by source. Each call is a read or a poll.
        self._rest: dict[Waiters, dict[_Call, None]] = {}
        self._resting = False  # whether _serve_rest is running

    def park(self, unique: Unique, read: ParkedRead) -> None:
        """Park a read that found no data. It waits until its source wakes it or interrupt() ends it.

        VirtError ENOBUFS: too many calls wait.
        """
        handle = read.handle
        if handle.parked:
            self._charge(handle)
        handle.parked += 1
        waiters = handle.waiters
        self._parked[unique] = waiters
        waiters.park_read(unique, read, self)

    def park_write(self, unique: Unique, handle: DeviceHandle, flags: int) -> None:
        """Park a write. It waits until its source wakes it or interrupt() ends it.

        A write with O_NONBLOCK does not wait. It is answered at once with the number of bytes taken so far, or with
        EAGAIN if no bytes were taken.
        """
        if flags & os.O_NONBLOCK:
            self._end_write(unique, handle, errno.EAGAIN)
            return
        if handle.parked:
            self._charge(handle)
        handle.parked += 1
        waiters = handle.waiters
        self._parked[unique] = waiters
        waiters.park_write(unique, handle, self)
        if handle.waits_for_turn():
            self._turns.again(handle.user.uid, unique)
        handle.told &= ready(handle)

    def interrupt(self, unique: Unique) -> None:
        """End a waiting read or write whose caller got a signal. Ignore other requests, since they end soon anyway."""
        waiters = self._parked.pop(unique, None)
        if waiters is None:
            return
        if (read := waiters.reads.pop(unique, None)) is not None:
            self._ended(read.handle)
            self.end_read(unique, read)
        elif (handle := waiters.writes.pop(unique, None)) is not None:
            self._ended(handle)
            self._end_write(unique, handle, errno.EINTR)

    def _charge(self, handle: DeviceHandle) -> None:
        self._memory.check(Kind.REQUESTS, handle.user.uid, REQUEST)
        self._memory.add(Kind.REQUESTS, handle.user.uid, REQUEST)

    def _ended(self, handle: DeviceHandle) -> None:
        """Record that a call no longer waits."""
        handle.parked -= 1
        if handle.parked:
            self._memory.add(Kind.REQUESTS, handle.user.uid, -REQUEST)

    def end_read(self, unique: Unique, read: ParkedRead) -> None:
        """End a read whose caller got a signal, with filler data or with EINTR.

        A FUSE server cannot answer ERESTARTSYS, which would make the kernel repeat the call after Ctrl-Z. If the file
        has filler data, the read returns that data instead, and the program continues. Otherwise the read fails with
        EINTR. It also fails with EINTR if the program handles one of the ENDING signals, because such a program may
        check for the signal only after a failed call.
        """
        taken = 0
        if not handles_ending(read.thread):
            try:
                taken = read.handle.interrupted(self._reply, read.size)
            except Exception:
                log.exception("ending the interrupted read (request %d) failed", unique)
        if taken:
            self._answer_read(unique, read, taken)
        else:
            self._answers.fail(unique, errno.EINTR)

    def _answer_read(self, unique: Unique, read: ParkedRead, taken: int) -> None:
        handle, size, offset, _ = read
        handle.reads += 1
        if taken == size:
            handle.filled(offset + size)
        p.fuse_out_header.pack_into(self._reply, 0, p.REPLY + taken, 0, unique)
        self._answers.emit(self._reply[: p.REPLY + taken])

    def _end_write(self, unique: Unique, handle: DeviceHandle, error: int) -> None:
        """End a waiting write with the bytes taken so far, or with `error` if there are none."""
        if taken := handle.interrupt():
            self._answers.answer(unique, p.fuse_write_out.pack(taken, 0))
        else:
            self._answers.fail(unique, error)
        handle.told &= ready(handle)

    def serve(self, waiters: Waiters) -> None:
        """Answer those waiting calls of a source that can finish now. A nested serve() only queues the source."""
        self._woken[waiters] = None
        if self._serving:
            return
        self._serving = True
        try:
            while self._woken:
                waiters, _ = self._woken.popitem()
                if len(waiters.reads) > AT_ONCE or len(waiters.polls) > AT_ONCE:
                    self._divide(waiters)
                else:
                    self._serve_reads(waiters, list(waiters.reads))
                    self._serve_writes(waiters)
                    # Last, because a completed write may make the file writable.
                    self._serve_polls(waiters, list(waiters.polls))
        finally:
            self._serving = False

    def _divide(self, waiters: Waiters) -> None:
        """Serve some calls of a source now, and the remaining ones from a task.

        If all reads take from one queue, most wake-ups serve only one of many reads. In that case, the first read that
        finds nothing ends the search.
        """
        reads = list(islice(waiters.reads, AT_ONCE))
        waiting = self._serve_reads(waiters, reads)
        self._serve_writes(waiters)
        polls = list(islice(waiters.polls, AT_ONCE))
        self._serve_polls(waiters, polls)
        rest: dict[_Call, None] = {}
        if waiting:
            tried = set(reads)
            rest.update({(unique, "read"): None for unique in waiters.reads if unique not in tried})
        told = set(polls)
        rest.update({(kh, "poll"): None for kh in waiters.polls if kh not in told})
        if not rest:
            return
        self._rest.setdefault(waiters, {}).update(rest)  # a call that is already in _rest keeps its place
        if not self._resting:
            self._resting = True
            self._start(self._serve_rest, name="serving many waiting calls")

    async def _serve_rest(self) -> None:
        """Serve the calls in _rest, AT_ONCE at a time."""
        try:
            while self._rest:
                await trio.lowlevel.checkpoint()
                self._serve_some()
        finally:
            self._resting = False

    def _serve_some(self) -> None:
        """Serve the next AT_ONCE calls in _rest."""
        waiters, rest = next(iter(self._rest.items()))
        some = list(islice(rest, AT_ONCE))
        for call in some:
            del rest[call]
        self._serving = True
        try:
            if not self._serve_reads(waiters, [call[0] for call in some if call[1] == "read"]):
                self._rest[waiters] = rest = {call: None for call in rest if call[1] == "poll"}
            self._serve_polls(waiters, [call[0] for call in some if call[1] == "poll"])
        finally:
            self._serving = False
        if not rest:
            del self._rest[waiters]
        if self._woken:
            self.serve(next(iter(self._woken)))

    def _serve_reads(self, waiters: Waiters, some: list[Unique]) -> bool:
        """Try to answer the reads in `some`. Return whether the other reads should be tried too."""
        reply = self._reply
        for unique in some:
            if (read := waiters.reads.get(unique)) is None:
                continue
            try:
                taken = read.handle.read(reply, read.size)
            except OSError as error:
                self._answers.fail(unique, error.errno or errno.EIO)
            except Exception:
                log.exception("pending read (request %d) failed", unique)
                self._answers.fail(unique, errno.EIO)
            else:
                if taken is None:
                    if waiters.one_queue:
                        return False
                    continue
                self._answer_read(unique, read, taken)
            waiters.reads.pop(unique, None)
            self._parked.pop(unique, None)
            self._ended(read.handle)
        return True

    def _serve_writes(self, waiters: Waiters) -> None:
        for unique, handle in list(waiters.writes.items()):
            # proceed() continues writes that wait for a turn.
            if not handle.waits_for_turn():
                self._serve_write(waiters, unique, handle)

    def _serve_write(self, waiters: Waiters, unique: Unique, handle: DeviceHandle) -> None:
        try:
            taken = handle.written()
        except OSError as error:
            handle.failed(error)
            self._answers.fail(unique, error.errno or errno.EIO)
        except Exception:
            log.exception("pending write (request %d) failed", unique)
            self._answers.fail(unique, errno.EIO)
        else:
            if taken is None:
                if handle.waits_for_turn():
                    self._turns.again(handle.user.uid, unique)
                return
            self._answers.answer(unique, p.fuse_write_out.pack(taken, 0))
        waiters.writes.pop(unique, None)
        self._parked.pop(unique, None)
        self._ended(handle)

    def proceed(self, unique: Unique) -> None:
        """Continue a write whose turn it is, if the write still waits."""
        waiters = self._parked.get(unique)
        if waiters is not None and (handle := waiters.writes.get(unique)) is not None:
            self._serve_write(waiters, unique, handle)
            self._serve_polls(waiters, list(islice(waiters.polls, AT_ONCE)))

    def _serve_polls(self, waiters: Waiters, some: list[PollId]) -> None:
        for kh in some:
            if (handle := waiters.polls.get(kh)) is None:
                continue
            now, told = ready(handle), handle.told
            # Report POLLIN even if it was reported before, because there may be another frame. An edge-triggered
            # poller must be notified of each frame.
            if now & (select.POLLIN | ~told) or (now ^ told) & select.POLLERR:
                waiters.polls.pop(kh, None)
                self._answers.notify(kh)
            else:
                handle.told = now

    def end(self) -> None:
        """Answer every waiting read and write with ENXIO, because the mount ends."""
        for unique, waiters in self._parked.items():
            if (read := waiters.reads.pop(unique, None)) is not None:
                self._ended(read.handle)
            elif (handle := waiters.writes.pop(unique, None)) is not None:
                self._ended(handle)
            self._answers.fail(unique, errno.ENXIO)
        self._parked.clear()
