"""Interfaces and addresses as values, decoded from rtnetlink messages for `links` and `monitor`."""

from dataclasses import dataclass
from ipaddress import ip_interface

from virtfs.core.ip import IpInterface
from virtfs.host.rtnl import Message, name_of

_IFF_UP = 0x1  # linux/if.h
_IFF_PROMISC = 0x100


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as the kernel reports it."""

    index: int
    name: str
    up: bool
    mtu: int
    address: bytes  # the MAC, 6 bytes for a tap
    # Whether the interface has a carrier ("status: active" in NetBSD). Linux reports it only while the interface is up.
    carrier: bool
    txqlen: int  # maximum number of frames that are queued for the tap's reader
    tx_dropped: int  # frames for the tap's reader, dropped because the queue was full or a filter rejected them
    master: int | None  # index of the bridge that the interface is in
    promisc: bool  # the flag IFF_PROMISC; bridges and captures turn on promiscuous mode without this flag
    alias: str = ""  # a text that programs may set (ip-link(8)); host.marks has its use here


def link_of(message: Message) -> Link:
    """Return the Link of an RTM_NEWLINK message."""
    statistics = message.get_attr("IFLA_STATS64") or {}
    return Link(
        index=message["index"],
        name=name_of(message),
        up=bool(message["flags"] & _IFF_UP),
        mtu=message.get_attr("IFLA_MTU") or 0,
        address=bytes.fromhex((message.get_attr("IFLA_ADDRESS") or "").replace(":", "")),
        carrier=bool(message.get_attr("IFLA_CARRIER")),
        txqlen=message.get_attr("IFLA_TXQLEN") or 0,
        tx_dropped=statistics.get("tx_dropped", 0),
        master=message.get_attr("IFLA_MASTER"),
        promisc=bool(message["flags"] & _IFF_PROMISC),
        alias=message.get_attr("IFLA_IFALIAS") or "",
    )


def address_of(message: Message) -> IpInterface:
    """Return the address in an RTM_NEWADDR or RTM_DELADDR message; on a point-to-point link, the local address."""
    address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return ip_interface(f"{address}/{message['prefixlen']}")
