"""Those who wait: reads with nothing to read yet, writes that take their time, polls. An entry each, no task."""

import errno
import logging
import os
import select
import signal

from virtfs.files.device import DeviceHandle, ParkedRead, Unique, Waiters
from virtfs.files.text import TextHandle
from virtfs.fuse import protocol as p
from virtfs.fuse.answers import Answers
from virtfs.host.processes import caught_signals

log = logging.getLogger(__name__)

ENDING = frozenset((signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGALRM, signal.SIGTERM))  # ask to end a read


def ready(handle: DeviceHandle | TextHandle) -> int:
    """What poll answers; a handle that fails has an error to tell."""
    try:
        return handle.poll()
    except Exception:
        log.exception("poll of a handle failed")
        return select.POLLERR


class Waiting:
    """All of one connection.

    Reading from one source may wake another (a capture sees what a frame's reader takes), so a wake-up that comes while
    one is served is served afterwards: there is one buffer for these answers, apart from the channel's own.
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._parked: dict[Unique, Waiters] = {}
        self._reply = memoryview(bytearray(p.LONGEST_REQUEST))
        self._woken: dict[Waiters, None] = {}
        self._serving = False

    def park(self, unique: Unique, read: ParkedRead) -> None:
        """Keep a read that has nothing to read yet."""
        waiters = read.handle.waiters
        self._parked[unique] = waiters
        waiters.park_read(unique, read, self)

    def park_write(self, unique: Unique, handle: DeviceHandle, flags: int) -> None:
        """A write that takes its time. Without waiting allowed, what is taken by now is all."""
        if flags & os.O_NONBLOCK:
            self._cut(unique, handle, errno.EAGAIN)
            return
        waiters = handle.waiters
        self._parked[unique] = waiters
        waiters.park_write(unique, handle, self)
        handle.told &= ready(handle)

    def interrupt(self, unique: Unique) -> None:
        """End what a thread waits for that a signal has come for. All else is answered soon anyway."""
        waiters = self._parked.pop(unique, None)
        if waiters is None:
            return
        if (read := waiters.reads.pop(unique, None)) is not None:
            self._interrupt_read(unique, read)
        elif (handle := waiters.writes.pop(unique, None)) is not None:
            self._cut(unique, handle, errno.EINTR)

    def _interrupt_read(self, unique: Unique, read: ParkedRead) -> None:
        """End a read with data that mean nothing, if its stream has such, so that programs live through Ctrl-Z.

        The kernel takes no ERESTARTSYS from a FUSE server. A program that has a handler for a signal that asks it to
        end is told EINTR: it may look at what the handler has left only between two calls.
        """
        taken = 0
        if not caught_signals(read.thread) & ENDING:
            try:
                taken = read.handle.interrupted(self._reply, read.size)
            except Exception:
                log.exception("interrupted read %d failed", unique)
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

    def _cut(self, unique: Unique, handle: DeviceHandle, error: int) -> None:
        """End a write: with how much was taken, or the error if that is nothing."""
        if taken := handle.interrupt():
            self._answers.answer(unique, p.fuse_write_out.pack(taken, 0))
        else:
            self._answers.fail(unique, error)
        handle.told &= ready(handle)

    def serve(self, waiters: Waiters) -> None:
        """The source has changed: answer what can be answered now."""
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
        reply = self._reply
        for unique, read in list(waiters.reads.items()):
            if unique not in waiters.reads:
                continue
            try:
                taken = read.handle.read(reply, read.size)
            except OSError as error:
                self._answers.fail(unique, error.errno or errno.EIO)
            except Exception:
                log.exception("waiting read %d failed", unique)
                self._answers.fail(unique, errno.EIO)
            else:
                if taken is None:
                    continue
                self._answer_read(unique, read, taken)
            waiters.reads.pop(unique, None)
            self._parked.pop(unique, None)

    def _serve_writes(self, waiters: Waiters) -> None:
        for unique, handle in list(waiters.writes.items()):
            try:
                taken = handle.written()
            except OSError as error:
                self._answers.fail(unique, error.errno or errno.EIO)
            except Exception:
                log.exception("waiting write %d failed", unique)
                self._answers.fail(unique, errno.EIO)
            else:
                if taken is None:
                    continue
                self._answers.answer(unique, p.fuse_write_out.pack(taken, 0))
            waiters.writes.pop(unique, None)
            self._parked.pop(unique, None)

    def _serve_polls(self, waiters: Waiters) -> None:
        for kh, handle in list(waiters.polls.items()):
            now, told = ready(handle), handle.told
            # POLLIN may be another frame, which an edge-triggered poller is to hear of too.
            if now & (select.POLLIN | ~told) or (now ^ told) & select.POLLERR:
                waiters.polls.pop(kh, None)
                self._answers.notify(kh)
            else:
                handle.told = now

    def end(self) -> None:
        """Answer every read and write that waits with ENXIO."""
        for unique, waiters in self._parked.items():
            waiters.reads.pop(unique, None)
            waiters.writes.pop(unique, None)
            self._answers.fail(unique, errno.ENXIO)
        self._parked.clear()
