"""rtnetlink requests: repeated dumps, lost answers, and two requests in one call."""

import errno
import os
import socket
from collections.abc import Iterator

import pytest
from harness.nets import fresh, need_taps
from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL
from pyroute2.netlink.rtnl import RTM_DELLINK, RTM_GETADDR, RTM_GETLINK, RTM_NEWLINK, RTM_SETLINK
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from virtfs.core.errors import VirtError
from virtfs.core.ip import IpInterface
from virtfs.host.marks import marking
from virtfs.host.netlink_messages import addresses as question
from virtfs.host.netlink_values import address_of
from virtfs.host.rtnl import ATTEMPTS, Message, Reply, Request, Rtnl

INTERRUPTED = 16  # NLM_F_DUMP_INTR, linux/netlink.h


class Changing(Rtnl):
    """An Rtnl whose first `changes` dumps are marked as interrupted by a change."""

    def __init__(self, changes: int) -> None:
        super().__init__()
        self.changes = changes
        self.asked = 0

    def _answer(self) -> Iterator[Reply]:
        self.asked += 1
        mark = INTERRUPTED if self.asked <= self.changes else 0
        for reply in list(super()._answer()):
            yield reply._replace(flags=reply.flags | mark)


def addresses(rtnl: Rtnl) -> list[IpInterface]:
    return [address_of(reply.body) for reply in rtnl.dump(RTM_GETADDR, question(0))]


@pytest.fixture
def everything() -> list[IpInterface]:
    """Return every address of this network namespace."""
    with Rtnl() as rtnl:
        return addresses(rtnl)


@pytest.mark.parametrize("changes", [0, 1, 3])
def test_an_interrupted_dump_is_asked_for_again(everything: list[IpInterface], changes: int) -> None:
    assert any(address.ip.is_loopback for address in everything)
    with Changing(changes) as rtnl:
        assert addresses(rtnl) == everything
        assert rtnl.asked == changes + 1


def test_it_does_not_ask_for_ever(everything: list[IpInterface]) -> None:
    with Changing(100) as rtnl:
        assert addresses(rtnl) == everything
        assert rtnl.asked == ATTEMPTS


def alias(rtnl: Rtnl, name: str) -> str:
    question = ifinfmsg()
    question["attrs"] = [("IFLA_IFNAME", name)]
    (link,) = rtnl.ask(RTM_GETLINK, question)
    return str(link.get_attr("IFLA_IFALIAS"))


def creation() -> Request:
    made = ifinfmsg()
    made["attrs"] = [("IFLA_IFNAME", "both"), ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]})]
    return RTM_NEWLINK, made, NLM_F_CREATE | NLM_F_EXCL


def test_two_requests_in_one_call(network: None) -> None:
    """The second can name what the first makes. If the first is refused, the second is still carried out."""
    with Rtnl() as rtnl:
        rtnl.ask_both(creation(), (RTM_SETLINK, marking("one", "both"), 0))
        assert alias(rtnl, "both") == "one"
        with pytest.raises(VirtError) as refusal:
            rtnl.ask_both(creation(), (RTM_SETLINK, marking("two", "both"), 0))
        assert refusal.value.errno == errno.EEXIST
        assert alias(rtnl, "both") == "two"
        with pytest.raises(VirtError) as refusal:
            rtnl.ask_both((RTM_SETLINK, marking("three", "both"), 0), (RTM_SETLINK, marking("x", "nosuch"), 0))
        assert refusal.value.errno == errno.ENODEV
        assert alias(rtnl, "both") == "three"


class Forgetful(Rtnl):
    """An Rtnl that loses the first `losses` answers, as the kernel does if it has no memory for them."""

    def __init__(self, losses: int) -> None:
        super().__init__()
        self.losses = losses

    def _answer(self) -> Iterator[Reply]:
        if self.losses:
            self.losses -= 1
            self._socket.recv(1 << 16)
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        yield from super()._answer()


def link(index: int, *attributes: tuple[str, object]) -> Message:
    message = ifinfmsg()
    message["index"] = index
    message["attrs"] = list(attributes)
    return message


@pytest.mark.parametrize("losses", [1, 2])
def test_a_request_whose_answer_is_lost_is_sent_again(losses: int) -> None:
    need_taps()
    new = link(0, ("IFLA_IFNAME", "one"), ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]}))
    with fresh():
        with Forgetful(losses) as rtnl:
            rtnl.ask(RTM_NEWLINK, new, NLM_F_CREATE | NLM_F_EXCL)
        index = socket.if_nametoindex("one")
        with Forgetful(0) as rtnl, pytest.raises(VirtError) as caught:
            rtnl.ask(RTM_NEWLINK, new, NLM_F_CREATE | NLM_F_EXCL)
        assert caught.value.errno == errno.EEXIST, "if no answer was lost, this is an error"
        with Forgetful(losses) as rtnl:
            rtnl.ask(RTM_SETLINK, link(index, ("IFLA_MTU", 1400)))
        with Forgetful(losses) as rtnl, pytest.raises(VirtError) as caught:
            rtnl.ask(RTM_SETLINK, link(index, ("IFLA_ADDRESS", "ff:ff:ff:ff:ff:ff")))
        assert caught.value.errno == errno.EADDRNOTAVAIL
        with Forgetful(losses) as rtnl:
            rtnl.ask(RTM_DELLINK, link(index))
        assert [name for _, name in socket.if_nameindex()] == ["lo"]


@pytest.mark.parametrize("losses", [1, 2])
def test_two_requests_whose_answer_is_lost_are_sent_again(network: None, losses: int) -> None:
    """A loss of one answer says nothing about the other, so both requests are repeated."""
    with Forgetful(losses) as rtnl:
        rtnl.ask_both(creation(), (RTM_SETLINK, marking("one", "both"), 0))
        assert alias(rtnl, "both") == "one"
    with Forgetful(losses) as rtnl, pytest.raises(VirtError) as caught:
        rtnl.ask_both((RTM_SETLINK, marking("two", "both"), 0), (RTM_SETLINK, marking("x", "nosuch"), 0))
    assert caught.value.errno == errno.ENODEV
    with Rtnl() as rtnl:
        assert alias(rtnl, "both") == "two"
