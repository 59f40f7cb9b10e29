"""Functions that send and receive many frames in one call. Agents run them (harness/agent.py)."""

import ctypes
import errno
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path

from harness import programs

# Errnos of a write that virtfs has counted: a frame that cannot be sent, under `strict`.
_COUNTED = {errno.EMSGSIZE, errno.ENETDOWN, errno.EPERM}


def write_all(fd: int, frames: list[bytes]) -> int:
    """Write frames, and return the number of frames that virtfs must have counted. Stop if the interface is gone."""
    counted = 0
    for frame in frames:
        try:
            os.write(fd, frame)
        except OSError as error:
            if error.errno not in _COUNTED:
                break
        counted += 1
    return counted


def read_all(fd: int) -> list[bytes]:
    """Read frames from a descriptor with O_NONBLOCK until the read fails."""
    frames = []
    with suppress(OSError):
        while True:
            frames.append(os.read(fd, 1 << 16))
    return frames


def enter(netns: str) -> None:
    """Move the calling thread into a network namespace known to ip-netns(8). Empty: do nothing."""
    if netns:
        fd = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(fd, 0):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(fd)


def wire_in(netns: str, interface: str) -> int:
    """Open a packet socket on an interface, as programs.wire does, in a network namespace.

    Each call of an agent has its own thread, so the other calls stay where they are.
    """
    enter(netns)
    return programs.wire(interface)


def devices(netns: str) -> str:
    """Return /proc/net/dev of a network namespace: the counters of its interfaces."""
    enter(netns)
    return Path(f"/proc/self/task/{threading.get_native_id()}/net/dev").read_text()


def host_sends(wire: int, frames: list[bytes]) -> int:
    """Send frames through a packet socket, and return the number that reached the interface's driver.

    ENOBUFS means that the driver has dropped the frame, and counted it.
    """
    passed = 0
    with socket.socket(fileno=os.dup(wire)) as packets:
        packets.setblocking(True)
        packets.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # clears ENETDOWN from an earlier `down`
        for frame in frames:
            try:
                packets.send(frame)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    continue
            passed += 1
    return passed


def host_reads(wire: int) -> list[bytes]:
    """Return the test frames that have arrived from virt on a packet socket."""
    frames = []
    with socket.socket(fileno=os.dup(wire)) as packets:
        packets.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        with suppress(OSError):
            while True:
                frame, (_, _, kind, _, _) = packets.recvfrom(1 << 17, socket.MSG_DONTWAIT)
                if kind != socket.PACKET_OUTGOING and frame[12:14] == programs.EXPERIMENTAL:
                    frames.append(frame)
    return frames


def fill_disk(path: str) -> None:
    """Write a file until the file system is full."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (4096, 1):
            with suppress(OSError):
                while True:
                    os.write(fd, bytes(size))
    finally:
        os.close(fd)


def write_whole(fd: int, data: bytes) -> None:
    """Write all of the data, in as many calls as needed."""
    while data:
        data = data[os.write(fd, data) :]


def listen(path: str) -> tuple[int, int]:
    """Listen on a Unix socket, or on TCP if the path is empty. Return the descriptor, and the port or 0."""
    listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
    listener.bind(path or ("127.0.0.1", 0))
    listener.listen()
    port = 0 if path else int(listener.getsockname()[1])
    return listener.detach(), port


def accept(listener: int) -> int:
    """Accept a connection, and return its descriptor, which is non-blocking."""
    with socket.socket(fileno=os.dup(listener)) as waiting:
        connection, _ = waiting.accept()
        connection.setblocking(False)
        return connection.detach()
