"""Borrow a tap over the socket `fd` of an interface: one request, one answer, and a descriptor with it.

virtfs has the tap back when the connection is closed, also by the death of the program.
"""

import json
import os
import socket
from collections.abc import Mapping
from errno import EPROTO
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

_ROOM = 65536  # bytes, of an answer

L = TypeVar("L", bound="Loan")


class Loan:
    """A tap that virtfs has let go of, as long as this object is open.

    path: that of the file `fd`. name: "virt3". tap: the name of the tap. address: the MAC address of virt.
    mtu: the largest payload in bytes.
    """

    def __init__(self, path: Path, request: Mapping[str, object]) -> None:
        """Ask for the tap. OSError: the server refuses, with its errno and its sentence."""
        self.path = path
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._descriptors: list[int] = []
        try:
            _connect(self._connection, path)
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
        """Whether virtfs has the tap back."""
        return self._connection.fileno() < 0

    def close(self) -> None:
        """Give the tap back; idempotent."""
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
    """The borrowed descriptor of a tap. One read(2) is one frame, and so is one write(2).

    vnet_hdr: the length of the virtio_net_hdr before each frame in bytes, 0 or 10. An hdr of zeros is right for a frame
    to send that needs nothing.
    """

    def fileno(self) -> int:
        """Return the descriptor. ValueError: it has been given back."""
        if not self._descriptors:
            raise ValueError(f"{self.path} is closed")
        return self._descriptors[0]


def _connect(connection: socket.socket, path: Path) -> None:
    """Connect to a socket whose path may be longer than the 107 bytes that an address can have (unix(7))."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{fd}")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(fd)
