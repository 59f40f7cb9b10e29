"""Starts programs with default signal dispositions and in a session of their own, however pytest was started.

Also gives pytest a mount namespace that it shares with no other run.

A shell ignores SIGINT and SIGQUIT in commands run with `&`, nohup(1) ignores SIGHUP, cron(8) starts its jobs in an
orphaned process group, and execve(2) keeps ignored and blocked signals as they are.
"""

import ctypes
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

_CLONE_NEWNS, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x20000, 0x4000, 1 << 18, 2
_libc = ctypes.CDLL(None, use_errno=True)

# readline(3) sets these in the process that starts the workers of pytest-xdist, and programs would obey them.
for _size in ("COLUMNS", "LINES"):
    os.environ.pop(_size, None)

_WITH_TERMINAL = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
_PYTHONS_OWN = {signal.SIGPIPE, signal.SIGXFSZ}  # ignored by Python itself; subprocess restores them in children


def accept_any_caller() -> None:
    """Give programs that this process starts default signal dispositions and no blocked signals.

    A signal that the caller ignores gets a handler that does nothing. pytest survives it, as under nohup, while
    execve(2) resets signals with handlers to their default.
    """
    for number in signal.valid_signals() - _PYTHONS_OWN:
        if signal.getsignal(number) is signal.SIG_IGN:
            keeps_default = number in _WITH_TERMINAL or number == signal.SIGCHLD  # waitpid(2) needs SIGCHLD
            signal.signal(number, signal.SIG_DFL if keeps_default else _nothing)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def private_mounts() -> None:
    """Give this process a mount namespace of its own, without the virtfs mounts of other runs.

    A process that copied a shared mount namespace during a test would keep the test's mount alive.
    """
    if os.geteuid() == 0:
        if _libc.unshare(_CLONE_NEWNS) or _libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        for line in Path("/proc/thread-self/mountinfo").read_text().splitlines():
            fields = line.split()
            if fields[fields.index("-") + 1] == "fuse.virtfs":
                _libc.umount2(fields[4].encode().decode("unicode_escape").encode(), _MNT_DETACH)


def _nothing(number: int, frame: FrameType | None) -> None:
    pass


def start(words: Sequence[str], **popen: Any) -> "subprocess.Popen[str]":
    """Start a program in a new session, with empty standard input. popen: keyword arguments of subprocess.Popen.

    With process_group=0 the program stays in this session: the kernel drops SIGTSTP in a session of one process group,
    which is an orphaned one (kernel/signal.c get_signal).
    """
    settings = {"stdin": subprocess.DEVNULL, "text": True, "start_new_session": "process_group" not in popen}
    return subprocess.Popen(words, **settings | popen)
