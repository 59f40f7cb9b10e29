"""Requests that the channel answers from a task: opens that wait for the kernel, and writes to text files.

cancel() ends the task of a caller that got a signal. A task that has begun a change completes it and answers as usual.
"""

import errno
import logging
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from virtfs.core.errors import VirtError, refused
from virtfs.core.ids import User
from virtfs.files.device import DeviceHandle, Unique
from virtfs.files.text import TextHandle
from virtfs.forward.tasks import Start
from virtfs.fuse import protocol as p
from virtfs.fuse.answers import Answers
from virtfs.fuse.inodes_handles import HandleId, Handles
from virtfs.fuse.turns import Turns

log = logging.getLogger(__name__)


# A longer write to a text may be the first piece of a call that the kernel has split at a page boundary. A script must
# not be carried out in part, so it is refused.
TEXT_MAX = p.MAX_WRITE - 4096


class Later:
    """The requests of one FUSE connection that run in tasks.

    report: called with the error and the user when an open fails. turns: records the users for whom the tasks work.
    """

    def __init__(
        self, answers: Answers, handles: Handles, report: Callable[[VirtError, User], None], turns: Turns
    ) -> None:
        self._answers = answers
        self._handles = handles
        self._turns = turns
        self._report = report
        self._tasks: dict[Unique, tuple[trio.CancelScope, int]] = {}  # each with the thread of the caller

    async def open(
        self,
        unique: Unique,
        thread: int,
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
                failed=lambda refusal: self._report(refusal, user),
            )
        finally:
            if not done:
                self._handles.closed(user)

    def begin_write(self, start: Start, unique: Unique, thread: int, fh: HandleId, data: memoryview) -> None:
        """Start a task that writes to a text file.

        VirtError: EBADF, there is no such handle; E2BIG, the write may be a piece of a longer one.
        """
        handle = self._handles.texts.get(fh)
        if handle is None:
            raise VirtError(errno.EBADF, "the file handle is not open")
        if len(data) > TEXT_MAX:
            refusal = VirtError(errno.E2BIG, f"one write takes at most {TEXT_MAX} bytes: split the text at a newline")
            handle.refused(refusal)
            raise refusal
        start(partial(self._write, unique, thread, handle, bytes(data)), name=f"writing to handle {fh}")

    async def _write(self, unique: Unique, thread: int, handle: TextHandle, data: bytes) -> None:
        """Write to a text file. An interrupted write returns the number of bytes that have taken effect, if any."""

        async def work() -> None:
            await handle.write(data, self._turns.turn)
            self._answers.answer(unique, p.fuse_write_out.pack(len(data), 0))

        def interrupted() -> None:
            if taken := handle.interrupt():
                self._answers.answer(unique, p.fuse_write_out.pack(taken, 0))
            else:
                self._answers.fail(unique, errno.EINTR)

        await self._run(unique, thread, handle.user, work, interrupted, failed=lambda refusal: None)

    async def _run(
        self,
        unique: Unique,
        thread: int,
        user: User,
        work: Callable[[], Awaitable[None]],
        interrupted: Callable[[], None],
        failed: Callable[[VirtError], None],
    ) -> None:
        self._turns.begin(user.uid, slow=False)
        try:
            with trio.CancelScope() as scope:
                self._tasks[unique] = scope, thread
                try:
                    await work()
                finally:
                    self._tasks.pop(unique, None)
            if scope.cancelled_caught:
                interrupted()
        except (OSError, MemoryError) as failure:
            refusal = refused(failure)
            failed(refusal)
            self._answers.fail(unique, refusal.errno)
        except Exception:
            log.exception("request %d failed", unique)
            self._answers.fail(unique, errno.EIO)
        finally:
            self._turns.end(user.uid, slow=False)

    def caller(self, unique: Unique) -> int | None:
        """Return the thread that made a request, or None if no task works on the request."""
        return self._tasks[unique][1] if unique in self._tasks else None

    def cancel(self, unique: Unique) -> None:
        """Cancel the task that works on a request."""
        self._tasks[unique][0].cancel()

    def end(self) -> None:
        """Answer every request with ENXIO, because the mount ends."""
        for unique in self._tasks:
            self._answers.fail(unique, errno.ENXIO)
        self._tasks.clear()
