"""Programs that use the tap of an interface through the socket behind `fd`."""

import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import time
from contextlib import suppress
from typing import Any

from harness.places import DIR

TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000


def ask(name: str, message: bytes) -> tuple[int, dict[str, Any], int]:
    """Send a message to the socket of an interface.

    Returns the descriptor of the connection, the answer, and the descriptor in the answer or -1.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(f"{DIR}/{name}/fd")
    connection.send(message)
    data, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
    return connection.detach(), json.loads(data), descriptors[0] if descriptors else -1


def change_everything(fd: int, tap: str) -> None:
    """Change every setting that the holder of a tap's descriptor can change."""
    for request, number in (
        (0x400454D0, 7),  # TUNSETOFFLOAD: TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6
        (0x400454CC, 1000),  # TUNSETOWNER
        (0x400454CE, 1000),  # TUNSETGROUP
        (TUNSETPERSIST, 1),
    ):
        fcntl.ioctl(fd, request, number)
    for request, number in (
        (0x400454D8, 12),  # TUNSETVNETHDRSZ
        (0x400454D4, 1),  # TUNSETSNDBUF
        (0x400454DC, 1),  # TUNSETVNETLE
        (0x400454E2, 0),  # TUNSETCARRIER
    ):
        with suppress(FileNotFoundError):
            fcntl.ioctl(fd, request, struct.pack("i", number))
    fcntl.ioctl(fd, 0x8924, struct.pack("16sH6s16x", tap.encode(), 1, b"\2\0\0\0\0\7"))  # SIOCSIFHWADDR
    fcntl.ioctl(fd, 0x400454D1, struct.pack("HH6s", 0, 1, b"\2\0\0\0\0\7"))  # TUNSETTXFILTER: one address
    program = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))  # BPF_RET of 0 bytes
    fcntl.ioctl(fd, 0x401054D5, struct.pack("H6xP", 1, ctypes.addressof(program)))  # TUNATTACHFILTER


def attach(tap: str) -> int:
    """Open /dev/net/tun and attach to a tap."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", tap.encode(), IFF_TAP | IFF_NO_PI))
    return fd


def persist(fd: int, on: int) -> None:
    """Set whether a tap remains when it is closed."""
    fcntl.ioctl(fd, TUNSETPERSIST, on)


def connect(name: str) -> int:
    """Connect to the socket of an interface, and return the connection."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(f"{DIR}/{name}/fd")
    return connection.detach()


def is_closed(fd: int) -> bool:
    """Return whether the other end of a connection is closed."""
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))


def ask_slowly(name: str, message: bytes, seconds: float) -> None:
    """Connect to the socket of an interface, wait, send a message and wait for the answer."""
    with socket.socket(fileno=connect(name)) as connection:
        time.sleep(seconds)
        connection.send(message)
        socket.recv_fds(connection, 4096, 1)
        signal.pause()


def steal(pid: int, fd: int) -> int:
    """Return a copy of a descriptor of another process (pidfd_getfd(2))."""
    pidfd = os.pidfd_open(pid)
    try:
        copy: int = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, fd, 0)
    finally:
        os.close(pidfd)
    if copy < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return copy
