"""The descriptor of a tap, over the socket `fd` of an interface. The test plays the server."""

import errno
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.waiting import PATIENCE

import virtfs

from .waiting import Waiting, fails

_GRANTED = {"name": "virt3", "tap": "tap3", "address": "b2:0a:00:0b:0e:03", "mtu": 1500}


class Server:
    """Answers the requests for one interface. answer: its text. fd: whether a descriptor goes with it."""

    def __init__(self, folder: Path) -> None:
        # As in a mount, `fd` is a link to a socket elsewhere. Its path may be too long for a socket address.
        (folder / "virt3").mkdir(parents=True)
        (folder / "virt3/fd").symlink_to(folder / "run.socket")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        above = os.open(folder, os.O_PATH)
        self._listener.bind(f"/proc/self/fd/{above}/run.socket")
        os.close(above)
        self._listener.listen()
        self.answer: dict[str, object] | None = {**_GRANTED, "vnet_hdr": 10}
        self.requests: list[Any] = []
        self.ended = threading.Event()
        self._near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.requests.append(json.loads(connection.recv(4096)))
                if self.answer is None:
                    continue
                fds = [self._near.fileno()] if "vnet_hdr" in self.answer else []
                socket.send_fds(connection, [json.dumps(self.answer).encode()], fds)
                assert connection.recv(1) == b""  # the client has closed it
                self.ended.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)
        self._near.close()
        self.far.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / ("a" * 60) / ("b" * 60))
    yield server
    server.close()


@pytest.fixture
def v(tmp_path: Path) -> virtfs.Virt:
    return virtfs.Virt(tmp_path / ("a" * 60) / ("b" * 60), 3)


def test_the_descriptor_of_a_tap(server: Server, v: virtfs.Virt) -> None:
    with v.tap() as tap:
        assert (tap.name, tap.tap, tap.address, tap.mtu, tap.vnet_hdr) == (*_GRANTED.values(), 10)
        os.write(tap.fileno(), b"a frame")
        assert server.far.recv(100) == b"a frame"
        server.far.send(b"another")
        assert os.read(tap.fileno(), 100) == b"another"
        assert not server.ended.is_set()
    assert server.ended.wait(PATIENCE)
    assert tap.closed
    tap.close()
    with pytest.raises(ValueError, match="closed"):
        tap.fileno()


def test_a_tap_without_headers(server: Server, v: virtfs.Virt) -> None:
    server.answer = {**_GRANTED, "vnet_hdr": 0}
    with v.tap(vnet_hdr=False) as tap:
        assert tap.vnet_hdr == 0
    assert server.requests == [{"vnet_hdr": 0}]


def test_a_loan(server: Server, v: virtfs.Virt) -> None:
    server.answer = _GRANTED
    with v.lend() as loan:
        assert loan.tap == "tap3"
    assert server.requests == [{"lend": True}]
    assert server.ended.wait(PATIENCE)


def test_a_refusal(server: Server, v: virtfs.Virt) -> None:
    server.answer = {"errno": errno.EBUSY, "error": "virt3/fd: frame is open for reading"}
    with fails(errno.EBUSY, "frame is open for reading.*virt3/fd"):
        v.tap()
    server.answer = None
    with fails(errno.EPROTO, "closed the connection"):
        v.tap()


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        virtfs.Virt(tmp_path, 3).tap()
    (tmp_path / "virt3").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as unheard:
        unheard.bind(str(tmp_path / "virt3/fd"))
        with fails(errno.ECONNREFUSED, "virt3/fd"):
            Waiting(virtfs.Virt(tmp_path, 3).tap).result()
