"""Interfaces and addresses as values, decoded from rtnetlink messages for `links` and `monitor`."""

import socket
import sys
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from virtfs.core.ip import IpInterface
from virtfs.core.loan import Traffic
from virtfs.host import netlink_messages as m
from virtfs.host.netlink_attributes import Attributes, parse, text


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
    promisc: bool  # the flag IFF_PROMISC; bridges and captures turn on promiscuous mode without setting this flag
    alias: str = ""  # a text that any program may set (ip-link(8)); host.marks sets and reads it
    traffic: Traffic | None = None  # frames and bytes so far; None if the message has no counters


def _traffic(statistics: bytes) -> Traffic | None:
    """Return the frames and bytes in a struct rtnl_link_stats64, or None if there is none."""
    if len(statistics) < m.STATS_TRAFFIC.size:
        return None
    rx_frames, tx_frames, rx_bytes, tx_bytes = m.STATS_TRAFFIC.unpack_from(statistics)
    return Traffic(tx_frames, tx_bytes, rx_frames, rx_bytes)


def link_of(body: bytes) -> Link:
    """Return the Link in an RTM_NEWLINK message. An attribute that the message lacks becomes 0, empty or None.

    body: the message without the netlink header. It must contain at least struct ifinfomsg.
    """
    _family, _kind, index, flags, _change = m.IFINFOMSG.unpack_from(body)
    attributes = parse(body, m.IFINFOMSG.size)
    statistics = attributes.get(m.IFLA_STATS64, b"")[m.STATS_TX_DROPPED :]
    return Link(
        index=index,
        name=text(attributes.get(m.IFLA_IFNAME, b"")),
        up=bool(flags & m.IFF_UP),
        mtu=number(attributes, m.IFLA_MTU) or 0,
        address=attributes.get(m.IFLA_ADDRESS, b""),
        carrier=any(attributes.get(m.IFLA_CARRIER, b"")),
        txqlen=number(attributes, m.IFLA_TXQLEN) or 0,
        tx_dropped=int.from_bytes(statistics[: m.U64.size], sys.byteorder),
        master=number(attributes, m.IFLA_MASTER),
        promisc=bool(flags & m.IFF_PROMISC),
        alias=text(attributes.get(m.IFLA_IFALIAS, b"")),
        traffic=_traffic(attributes.get(m.IFLA_STATS64, b"")),
    )


def kind_of(body: bytes) -> str:
    """Return the kind of interface in an RTM_NEWLINK message, such as "tun" or "bridge". body: as for link_of()."""
    information = parse(parse(body, m.IFINFOMSG.size).get(m.IFLA_LINKINFO, b""))
    return text(information.get(m.IFLA_INFO_KIND, b""))


def number(attributes: Attributes, kind: int) -> int | None:
    """Return the value of a 32-bit attribute, or None if there is no such attribute."""
    value = attributes.get(kind)
    return None if value is None else int.from_bytes(value[: m.U32.size], sys.byteorder)


def address_of(body: bytes) -> IpInterface:
    """Return the address in an RTM_NEWADDR or RTM_DELADDR message; on a point-to-point link, the local address.

    body: the message without the netlink header. ValueError: the message has no valid address.
    """
    family, length, _flags, _scope, _index = m.IFADDRMSG.unpack_from(body)
    attributes = parse(body, m.IFADDRMSG.size)
    own = attributes.get(m.IFA_LOCAL) or attributes.get(m.IFA_ADDRESS) or b""
    if family == socket.AF_INET:
        return IPv4Interface((IPv4Address(own), length))
    return IPv6Interface((IPv6Address(own), length))
