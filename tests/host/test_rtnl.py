"""rtnetlink requests: a dump is repeated if something changed during it."""

import ipaddress
from collections.abc import Iterator

import pytest
from pyroute2.netlink.rtnl import RTM_GETADDR
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

from virtfs.host.rtnl import ATTEMPTS, Message, Rtnl

INTERRUPTED = 16  # NLM_F_DUMP_INTR, linux/netlink.h


class Changing(Rtnl):
    """An Rtnl whose first `changes` dumps are marked as interrupted by a change."""

    def __init__(self, changes: int) -> None:
        super().__init__()
        self.changes = changes
        self.asked = 0

    def _answer(self) -> Iterator[Message]:
        self.asked += 1
        answer = list(super()._answer())
        if self.asked <= self.changes:
            for message in answer:
                message["header"]["flags"] |= INTERRUPTED
        yield from answer


def addresses(rtnl: Rtnl) -> list[str]:
    return [message.get_attr("IFA_ADDRESS") for message in rtnl.dump(RTM_GETADDR, ifaddrmsg())]


@pytest.fixture
def everything() -> list[str]:
    """Return every address of this network namespace."""
    with Rtnl() as rtnl:
        return addresses(rtnl)


@pytest.mark.parametrize("changes", [0, 1, 3])
def test_an_interrupted_dump_is_asked_for_again(everything: list[str], changes: int) -> None:
    assert any(ipaddress.ip_address(address).is_loopback for address in everything)
    with Changing(changes) as rtnl:
        assert addresses(rtnl) == everything
        assert rtnl.asked == changes + 1


def test_it_does_not_ask_for_ever(everything: list[str]) -> None:
    with Changing(100) as rtnl:
        assert addresses(rtnl) == everything
        assert rtnl.asked == ATTEMPTS
