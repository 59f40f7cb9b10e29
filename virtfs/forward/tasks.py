"""Tasks that must not end with the first thing that fails, and threads that cannot be had."""

import errno
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import trio

from virtfs.core.errors import VirtError
from virtfs.host.threads import no_thread

log = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Task = Callable[[], Awaitable[None]]
Start = Callable[[Task], None]  # runs a task as long as the mount, beside the caller

FIRST, LONGEST = 0.1, 2.0  # seconds from a failure to the next attempt, which double


async def lasting(what: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do work that goes on as long as the mount. When it fails it is logged and begun again after a pause.

    A failure that comes again and again is logged once. Returns when `work` does. Cancellation ends it.
    """
    pause, logged = FIRST, ""
    while True:
        began = trio.current_time()
        try:
            await work()
            return
        except Exception as group:
            failure = only(group)
            if trio.current_time() - began > 2 * LONGEST:
                pause, logged = FIRST, ""
            short = isinstance(failure, OSError)
            if (said := str(failure) if short else f"{type(failure).__name__}: {failure}") != logged:
                log.warning("%s: %s; it is tried again", what, said, exc_info=None if short else failure)
                logged = said
        await trio.sleep(pause)
        pause = min(2 * pause, LONGEST)


def only(failure: BaseException) -> BaseException:
    """What failed, without the groups of the nurseries around it; a group where it was several."""
    while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
        failure = failure.exceptions[0]
    return failure


async def in_thread(
    function: Callable[[*Ts], T], *args: *Ts, limiter: trio.CapacityLimiter | None = None, abandon: bool = False
) -> T:
    """Call a blocking function in a thread. A call that has started completes; cancellation waits for it.

    abandon: cancellation does not wait, for a function that only reads and may hang.
    VirtError ENOMEM: there is no thread, or no memory for what it does. Else what the function raises.
    """
    began = False

    def call() -> T:
        nonlocal began
        began = True
        return function(*args)

    try:
        return await trio.to_thread.run_sync(call, limiter=limiter, abandon_on_cancel=abandon)
    except RuntimeError as failure:
        if began:
            raise
        raise no_thread() from failure
    except MemoryError as failure:
        raise VirtError(errno.ENOMEM, "out of memory") from failure


async def surely_in_thread(function: Callable[[], None], limiter: trio.CapacityLimiter) -> None:
    """Call a blocking function in a thread, or here if there is none: for what gives something back."""
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
