"""Kills a server at a chosen system call.

The functions through which a server changes the kernel's state or its files are called doors. A test counts the calls
of doors down in memory that it shares with the server, and the server kills itself with SIGKILL at the call that
reaches zero, before that call has an effect. Since a door precedes and follows every change, all points are covered at
which a kill can make a difference.
"""

import fcntl
import mmap
import os
import signal
import socket
import struct
from collections.abc import Callable
from typing import Any

VARIABLE = "VIRTFS_TEST_KILL_POINTS"  # environment variable with the descriptor of the shared memory
_COUNT = struct.Struct("q")


class Countdown:
    """The shared number of calls until the kill; 0 never kills. fd: a memory file of any size above 0."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, _COUNT.size)

    @property
    def left(self) -> int:
        """The number of calls that remain."""
        number: int = _COUNT.unpack_from(self._memory)[0]
        return number

    @left.setter
    def left(self, number: int) -> None:
        _COUNT.pack_into(self._memory, 0, number)


def memory() -> int:
    """Return the descriptor of a new memory file for a Countdown."""
    fd = os.memfd_create("kill points")
    os.ftruncate(fd, _COUNT.size)
    return fd


def install() -> None:
    """Put a kill point in front of every door of this process, if the environment has VARIABLE."""
    if fd := os.environ.pop(VARIABLE, ""):
        countdown = Countdown(int(fd))
        os.close(int(fd))
        for owner, name in _DOORS:
            setattr(owner, name, _killing(countdown, getattr(owner, name)))


_DOORS: list[tuple[Any, str]] = [
    (fcntl, "ioctl"),
    (fcntl, "flock"),
    (socket.socket, "sendto"),
    *((os, name) for name in ("open", "close", "fsync", "replace", "unlink", "mkdir", "rmdir", "mkfifo", "chmod")),
]


def _killing(countdown: Countdown, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if (left := countdown.left) > 0:
            countdown.left = left - 1
            if left == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    return call
