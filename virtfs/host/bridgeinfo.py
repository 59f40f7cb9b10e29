"""Request rtnetlink messages about a bridge, its ports and its address table; decode them into core.bridge types."""

import errno
from collections.abc import Iterable
from typing import Final

from virtfs.core.bridge import BridgeState, FdbEntry, Member
from virtfs.core.bytestext import to_bytes
from virtfs.core.errors import VirtError
from virtfs.core.ip import IpInterface
from virtfs.host.netlink_messages import IFF_UP, RTM_GETLINK, RTM_GETNEIGH
from virtfs.host.netlink_parts import ifinfmsg, ndmsg
from virtfs.host.rtnl import Message, Rtnl, name_of, text_of

AF_BRIDGE: Final = 7
# The maximum ageing time, in 1/100 s. virtfs uses it for entries that never expire. Linux rounds it to ticks and
# reports a little less.
NEVER: Final = 0xFFFFFFFF
_NUD_NOARP = 0x40  # linux/neighbour.h: a static entry
_NUD_PERMANENT = 0x80  # the entry for a port's own address


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


def dump_members(rtnl: Rtnl, bridge: int) -> list[Message]:
    """Return the RTM_NEWLINK message of every port of a bridge. bridge: the bridge's interface index."""
    question = ifinfmsg()
    question["attrs"] = [("IFLA_MASTER", bridge)]
    return [link for link in rtnl.dump(RTM_GETLINK, question) if link.get_attr("IFLA_MASTER") == bridge]


def dump_known(rtnl: Rtnl, bridge: int) -> list[Message]:
    """Return the RTM_NEWNEIGH messages of a bridge's address table, including those for the ports' own addresses."""
    question = ndmsg()
    question["family"] = AF_BRIDGE
    question["attrs"] = [("NDA_MASTER", bridge)]
    return [entry for entry in rtnl.dump(RTM_GETNEIGH, question) if entry.get_attr("NDA_MASTER") == bridge]


def members_of(links: Iterable[Message], adopted: frozenset[int]) -> tuple[Member, ...]:
    """Return the ports, sorted by port number.

    adopted: the interface indices of the ports whose addresses have moved to the bridge.
    """
    members = (_member(link, link["index"] in adopted) for link in links)
    return tuple(sorted(members, key=lambda member: member.number))


# Port settings that no verb sets. The kernel drops them when the port leaves its bridge
# (net/bridge/br_netlink.c br_setport).
_SETTINGS: Final = (
    "IFLA_BRPORT_MODE",
    "IFLA_BRPORT_GUARD",
    "IFLA_BRPORT_PROTECT",
    "IFLA_BRPORT_FAST_LEAVE",
    "IFLA_BRPORT_MCAST_TO_UCAST",
    "IFLA_BRPORT_MCAST_FLOOD",
    "IFLA_BRPORT_BCAST_FLOOD",
    "IFLA_BRPORT_PROXYARP",
    "IFLA_BRPORT_PROXYARP_WIFI",
    "IFLA_BRPORT_VLAN_TUNNEL",
    "IFLA_BRPORT_NEIGH_SUPPRESS",
    "IFLA_BRPORT_NEIGH_VLAN_SUPPRESS",
    "IFLA_BRPORT_LOCKED",
    "IFLA_BRPORT_MAB",
    "IFLA_BRPORT_MULTICAST_ROUTER",
    "IFLA_BRPORT_BACKUP_PORT",
)
Settings = tuple[tuple[str, int], ...]  # pairs of an rtnetlink attribute and its value


def settings_of(link: Message) -> Settings:
    """Return those settings of a port that only other programs change, such as hairpin and neigh_suppress.

    See bridge(8) and ip-link(8).
    """
    data = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA")
    return tuple((name, value) for name in _SETTINGS if (value := data.get_attr(name)) is not None)


def known_of(links: Iterable[Message], entries: Iterable[Message]) -> tuple[FdbEntry, ...]:
    """Return the address table without the ports' own addresses.

    For each static address Linux keeps a second entry, in the default VLAN of the port (br_fdb.c br_fdb_add). So only
    the first entry for each address and member is used. Normally this is the entry without a VLAN. If another program
    has turned on VLAN filtering (no verb does), all entries have a VLAN, and the first of them is used.
    """
    names = {link["index"]: name_of(link) for link in links}
    rows: dict[tuple[bytes, str], FdbEntry] = {}
    for entry in entries:
        if not entry["state"] & _NUD_PERMANENT and entry["ifindex"] in names:
            known = _known(entry, names[entry["ifindex"]])
            rows.setdefault((known.address, known.member), known)
    return tuple(rows.values())


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


def _member(link: Message, adopted: bool) -> Member:
    data = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA")
    return Member(
        name=name_of(link),
        number=data.get_attr("IFLA_BRPORT_NO"),
        learn=bool(data.get_attr("IFLA_BRPORT_LEARNING")),
        discover=bool(data.get_attr("IFLA_BRPORT_UNICAST_FLOOD")),
        protect=bool(data.get_attr("IFLA_BRPORT_ISOLATED")),
        priority=data.get_attr("IFLA_BRPORT_PRIORITY") * 4,
        cost=data.get_attr("IFLA_BRPORT_COST"),
        groupfwd=data.get_attr("IFLA_BRPORT_GROUP_FWD_MASK"),
        state=data.get_attr("IFLA_BRPORT_STATE"),
        adopted=adopted,
        index=link["index"],
        alias=text_of(link.get_attr("IFLA_IFALIAS") or ""),
        mtu=link.get_attr("IFLA_MTU") or 0,
    )


def _known(entry: Message, member: str) -> FdbEntry:
    times = entry.get_attr("NDA_CACHEINFO")
    return FdbEntry(
        address=bytes.fromhex(entry.get_attr("NDA_LLADDR").replace(":", "")),
        member=member,
        age=times["ndm_updated"] // 100 if times else 0,
        static=bool(entry["state"] & _NUD_NOARP),
    )
