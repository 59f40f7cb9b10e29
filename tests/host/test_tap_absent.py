"""A tap to which virtfs is not attached: it counts as gone only if the kernel says so."""

import errno
import os
import socket

import pytest
from harness.nets import ip
from harness.process import fails

from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit
from virtfs.host import tap as tap_module
from virtfs.host import tap_found
from virtfs.host.netns import own_netns
from virtfs.host.rtnl import Rtnl
from virtfs.host.tap import Tap
from virtfs.host.tap_absent import Absent


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_a_failure_to_look_is_no_absence(network: None, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    absent = Absent(own_netns, "lo")
    try:
        assert (absent.name(), absent.alive()) == ("lo", True)
        with monkeypatch.context() as patch:
            patch.setattr(socket, "if_indextoname", refuse)
            assert absent.alive()
            with pytest.raises(VirtError) as caught:
                absent.name()
            assert caught.value.errno == number
        absent.index += 1
        assert not absent.alive()
        with pytest.raises(VirtError) as caught:
            absent.name()
        assert caught.value.errno == errno.ENXIO
        monkeypatch.setattr(Rtnl, "__init__", refuse)
        with pytest.raises(OSError, match=os.strerror(number)):
            Absent(own_netns, "lo")
    finally:
        absent.close()


def test_an_interface_that_does_not_exist(network: None) -> None:
    with pytest.raises(VirtError) as caught:
        Absent(own_netns, "nosuch")
    assert caught.value.errno == errno.ENXIO


def taps() -> list[str]:
    return [name for _index, name in socket.if_nameindex() if name.startswith("tap")]


def test_a_lent_tap_that_is_deleted_just_before_it_is_attached_again(
    network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TUNSETIFF then makes another tap with default settings. It is not the lent one."""
    look = Absent.name

    def deleted(absent: Absent) -> str:
        found = look(absent)
        ip("link delete tap3")
        return found

    with Tap.open(Unit(3)) as tap:
        index = socket.if_nametoindex("tap3")
        tap.let_go(os.geteuid())
        with monkeypatch.context() as patch:
            patch.setattr(Absent, "name", deleted)
            with fails(errno.ENXIO):
                tap.renew()
        assert not tap.attached
        assert taps() == []
        tap.make_again()
        assert socket.if_nametoindex("tap3") == index


def test_a_tap_of_the_host_that_is_deleted_just_before_it_is_attached(
    network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deleted(name: str) -> tap_found.Found | None:
        found = tap_found.find(name)
        ip(f"link delete {name}")
        return found

    ip("tuntap add tap3 mode tap")
    monkeypatch.setattr(tap_module, "find", deleted)
    with fails(errno.EBUSY):
        Tap.open(Unit(3))
    assert taps() == []
