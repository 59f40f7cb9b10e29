"""Requests that the channel answers from a task: those that wait for the kernel, and writes to text files.

cancel() ends the request of a caller that got a signal. A query changes nothing, so it is answered with EINTR at once,
and its task sends no answer later. A task that has begun a change completes it and answers as usual.
"""

import errno
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, Protocol

import trio

from virtfs.core.errors import VirtError, forget_frames, refused
from virtfs.core.ids import User
from virtfs.core.memory import REQUEST, Kind
from virtfs.files.device import DeviceFile, DeviceHandle, Unique
from virtfs.files.text import TextHandle
from virtfs.forward.slices import give_way
from virtfs.forward.tasks import Start
from virtfs.fuse import protocol as p
from virtfs.fuse.answers import Answers
from virtfs.fuse.inodes_handles import Handles
from virtfs.fuse.request import Request
from virtfs.fuse.turns import Turns

log = logging.getLogger(__name__)


# A longer write to a text may be the first piece of a call that the kernel has split at a page boundary. A script must
# not be carried out in part, so such a write is refused.
TEXT_MAX = p.MAX_WRITE - 4096


class Reports(Protocol):
    """Applies the reports of the kernel about interfaces, so that an answer includes all earlier changes."""

    def up_to_date(self) -> bool:
        """Apply the pending reports. Return False if checks of interfaces are pending; then await caught_up()."""

    async def caught_up(self) -> None:
        """Apply the pending reports, and wait until the pending checks of interfaces are finished."""


class _Task(NamedTuple):
    """A task that works on a request. thread: the caller. query: whether the request changes nothing."""

    scope: trio.CancelScope
    thread: int
    query: bool


class Later:
    """The requests of one FUSE connection that run in tasks.

    report: called with the error and the user when an open of a device file fails.
    turns: records the users for whom the tasks work. turn: waits until it is the turn of a user.
    start: starts a task. begin_in() sets it, and must be called first.
    """

    start: Start

    def __init__(
        self, answers: Answers, handles: Handles, report: Callable[[VirtError, User], None], turns: Turns
    ) -> None:
        self._answers = answers
        self._handles = handles
        self._turns = turns
        self.turn = turns.turn
        self._report = report
        self._tasks: dict[Unique, _Task] = {}

    def begin_in(self, start: Start) -> None:
        """Set the function that starts the tasks."""
        self.start = start

    def when_up_to_date(self, request: Request, reports: Reports, body: Callable[[], bytes]) -> bool:
        """Answer a query with body(), once all reports from the kernel have been applied.

        Return whether the request has been answered. If not, a task answers it later.
        """
        if reports.up_to_date():
            self._answers.answer(request.unique, body())
            return True

        async def work() -> None:
            await reports.caught_up()
            if self.pending(request.unique):
                self._answers.answer(request.unique, body())

        self.query(request, work)
        return False

    def query(
        self,
        request: Request,
        work: Callable[[], Awaitable[None]],
        slow: bool = False,
        free: bool = False,
        failed: Callable[[VirtError], None] = lambda refusal: None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """Start a task for a request that changes nothing.

        work: answers the request, unless pending() has become false.
        slow: as in Turns.begin().
        free: whether the charge for an open file covers the memory of the request.
        failed: called with a VirtError that `work` raises.
        ended: called at the end, even after a cancellation.
        VirtError ENOBUFS: too many requests of the user are waiting.
        """
        memory, user, unique, thread = self._handles.memory, request.user, request.unique, request.thread
        charged = 0 if free else REQUEST
        if charged:
            memory.check(Kind.REQUESTS, user.uid, charged)
        memory.add(Kind.REQUESTS, user.uid, charged)
        task = self._tasks[unique] = _Task(trio.CancelScope(), thread, query=True)
        self._turns.begin(user.uid, slow)

        async def run() -> None:
            give_way.set(partial(self.turn, user))
            try:
                await self._carry_out(
                    unique,
                    task,
                    work,
                    interrupted=lambda: None,
                    failed=lambda failure: failed(failure) if isinstance(failure, VirtError) else None,
                )
            finally:
                self._turns.end(user.uid, slow)
                memory.add(Kind.REQUESTS, user.uid, -charged)
                ended()

        self.start(run, name=f"answering request {unique}")

    def pending(self, unique: Unique) -> bool:
        """Return whether a request still needs an answer from its task. It does not once cancel() has answered it."""
        return unique in self._tasks

    async def open(
        self,
        unique: Unique,
        thread: int,
        node: DeviceFile,
        opening: Awaitable[DeviceHandle],
        user: User,
        opened: Callable[[Unique, DeviceHandle], None],
    ) -> None:
        """Complete an open that Handles.begin() has counted. opened: registers the handle and answers the request."""
        done = False

        async def work() -> None:
            nonlocal done
            handle = await opening
            opened(unique, handle)
            done = True

        try:
            await self._run(
                unique,
                thread,
                user,
                work,
                interrupted=lambda: self._answers.fail(unique, errno.EINTR),
                failed=lambda failure: self._report(node.about(failure), user),
            )
        finally:
            if not done:
                self._handles.closed(user)

    def write(self, request: Request) -> bool:
        """Start a task that writes to a text file. Return False: the next request is unlikely to follow immediately.

        VirtError: EBADF, there is no such handle; E2BIG, the write may be a piece of a longer one.
        """
        handle = self._handles.texts.get(request.fh)
        if handle is None:
            raise VirtError(errno.EBADF, "the file handle is not open")
        data = request.message[p.DATA :]
        if len(data) > TEXT_MAX:
            refusal = VirtError(errno.E2BIG, f"a write may have at most {TEXT_MAX} bytes: split the text at a newline")
            handle.refused(refusal)
            raise refusal
        work = partial(self._write, request.unique, request.thread, handle, bytes(data))
        self.start(work, name=f"writing to handle {request.fh}")
        return False

    async def _write(self, unique: Unique, thread: int, handle: TextHandle, data: bytes) -> None:
        """Write to a text file. An interrupted write returns the number of bytes that have taken effect, if any."""

        async def work() -> None:
            taken = await handle.write(data, self._turns.turn)
            self._answers.answer(unique, p.fuse_write_out.pack(taken, 0))

        def interrupted() -> None:
            if taken := handle.interrupt():
                self._answers.answer(unique, p.fuse_write_out.pack(taken, 0))
            else:
                self._answers.fail(unique, errno.EINTR)

        await self._run(unique, thread, handle.user, work, interrupted, failed=lambda failure: None)

    async def _run(
        self,
        unique: Unique,
        thread: int,
        user: User,
        work: Callable[[], Awaitable[None]],
        interrupted: Callable[[], None],
        failed: Callable[[OSError | MemoryError], None],
    ) -> None:
        task = self._tasks[unique] = _Task(trio.CancelScope(), thread, query=False)
        give_way.set(partial(self.turn, user))
        self._turns.begin(user.uid, slow=False)
        try:
            await self._carry_out(unique, task, work, interrupted, failed)
        finally:
            self._turns.end(user.uid, slow=False)

    async def _carry_out(
        self,
        unique: Unique,
        task: _Task,
        work: Callable[[], Awaitable[None]],
        interrupted: Callable[[], None],
        failed: Callable[[OSError | MemoryError], None],
    ) -> None:
        try:
            with task.scope:
                await work()
            if task.scope.cancelled_caught:
                interrupted()
        except (OSError, MemoryError) as failure:
            failed(failure)
            self._fail(unique, refused(failure).errno)
            forget_frames(failure)
        except Exception:
            log.exception("request %d failed", unique)
            self._fail(unique, errno.EIO)
        finally:
            if self._tasks.get(unique) is task:
                del self._tasks[unique]

    def _fail(self, unique: Unique, error: int) -> None:
        if unique in self._tasks:
            self._answers.fail(unique, error)

    def caller(self, unique: Unique) -> int | None:
        """Return the thread that made a request, or None if no task works on the request."""
        return self._tasks[unique].thread if unique in self._tasks else None

    def cancel(self, unique: Unique) -> None:
        """Cancel the task that works on a request. If the request is a query, also answer it with EINTR."""
        task = self._tasks[unique]
        task.scope.cancel()
        if task.query:
            del self._tasks[unique]
            self._answers.fail(unique, errno.EINTR)

    def end(self) -> None:
        """Answer every request with ENXIO, because the mount ends."""
        for unique in self._tasks:
            self._answers.fail(unique, errno.ENXIO)
        self._tasks.clear()
