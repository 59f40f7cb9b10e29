"""Which process has a connection open."""

import os
import socket
import subprocess
from pathlib import Path

from harness.nets import Namespace

from virtfs.host.holders import holding

NOBODY = 1 << 30  # more than the greatest process id, 2 ** 22


def test_a_process_that_has_inherited_it() -> None:
    """The known process is kept as long as it has the connection."""
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[other.fileno()])
    assert holding(own.fileno(), os.getpid()) == os.getpid()
    assert holding(own.fileno(), child.pid) == child.pid
    other.close()
    assert holding(own.fileno(), os.getpid()) == child.pid
    assert holding(own.fileno(), NOBODY) == child.pid
    child.communicate()
    assert holding(own.fileno(), NOBODY) == NOBODY
    own.close()


def test_a_connection_from_another_network_namespace(elsewhere: Namespace, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(str(tmp_path / "door"))
        door.listen()
        others: list[socket.socket] = []
        elsewhere.call(lambda: others.append(_connected(door.getsockname())))
        own, _ = door.accept()
    with own, others.pop():
        assert holding(own.fileno(), NOBODY) == os.getpid()


def _connected(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(path)
    return sock


def test_what_is_no_connection() -> None:
    reading, writing = os.pipe()
    assert holding(reading, NOBODY) == NOBODY
    os.close(reading)
    os.close(writing)
    assert holding(reading, NOBODY) == NOBODY
