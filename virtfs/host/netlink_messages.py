"""The constants of rtnetlink, and functions that build messages about links and addresses.

A message is returned as bytes, without the netlink header. Unless noted otherwise, the constants are from
linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h and linux/if_tun.h.
"""

import socket
import struct
from typing import Final

from virtfs.core.bytestext import to_bytes
from virtfs.core.ip import IpInterface
from virtfs.host.netlink_attributes import pack

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWNSID, RTM_DELNSID, RTM_GETNSID = 88, 89, 90
RTM_GETSTATS = 94

IFINFOMSG: Final = struct.Struct("BxHiII")  # family, type, index, flags, change
IFADDRMSG: Final = struct.Struct("BBBBi")  # family, prefix length, flags, scope, index
STATSMSG: Final = struct.Struct("BxxxII")  # family, index, filter
RTGENMSG: Final = struct.Struct("Bxxx")  # family
U32: Final = struct.Struct("I")
U64: Final = struct.Struct("Q")

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_TXQLEN = 1, 3, 4, 10, 13
IFLA_LINKINFO, IFLA_IFALIAS, IFLA_STATS64, IFLA_AF_SPEC, IFLA_GROUP = 18, 20, 23, 26, 27
IFLA_NET_NS_FD, IFLA_EXT_MASK, IFLA_CARRIER = 28, 29, 33
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
IFLA_TUN_OWNER, IFLA_TUN_GROUP = 1, 2
IFLA_TUN_TYPE, IFLA_TUN_MULTI_QUEUE, IFLA_TUN_NUM_QUEUES, IFLA_TUN_NUM_DISABLED_QUEUES = 3, 7, 8, 9
IFLA_INET6_ADDR_GEN_MODE = 8
IFLA_STATS_LINK_64 = 1
# The beginning of struct rtnl_link_stats64: packets received, packets sent, bytes received, bytes sent.
STATS_TRAFFIC: Final = struct.Struct("4Q")
STATS_TX_DROPPED: Final = 7 * U64.size  # offset in struct rtnl_link_stats64
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
NETNSA_NSID, NETNSA_FD = 1, 3  # linux/net_namespace.h
IFF_UP, IFF_PROMISC = 0x1, 0x100  # linux/if.h


def link(index: int, *attributes: tuple[int, bytes], flags: int = 0, change: int = 0) -> bytes:
    """Return a message about an interface.

    change: the interface flags (IFF_…) to change. flags: the new values of these flags.
    """
    return IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, flags, change) + pack(attributes)


def named(name: str) -> tuple[int, bytes]:
    """Return the attribute IFLA_IFNAME."""
    return IFLA_IFNAME, to_bytes(name) + b"\0"


def addresses(index: int) -> bytes:
    """Return the request for the addresses of an interface."""
    return IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, index)


def address(interface: IpInterface, index: int, *attributes: tuple[int, bytes], scope: int = 0) -> bytes:
    """Return a message about an address of an interface."""
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    own = interface.ip.packed
    head = IFADDRMSG.pack(family, interface.network.prefixlen, 0, scope, index)
    return head + pack(((IFA_LOCAL, own), (IFA_ADDRESS, own), *attributes))


def namespace(descriptor: int, *attributes: tuple[int, bytes]) -> bytes:
    """Return a message about the nsid of a namespace."""
    return RTGENMSG.pack(socket.AF_UNSPEC) + pack(((NETNSA_FD, U32.pack(descriptor)), *attributes))
