"""The sockets at the far end of cables, as words of ctl.

    unix:PATH, seqpacket:PATH     connect to the socket at PATH
    unix-listen:PATH              accept a connection at PATH
    dgram:PATH[,OWN]              exchange datagrams with the socket at PATH; OWN is the path of the cable's own socket
    tcp:HOST:PORT                 connect to a TCP port
    tcp-listen:[HOST:]PORT        accept a TCP connection; without HOST, on every local address

PATH is absolute. An IPv6 address is written in brackets, as in tcp:[2001:db8::1]:4000.
"""

import re
from dataclasses import dataclass
from errno import EINVAL
from typing import Final, Literal, cast, get_args

from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit
from virtfs.core.quantities import parse_int
from virtfs.core.quoting import quoted

Kind = Literal["unix", "unix-listen", "seqpacket", "dgram", "tcp", "tcp-listen"]

PATH_MAX = 107  # bytes; sun_path of unix(7) without the NUL
FORMS: Final = "unix:PATH, unix-listen:PATH, seqpacket:PATH, dgram:PATH[,OWN], tcp:HOST:PORT or tcp-listen:[HOST:]PORT"

# A DNS name, an IPv4 address, or an IPv6 address in brackets. The IPv6 address may have a zone (RFC 4007).
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}|\[[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._-]{1,15})?\]")


@dataclass(frozen=True, slots=True)
class SocketName:
    """The name of a socket. str() is the inverse of parse_socket().

    path: the path of the socket, "" for TCP. own: the path of the cable's own socket, "" for the default (dgram only).
    host: the host without brackets, "" for every address. port: the TCP port, 0 for a Unix socket.
    """

    kind: Kind
    path: str = ""
    own: str = ""
    host: str = ""
    port: int = 0

    @property
    def listens(self) -> bool:
        """Whether virtfs waits for the peer to connect."""
        return self.kind.endswith("-listen")

    @property
    def stream(self) -> bool:
        """Whether the socket is a byte stream, in which each frame follows its length (core.framestream)."""
        return self.kind not in ("seqpacket", "dgram")

    def own_path(self, unit: Unit) -> str:
        """Return the path of the cable's own socket, "" if it has none. VirtError EINVAL: the path is too long."""
        if self.kind == "dgram":
            return self.own or _path(f"{self.path}.virt{unit}")
        return self.path if self.listens else ""

    def __str__(self) -> str:
        if self.port:
            host = f"[{self.host}]" if ":" in self.host else self.host
            return f"{self.kind}:{host}:{self.port}" if host else f"{self.kind}:{self.port}"
        return f"{self.kind}:{self.path},{self.own}" if self.own else f"{self.kind}:{self.path}"


def names_socket(word: str) -> bool:
    """Return whether a word is meant as the name of a socket, even if it is not a valid one."""
    return ":" in word or "/" in word or word in get_args(Kind)


def parse_socket(word: str) -> SocketName:
    """Parse a word such as "unix:/run/peer". VirtError: EINVAL; ERANGE, the port is out of range."""
    kind, _, rest = word.partition(":")
    if not rest or kind not in get_args(Kind):
        raise VirtError(EINVAL, f"{quoted(word)} is not a socket: it must be {FORMS}")
    kind = cast(Kind, kind)
    match kind:
        case "tcp" | "tcp-listen":
            return _parse_tcp(kind, word, rest)
        case "dgram":
            path, comma, own = rest.partition(",")
            return SocketName(kind, _path(path), _path(own) if comma else "")
        case _:
            return SocketName(kind, _path(rest))


def _parse_tcp(kind: Kind, word: str, rest: str) -> SocketName:
    host, colon, port = rest.rpartition(":")
    if (not _HOST.fullmatch(host)) if colon or kind == "tcp" else host:
        form = "tcp:HOST:PORT" if kind == "tcp" else "tcp-listen:[HOST:]PORT"
        raise VirtError(EINVAL, f"{quoted(word)} is not of the form {form}; an IPv6 address needs brackets")
    return SocketName(kind, host=host.strip("[]"), port=parse_int(port, 1, 65535))


def _path(path: str) -> str:
    if not path.startswith("/"):
        raise VirtError(EINVAL, f"{quoted(path)} is not an absolute path")
    if len(path.encode("utf-8", "surrogateescape")) > PATH_MAX:
        raise VirtError(EINVAL, f"{quoted(path)} is too long: the path of a socket has at most {PATH_MAX} bytes")
    return path
