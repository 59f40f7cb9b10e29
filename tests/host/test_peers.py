"""Sockets at which programs connect to the server."""

import socket
from pathlib import Path

import pytest

from virtfs.client import native
from virtfs.host import peers


@pytest.mark.parametrize("length", [10, 200])
def test_a_socket_at_a_path_of_any_length(tmp_path: Path, length: int) -> None:
    """The run-time directory may be in a TMPDIR with a long name."""
    path = tmp_path / ("x" * length) / "virt3.fd"
    path.parent.mkdir()
    for _ in range(2):  # the second one replaces the first
        with peers.listen(path) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as program:
            native.connect(program, path)
            connection, _ = listener.accept()
            connection.close()
            assert program.recv(1) == b""
