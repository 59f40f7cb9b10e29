"""What the kernel shows about the interfaces of a network namespace, read without virtfs and without pyroute2.

Decoding a dump with pyroute2 takes 20 times as long.
"""

import os
import socket
import struct
from collections.abc import Iterator

_HEADER = struct.Struct("IHHII")  # struct nlmsghdr, linux/netlink.h
_LINK = struct.Struct("BxHiII")  # struct ifinfomsg, linux/rtnetlink.h
_ADDRESS = struct.Struct("BBBBI")  # struct ifaddrmsg, linux/if_addr.h
_ATTRIBUTE = struct.Struct("HH")
_GETLINK, _GETADDR, _DUMP, _DONE = 18, 22, 0x301, 3
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_TXQLEN = 1, 3, 4, 10, 13
_IFA_LOCAL, _IFA_ADDRESS = 2, 1
_LINK_LOCAL = b"\xfe\x80"


class Seen:
    """A namespace: that of the thread which creates the object."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)

    def close(self) -> None:
        self._socket.close()

    def links(self) -> list[str]:
        """Return the name, MTU, queue length, MAC, state UP, master and addresses of each interface.

        Link-local IPv6 addresses are left out, because the kernel adds them when it likes.
        """
        names = {0: ""}
        found: dict[int, list[object]] = {}
        masters: dict[int, int] = {}
        for body in self._dump(_GETLINK, bytes(_LINK.size)):
            _, _, index, flags, _ = _LINK.unpack_from(body)
            get = dict(_attributes(body[_LINK.size :]))
            names[index] = get[_IFLA_IFNAME].rstrip(b"\0").decode()
            numbers = [int.from_bytes(get[key], "little") for key in (_IFLA_MTU, _IFLA_TXQLEN)]
            found[index] = [*numbers, get[_IFLA_ADDRESS].hex(":"), flags & 1]
            masters[index] = int.from_bytes(get.get(_IFLA_MASTER, b""), "little")
        for body in self._dump(_GETADDR, bytes(_ADDRESS.size)):
            _, length, _, _, index = _ADDRESS.unpack_from(body)
            get = dict(_attributes(body[_ADDRESS.size :]))
            address = get.get(_IFA_LOCAL) or get[_IFA_ADDRESS]
            if not address.startswith(_LINK_LOCAL) and index in found:
                found[index].append(f"{address.hex()}/{length}")
        return sorted(f"{names[index]} {about} of {names.get(masters[index])}" for index, about in found.items())

    def _dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, _DUMP, 0, 0) + body)
        while True:
            data = self._socket.recv(1 << 16)
            while data:
                length, kind, _, _, _ = _HEADER.unpack_from(data)
                if kind == _DONE:
                    return
                yield data[_HEADER.size : length]
                data = data[length + 3 & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind, data[_ATTRIBUTE.size : length]
        data = data[length + 3 & ~3 :]


def descriptors() -> int:
    """Return the number of open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))
