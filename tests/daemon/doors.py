"""Make functions that take descriptors, threads or memory fail. Such a function is called a door here.

`nth` makes the n-th call of any known door fail. `table` limits the number of free descriptors, so that calls of
other functions fail too, such as those inside the C library.
"""

import builtins
import ctypes
import errno
import fcntl
import io
import mmap
import os
import resource
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import trio

from virtfs.host import timer, uring

SHORT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))  # the errnos that a user gets for a lack of resources
GIVES_DESCRIPTOR = 0x54E3  # TUNGETDEVNETNS


class Nth:
    """Count the calls of doors, and choose the one that fails.

    fired: name of the door that failed, "" if none has
    places: for each call, its door and the lines of virtfs on its stack
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self._lock = threading.Lock()
        self.fired = ""
        self.places: list[tuple[object, ...]] = []

    def now(self, door: str) -> bool:
        """Count a call of `door`, and return whether it must fail."""
        with self._lock:
            self.places.append((door, *_lines()))
            if len(self.places) == self._n:
                self.fired = door
                return True
        return False

    def worth_trying(self, thorough: bool) -> list[int]:
        """Return the numbers of the calls to make fail: the first from each place, and the last too if `thorough`."""
        first = {place: n for n, place in reversed([*enumerate(self.places, 1)])}
        last = {place: n for n, place in enumerate(self.places, 1)} if thorough else {}
        return sorted({*first.values(), *last.values()})


def _lines() -> Iterator[tuple[str, int]]:
    """Yield the file and line of each frame of virtfs on the caller's stack."""
    frame = sys._getframe(2)
    while (caller := frame.f_back) is not None:
        frame = caller
        if "/virtfs/" in frame.f_code.co_filename:
            yield frame.f_code.co_filename, frame.f_lineno


def _refuse(failure: Callable[[], Exception], nth: Nth, door: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if nth.now(door):
            raise failure()
        return real(*args, **kwargs)

    return call


def _full() -> OSError:
    return OSError(errno.ENFILE, os.strerror(errno.ENFILE))


def _no_memory() -> OSError:
    return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def _no_thread() -> RuntimeError:
    return RuntimeError("can't start new thread")


@contextmanager
def nth(n: int) -> Iterator[Nth]:
    """Make the n-th call of any door fail, with ENFILE, with ENOMEM, or as a thread that cannot be started."""
    count = Nth(n)
    start, ioctl, syscall, create = threading.Thread.start, fcntl.ioctl, uring._syscall, timer._timerfd_create

    def started(thread: threading.Thread) -> None:
        if thread.name in ("inside a namespace", "compiling a filter") and count.now(f"thread {thread.name}"):
            raise _no_thread()
        start(thread)

    def told(fd: int, request: int, *args: Any) -> Any:
        if request == GIVES_DESCRIPTOR and count.now("TUNGETDEVNETNS"):
            raise _full()
        return ioctl(fd, request, *args)

    def set_up(number: int, *args: Any) -> int:
        if number == uring._SETUP and count.now("io_uring_setup"):
            ctypes.set_errno(errno.ENFILE)
            return -1
        return int(syscall(number, *args))

    def timerfd_create(*args: int) -> int:
        if count.now("timerfd_create"):
            ctypes.set_errno(errno.ENFILE)
            return -1
        return int(create(*args))

    doors: list[tuple[object, str, Callable[[], Exception]]] = [
        (os, "open", _full),
        (os, "dup", _full),
        (os, "eventfd", _full),
        (os, "mkfifo", _no_memory),
        (io, "open", _full),
        (builtins, "open", _full),
        (socket.socket, "__init__", _full),
        (select, "epoll", _full),
        (mmap, "mmap", _no_memory),
        (trio._threads, "start_thread_soon", _no_thread),
    ]
    with ExitStack() as stack:
        for place, name, failure in doors:
            real = getattr(place, name)
            stack.enter_context(patch.object(place, name, _refuse(failure, count, name, real)))
        stack.enter_context(patch.object(threading.Thread, "start", started))
        stack.enter_context(patch.object(fcntl, "ioctl", told))
        stack.enter_context(patch.object(uring, "_syscall", set_up))
        stack.enter_context(patch.object(timer, "_timerfd_create", timerfd_create))
        yield count


@contextmanager
def table(room: int) -> Iterator[None]:
    """Limit RLIMIT_NOFILE so that only `room` more descriptors can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(fd) for fd in os.listdir("/proc/self/fd")}
    free = (fd for fd in range(soft) if fd not in used)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(fd for n, fd in enumerate(free) if n == room), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
