"""Starts programs with default signal dispositions and in a session of their own, however pytest was started.

Also gives pytest a mount namespace that it shares with no other run, with devices that everybody may use.

A shell ignores SIGINT and SIGQUIT in commands run with `&`, nohup(1) ignores SIGHUP, cron(8) starts its jobs in an
orphaned process group, and execve(2) keeps ignored and blocked signals as they are.
"""

import ctypes
import os
import signal
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x20000, 0x1000, 0x4000, 1 << 18, 2
DEVICES = (Path("/dev/fuse"), Path("/dev/net/tun"))
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


def devices_for_all() -> None:
    """Give everybody access to the devices that virtfs needs, in this process's mount namespace.

    With systemd they have mode 0666. Without it, in a small virtual machine for example, they may have mode 0600.
    """
    closed = [path for path in DEVICES if path.exists() and path.stat().st_mode & 0o666 != 0o666]
    if os.geteuid() != 0 or not closed:
        return
    with tempfile.TemporaryDirectory() as directory:
        _mount("tmpfs", directory, "tmpfs", 0)
        try:
            for path in closed:
                node = Path(directory, path.name)
                os.mknod(node, stat.S_IFCHR, path.stat().st_rdev)
                node.chmod(0o666)
                _mount(str(node), str(path), "", _MS_BIND)
        finally:
            _libc.umount2(directory.encode(), _MNT_DETACH)


def _mount(source: str, target: str, kind: str, flags: int) -> None:
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def _nothing(number: int, frame: FrameType | None) -> None:
    pass


def start(words: Sequence[str], **popen: Any) -> "subprocess.Popen[str]":
    """Start a program in a new session, with empty standard input. popen: keyword arguments of subprocess.Popen.

    With process_group=0 the program stays in this session: the kernel drops SIGTSTP in a session of one process group,
    which is an orphaned one (kernel/signal.c get_signal).
    """
    settings = {"stdin": subprocess.DEVNULL, "text": True, "start_new_session": "process_group" not in popen}
    return subprocess.Popen(words, **settings | popen)
