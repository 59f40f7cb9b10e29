"""Signal dispositions inherited from the caller: execve(2) keeps ignored and blocked signals.

nohup(1) ignores SIGHUP, and a shell without job control ignores SIGINT and SIGQUIT in programs started with `&`. A
foreground program respects that. A daemon resets all signals (daemon(7)).
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


def start_afresh() -> None:
    """Reset and unblock all signals, as daemon(7) requires."""
    for number in signal.valid_signals() - _PYTHONS_OWN:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def unless_ignored(*numbers: signal.Signals) -> list[signal.Signals]:
    """Return those of the given signals that the caller of this program does not ignore."""
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
