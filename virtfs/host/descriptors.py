"""The limit of open files (RLIMIT_NOFILE, getrlimit(2)), and a reserve for what must not fail.

open(2) returns the lowest free number, so a number near the limit means that all below it are in use. Checking the
number of a new descriptor is therefore enough to keep some free:

    0 … limit - reserve      new interfaces
          … limit - spare    what stays open for a user: timers, capture rings, cables, FIFOs
                … limit      what a request needs briefly: rtnetlink, namespaces, files of /proc
"""

import errno
import os
import resource
from contextlib import suppress

from virtfs.core.errors import VirtError

OWN = 32  # a generous estimate for a server without interfaces
OF_INTERFACE = 2  # the tap, and an epoll descriptor that waits for it edge-triggered
NONE_LEFT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN))


def raise_limit() -> int:
    """Raise this process's soft limit to its hard limit; return the limit that holds then."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # the sysctl fs.nr_open was lowered below the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return limit()


def limit() -> int:
    """Return the maximum number of open files of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 30


def reserve(most: int) -> int:
    """Return how many of `most` descriptors are reserved for purposes other than interfaces."""
    return min(max(16, most // 8), 512)


def interfaces(most: int) -> int:
    """Return the number of interfaces that a limit of `most` descriptors allows."""
    return max(0, (most - OWN - reserve(most)) // OF_INTERFACE)


def keep_reserve(fd: int) -> None:
    """Check that an interface's new descriptor leaves the reserve. VirtError EMFILE: it does not, and is closed."""
    most = limit()
    if fd >= most - reserve(most):
        os.close(fd)
        raise VirtError(errno.EMFILE, f"too few of {most} descriptors (RLIMIT_NOFILE) are free for another interface")


def keep_spare(fd: int) -> None:
    """Check that a new, long-lived descriptor leaves the spare ones.

    VirtError EMFILE: it does not. The caller closes the descriptor.
    """
    most = limit()
    if fd >= most - reserve(most) // 2:
        raise VirtError(errno.EMFILE, f"too few of {most} descriptors (RLIMIT_NOFILE) are free")


def one_left() -> None:
    """Raise OSError (EMFILE, ENFILE, ENOMEM) if no descriptor is left. For libraries whose errors give no reason."""
    os.close(os.eventfd(0, os.EFD_CLOEXEC))
