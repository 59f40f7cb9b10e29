"""Read interfaces and the settings of a bridge, and decode them into core.bridge types.

host.bridgeports reads the ports.
"""

import errno
from typing import Final

from virtfs.core.bridge import BridgeState, FdbEntry, Member
from virtfs.core.bytestext import to_bytes
from virtfs.core.errors import VirtError
from virtfs.core.ip import IpInterface
from virtfs.host.netlink_messages import IFF_UP, RTM_GETLINK
from virtfs.host.netlink_parts import ifinfmsg
from virtfs.host.rtnl import Message, Rtnl, name_of

# The maximum ageing time, in 1/100 s. virtfs uses it for entries that never expire. Linux rounds it to ticks and
# reports a little less.
NEVER: Final = 0xFFFFFFFF


def ask_link(rtnl: Rtnl, which: int | str) -> Message | None:
    """Return the RTM_NEWLINK message of an interface, or None if there is no such interface.

    which: the index or name of the interface.
    """
    question = ifinfmsg()
    if isinstance(which, int):
        question["index"] = which
    else:
        question["attrs"] = [("IFLA_IFNAME", to_bytes(which))]
    try:
        answer = rtnl.ask_one(RTM_GETLINK, question)
    except VirtError as refusal:
        if refusal.errno == errno.ENODEV:
            return None
        raise
    return answer


def details(link: Message) -> Message | None:
    """Return the IFLA_BR_… attributes of an RTM_NEWLINK message, or None if the interface is not a bridge."""
    if link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") != "bridge":
        return None
    return link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")


def state_of(
    link: Message, members: tuple[Member, ...], known: tuple[FdbEntry, ...], addresses: tuple[IpInterface, ...]
) -> BridgeState:
    """Return the state of a bridge. link: its RTM_NEWLINK message. VirtError ENXIO: it is not a bridge."""
    data = details(link)
    if data is None:
        raise VirtError(errno.ENXIO, f'"{name_of(link)}" is not a bridge')
    ageing = data.get_attr("IFLA_BR_AGEING_TIME")
    return BridgeState(
        up=bool(link["flags"] & IFF_UP),
        mtu=link.get_attr("IFLA_MTU") or 0,
        address=bytes.fromhex((link.get_attr("IFLA_ADDRESS") or "").replace(":", "")),
        maxaddr=data.get_attr("IFLA_BR_FDB_MAX_LEARNED") or 0,
        # Other programs can set an ageing time below 1 s. Report it as 1 s, because 0 means that entries never expire.
        timeout=0 if ageing >= NEVER - 100 else max(1, ageing // 100),
        maxage=data.get_attr("IFLA_BR_MAX_AGE") // 100,
        fwddelay=data.get_attr("IFLA_BR_FORWARD_DELAY") // 100,
        hellotime=data.get_attr("IFLA_BR_HELLO_TIME") // 100,
        priority=data.get_attr("IFLA_BR_PRIORITY"),
        stp=bool(data.get_attr("IFLA_BR_STP_STATE")),
        groupfwd=data.get_attr("IFLA_BR_GROUP_FWD_MASK"),
        members=members,
        known=known,
        addresses=addresses,
    )
