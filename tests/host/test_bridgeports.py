"""The numbers of the attributes of a port."""

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from virtfs.host import bridgeports as ports


def test_numbers_of_the_settings() -> None:
    """pyroute2 encodes the settings by name, and virtfs decodes them by number."""
    order = [name for name, *_kind in ifinfmsg.ifinfo.bridge_slave_data.nla_map]
    assert {name: order.index(name) for name in ports._SETTINGS} == ports._SETTINGS
