"""The real tap and the fake tap fulfil the same contract."""

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from harness.nets import ip
from harness.waiting import PATIENCE, until

from virtfs.core.ids import Unit
from virtfs.host.fakes import FakeTap
from virtfs.host.tap import Tap
from virtfs.host.tap_protocol import TapDevice

from .contract import TO_HOST, Host, check_tap, write

_ETH_P_ALL = 3


class _FakeHost:
    def __init__(self, tap: FakeTap) -> None:
        self.send = tap.host_send
        self.receive = tap.host_receive
        self.vanish = tap.vanish


class _RealHost:
    """The host's end of a real tap: packet sockets on the interface."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._out.bind((name, 0))
        self._in = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._in.bind((name, _ETH_P_ALL))

    def send(self, frame: bytes) -> None:
        self._out.send(frame, socket.MSG_DONTWAIT)

    def receive(self) -> bytes:
        while select.select([self._in], [], [], PATIENCE)[0]:
            frame, address = self._in.recvfrom(1 << 16)
            if address[2] != socket.PACKET_OUTGOING:
                return frame
        raise BlockingIOError

    def vanish(self) -> None:
        ip(f"link del {self._name}")

    def close(self) -> None:
        self._out.close()
        self._in.close()


@contextmanager
def _fake() -> Iterator[tuple[TapDevice, Host]]:
    with FakeTap() as tap:
        yield tap, _FakeHost(tap)


@contextmanager
def _real() -> Iterator[tuple[TapDevice, Host]]:
    # A program that reads /proc/PID/fdinfo, as those of other tests do, keeps a closed tap for a moment.
    until(lambda: "tap3" not in dict(socket.if_nameindex()).values(), "the tap of the check before is gone")
    with Tap.open(Unit(3)) as tap:
        ip("link set tap3 addrgenmode none")
        ip("link set tap3 up")
        host = _RealHost("tap3")
        try:
            yield tap, host
        finally:
            host.close()


def test_the_fake_keeps_the_contract() -> None:
    check_tap(_fake)


def test_a_full_fake_is_eagain_to_its_writer() -> None:
    def fill(tap: FakeTap) -> None:
        for _ in range(100_000):
            write(tap, TO_HOST)

    with FakeTap() as tap, pytest.raises(BlockingIOError):
        fill(tap)


def test_a_fake_is_renamed_and_keeps_what_it_is_told() -> None:
    with FakeTap("tap7", made=False) as tap:
        assert tap.persist
        tap.rename("wire")
        assert tap.name() == "wire"
        tap.set_carrier(False)
        assert not tap.carrier


def test_the_real_tap_keeps_the_contract(network: None) -> None:
    check_tap(_real)
