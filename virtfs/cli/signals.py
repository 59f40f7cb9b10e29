"""Signals as the caller has left them: execve(2) keeps those that are ignored or blocked.

nohup(1) ignores SIGHUP, and a shell without job control ignores SIGINT and SIGQUIT in what it starts with `&`. A
program in the foreground keeps to that. A daemon starts afresh, daemon(7).
"""

import signal

_PYTHONS_OWN = {signal.SIGPIPE, signal.SIGXFSZ}  # ignored by Python: a write then fails with EPIPE or EFBIG


def accept_any_caller() -> None:
    """Unblock all signals, and set to their default those that this program relies on: SIGCHLD, SIGALRM, SIGTERM.

    While SIGCHLD is ignored, wait(2) does not return the status of a child.
    """
    for number in (signal.SIGCHLD, signal.SIGALRM, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def start_afresh() -> None:
    """Set every signal to its default and unblock all, as daemon(7) asks of a daemon."""
    for number in signal.valid_signals() - _PYTHONS_OWN:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def unless_ignored(*numbers: signal.Signals) -> list[signal.Signals]:
    """Return those signals that the caller does not want ignored."""
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
