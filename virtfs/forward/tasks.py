"""Helpers for robust tasks: restart work after a failure, and call blocking functions in threads.

Both thread helpers also handle a failure to start a thread.
"""

import errno
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar, TypeVarTuple

import trio

from virtfs.core.errors import VirtError, forget_frames
from virtfs.host.threads import no_thread

log = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Task = Callable[[], Awaitable[None]]


class Start(Protocol):
    """Starts a background task, which is cancelled when the mount ends (forward.supervisor.Tasks.start).

    name: a phrase for the log that says what the task does.
    """

    def __call__(self, work: Task, /, *, name: str) -> None: ...


# The first and the longest pause in seconds between a failure and the next attempt. The pause doubles each time.
FIRST, LONGEST = 0.1, 2.0


async def lasting(what: str, work: Task, ends: type[Exception] | tuple[()] = ()) -> None:
    """Call `work`, which normally runs until the mount ends. After a failure, log the error, pause, and call it again.

    A failure with the same message as the last logged one is not logged again. Return when `work` returns. Cancellation
    ends the work.
    what: the name of the work, for the log. ends: the type of exception after which the work cannot resume. Such an
    exception is passed on.
    """
    pause, logged = FIRST, ""
    while True:
        began = trio.current_time()
        try:
            await work()
            return
        except ends:
            raise
        except Exception as group:
            failure = only(group)
            if trio.current_time() - began > 2 * LONGEST:
                pause, logged = FIRST, ""
            short = isinstance(failure, OSError)
            if (said := str(failure) if short else f"{type(failure).__name__}: {failure}") != logged:
                log.warning("%s: %s; retrying", what, said, exc_info=None if short else failure)
                logged = said
            del failure  # its traceback refers to this frame, and so to everything that `work` had
        await trio.sleep(pause)
        pause = min(2 * pause, LONGEST)


def only(failure: BaseException) -> BaseException:
    """Unwrap nested exception groups that hold a single exception.

    Return the innermost exception, or the first group that holds more than one.
    """
    while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
        failure = failure.exceptions[0]
    return failure


async def in_thread(
    function: Callable[[*Ts], T], *args: *Ts, limiter: trio.CapacityLimiter | None = None, abandon: bool = False
) -> T:
    """Call a blocking function in a thread and return its result.

    By default, cancellation waits for a call that has started.
    abandon: if true, cancellation does not wait for such a call. This is for functions that only read and may hang.
    VirtError ENOMEM: no thread can be started, or the function ran out of memory. Other errors are those of the
    function.
    """
    began = False

    def call() -> T:
        nonlocal began
        began = True
        return function(*args)

    try:
        return await trio.to_thread.run_sync(call, limiter=limiter, abandon_on_cancel=abandon)
    except OSError as failure:
        forget_frames(failure)  # trio's frames refer to it
        raise
    except RuntimeError as failure:
        if began:
            raise
        raise no_thread() from failure
    except MemoryError as failure:
        raise VirtError(errno.ENOMEM, "out of memory") from failure


async def surely_in_thread(function: Callable[[], None], limiter: trio.CapacityLimiter | None = None) -> None:
    """Call a blocking function in a thread, or in this task if no thread can be started.

    Use this for functions that release resources and must therefore always be called.
    """
    began = False

    def call() -> None:
        nonlocal began
        began = True
        function()

    try:
        await trio.to_thread.run_sync(call, limiter=limiter)
    except (RuntimeError, MemoryError):
        if began:
            raise
        function()
