"""The capabilities that a server keeps (capabilities(7)). It drops all others at startup and cannot regain them.

tests/life/test_privileges.py shows that each capability is needed.
"""

import ctypes
import os
from collections.abc import Iterable
from contextlib import suppress
from enum import IntEnum
from typing import Final

from virtfs.host.libc import check, libc

# linux/prctl.h
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_VERSION_3 = 0x20080522  # linux/capability.h: each set has two words of 32 bits
_UMASK: Final = 0o077


class Capability(IntEnum):
    """The capabilities that a server keeps, with their numbers from linux/capability.h."""

    CAP_CHOWN = 0
    CAP_DAC_OVERRIDE = 1
    CAP_FOWNER = 3
    CAP_NET_BROADCAST = 11
    CAP_NET_ADMIN = 12
    CAP_NET_RAW = 13
    CAP_SYS_PTRACE = 19
    CAP_SYS_ADMIN = 21


# What each capability is for. doc/security.md has the same table.
REASONS: Final = {
    Capability.CAP_CHOWN: "give the FIFO behind `rx`, and the socket of a cable, to the owner of the interface",
    Capability.CAP_DAC_OVERRIDE: "open that FIFO, the sockets of cables, and a state file in another user's directory",
    Capability.CAP_FOWNER: "change the mode of a FIFO that another user owns",
    Capability.CAP_NET_BROADCAST: "be notified of changes in other namespaces (NETLINK_LISTEN_ALL_NSID in netlink(7))",
    Capability.CAP_NET_ADMIN: "create and configure taps and bridges",
    Capability.CAP_NET_RAW: "capture frames with a packet socket",
    Capability.CAP_SYS_PTRACE: "find the network namespace of a process, and collect the pieces of a split writev(2)",
    Capability.CAP_SYS_ADMIN: "enter network namespaces, mount and unmount",
}


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def drop(keep: Iterable[int] = Capability) -> None:
    """Drop every capability of this thread that is not in `keep`, and set the umask to 077.

    A thread inherits the capabilities of the thread that starts it, so call this before any other thread is started.

    If this process is root, also set no_new_privs and reduce the bounding set, so that the programs it starts cannot
    gain capabilities. A server that runs as another user cannot set no_new_privs, because it needs the
    setuid program fusermount3 to unmount.

    OSError: errors from capget(2) and capset(2).
    """
    kept = frozenset(keep)
    os.umask(_UMASK)
    check(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    if os.geteuid() == 0:
        check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        # EPERM: this process lacks CAP_SETPCAP. With no_new_privs execve(2) grants no capability anyway.
        with suppress(PermissionError):
            _reduce_bounding_set(kept)
    mask = sum(1 << number for number in kept)
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    check(libc.capget(ctypes.byref(header), data))
    for half, word in enumerate(data):
        word.permitted &= mask >> 32 * half
        word.effective = word.permitted
        word.inheritable = 0
    check(libc.capset(ctypes.byref(header), data))


def lacking(needed: Iterable[Capability]) -> list[Capability]:
    """Return the capabilities that this thread does not have (capget(2))."""
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    check(libc.capget(ctypes.byref(header), data))
    held = data[0].effective | data[1].effective << 32
    return [capability for capability in needed if not held & 1 << capability]


def _reduce_bounding_set(keep: frozenset[int]) -> None:
    number = 0
    while (found := libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0)) >= 0:  # EINVAL after the last capability
        if found and number not in keep:
            check(libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0))
        number += 1
