"""Unix sockets on which the server answers other processes, and the identity of these processes (unix(7))."""

import ctypes
import errno
import os
import select
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from virtfs.core.errors import VirtError
from virtfs.core.ids import Gid, Uid
from virtfs.core.socketname import PATH_MAX
from virtfs.host.descriptors import keep_spare
from virtfs.host.libc import check, libc

_UCRED = struct.Struct("iII")  # struct ucred: pid, uid, gid
_SO_PEERGROUPS = 59  # asm-generic/socket.h
_GROUPS_MAX = 65536  # NGROUPS_MAX, linux/limits.h
_BACKLOG = 16


@dataclass(frozen=True, slots=True)
class Peer:
    """A process that has connected, with the ids that it had when it called connect(2).

    groups: its primary and supplementary groups.
    """

    pid: int
    uid: Uid
    gid: Gid
    groups: Collection[Gid]


def has_ended(connection: int) -> bool:
    """Return whether the peer of a connection has closed it or sent data, or the descriptor is closed (poll(2))."""
    poll = select.poll()
    poll.register(connection, select.POLLIN | select.POLLRDHUP)
    return bool(poll.poll(0))


def listen(path: Path) -> socket.socket:
    """Return a listening, non-blocking SOCK_SEQPACKET socket at a path. Any file at this path is removed first.

    Every user may connect, because the server checks the rights of each peer. VirtError: EMFILE, too few descriptors
    are left; other errors of bind(2).
    """
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    except OSError as refusal:
        raise _explained(path, refusal) from refusal
    try:
        keep_spare(sock.fileno())
        path.unlink(missing_ok=True)
        _bind(sock, path)
        path.chmod(0o666)
        sock.listen(_BACKLOG)
    except VirtError:
        sock.close()
        raise
    except OSError as refusal:
        sock.close()
        raise _explained(path, refusal) from refusal
    return sock


def _bind(sock: socket.socket, path: Path) -> None:
    """Bind a socket to a path that may exceed the 107 bytes that fit in a socket address (unix(7))."""
    if len(os.fspath(path).encode(errors="surrogateescape")) <= PATH_MAX:
        sock.bind(os.fspath(path))  # /proc/net/unix shows this text
        return
    directory = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    try:
        sock.bind(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)


def _explained(path: Path, refusal: OSError) -> VirtError:
    return VirtError(refusal.errno or errno.EIO, f'cannot create the socket "{path}": {refusal.strerror}')


def peer_of(fd: int) -> Peer:
    """Return the peer of a connected socket. OSError: errors from getsockopt(2)."""
    with socket.socket(fileno=os.dup(fd)) as sock:
        pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(pid, Uid(uid), Gid(gid), {Gid(gid), *_supplementary(fd)})


def _supplementary(fd: int) -> Collection[Gid]:
    """Return the supplementary groups of a peer.

    Python's socket.getsockopt() cannot return them, because it limits the value of an option to 1024 bytes.
    """
    groups = (ctypes.c_uint * _GROUPS_MAX)()
    size = ctypes.c_uint(ctypes.sizeof(groups))
    check(libc.getsockopt(fd, socket.SOL_SOCKET, _SO_PEERGROUPS, ctypes.byref(groups), ctypes.byref(size)))
    return [Gid(group) for group in groups[: size.value // ctypes.sizeof(ctypes.c_uint)]]
