"""How many files this process may have open (RLIMIT_NOFILE, getrlimit(2)), and who may use the last of them.

open(2) gives the lowest number that is free. So a number near the limit means that all below it are in use, and looking
at the number of a new descriptor is all it takes to leave some to others:

    0 … limit - reserve      an interface may be made
          … limit - spare    what stays open for a user: timers, rings of captures, cables, FIFOs
                … limit      what a request needs for a moment: rtnetlink, namespaces, files of /proc
"""

import errno
import os
import resource
from contextlib import suppress

from virtfs.core.errors import VirtError

OWN = 32  # of a server without an interface, with some room
OF_INTERFACE = 2  # its tap, and what waits for that edge-triggered
NONE_LEFT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN))


def raise_limit() -> int:
    """Let this process open as many files as its hard limit allows; the limit that holds then."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # the sysctl fs.nr_open has been lowered since
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return limit()


def limit() -> int:
    """How many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 30


def reserve(most: int) -> int:
    """How many of `most` descriptors interfaces leave to all else."""
    return min(max(16, most // 8), 512)


def interfaces(most: int) -> int:
    """How many interfaces `most` descriptors are enough for."""
    return max(0, (most - OWN - reserve(most)) // OF_INTERFACE)


def keep_reserve(fd: int) -> None:
    """See whether a descriptor just got for an interface leaves enough to all else. VirtError EMFILE: it is closed."""
    most = limit()
    if fd >= most - reserve(most):
        os.close(fd)
        raise VirtError(errno.EMFILE, f"of {most} descriptors (RLIMIT_NOFILE) too few are left for another interface")


def keep_spare(fd: int) -> None:
    """See whether a descriptor just got, which stays open for long, leaves enough to what needs one for a moment.

    VirtError EMFILE: it does not. The descriptor is the caller's to close.
    """
    most = limit()
    if fd >= most - reserve(most) // 2:
        raise VirtError(errno.EMFILE, f"of {most} descriptors (RLIMIT_NOFILE) too few are left")


def one_left() -> None:
    """OSError EMFILE, ENFILE, ENOMEM: no descriptor can be had. For libraries that fail without saying why."""
    os.close(os.eventfd(0, os.EFD_CLOEXEC))
