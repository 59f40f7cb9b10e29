"""Unnamed network namespaces. They end with their test and need no process to keep them alive."""

import ctypes
import gc
import os
import select
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Self

import pytest

from harness.waiting import PATIENCE
from virtfs.host import netns

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def unshare() -> None:
    """Put the calling thread into a new, empty network namespace."""
    if _libc.unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def need(there: bool, what: str) -> None:
    """Skip the test unless the condition holds. With CI=true, fail instead."""
    if not there:
        if os.environ.get("CI") == "true":
            pytest.fail(f"needs {what}")
        pytest.skip(f"needs {what}")


def need_taps() -> None:
    """Skip the test if it does not run as root or cannot use /dev/net/tun."""
    need(os.geteuid() == 0, "root")
    need(os.access("/dev/net/tun", os.R_OK | os.W_OK), "/dev/net/tun")


@contextmanager
def fresh() -> Iterator[None]:
    """Run the body of the `with` statement, and the programs it starts, in a new network namespace."""
    before = netns.own_netns()
    try:
        unshare()
        yield
    finally:
        netns.enter(before)
        os.close(before)


class Namespace:
    """A second network namespace, alive as long as its descriptor is open."""

    def __init__(self) -> None:
        with fresh():
            self.fd = netns.own_netns()

    def call(self, function: Callable[[], object]) -> None:
        """Call a function in the namespace."""
        netns.inside(self.fd, function)

    def ip(self, words: str) -> str:
        """Run ip(8) in the namespace and return its output."""
        return netns.inside(self.fd, lambda: ip(words))

    @property
    def path(self) -> str:
        """The namespace's path, an argument of `ip link set … netns`."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def ip(words: str) -> str:
    """Run ip(8), which must succeed, and return its output."""
    done = subprocess.run(["ip", *words.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {words}: {done.stderr}"
    return done.stdout


def descriptors() -> list[str]:
    """Return what the open descriptors of this process refer to."""
    gc.collect()  # closes files that an earlier test dropped
    names = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the descriptor that listed the directory
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sorted(names)


def wait_gone(fd: int) -> None:
    """Wait until a tap's descriptor reports that its interface is gone."""
    poll = select.poll()
    # POLLERR is always reported, but only waiters for POLLPRI or POLLIN are woken for it (tun.c tun_detach_all).
    poll.register(fd, select.POLLPRI)
    assert poll.poll(1000 * PATIENCE), "the tap is still there"
