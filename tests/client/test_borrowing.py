"""Virt.tap and Virt.lend on a real mount."""

import errno
import os

import pytest
from harness import borrowing, programs
from harness.serving import Mount, frame
from harness.waiting import PATIENCE, until

import virtfs

from .waiting import fails


@pytest.fixture
def wire(mount: Mount, v: virtfs.Virt) -> int:
    """Return a socket of the host on the tap of virt3."""
    socket: int = mount.root.call(programs.wire, "tap3")
    return socket


def until_back(v: virtfs.Virt) -> None:
    until(lambda: " fd " not in (v.path / "clients").read_text(), "the tap is back")
    v.wait("carrier", timeout=PATIENCE)


def test_the_taps_own_descriptor(mount: Mount, v: virtfs.Virt, wire: int) -> None:
    with v.tap(vnet_hdr=False) as tap:
        os.write(tap.fileno(), frame(60))
        assert mount.root.call(programs.next_from_virt, wire, PATIENCE) == frame(60)
        with fails(errno.EBUSY, "virt3"):
            v.open()
    until_back(v)


def test_a_lent_tap_is_attached_through_dev_net_tun_and_comes_back(mount: Mount, v: virtfs.Virt, wire: int) -> None:
    with v.lend() as loan:
        assert (loan.name, loan.tap, loan.address, loan.mtu) == ("virt3", "tap3", v.address, v.mtu)
        with fails(errno.EBUSY, "virt3"):
            v.open()
        tap = mount.root.call(borrowing.attach, "tap3")
        mount.root.call(programs.send, wire, [frame(60)])
        assert mount.root.call(os.read, tap, 4096) == frame(60)
        mount.root.call(os.close, tap)
    assert loan.closed
    until_back(v)
    with v.open() as port:
        mount.root.call(programs.send, wire, [frame(61)])
        assert port.recv(timeout=PATIENCE) == frame(61)
    with v.lend(), fails(errno.EBUSY, "virt3"):
        v.lend()


def test_a_tap_soon_after_a_reader_of_rx(mount: Mount, v: virtfs.Virt, wire: int) -> None:
    """The kernel does not tell the server that the FIFO was closed, so the server looks again before it refuses."""
    for _ in range(3):
        with v.rx() as port:
            v.wait("reader", timeout=PATIENCE)
            with fails(errno.EBUSY, "virt3/fd: another program is reading virt3"):
                v.tap()
            mount.root.call(programs.send, wire, [frame(60)])
            assert port.recv(timeout=PATIENCE) == frame(60)
        with v.tap():
            pass
        until_back(v)
