"""Requests that the channel answers from a task: opens that wait for the kernel, and writes to text files.

A signal to the caller cancels the task. What the task has begun to change it completes, and then answers as usual.
"""

import errno
import logging
from collections.abc import Awaitable, Callable

import trio

from virtfs.core.errors import VirtError, refused
from virtfs.core.ids import User
from virtfs.files.device import DeviceHandle, Unique
from virtfs.files.text import TextHandle
from virtfs.fuse import protocol as p
from virtfs.fuse.answers import Answers

log = logging.getLogger(__name__)


class Later:
    """The requests of one FUSE connection that run in tasks.

    report: called with the error and the user when an open fails.
    """

    def __init__(self, answers: Answers, report: Callable[[VirtError, User], None]) -> None:
        self._answers = answers
        self._report = report
        self._scopes: dict[Unique, trio.CancelScope] = {}

    async def open(
        self,
        unique: Unique,
        opening: Awaitable[DeviceHandle],
        user: User,
        opened: Callable[[Unique, DeviceHandle], None],
    ) -> None:
        """Wait for an open. opened: registers the handle and answers the request."""

        async def work() -> None:
            opened(unique, await opening)

        await self._run(
            unique,
            work,
            interrupted=lambda: self._answers.fail(unique, errno.EINTR),
            failed=lambda refusal: self._report(refusal, user),
        )

    async def write(self, unique: Unique, handle: TextHandle, data: bytes) -> None:
        """Write to a text file. An interrupted write returns the number of bytes that have taken effect, if any."""

        async def work() -> None:
            await handle.write(data)
            self._answers.answer(unique, p.fuse_write_out.pack(len(data), 0))

        def interrupted() -> None:
            if taken := handle.interrupt():
                self._answers.answer(unique, p.fuse_write_out.pack(taken, 0))
            else:
                self._answers.fail(unique, errno.EINTR)

        await self._run(unique, work, interrupted, failed=lambda refusal: None)

    async def _run(
        self,
        unique: Unique,
        work: Callable[[], Awaitable[None]],
        interrupted: Callable[[], None],
        failed: Callable[[VirtError], None],
    ) -> None:
        try:
            with trio.CancelScope() as scope:
                self._scopes[unique] = scope
                try:
                    await work()
                finally:
                    self._scopes.pop(unique, None)
            if scope.cancelled_caught:
                interrupted()
        except (OSError, MemoryError) as failure:
            refusal = refused(failure)
            failed(refusal)
            self._answers.fail(unique, refusal.errno)
        except Exception:
            log.exception("request %d failed", unique)
            self._answers.fail(unique, errno.EIO)

    def interrupt(self, unique: Unique) -> None:
        """Cancel a request whose caller got a signal. Ignore any other request."""
        if (scope := self._scopes.get(unique)) is not None:
            scope.cancel()

    def end(self) -> None:
        """Answer every request with ENXIO, because the mount ends."""
        for unique in self._scopes:
            self._answers.fail(unique, errno.ENXIO)
        self._scopes.clear()
