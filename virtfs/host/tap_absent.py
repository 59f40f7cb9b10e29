"""The name and the namespace of a tap while virtfs is not attached to it.

The ioctls that return them need an attached descriptor.
"""

import errno
import os
import socket
from collections.abc import Callable

from virtfs.core.errors import VirtError
from virtfs.host import netns
from virtfs.host.rtnl import Rtnl

_GONE = "the tap's interface is gone"


def _index(name: str) -> int:
    """Return the index of an interface in the calling thread's namespace. VirtError ENXIO: there is none."""
    try:
        with Rtnl() as rtnl:
            return rtnl.index(name)
    except VirtError as refusal:
        if refusal.errno != errno.ENODEV:
            raise
        raise VirtError(errno.ENXIO, _GONE) from refusal


class Absent:
    """An interface, identified by its namespace and its index there. The open descriptor keeps the namespace alive.

    If another program moves the interface to another namespace, the interface counts as gone.
    """

    def __init__(self, netns_of: Callable[[], int], name: str) -> None:
        """Look up an interface in the calling thread's namespace. netns_of: returns a descriptor of the namespace."""
        self.last_name = name
        self.index = _index(name)
        self._namespace = netns_of()

    def name(self) -> str:
        """Return the current name of the interface. VirtError ENXIO: it is gone."""

        def ask() -> str:
            return socket.if_indextoname(self.index)

        here = netns.identity(self._namespace) == netns.own_identity()
        try:
            self.last_name = ask() if here else netns.inside(self._namespace, ask)
        except OSError as refusal:
            # if_indextoname(3) opens a socket, which can fail. It reports an interface that is gone as ENXIO.
            if refusal.errno not in (errno.ENXIO, errno.ENODEV):
                raise VirtError(refusal.errno or errno.EIO, str(refusal.strerror)) from refusal
            raise VirtError(errno.ENXIO, _GONE) from refusal
        return self.last_name

    def alive(self) -> bool:
        """Return whether the interface still exists in this namespace. If this cannot be determined, return True."""
        try:
            return bool(self.name())
        except VirtError as refusal:
            return refusal.errno != errno.ENXIO

    def netns(self) -> int:
        """Return a new descriptor of the namespace, which the caller must close."""
        return os.dup(self._namespace)

    def close(self) -> None:
        """Release the namespace."""
        os.close(self._namespace)
