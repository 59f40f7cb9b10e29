"""Pairs of taps, real or fake, between which a relay carries frames, with the actions of their hosts."""

import errno
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Protocol

from harness.nets import ip
from harness.waiting import PATIENCE

from virtfs.core.ids import Unit
from virtfs.host.fakes import FakeTap
from virtfs.host.tap import Tap
from virtfs.host.tap_protocol import TapDevice

_ETH_P_ALL = 3


class Pair(Protocol):
    """Two taps and the hosts behind them. A relay carries from source to sink."""

    @property
    def source(self) -> TapDevice: ...

    @property
    def sink(self) -> TapDevice: ...

    def send(self, frame: bytes) -> None:
        """Send a frame from the source's host."""

    def receive(self, count: int) -> list[bytes]:
        """Return the next frames that the sink's host has received, at most `count`."""

    def refuse(self) -> int:
        """Make the sink refuse further frames. Returns the errno that it refuses them with."""

    def vanish(self) -> None:
        """Delete the source."""


MakePair = Callable[[], AbstractContextManager[Pair]]


class _Fakes:
    def __init__(self, source: FakeTap, sink: FakeTap) -> None:
        self.source, self.sink = source, sink
        self.send, self.vanish = source.host_send, source.vanish

    def receive(self, count: int) -> list[bytes]:
        frames: list[bytes] = []
        with suppress(BlockingIOError):
            while len(frames) < count:
                frames.append(self.sink.host_receive())
        return frames

    def refuse(self) -> int:
        with suppress(BlockingIOError):
            while True:
                os.write(self.sink.fd, b"full")
        return errno.EAGAIN


class _Taps:
    """Real taps. The host's ends are packet sockets on their interfaces."""

    def __init__(self, source: Tap, sink: Tap) -> None:
        self.source, self.sink = source, sink
        self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._out.bind((source.name(), 0))
        self._in = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._in.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._in.bind((sink.name(), _ETH_P_ALL))

    def send(self, frame: bytes) -> None:
        self._out.send(frame, socket.MSG_DONTWAIT)

    def receive(self, count: int) -> list[bytes]:
        frames: list[bytes] = []
        while len(frames) < count and select.select([self._in], [], [], PATIENCE)[0]:
            frame, address = self._in.recvfrom(1 << 16)
            if address[2] != socket.PACKET_OUTGOING:
                frames.append(frame)
        return frames

    def refuse(self) -> int:
        ip(f"link set {self.sink.name()} down")
        return errno.EIO  # drivers/net/tun.c

    def vanish(self) -> None:
        ip(f"link del {self.source.name()}")

    def close(self) -> None:
        self._out.close()
        self._in.close()


@contextmanager
def fakes() -> Iterator[Pair]:
    """Yield a pair of fake taps."""
    with FakeTap("tap1") as source, FakeTap("tap2") as sink:
        yield _Fakes(source, sink)


@contextmanager
def taps() -> Iterator[Pair]:
    """Yield a pair of real taps that are up, in the calling thread's network namespace."""
    with Tap.open(Unit(1)) as source, Tap.open(Unit(2)) as sink:
        for tap in source, sink:
            ip(f"link set {tap.name()} addrgenmode none")
            ip(f"link set {tap.name()} mtu 65521 txqueuelen 1000 up")
        pair = _Taps(source, sink)
        try:
            yield pair
        finally:
            pair.close()
