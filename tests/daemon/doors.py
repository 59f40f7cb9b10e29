"""Make the functions through which virtfs reaches the kernel fail. Such a function is called a door here.

`failing` makes one call of a door fail, with one of the errnos that the kernel can give there. `table` limits the
number of free descriptors, so that calls of other functions fail too, such as those inside the C library.

An errno that says that an interface is gone (ENODEV, ENXIO, EBADFD) is not among them: virtfs must believe it, so it
would be a lie. tests/bridge/test_vanishing.py deletes interfaces instead. For the same reason EEXIST is not among
those of a new address.
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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from errno import (
    EACCES,
    EAGAIN,
    EBUSY,
    EDQUOT,
    EEXIST,
    EINVAL,
    EIO,
    EMFILE,
    ENFILE,
    ENOBUFS,
    ENOMEM,
    ENOSPC,
    EOPNOTSUPP,
    EPERM,
    ERANGE,
    EROFS,
)
from typing import Any, NamedTuple
from unittest.mock import patch

import trio
from pyroute2.netlink import NLM_F_CREATE

from virtfs.core.errors import VirtError
from virtfs.host import netns, rtnl, timer, uring

NO_ERRNO = "no thread"
NO_THREAD = 0  # stands for the RuntimeError of a thread that cannot be started
NONE_LEFT = (EMFILE, ENFILE, ENOMEM)
MADE = (EACCES, EIO, ENOSPC, EDQUOT, EROFS, ENOMEM)  # for a call that changes a directory

# The functions of modules, and the errnos with which they fail: open(2), mkfifo(3) and so on.
FUNCTIONS: list[tuple[object, str, tuple[int, ...]]] = [
    (os, "open", (*NONE_LEFT, EACCES, EIO, EROFS, ENOSPC)),
    (io, "open", (*NONE_LEFT, EACCES, EIO, EROFS)),
    (builtins, "open", (*NONE_LEFT, EACCES, EIO, EROFS)),
    (os, "dup", (EMFILE,)),
    (os, "eventfd", NONE_LEFT),
    (os, "mkfifo", MADE),
    (os, "mkdir", MADE),
    (os, "unlink", (EACCES, EIO, EROFS)),
    (os, "rename", MADE),
    (os, "replace", MADE),
    (os, "fsync", (EIO, ENOSPC, EDQUOT)),
    (os, "chmod", (EPERM, EIO, EROFS)),
    (os, "chown", (EPERM, EIO, EROFS, EDQUOT)),
    (os, "stat", (EACCES, EIO, ENOMEM)),
    (os, "fstat", (EIO, ENOMEM)),
    (os, "listdir", (*NONE_LEFT, EACCES, EIO)),
    (fcntl, "flock", (ENOMEM, EIO)),
    (select, "epoll", NONE_LEFT),
    (mmap, "mmap", (ENOMEM, EAGAIN, EPERM)),
    (socket, "if_nameindex", (ENOBUFS, EMFILE)),
    (netns, "enter", (EPERM, ENOMEM)),
    (trio._threads, "start_thread_soon", (NO_THREAD,)),
]

# The methods of netlink and packet sockets.
METHODS: list[tuple[str, tuple[int, ...]]] = [
    ("setsockopt", (ENOMEM, ENOBUFS, EPERM, EINVAL)),
    ("bind", (ENOMEM, ENOBUFS, EPERM)),
    ("sendto", (ENOMEM, ENOBUFS)),
    ("recvfrom", (ENOBUFS,)),  # the request has been carried out, but its answer is lost
    ("recvmsg", (ENOMEM, ENOBUFS)),
]
SOCKET = (*NONE_LEFT, ENOBUFS, EPERM)

# What the kernel answers to a netlink request: to a query, to a change, and to a request that makes something new.
QUERY = (ENOMEM, ENOBUFS, EPERM, EBUSY)
CHANGE = (*QUERY, EINVAL, EOPNOTSUPP, ERANGE)
CREATION = (*CHANGE, EEXIST)
NEW_ADDRESS = 20  # linux/rtnetlink.h: RTM_NEWADDR. EEXIST means that the interface has the address

# The ioctls, by request.
IOCTLS = {
    0x8933: ("SIOCGIFINDEX", (EPERM, ENOMEM)),
    0x8946: ("SIOCETHTOOL", (EPERM, ENOMEM, EOPNOTSUPP)),
    0x54E3: ("TUNGETDEVNETNS", (*NONE_LEFT, EPERM)),
    0xB703: ("NS_GET_NSTYPE", (errno.ENOTTY,)),
    0x400454CA: ("TUNSETIFF", (EPERM, ENOMEM, EINVAL)),
}
OTHER_IOCTL = (EPERM, ENOMEM, EINVAL)


class Place(NamedTuple):
    """A door, and the lines of virtfs on the stack of its caller, the innermost first."""

    door: str
    lines: tuple[tuple[str, int], ...]


class Failure(NamedTuple):
    """One call that fails: the `time`-th one from a place, counted from 1, with this errno."""

    place: Place
    time: int
    number: int

    @property
    def errno(self) -> str:
        return errno.errorcode.get(self.number, NO_ERRNO)

    def __str__(self) -> str:
        """Return the failure with the way to the door: the caller, the caller's caller and so on."""
        way = " < ".join(f"{file}:{line}" for file, line in self.place.lines)
        return f"{self.place.door}: {self.errno}, call {self.time} at {way}"


class Calls:
    """Counts the calls of doors, and makes one of them fail.

    errnos: for each place, the errnos that its door can give. times: the number of calls from each place.
    """

    def __init__(self, failure: Failure | None) -> None:
        self._failure = failure
        self._lock = threading.Lock()
        self.errnos: dict[Place, tuple[int, ...]] = {}
        self.times: Counter[Place] = Counter()

    def now(self, door: str, errnos: tuple[int, ...]) -> int | None:
        """Count a call of `door`, and return the errno with which it must fail, None if it must not."""
        lines = tuple(_lines())
        if not lines:
            return None  # a call by a test or by trio itself
        place = Place(door, lines)
        with self._lock:
            self.errnos[place] = errnos
            self.times[place] += 1
            failure = self._failure
            if failure is not None and failure.place == place and failure.time == self.times[place]:
                return failure.number
        return None

    def failures(self) -> list[Failure]:
        """Return the failures worth trying: each errno at the first, the second and the last call from each place."""
        return [
            Failure(place, time, number)
            for place, errnos in self.errnos.items()
            for time in sorted({1, min(2, self.times[place]), self.times[place]})
            for number in errnos
        ]


def _lines() -> Iterator[tuple[str, int]]:
    """Yield the file and line of each frame of virtfs on the caller's stack, the innermost first."""
    frame = sys._getframe(2)
    while (caller := frame.f_back) is not None:
        frame = caller
        name = frame.f_code.co_filename
        if "/virtfs/" in name:
            yield name.rpartition("/virtfs/")[2], frame.f_lineno


def _error(number: int) -> Exception:
    return OSError(number, os.strerror(number)) if number else RuntimeError("can't start new thread")


@contextmanager
def failing(failure: Failure | None = None) -> Iterator[Calls]:
    """Make one call of a door fail, and count all calls of doors."""
    count = Calls(failure)
    with ExitStack() as stack:

        def replace(place: object, name: str, function: Callable[..., Any]) -> None:
            stack.enter_context(patch.object(place, name, function))

        for place, name, errnos in FUNCTIONS:
            replace(place, name, _refusing(count, name, errnos, getattr(place, name)))
        for name, errnos in METHODS:
            replace(socket.socket, name, _refusing_method(count, name, errnos, getattr(socket.socket, name)))
        replace(socket.socket, "__init__", _refusing(count, "socket", SOCKET, socket.socket.__init__))
        replace(threading.Thread, "start", _refusing_thread(count, threading.Thread.start))
        replace(fcntl, "ioctl", _refusing_ioctl(count, fcntl.ioctl))
        replace(rtnl.Rtnl, "ask", _refusing_request(count, rtnl.Rtnl.ask))
        replace(rtnl.Rtnl, "ask_all", _refusing_requests(count, rtnl.Rtnl.ask_all))
        replace(uring, "_syscall", _refusing_setup(count, uring._syscall))
        replace(timer, "_timerfd_create", _refusing_call(count, "timerfd_create", timer._timerfd_create))
        yield count


def _refusing(count: Calls, door: str, errnos: tuple[int, ...], real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if (number := count.now(door, errnos)) is not None:
            raise _error(number)
        return real(*args, **kwargs)

    return call


def _refusing_method(count: Calls, door: str, errnos: tuple[int, ...], real: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: socket.socket, *args: Any) -> Any:
        of_kernel = self.family in (socket.AF_NETLINK, socket.AF_PACKET)
        if of_kernel and (number := count.now(door, errnos)) is not None:
            raise _error(number)
        return real(self, *args)

    return call


def _refusing_thread(count: Calls, real: Callable[..., Any]) -> Callable[..., Any]:
    def start(thread: threading.Thread) -> None:
        if thread.name in ("inside a namespace", "compiling a filter"):
            number = count.now(f"thread {thread.name}", (NO_THREAD,))
            if number is not None:
                raise _error(number)
        real(thread)

    return start


def _refusing_ioctl(count: Calls, real: Callable[..., Any]) -> Callable[..., Any]:
    def ioctl(fd: int, request: int, *args: Any) -> Any:
        name, errnos = IOCTLS.get(request, (f"ioctl {request:#x}", OTHER_IOCTL))
        if (number := count.now(name, errnos)) is not None:
            raise _error(number)
        return real(fd, request, *args)

    return ioctl


def _refusing_request(count: Calls, real: Callable[..., Any]) -> Callable[..., Any]:
    def ask(self: rtnl.Rtnl, kind: int, message: Any, flags: int = 0) -> Any:
        if (refusal := _refusal(count, kind, message, flags)) is not None:
            raise refusal
        return real(self, kind, message, flags)

    return ask


def _refusing_requests(count: Calls, real: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that sends several requests, of which one may be refused. The others are carried out."""

    def ask_all(self: rtnl.Rtnl, requests: Sequence[rtnl.Request]) -> list[VirtError | None]:
        refused = [_refusal(count, *request) for request in requests]
        answers = iter(real(self, [it for it, refusal in zip(requests, refused, strict=True) if refusal is None]))
        return [next(answers) if refusal is None else refusal for refusal in refused]

    return ask_all


def _refusal(count: Calls, kind: int, message: Any, flags: int) -> VirtError | None:
    # Of each group of four message types, the third is the query (linux/rtnetlink.h).
    query = kind % 4 == 2
    errnos = QUERY if query else CREATION if flags & NLM_F_CREATE and kind != NEW_ADDRESS else CHANGE
    number = count.now(f"{type(message).__name__} {kind}", errnos)
    return None if number is None else VirtError(number, os.strerror(number))


def _refusing_setup(count: Calls, real: Callable[..., Any]) -> Callable[..., Any]:
    def syscall(number: int, *args: Any) -> int:
        if number == uring._SETUP:
            refusal = count.now("io_uring_setup", (ENFILE, ENOMEM, EPERM, errno.ENOSYS))
            if refusal is not None:
                ctypes.set_errno(refusal)
                return -1
        return int(real(number, *args))

    return syscall


def _refusing_call(count: Calls, door: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of the C library that fails."""

    def call(*args: Any) -> int:
        if (number := count.now(door, (ENFILE, ENOMEM))) is not None:
            ctypes.set_errno(number)
            return -1
        return int(real(*args))

    return call


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
