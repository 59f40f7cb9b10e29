"""Running a function in another namespace neither moves the calling thread nor leaks anything."""

import errno
import os
import socket
import threading

import pytest
from harness.nets import Namespace, descriptors, ip

from virtfs.host import netns


def _names() -> list[str]:
    return sorted(name for _index, name in socket.if_nameindex())


def test_inside_is_inside_and_the_caller_stays(elsewhere: Namespace) -> None:
    ip("link add here type bridge")
    elsewhere.ip("link add there type bridge")
    assert netns.inside(elsewhere.fd, _names) == ["lo", "there"]
    assert _names() == ["here", "lo"]


def test_what_is_raised_inside_is_raised_outside(elsewhere: Namespace) -> None:
    def fail() -> None:
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        netns.inside(elsewhere.fd, fail)
    assert netns.own_identity() != netns.identity(elsewhere.fd)


def test_a_descriptor_that_is_no_namespace(network: None) -> None:
    with open("/dev/null") as other, pytest.raises(OSError, match="Invalid argument") as caught:
        netns.inside(other.fileno(), _names)
    assert caught.value.errno == errno.EINVAL


def test_the_same_namespace_by_two_descriptors(elsewhere: Namespace) -> None:
    again = netns.inside(elsewhere.fd, netns.own_netns)
    own = netns.own_netns()
    try:
        assert netns.same_netns(again, elsewhere.fd)
        assert not netns.same_netns(again, own)
    finally:
        os.close(again)
        os.close(own)


def test_nothing_is_left(elsewhere: Namespace) -> None:
    before, threads = descriptors(), set(threading.enumerate())
    for _ in range(50):
        netns.inside(elsewhere.fd, netns.own_identity)
    assert descriptors() == before
    assert set(threading.enumerate()) <= threads
