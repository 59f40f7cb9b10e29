"""Network namespaces by the names ip-netns(8) gives, or by a process in them."""

import errno
import fcntl
import os
from pathlib import Path

from virtfs.core.errors import VirtError
from virtfs.host import netns

_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h
_CLONE_NEWNET = 0x40000000  # linux/sched.h

NAMED = Path("/run/netns")  # ip-netns(8)


def open_netns(name: str) -> int:
    """A descriptor of the namespace of that name, or of that process; "" is the daemon's own. The caller closes it.

    VirtError ENXIO: there is none; what open(2) says otherwise.
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
        if fcntl.ioctl(fd, _NS_GET_NSTYPE) == _CLONE_NEWNET:
            return fd
    except OSError:
        pass  # ENOTTY: no namespace at all, such as the file ip-netns(8) leaves when its mount is gone
    os.close(fd)
    raise VirtError(errno.EINVAL, f'"{name}" is no network namespace')


def name_of(fd: int) -> str | None:
    """The name under which ip-netns(8) knows the namespace of a descriptor. OSError: EMFILE, ENFILE, ENOMEM."""
    wanted = netns.identity(fd)
    try:
        entries = sorted(NAMED.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    for entry in entries:
        try:
            status = entry.stat()
        except OSError:
            continue
        if (status.st_dev, status.st_ino) == wanted:
            return entry.name
    return None
