"""Functions that tests run in an agent (harness/agent.py) when a single system call is not enough."""

import asyncio
import ctypes
import fcntl
import os
import select
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path

from harness.waiting import until

ETH_P_ALL = 3
SIOCGIFFLAGS, IFF_UP, IFF_RUNNING = 0x8913, 0x1, 0x40  # netdevice(7)
SIOCETHTOOL, ETHTOOL_GLINK = 0x8946, 0xA  # include/uapi/linux/ethtool.h
EXPERIMENTAL = b"\x88\xb5"  # IEEE 802's ethertype for local experiments: no stack answers it


def poll(fd: int, events: int, seconds: float) -> int:
    """Return the events of a descriptor, or 0 if there is none within `seconds`."""
    poller = select.poll()
    poller.register(fd, events)
    return next((events for _, events in poller.poll(seconds * 1000)), 0)


def ioctl(fd: int, request: int, argument: bytes) -> bytes:
    """Call ioctl(2) with a structure and return it."""
    return fcntl.ioctl(fd, request, argument)


def ioctl_number(fd: int, request: int, argument: int) -> int:
    """Call ioctl(2) with a number."""
    return fcntl.ioctl(fd, request, argument)


def ioctls(fd: int, requests: list[tuple[str, int, bytes]]) -> list[tuple[str, bytes | int]]:
    """Call several ioctls in turn. Returns the name of each with its result or its errno."""
    answers: list[tuple[str, bytes | int]] = []
    for name, request, argument in requests:
        try:
            answers.append((name, fcntl.ioctl(fd, request, argument)))
        except OSError as error:
            answers.append((name, error.errno or 0))
    return answers


def ioctls_of_a_tap(name: str, requests: list[tuple[str, int, bytes]]) -> list[tuple[str, bytes | int]]:
    """Do what `ioctls` does, on a new kernel tap with the flags IFF_TAP and IFF_NO_PI."""
    tap = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))
        return ioctls(tap, requests)
    finally:
        os.close(tap)


def texts(paths: list[Path]) -> list[str]:
    """Read several text files, one after another."""
    return [path.read_text() for path in paths]


def wire(interface: str) -> int:
    """Open a packet socket on an interface of the host. Returns its descriptor."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    packets.bind((interface, ETH_P_ALL))
    return packets.detach()


def send(wire: int, frames: tuple[bytes, ...]) -> None:
    """Send frames from the host through a packet socket.

    After a carrier comes, the kernel starts the interface's queue from a task of its own (net/core/link_watch.c), which
    may have to wait for others. Until then it drops what is sent, without an error or a count, so wait for it here.
    """
    with _socket(wire) as packets:
        until(lambda: not _starting(packets), "the kernel has started the interface's queue")
        for frame in frames:
            packets.send(frame)


def _starting(packets: socket.socket) -> bool:
    """Return whether an interface is up and has a carrier, but its queue is not started yet."""
    name = str(packets.getsockname()[0]).encode()
    link = ctypes.create_string_buffer(struct.pack("II", ETHTOOL_GLINK, 0))
    try:
        (flags,) = struct.unpack_from("H", fcntl.ioctl(packets, SIOCGIFFLAGS, struct.pack("16s24x", name)), 16)
        fcntl.ioctl(packets, SIOCETHTOOL, struct.pack("16sP16x", name, ctypes.addressof(link)))
    except OSError:
        return False  # it is gone, or tells no carrier
    (carrier,) = struct.unpack_from("I", link, 4)
    return bool(carrier and flags & IFF_UP and not flags & IFF_RUNNING)


def next_from_virt(wire: int, seconds: float) -> bytes:
    """Return the next test frame that the host receives on a packet socket. Frames that the host sends do not count."""
    with _socket(wire) as packets:
        packets.settimeout(seconds)
        while True:
            frame, (_, _, kind, _, _) = packets.recvfrom(1 << 17)
            if kind != socket.PACKET_OUTGOING and frame[12:14] == EXPERIMENTAL:
                return bytes(frame)


def _socket(wire: int) -> socket.socket:
    """Return the packet socket, clearing a pending ENETDOWN from an earlier `down` (net/packet/af_packet.c)."""
    packets = socket.socket(fileno=os.dup(wire))
    packets.setblocking(True)
    packets.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return packets


def epoll_on(fd: int, events: int) -> int:
    """Return an epoll descriptor that watches another descriptor."""
    watcher = select.epoll()
    watcher.register(fd, events)
    return os.dup(watcher.fileno())


def epoll_wait(epoll: int, seconds: float) -> int:
    """Return the events of an epoll descriptor, or 0 if there is none within `seconds`."""
    with select.epoll.fromfd(os.dup(epoll)) as watcher:
        return next((events for _, events in watcher.poll(seconds)), 0)


def select_on(fd: int, seconds: float) -> tuple[bool, bool]:
    """Return whether select(2) reports a descriptor as readable, and whether as writable."""
    readable, writable, _ = select.select([fd], [fd], [], seconds)
    return bool(readable), bool(writable)


def selected(fd: int, seconds: float) -> bool:
    """Return whether select(2) reports a descriptor as readable."""
    return bool(select.select([fd], [], [], seconds)[0])


def asyncio_reads(fd: int) -> tuple[list[bytes], int]:
    """Read in an asyncio loop until an error. Returns the frames and the errno."""
    frames: list[bytes] = []

    async def run() -> int:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[int] = loop.create_future()

        def ready() -> None:
            try:
                while True:
                    frames.append(os.read(fd, 65536))
            except BlockingIOError:
                pass
            except OSError as error:
                loop.remove_reader(fd)
                ended.set_result(error.errno or 0)

        loop.add_reader(fd, ready)
        return await ended

    return frames, asyncio.run(run())


def size_after_stat(fd: int, request: int) -> int:
    """Call fstat(2), then FIONREAD. Returns the number of bytes."""
    os.fstat(fd)
    answer = fcntl.ioctl(fd, request, bytes(4))
    return int.from_bytes(answer, "little")


def let_go(link: int) -> bool:
    """Close all files but the link to the test. Returns False if another call has not returned."""
    for thread in threading.enumerate():
        if thread not in (threading.main_thread(), threading.current_thread()):
            thread.join(0.1)
            if thread.is_alive():
                return False
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd != link:
            with suppress(OSError):  # the descriptor that listed the directory
                os.close(fd)
    return True


def processor_seconds() -> float:
    """Return the processor time of this process, in seconds."""
    used = os.times()
    return used.user + used.system
