"""The limit on open files (RLIMIT_NOFILE, getrlimit(2)), and a reserve below it.

open(2) returns the lowest free number, so a number near the limit means that all lower numbers are in use. Checking the
number of a new descriptor is therefore enough to keep some free. Which numbers a descriptor may have depends on its
purpose:

    below limit - reserve        interfaces
    below limit - reserve / 2    timers, capture rings, cables and FIFOs, which stay open
    below limit                  descriptors that a request needs briefly: rtnetlink, namespaces, files of /proc
"""

import errno
import os
import resource
from contextlib import suppress

from virtfs.core.errors import VirtError

OWN = 32  # a generous estimate of the descriptors that a server without interfaces uses
OF_INTERFACE = 1  # descriptors of one interface: the tap
# Errnos that mean that descriptors or memory have run out.
NONE_LEFT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN))


def raise_limit() -> int:
    """Raise this process's soft limit to its hard limit; return the resulting limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # This fails if the sysctl fs.nr_open was lowered below the hard limit.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return limit()


def limit() -> int:
    """Return the maximum number of open files of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 30


def reserve(most: int) -> int:
    """Return the number of descriptors that interfaces must leave free. most: the limit on open files."""
    return min(max(16, most // 8), 512)


def interfaces(most: int) -> int:
    """Return the number of interfaces that a limit of `most` descriptors allows."""
    return max(0, (most - OWN - reserve(most)) // OF_INTERFACE)


def keep_reserve(fd: int) -> None:
    """Check that a new descriptor of an interface leaves the reserve free.

    If it does not, close the descriptor and raise VirtError EMFILE.
    """
    most = limit()
    if fd >= most - reserve(most):
        os.close(fd)
        raise VirtError(
            errno.EMFILE,
            f"too few of the {most} descriptors (RLIMIT_NOFILE) are free for another interface:"
            " destroy an interface first",
        )


def keep_spare(fd: int) -> None:
    """Check that a new descriptor that will stay open leaves half of the reserve free.

    If it does not, raise VirtError EMFILE. The caller must then close the descriptor.
    """
    most = limit()
    if fd >= most - reserve(most) // 2:
        raise VirtError(
            errno.EMFILE, f"too few of the {most} descriptors (RLIMIT_NOFILE) are free: close some files first"
        )


def one_left() -> None:
    """Raise OSError (EMFILE, ENFILE, ENOMEM) if no descriptor is free.

    Call this when a library has failed without reporting the reason.
    """
    os.close(os.eventfd(0, os.EFD_CLOEXEC))
