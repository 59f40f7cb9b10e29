"""Borrow a tap over the socket `fd` of an interface. One request gets one answer, which may carry a descriptor.

virtfs takes the tap back when the connection is closed. If the program is killed, the kernel closes the connection.
"""

import json
import os
import socket
from collections.abc import Mapping
from errno import EPROTO
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from virtfs.client.folder import told

_ROOM = 65536  # maximum length of an answer in bytes

L = TypeVar("L", bound="Loan")


class Loan:
    """A tap that virtfs has released. virtfs takes it back when this object is closed.

    path: the file `fd`. name: the name of the interface, such as "virt3". tap: the name of the tap. address: the MAC
    address of virt. mtu: the largest payload in bytes. vnet_hdr: see Tap; 0 for a Loan.

    >>> with v.lend() as loan:
    ...     loan.name, loan.tap, loan.mtu
    ('virt3', 'tap3', 1500)
    """

    def __init__(self, path: Path, request: Mapping[str, object]) -> None:
        """Request the tap. OSError: the server refuses; errno and message come from the server."""
        self.path = path
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._descriptors: list[int] = []
        try:
            connect(self._connection, path)
            self._connection.send(json.dumps(request).encode())
            data, self._descriptors, _, _ = socket.recv_fds(self._connection, _ROOM, 1)
            closed = {"errno": EPROTO, "error": "the server has closed the connection"}
            answer: dict[str, Any] = json.loads(data) if data else closed
            if "errno" in answer:
                raise OSError(answer["errno"], answer["error"], str(path))
        except BaseException:
            self.close()
            raise
        self.name: str = answer["name"]
        self.tap: str = answer["tap"]
        self.address: str = answer["address"]
        self.mtu: int = answer["mtu"]
        self.vnet_hdr: int = answer.get("vnet_hdr", 0)

    @property
    def closed(self) -> bool:
        """Whether the tap has been given back to virtfs.

        >>> with v.lend() as loan:
        ...     loan.closed
        False
        >>> loan.closed
        True
        """
        return self._connection.fileno() < 0

    def close(self) -> None:
        """Give the tap back; idempotent.

        >>> loan = v.lend()
        >>> loan.close()
        """
        for fd in self._descriptors:
            os.close(fd)
        self._descriptors = []
        self._connection.close()

    def __enter__(self: L) -> L:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Tap(Loan):
    """The borrowed descriptor of a tap. Each read(2) returns one frame, and each write(2) sends one.

    vnet_hdr: the length in bytes of the virtio_net_hdr before each frame, 0 or 10. To send a frame that needs no
    offload, use a header of zeros. A read waits for a frame.

    >>> with v.tap() as tap:
    ...     os.write(tap.fileno(), bytes(tap.vnet_hdr) + frame) - len(frame)
    10
    """

    def fileno(self) -> int:
        """Return the descriptor, for read, write and poll. ValueError: the tap has been given back.

        >>> with v.tap(vnet_hdr=False) as tap:
        ...     ping(v)
        ...     while select.select([tap], [], [], 5)[0]:
        ...         received = os.read(tap.fileno(), 65536)
        ...         if received[12:14] == bytes.fromhex("0806"):
        ...             break
        >>> received[6:12].hex(":") == v.host.address
        True
        """
        if not self._descriptors:
            raise ValueError(f"{self.path} is closed")
        return self._descriptors[0]


def connect(connection: socket.socket, path: Path) -> None:
    """Connect to a socket whose path may exceed the 107 bytes that fit in a socket address (unix(7))."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise told(error, path) from None
    try:
        connection.connect(f"/proc/self/fd/{fd}")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(fd)
