"""Which process has a connection open."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness.nets import Namespace

from virtfs.host.holders import holding, holding_tap

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


# Opens a tap in the namespace of its caller, says so, and keeps the tap until its standard input ends.
_HOLDER = """
import fcntl, os, struct, sys
fd = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", sys.argv[1].encode(), 0x1002))
print("attached", flush=True)
sys.stdin.read()
"""


@contextmanager
def _holder(name: str) -> Iterator[int]:
    command = [sys.executable, "-c", _HOLDER, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"attached\n"
        yield process.pid
        process.communicate()


def test_the_processes_that_have_a_tap(network: None, elsewhere: Namespace) -> None:
    """The tap of the same name in another network namespace is another one. No other test has such taps."""
    assert holding_tap("tapheld") == []
    with ExitStack() as others:
        far: list[int] = []
        elsewhere.call(lambda: far.append(others.enter_context(_holder("tapheld"))))
        assert holding_tap("tapheld") == far
        with _holder("tapheld") as near, _holder("tapheld3"):
            assert holding_tap("tapheld") == [near]
