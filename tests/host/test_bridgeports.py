"""The ports of a bridge, and the numbers of their attributes."""

import socket

import pytest
from harness.nets import ip
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from virtfs.host import bridgeports as ports
from virtfs.host.rtnl import Rtnl


def test_numbers_of_the_settings() -> None:
    """pyroute2 encodes the settings by name, and virtfs decodes them by number."""
    order = [name for name, *_kind in ifinfmsg.ifinfo.bridge_slave_data.nla_map]
    assert {name: order.index(name) for name in ports._SETTINGS} == ports._SETTINGS


@pytest.mark.parametrize("ioctl", [True, False], ids=["ioctl", "no ioctl"])
def test_the_ports_that_are_not_known_yet(network: None, monkeypatch: pytest.MonkeyPatch, ioctl: bool) -> None:
    """The ioctl and the dump, which a kernel that refuses the ioctl needs, have the same result."""
    if ioctl:
        monkeypatch.delattr(ports, "ports_of")
    else:
        monkeypatch.setattr(ports, "_SIOCDEVPRIVATE", 0)
    for bridge, names in (("br0", "one two three"), ("br1", "four")):
        ip(f"link add {bridge} type bridge")
        for name in names.split():
            ip(f"link add name {name} mtu 1450 master {bridge} type veth peer name far-{name}")
    with Rtnl() as rtnl:
        others = ports.other_ports(rtnl, socket.if_nametoindex("br0"), {socket.if_nametoindex("two")})
        assert sorted((port.name, port.mtu) for port in others) == [("one", 1450), ("three", 1450)]


def test_a_bridge_that_is_gone_has_no_ports(network: None) -> None:
    with Rtnl() as rtnl:
        assert ports.other_ports(rtnl, 4711, ()) == []
