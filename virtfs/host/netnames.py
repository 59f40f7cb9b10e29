"""Network namespaces by their ip-netns(8) name, or by a process in them."""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from virtfs.core.errors import VirtError
from virtfs.host import netns

_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h


NAMED = Path("/run/netns")  # ip-netns(8)


def open_netns(name: str) -> int:
    """Return a new descriptor of a network namespace, which the caller must close.

    name: an ip-netns(8) name, the id of a process in the namespace, or "" for the daemon's own namespace.
    VirtError: ENXIO, there is no such namespace or process; EINVAL, the name does not refer to a network
    namespace; other errors from open(2).
    """
    if not name:
        return netns.own_netns()
    path = Path("/proc") / name / "ns/net" if name.isdecimal() else NAMED / name
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        what = "process" if name.isdecimal() else "network namespace"
        raise VirtError(errno.ENXIO, f'there is no {what} "{name}"') from None
    except OSError as refusal:
        raise VirtError(refusal.errno or errno.EIO, f'network namespace "{name}": {refusal.strerror}') from None
    try:
        if fcntl.ioctl(fd, _NS_GET_NSTYPE) == netns.CLONE_NEWNET:
            return fd
    except OSError:
        # ENOTTY: not a namespace. For example, a file of ip-netns(8) remains after its namespace was unmounted.
        pass
    os.close(fd)
    raise VirtError(errno.EINVAL, f'"{name}" is not a network namespace')


def name_of(fd: int) -> str | None:
    """Return the ip-netns(8) name of a namespace, or None if it has none. OSError: EMFILE, ENFILE, ENOMEM."""
    wanted = netns.identity(fd)
    return _name(lambda status: (status.st_dev, status.st_ino) == wanted)


def name_of_inode(inode: int) -> str | None:
    """Return the ip-netns(8) name of the namespace with this inode, or None if it has none."""
    return _name(lambda status: status.st_ino == inode)


def _name(wanted: Callable[[os.stat_result], bool]) -> str | None:
    try:
        entries = sorted(NAMED.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    for entry in entries:
        try:
            status = entry.stat()
        except OSError:
            continue
        if wanted(status):
            return entry.name
    return None
