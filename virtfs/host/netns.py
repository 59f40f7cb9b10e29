"""Network namespaces by descriptor, never by name: a descriptor cannot come to mean another namespace."""

import ctypes
import os
from collections.abc import Callable
from typing import TypeVar

from virtfs.host.tapdevice import Placed
from virtfs.host.threads import call_apart

_OWN = "/proc/thread-self/ns/net"
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


def identity(fd: int) -> tuple[int, int]:
    """What tells a namespace from others while something keeps it alive: device and inode (namespaces(7))."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def same_netns(fd_a: int, fd_b: int) -> bool:
    """Whether two descriptors mean the same namespace."""
    return identity(fd_a) == identity(fd_b)


def own_netns() -> int:
    """A new descriptor of the calling thread's network namespace. It keeps that alive: close it soon."""
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


def own_identity() -> tuple[int, int]:
    """The identity of the calling thread's network namespace. Takes no descriptor."""
    status = os.stat(_OWN)
    return status.st_dev, status.st_ino


def enter(fd: int) -> None:
    """Move the calling thread, only it, into a network namespace (setns(2)). OSError: EPERM, EINVAL."""
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def inside(fd: int, function: Callable[[], T]) -> T:
    """Call a function inside a network namespace and return what it returns, or raise what it raises.

    It runs in a thread of its own that ends with it. So no thread has to find its way back, which could
    fail and would leave a thread of the pool in a foreign namespace; the caller's own thread is never
    moved. Blocks until done; starting the thread costs some 60 µs. VirtError ENOMEM: there is no thread.
    """

    def run() -> T:
        enter(fd)
        return function()

    return call_apart(run, "inside a namespace")


def where(device: Placed, function: Callable[[], T]) -> T:
    """Call a function in the network namespace that an interface is in, as `inside` does where that is another one.

    VirtError ENXIO: the interface is gone. PermissionError: its namespace may not be entered.
    """
    fd = device.netns()
    try:
        return function() if identity(fd) == own_identity() else inside(fd, function)
    finally:
        os.close(fd)
