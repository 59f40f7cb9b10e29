"""Signal dispositions inherited from the caller: execve(2) leaves ignored signals ignored and blocked signals blocked.

nohup(1) starts its command with SIGHUP ignored. A shell without job control starts background commands (`&`) with
SIGINT and SIGQUIT ignored. A foreground program keeps ignoring these signals. A daemon resets all signals (daemon(7)).
"""

import signal

# Python itself ignores these signals, so that a write fails with EPIPE or EFBIG instead.
_PYTHONS_OWN = {signal.SIGPIPE, signal.SIGXFSZ}


def accept_any_caller() -> None:
    """Unblock all signals, and stop ignoring those that this program relies on: SIGCHLD, SIGALRM and SIGTERM.

    While SIGCHLD is ignored, wait(2) does not return the status of a child.
    """
    for number in (signal.SIGCHLD, signal.SIGALRM, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def interruptible() -> None:
    """Make SIGINT raise KeyboardInterrupt, unless this process ignores it. start.py has set it to end the process."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def start_afresh() -> None:
    """Reset and unblock all signals, as daemon(7) requires."""
    interruptible()
    for number in signal.valid_signals() - _PYTHONS_OWN:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def unless_ignored(*numbers: signal.Signals) -> list[signal.Signals]:
    """Return the given signals, except those that this process ignores.

    The caller of this program may have started it with a signal ignored, as nohup(1) does with SIGHUP.
    """
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
