"""What a bridge is known to have adopted, at an awkward moment; the addresses and routes of one interface."""

from ipaddress import ip_network

import pytest
from harness.nets import ip

from virtfs.host import ipconfig
from virtfs.host.bridge_adopt import Adoptions, ip_records
from virtfs.host.rtnl import Rtnl

_RTA_DST = 1  # linux/rtnetlink.h


@pytest.fixture
def bridge(network: None) -> None:
    for words in (
        "link add bridge0 up type bridge",
        "link add other up type veth peer name far",
        "link set far up",
        "address add 10.1.1.2/24 dev bridge0",
        "address add fd00::2/64 dev bridge0 nodad",
        "route add 10.50.0.0/16 via 10.1.1.9",
        "address add 10.2.2.2/24 dev other",
        "route add 10.60.0.0/16 nexthop via 10.2.2.9 dev other nexthop via 10.1.1.9 dev bridge0",
        "route add fd60::/64 nexthop via fd00::9 dev bridge0 nexthop via fe80::9 dev other",
    ):
        ip(words)


def test_a_bridge_that_was_set_down_during_the_query_keeps_what_it_had(bridge: None) -> None:
    """The kernel removes routes and IPv6 addresses then, and only `last` can give them back to a member."""
    with Rtnl() as rtnl:
        index, adoptions = rtnl.index("bridge0"), Adoptions()
        adoptions.last = had = ip_records(rtnl, index)
        ip("link set bridge0 down")
        there = adoptions.latest(rtnl, index, up=True)
    assert {address.key for address in there.addresses} == {address.key for address in had.addresses}
    assert there.routes == had.routes
    assert len(had.routes) >= 3


def test_routes_of_one_interface_are_those_of_all_that_lead_out_of_it(bridge: None) -> None:
    """Also those with several next hops, whichever of them comes first."""
    with Rtnl() as rtnl:
        found = ipconfig.routes(rtnl, rtnl.index("bridge0"))
    networks = {str(ip_network((route.attributes[_RTA_DST], route.head[1]))) for route in found}
    assert networks - {"fe80::/64", "ff00::/8"} == {
        "10.1.1.0/24",
        "10.50.0.0/16",
        "10.60.0.0/16",
        "fd00::/64",
        "fd60::/64",
    }
