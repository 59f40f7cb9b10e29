"""Decide from the pending signals of a caller whether its call must end."""

import signal
from collections.abc import Callable

import trio

from virtfs.host.processes import pending_signals

# Signals that ask a program to end.
ENDING = frozenset((signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGALRM, signal.SIGTERM))
# Signals that do not end a program without a handler (signal(7)).
_HARMLESS = frozenset((signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH))
_HARMLESS |= frozenset((signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU))
_AGAIN = 0.1  # seconds between two checks of a caller's signals


def handles_ending(thread: int) -> bool:
    """Return whether a thread has a handler for a pending ENDING signal. Return false if that is unknown."""
    pending = pending_signals(thread)
    return pending is not None and bool(pending.caught & ENDING)


def ends_calls(thread: int) -> bool:
    """Return whether the pending signals of a thread end its call on a text or a name. Return true if that is unknown.

    A signal that will end the process ends the call, and so does an ENDING signal with a handler. Other signals do not
    end it, because programs do not expect EINTR from such calls, just as for files on a disk. For example, a shell gets
    SIGCHLD whenever a background job ends. If no signal is pending, the
    call goes on: the thread was only stopped, traced or frozen.
    """
    pending = pending_signals(thread)
    return pending is None or bool(pending.caught & ENDING or pending.default - _HARMLESS)


async def until_it_ends(thread: int, waits: Callable[[], bool]) -> bool:
    """Wait until the signals of a thread end its call, or until the call is over. Return whether the signals end it.

    waits: returns whether the call still waits.

    The kernel reports only the first signal during a call (fs/fuse/dev.c request_wait_answer), so the signals are
    checked regularly.
    """
    while waits():
        if ends_calls(thread):
            return True
        await trio.sleep(_AGAIN)
    return False
