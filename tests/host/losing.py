"""A netlink socket that loses some of the kernel's answers."""

import errno
import os
import socket

from virtfs.host.rtnl import Rtnl

LOST = OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))


class Losing(socket.socket):
    """A netlink socket that reports ENOBUFS at some receipts: those whose numbers, counted from 1, are in `lost`.

    read: whether the datagram is lost with it, as if the kernel had had no memory for it. Otherwise it comes later.
    """

    lost: frozenset[int] = frozenset()
    read = False
    receipts = 0

    def recvfrom(self, *args: int) -> tuple[bytes, object]:
        self.receipts += 1
        if self.receipts not in self.lost:
            return super().recvfrom(*args)
        if self.read:
            super().recv(*args)
        raise LOST


def losing(*lost: int, read: bool = False) -> Rtnl:
    rtnl = Rtnl()
    made = Losing(fileno=rtnl._socket.detach())
    made.lost, made.read = frozenset(lost), read
    rtnl._socket = made
    return rtnl
