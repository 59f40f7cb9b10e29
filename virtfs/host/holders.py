"""Find the processes that have a connection, a tap or a file open.

The process that opened it may have ended, and another may have inherited it, by fork(2) or over a socket.
"""

import fcntl
import os
import socket
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

from virtfs.host.netlink_attributes import find
from virtfs.host.netlink_messages import U32
from virtfs.host.netns import identity, inside, own_identity
from virtfs.host.rtnl import replies
from virtfs.host.textfiles import read_text

_SIOCGSKNS: Final = 0x894C  # linux/sockios.h; needs CAP_NET_ADMIN
_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG, linux/netlink.h
_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY, linux/sock_diag.h
_NLM_F_REQUEST: Final = 1
_HEADER: Final = struct.Struct("IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
# struct unix_diag_req: family, protocol, states, inode, what to show, cookie (linux/unix_diag.h)
_REQUEST: Final = struct.Struct("BBxxIIIq")
_ANSWER: Final = 16  # bytes; size of struct unix_diag_msg, which precedes the attributes
_SHOW_PEER, _PEER = 0x4, 2  # UDIAG_SHOW_PEER, UNIX_DIAG_PEER
_ROOM: Final = 4096  # bytes; more than one answer needs
_PATIENCE: Final = 1  # seconds


def holding(connection: int, process: int) -> int:
    """Return the id of a process that has the other end of a connection open.

    connection: a connected Unix socket. process: the id to return if this process has it open, or if none is found. A
    process is not found in another PID namespace, or without the right to read its descriptors (proc_pid_fd(5)).
    Otherwise, return the lowest id. Blocks: reads the descriptors of every process of the system, unless `process` has
    the connection.
    """
    try:
        inode = _inode_of_peer(connection)
        found = next((pid for pid in _processes(process) if _has(pid, inode)), process)
    except OSError:
        return process
    return found


def holding_tap(name: str) -> list[int]:
    """Return the ids of the other processes that have a tap of this name open, in the order of their ids.

    The kernel does not tell the network namespace of their tap. If some of them are in that of this process, the others
    are left out. A process is not found in another PID namespace, or without the right to read its descriptors. Blocks:
    reads the descriptors of every process of the system.
    """
    myself, *others = _processes(os.getpid())
    found = [pid for pid in others if pid != myself and _has_tap(pid, name)]
    own = os.stat("/proc/self/ns/net")
    near = [pid for pid in found if _namespace(pid) == (own.st_dev, own.st_ino)]
    return near or found


class OpenFile(NamedTuple):
    """A descriptor of a process. uid: the user of the process. access: O_RDONLY, O_WRONLY or O_RDWR."""

    process: int
    uid: int
    access: int


def having_open(paths: Collection[str]) -> dict[str, list[OpenFile]]:
    """Return the descriptors of all processes for the files with these paths, in the order of the process ids.

    A file is found at its path in the file system itself, not where it is bind-mounted. A process is not found in
    another PID namespace, or without the right to read its descriptors. Blocks: reads the descriptors of every process
    of the system, but does not access the files.
    """
    found: dict[str, list[OpenFile]] = {path: [] for path in paths}
    for process in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
        for number, target in _descriptors(process):
            if target in found:
                with suppress(OSError, StopIteration):  # it has been closed meanwhile
                    uid = os.stat(f"/proc/{process}").st_uid
                    found[target].append(OpenFile(process, uid, _access(process, number)))
    return found


def _access(process: int, number: str) -> int:
    """Return the access mode of a descriptor (proc_pid_fdinfo(5))."""
    lines = read_text(f"/proc/{process}/fdinfo/{number}").splitlines()
    flags = next(line.split()[1] for line in lines if line.startswith("flags:"))
    return int(flags, 8) & os.O_ACCMODE


def _namespace(process: int) -> tuple[int, int] | None:
    try:
        namespace = os.stat(f"/proc/{process}/ns/net")
    except OSError:  # the process has ended, or may not be examined
        return None
    return namespace.st_dev, namespace.st_ino


def _has_tap(process: int, name: str) -> bool:
    """Return whether a process has a tap open, of whose descriptor fdinfo says so (drivers/net/tun.c)."""
    line = f"iff:\t{name}"
    for number, target in _descriptors(process):
        if target.endswith("/tun"):
            with suppress(OSError):
                if line in read_text(f"/proc/{process}/fdinfo/{number}").splitlines():
                    return True
    return False


def _inode_of_peer(connection: int) -> int:
    """Return the inode of the socket at the other end. OSError: the kernel does not tell it."""
    # The kernel makes an accepted socket in the namespace of the process that connects (net/unix/af_unix.c,
    # unix_stream_connect), and sock_diag shows only sockets of one namespace.
    namespace = fcntl.ioctl(connection, _SIOCGSKNS)
    try:
        ask = partial(_peer_of, os.fstat(connection).st_ino)
        return ask() if identity(namespace) == own_identity() else inside(namespace, ask)
    finally:
        os.close(namespace)


def _peer_of(own: int) -> int:
    """Return the inode of the socket that is connected to the one with the inode `own`, in this network namespace."""
    body = _REQUEST.pack(socket.AF_UNIX, 0, 0xFFFFFFFF, own, _SHOW_PEER, -1)  # no cookie: INET_DIAG_NOCOOKIE
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as sock:
        sock.settimeout(_PATIENCE)
        sock.send(_HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _NLM_F_REQUEST, 1, 0) + body)
        for reply in replies(sock.recv(_ROOM)):
            value = find(reply.body, _ANSWER, _PEER) if reply.kind == _BY_FAMILY else None
            if value is not None:
                return int(U32.unpack(value)[0])
    raise OSError("the socket has no peer")


def _processes(first: int) -> Iterator[int]:
    """Yield the ids of all processes, one of them first."""
    yield first
    yield from sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())


def _has(process: int, inode: int) -> bool:
    """Return whether a process has a socket open."""
    return any(target == f"socket:[{inode}]" for _, target in _descriptors(process))


def _descriptors(process: int) -> Iterator[tuple[str, str]]:
    """Yield the number of each descriptor of a process, and what it refers to; nothing if it may not be examined."""
    folder = f"/proc/{process}/fd"
    try:
        numbers = os.listdir(folder)
    except OSError:  # the process has ended, or may not be examined
        return
    for number in numbers:
        try:
            target = os.readlink(f"{folder}/{number}")
        except OSError:  # it has been closed meanwhile
            continue
        yield number, target
