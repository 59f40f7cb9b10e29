"""Network namespaces by descriptor. Names are not used, because the same name may later mean another namespace."""

import fcntl
import os
from collections.abc import Callable
from typing import TypeVar

from virtfs.host.libc import check, libc
from virtfs.host.tap_protocol import Placed
from virtfs.host.threads import call_apart

_OWN = "/proc/thread-self/ns/net"
CLONE_NEWNET = 0x40000000  # linux/sched.h
_NS_GET_USERNS = 0xB701  # linux/nsfs.h

T = TypeVar("T")


def identity(fd: int) -> tuple[int, int]:
    """Return the device and inode of a namespace, which identify it as long as it exists (namespaces(7))."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def same_netns(fd_a: int, fd_b: int) -> bool:
    """Return whether two descriptors refer to the same namespace."""
    return identity(fd_a) == identity(fd_b)


def own_netns() -> int:
    """Return a new descriptor of the calling thread's network namespace.

    The caller must close it soon, because an open descriptor keeps the namespace alive.
    """
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


def own_identity() -> tuple[int, int]:
    """Return the identity of the calling thread's network namespace, without opening a descriptor."""
    status = os.stat(_OWN)
    return status.st_dev, status.st_ino


def is_away() -> bool:
    """Return whether the calling thread is in another network namespace than the main thread of the process."""
    status = os.stat("/proc/self/ns/net")
    return (status.st_dev, status.st_ino) != own_identity()


def is_foreign() -> bool:
    """Return whether the calling thread's network namespace belongs to a user namespace outside of its own.

    Then the thread has no capabilities in it, whatever it has in its user namespace (user_namespaces(7)).
    """
    fd = own_netns()
    try:
        os.close(fcntl.ioctl(fd, _NS_GET_USERNS))
    except PermissionError:  # ioctl_ns(2)
        return True
    finally:
        os.close(fd)
    return False


def enter(fd: int) -> None:
    """Move only the calling thread into a network namespace (setns(2)). OSError: EPERM, EINVAL."""
    check(libc.setns(fd, CLONE_NEWNET))


def inside(fd: int, function: Callable[[], T]) -> T:
    """Call a function inside a network namespace and return its result, or raise its exception.

    The function runs in a new thread, and the calling thread stays in its namespace. A pool thread would have to return
    to its own namespace afterwards, and would stay in the wrong one if the return failed. Blocks until the function
    returns. Starting the thread takes about 60 µs. VirtError ENOMEM: no thread can be started.
    """

    def run() -> T:
        enter(fd)
        return function()

    return call_apart(run, "inside a namespace")


def where(device: Placed, function: Callable[[], T]) -> T:
    """Call a function in the network namespace of an interface, and return its result.

    If the calling thread is in another namespace, the function runs in a new thread, as in inside().
    VirtError ENXIO: the interface is gone. PermissionError: this process may not enter the interface's
    namespace.
    """
    fd = device.netns()
    try:
        return function() if identity(fd) == own_identity() else inside(fd, function)
    finally:
        os.close(fd)
