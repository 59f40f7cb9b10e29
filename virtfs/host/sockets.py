"""The sockets at the far end of cables. Every function here may block, in a name lookup or on a file system.

A new socket is non-blocking. Paths and addresses are resolved in the namespaces of the calling thread, which are those
of the mount.
"""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from virtfs.core.errors import VirtError, refused
from virtfs.core.quoting import quoted
from virtfs.core.socketname import SocketName
from virtfs.host.descriptors import keep_spare
from virtfs.host.textfiles import read_text

# A dead TCP peer is noticed after 15 s, whether sent data is unacknowledged or the connection is idle (tcp(7)).
_DEAD_AFTER = 15
_UNSENT = 128 << 10  # bytes of unsent data in a TCP socket above which it is not writable (TCP_NOTSENT_LOWAT)

_LOWEST_PORT = "net.ipv4.ip_unprivileged_port_start"  # sysctl(8); also for IPv6

# The family, the type and the address of a socket.
Address = tuple[int, int, Any]


@dataclass(frozen=True, slots=True)
class Rights:
    """The owner, the group and the permission bits of a socket's path."""

    uid: int
    gid: int
    mode: int


class OwnSocket:
    """A socket that virtfs has bound: it listens, or it exchanges datagrams.

    path: the path of a Unix socket, "" for TCP.
    """

    def __init__(self, bound: socket.socket, path: str = "") -> None:
        self.socket = bound
        self.path = path
        self._identity = _identity(path) if path else None

    def set_rights(self, rights: Rights) -> None:
        """Set the owner, the group and the mode of the path.

        VirtError: ENOENT, the path is gone; EEXIST, another file has replaced it; errors of chmod(2) and chown(2).
        """
        if self._identity is not None:
            with _explained(f"cannot change the mode of the socket {self.path}"):
                _set_rights(self.path, rights, self._identity)

    def close(self) -> None:
        """Close the socket, and remove its path unless another file has replaced it."""
        if self._identity is not None:
            with suppress(OSError):
                if _identity(self.path) == self._identity:
                    os.unlink(self.path)
        self.socket.close()


def look_up(name: SocketName) -> list[Address]:
    """Return the addresses of a TCP host. VirtError: EHOSTUNREACH, the name cannot be looked up."""
    try:
        found = socket.getaddrinfo(name.host.encode(), name.port, type=socket.SOCK_STREAM)
    except OSError as failure:  # gaierror has numbers of its own (gai_strerror(3)), not errnos
        raise VirtError(errno.EHOSTUNREACH, f"cannot look up {quoted(name.host)}: {failure.strerror}") from None
    return [(family, kind, address) for family, kind, _, _, address in found]


def open_socket(family: int, kind: int) -> socket.socket:
    """Return a new socket. VirtError: EMFILE, ENFILE, ENOMEM, EAFNOSUPPORT."""
    try:
        made = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        try:
            keep_spare(made.fileno())
        except BaseException:
            made.close()
            raise
    except OSError as failure:
        raise refused(failure) from failure
    return made


def connect_path(name: SocketName) -> socket.socket:
    """Connect to a Unix socket. VirtError: ENOENT, ECONNREFUSED, EAGAIN (its backlog is full), EACCES and others."""
    made = open_socket(socket.AF_UNIX, socket.SOCK_STREAM if name.stream else socket.SOCK_SEQPACKET)
    try:
        connect_to(made, name)
    except BaseException:
        made.close()
        raise
    return made


def connect_to(made: socket.socket, name: SocketName) -> None:
    """Connect a Unix socket to the socket at a path.

    Calling this again for a datagram socket connects it to the socket that is at the path now. The errors are those of
    connect_path().
    """
    with _explained(f"cannot connect to {name}"):
        try:
            made.connect(name.path)
        except PermissionError as failure:
            raise PermissionError(failure.errno, f"{failure.strerror}{_who_may_connect(name.path)}") from None


def _who_may_connect(path: str) -> str:
    """Return the rights of a socket and the remedy, as the end of an error message; "" if they are unknown."""
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:  # this user may not search the directory
        return ""
    return f': its mode is {mode:04o}: at the other end, "mode 666" lets every user connect, "group NAME" a group'


def bind_datagrams(path: str, rights: Rights) -> OwnSocket:
    """Return a datagram socket that is bound to a path. The errors are those of listen()."""
    return _bound(socket.SOCK_DGRAM, path, rights)


def listen(name: SocketName, rights: Rights) -> OwnSocket:
    """Return a listening socket. rights: the owner, group and mode of its path.

    VirtError: EEXIST, the path exists and is not a socket; EADDRINUSE, another program is using the path or the port;
    EADDRNOTAVAIL, EACCES, ENOENT and others.
    """
    made = _bound(socket.SOCK_STREAM, name.path, rights) if name.path else _bound_to_port(name)
    try:
        made.socket.listen(1)
    except OSError as failure:
        made.close()
        raise refused(failure) from failure
    return made


def outcome(connecting: socket.socket) -> int:
    """Return the errno that connect(2) of a TCP socket ended with, or 0 if the socket is connected.

    Return ECONNREFUSED if the socket is connected to itself. This can happen when the address is on this host, no
    program listens on the port, and the kernel chooses that port as the source port.
    """
    number = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    with suppress(OSError):
        if not number and connecting.getsockname() == connecting.getpeername():
            return errno.ECONNREFUSED
    return number


def accept(listening: socket.socket) -> socket.socket | None:
    """Accept a connection, or return None if none is waiting. VirtError: EMFILE, ENFILE, ENOMEM."""
    try:
        connected, _ = listening.accept()
    except BlockingIOError:
        return None
    except OSError as failure:
        raise refused(failure) from failure
    try:
        keep_spare(connected.fileno())
    except BaseException:
        connected.close()
        raise
    return connected


def prepare(connected: socket.socket) -> None:
    """Make a connected socket non-blocking. If it is a TCP socket, set its options (tcp(7))."""
    connected.setblocking(False)
    if connected.family == socket.AF_UNIX:
        return
    options = {
        socket.TCP_NODELAY: 1,
        socket.TCP_KEEPIDLE: _DEAD_AFTER // 3,
        socket.TCP_KEEPINTVL: _DEAD_AFTER // 3,
        socket.TCP_KEEPCNT: 2,
        socket.TCP_USER_TIMEOUT: _DEAD_AFTER * 1000,
        socket.TCP_NOTSENT_LOWAT: _UNSENT,
    }
    with suppress(OSError):  # the peer may have reset the connection
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in options.items():
            connected.setsockopt(socket.IPPROTO_TCP, option, value)


def peer_of(connected: socket.socket) -> str:
    """Return the address of a TCP peer, as in "10.0.0.1:4000"; "" for a Unix socket."""
    try:
        address = connected.getpeername()
    except OSError:
        return ""
    if not isinstance(address, tuple):
        return ""
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{host}:{address[1]}"


def _bound(kind: int, path: str, rights: Rights) -> OwnSocket:
    made = open_socket(socket.AF_UNIX, kind)
    try:
        with _explained(f"cannot create the socket {path}"):
            try:
                made.bind(path)
            except OSError as failure:
                if failure.errno != errno.EADDRINUSE:
                    raise
                _remove_dead(path)
                made.bind(path)
            own = OwnSocket(made, path)
            try:
                own.set_rights(rights)
            except BaseException:
                own.close()
                raise
    except BaseException:
        made.close()
        raise
    return own


def _remove_dead(path: str) -> None:
    """Remove the path of a socket whose program has ended.

    VirtError: EEXIST, the path is not a socket; EADDRINUSE, another program is using the socket, or may be; EPERM or
    EACCES, this user cannot remove it.
    """
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise VirtError(errno.EEXIST, f"{quoted(path)} exists and is not a socket")
    # A datagram socket cannot connect to a listening one (EPROTOTYPE, net/unix/af_unix.c unix_find_bsd), so the other
    # program does not notice this attempt.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as probe:
        outcome = probe.connect_ex(path)
    if outcome == errno.EACCES:  # it may be dead or not
        raise VirtError(errno.EADDRINUSE, _of_another_user(path))
    if outcome != errno.ECONNREFUSED:
        raise VirtError(errno.EADDRINUSE, f"another program is using the socket {quoted(path)}")
    try:
        os.unlink(path)
    except PermissionError as failure:  # EPERM in a sticky directory such as /tmp, else EACCES
        raise VirtError(failure.errno or errno.EPERM, _of_another_user(path)) from failure


def _of_another_user(path: str) -> str:
    return f"there is a socket of another user at {quoted(path)}: that user must remove it, or choose another path"


def _set_rights(path: str, rights: Rights, identity: tuple[int, int]) -> None:
    """Set the owner, the group and the mode of the path of a socket that this process has bound.

    The path is opened first, because another user who owns the directory could replace it. No other file can have the
    identity, because the bound socket keeps the inode of its path in use (net/unix/af_unix.c). If this process is not
    root, the socket keeps its owner and group.
    """
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != identity:
            raise VirtError(errno.EEXIST, f"{quoted(path)} has been replaced")
        os.chmod(f"/proc/self/fd/{fd}", rights.mode)
        try:
            os.chown(f"/proc/self/fd/{fd}", rights.uid, rights.gid)
        except PermissionError:
            if os.geteuid() == 0:
                raise
    finally:
        os.close(fd)


def _bound_to_port(name: SocketName) -> OwnSocket:
    both = not name.host and socket.has_dualstack_ipv6()
    every = (socket.AF_INET6 if both else socket.AF_INET), socket.SOCK_STREAM, ("", name.port)
    family, kind, address = look_up(name)[0] if name.host else every
    made = open_socket(family, kind)
    try:
        with _explained(f"cannot listen at {name}"):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if both:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            _bind_to_port(made, address, name.port)
    except BaseException:
        made.close()
        raise
    return OwnSocket(made)


def _bind_to_port(made: socket.socket, address: Any, port: int) -> None:
    """Bind a TCP socket. virtfs has no CAP_NET_BIND_SERVICE, so the kernel refuses low ports, even to root (ip(7))."""
    try:
        made.bind(address)
    except PermissionError as failure:
        lowest = _lowest_port()
        if port >= lowest:
            raise
        raise PermissionError(failure.errno, f"the port must be {lowest} or higher ({_LOWEST_PORT})") from None


def _lowest_port() -> int:
    """Return the lowest port that needs no capability in the network namespace of this thread."""
    with suppress(OSError, ValueError):
        return int(read_text(f"/proc/sys/{_LOWEST_PORT.replace('.', '/')}"))
    return 1024


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn an OSError into a VirtError. what: the beginning of its message."""
    try:
        yield
    except VirtError:
        raise
    except OSError as failure:
        raise VirtError(failure.errno or errno.EIO, f"{what}: {failure.strerror or failure}") from failure
