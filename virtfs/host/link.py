"""What the kernel tells of an interface, asked for (`links`) or not (`monitor`): rtnetlink's messages as values."""

from dataclasses import dataclass
from ipaddress import ip_interface

from virtfs.core.ip import IpInterface
from virtfs.host.rtnl import Message

_IFF_UP = 0x1  # linux/if.h
_IFF_PROMISC = 0x100


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as the kernel tells it."""

    index: int
    name: str
    up: bool
    mtu: int
    address: bytes  # its MAC, 6 bytes for a tap
    carrier: bool  # as NetBSD's "status: active": plugged in; Linux tells it only of what is up
    txqlen: int  # frames that wait for the tap's reader at most
    tx_dropped: int  # frames towards the tap's reader that did not fit, or that a filter rejected
    master: int | None  # the index of the bridge it is a port of
    promisc: bool  # by its flag; a bridge or a capture that listens does not show


def link_of(message: Message) -> Link:
    """The Link of an RTM_NEWLINK message."""
    statistics = message.get_attr("IFLA_STATS64") or {}
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        up=bool(message["flags"] & _IFF_UP),
        mtu=message.get_attr("IFLA_MTU") or 0,
        address=bytes.fromhex((message.get_attr("IFLA_ADDRESS") or "").replace(":", "")),
        carrier=bool(message.get_attr("IFLA_CARRIER")),
        txqlen=message.get_attr("IFLA_TXQLEN") or 0,
        tx_dropped=statistics.get("tx_dropped", 0),
        master=message.get_attr("IFLA_MASTER"),
        promisc=bool(message["flags"] & _IFF_PROMISC),
    )


def address_of(message: Message) -> IpInterface:
    """The address of an RTM_NEWADDR or RTM_DELADDR message; of a point-to-point one this end's."""
    address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return ip_interface(f"{address}/{message['prefixlen']}")
