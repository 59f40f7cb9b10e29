"""Starts every background task of a mount. No other module starts a task (tests/test_layers.py).

Each task has a name, which the log shows, and one of three policies for a failure:

    start      log the failure with its traceback; only this task ends
    keep       log the failure, and call the function again after a pause (forward.tasks.lasting)
    together   wait until the other tasks of the same call have ended, then raise the first failure in the caller

So a failure never reaches a nursery, where it would cancel all other tasks. A mount ends only because of an
unmount, the end of the FUSE connection, or a signal.
"""

import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from virtfs.forward.tasks import Task, lasting, only

log = logging.getLogger(__name__)

AT_ONCE = 64  # maximum number of tasks that are started in one step; starting one takes 15 µs


class Tasks:
    """Starts background tasks in one nursery."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def start(self, work: Task, *, name: str) -> None:
        """Start a task, which is cancelled when the mount ends. If it fails, the failure is logged.

        name: a phrase for the log that says what the task does.
        """
        self._nursery.start_soon(_guarded, work, name, name=name)

    def keep(self, work: Task, *, name: str) -> None:
        """Start a task that should run until the mount ends. If it fails, it is restarted after a pause.

        `work` may be called again after a failure, so it must be able to resume. If it returns, the task ends.
        """
        self.start(partial(lasting, name, work), name=name)

    def cancel(self) -> None:
        """Cancel all tasks."""
        self._nursery.cancel_scope.cancel()


@asynccontextmanager
async def supervised() -> AsyncIterator[Tasks]:
    """Run tasks beside the body of the `with` statement. At the end, wait until all of them have ended."""
    async with trio.open_nursery() as nursery:
        yield Tasks(nursery)


async def _guarded(work: Task, name: str) -> None:
    """Call `work`. If it fails, log the failure instead of raising it. Only cancellation is passed on."""
    try:
        await work()
    except Exception as failure:
        log.error("%s: failed", name, exc_info=only(failure))
    except BaseExceptionGroup as group:
        # If a task fails while its nursery is cancelled, the group contains the failure and the cancellation.
        failures, rest = group.split(Exception)
        if failures is not None:
            log.error("%s: failed", name, exc_info=only(failures))
        if rest is not None:
            raise rest from None


async def together(*works: Task) -> None:
    """Call functions concurrently, and wait until all have ended.

    There may be thousands, so other tasks run while they are started. If some of them fail, log all failures except the
    first, and then raise the first.
    """
    failures: list[Exception] = []

    async def collect(work: Task) -> None:
        try:
            await work()
        except Exception as failure:
            failures.append(failure)

    remaining = deque(works)
    del works  # so that what a function refers to is freed when it ends, and not everything in one step
    number = 0
    async with trio.open_nursery() as nursery:
        while remaining:
            nursery.start_soon(collect, remaining.popleft())
            number += 1
            if not number % AT_ONCE:
                await trio.lowlevel.cancel_shielded_checkpoint()
    for failure in failures[1:]:
        log.error("another task failed too", exc_info=failure)
    if failures:
        raise failures[0]
