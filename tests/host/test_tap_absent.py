"""A tap to which virtfs is not attached: it counts as gone only if the kernel says so."""

import errno
import os
import socket

import pytest

from virtfs.core.errors import VirtError
from virtfs.host.netns import own_netns
from virtfs.host.rtnl import Rtnl
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
