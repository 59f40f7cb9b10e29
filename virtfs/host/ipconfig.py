"""The addresses and routes of an interface, as records that can be moved to another interface.

Each record is copied attribute by attribute as the kernel reported it. So lifetimes, metrics, protocols and whatever
later kernels add are preserved.
"""

import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from errno import EADDRNOTAVAIL, EEXIST, ESRCH
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface
from typing import Final, Self

from virtfs.core.errors import VirtError
from virtfs.core.ip import IpInterface
from virtfs.host.netlink_attributes import Attributes, pack, parse
from virtfs.host.netlink_messages import RTM_DELADDR, RTM_DELROUTE, RTM_GETADDR, RTM_GETROUTE, RTM_NEWADDR, RTM_NEWROUTE
from virtfs.host.rtnl import NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Rtnl

_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
_U32 = struct.Struct("I")

# linux/if_addr.h
_IFADDRMSG = struct.Struct("BBBBi")  # family, prefix length, flags, scope, interface
_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 3, 6, 8
_IFA_F_NODAD = 0x02
# The flags that a program can set when it adds an address. The other flags report the state of the address.
_IFA_F_SET = 0x10 | 0x100 | 0x200 | 0x400 | 0x800  # HOMEADDRESS MANAGETEMPADDR NOPREFIXROUTE MCAUTOJOIN STABLE_PRIVACY
_IFA_F_DADFAILED = 0x08

# linux/rtnetlink.h
_RTMSG = struct.Struct("BBBBBBBBI")  # family, lengths of dst and src, tos, table, protocol, scope, type, flags
_RTNEXTHOP = struct.Struct("HBBi")  # length, flags, hops, interface
_RTNEXTHOP_FLAGS = 2  # offset of the flags
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_MULTIPATH = 1, 4, 5, 6, 9
_RTA_CACHEINFO, _RTA_TABLE, _RTA_VIA, _RTA_EXPIRES, _RTA_NH_ID = 12, 15, 18, 23, 30
_RTN_UNICAST = 1
_RT_TABLE_MAIN = 254
_RTPROT_KERNEL = 2
_RTM_F_CLONED = 0x200
_RTNH_F_ONLINK = 4
# The first members of struct rta_cacheinfo: clntref, lastuse, and expires in 1/100 s.
_CACHEINFO_EXPIRES = struct.Struct("IIi")


@dataclass(frozen=True)
class AddressRecord:
    """An address of an interface, as the kernel reported it."""

    head: tuple[int, ...]  # struct ifaddrmsg
    attributes: Attributes

    @property
    def key(self) -> tuple[object, ...]:
        """The identity of the address, independent of its interface: family, address, prefix length."""
        own = self.attributes.get(_IFA_LOCAL) or self.attributes.get(_IFA_ADDRESS)
        return self.head[0], own, self.head[1]

    @property
    def address(self) -> IpInterface:
        """The address with its prefix length."""
        own = self.attributes.get(_IFA_LOCAL) or self.attributes[_IFA_ADDRESS]
        return ip_interface((own, self.head[1]))

    @property
    def configuration(self) -> tuple[object, ...]:
        """The configuration of the address without its lifetimes.

        Compare it only between records that on() returned, because on() clears the flags that report a state.
        """
        return self.head, frozenset((kind, data) for kind, data in self.attributes.items() if kind != _IFA_CACHEINFO)

    def on(self, index: int, name: str, old_name: str) -> Self:
        """Return a copy of the record for another interface.

        In a label such as eth0:1, the interface name is replaced. If the new label is too long, the copy has no label.
        index, name: the index and name of the other interface. old_name: the interface name in the record's label.
        """
        attributes = dict(self.attributes)
        flags = _U32.unpack(attributes.get(_IFA_FLAGS, _U32.pack(self.head[2])))[0] & _IFA_F_SET
        # This host already had the address, so it need not wait for duplicate address detection again.
        attributes[_IFA_FLAGS] = _U32.pack(flags | (_IFA_F_NODAD if self.head[0] == socket.AF_INET6 else 0))
        label = attributes.pop(_IFA_LABEL, b"").rstrip(b"\0").decode(errors="surrogateescape")
        if label.startswith(f"{old_name}:") and len(new := name + label.removeprefix(old_name)) < 16:
            attributes[_IFA_LABEL] = new.encode() + b"\0"
        family, length, _flags, scope, _index = self.head
        return replace(self, head=(family, length, 0, scope, index), attributes=attributes)

    def add(self, rtnl: Rtnl) -> None:
        """Add the address to its interface; no error if it already exists."""
        _tolerant(rtnl, RTM_NEWADDR, self._message(), NLM_F_CREATE | NLM_F_EXCL, EEXIST)

    def remove(self, rtnl: Rtnl) -> None:
        """Remove the address from its interface; no error if it is gone."""
        _tolerant(rtnl, RTM_DELADDR, self._message(), 0, EADDRNOTAVAIL)

    def _message(self) -> bytes:
        return _IFADDRMSG.pack(*self.head) + pack(self.attributes.items())


@dataclass(frozen=True)
class RouteRecord:
    """A unicast route, with one next hop or several, as the kernel reported it."""

    head: tuple[int, ...]  # struct rtmsg
    attributes: Attributes

    @property
    def key(self) -> tuple[object, ...]:
        """The identity of the route, independent of its interface.

        A tuple of family, prefix length, TOS, table, destination, metric and gateway.
        """
        family, dst_len, _src, tos, *_ = self.head
        parts = (_RTA_TABLE, _RTA_DST, _RTA_PRIORITY, _RTA_GATEWAY, _RTA_VIA)
        return family, dst_len, tos, *(self.attributes.get(kind) for kind in parts)

    @property
    def network(self) -> tuple[object, ...] | None:
        """The network of the address that the kernel made this route for: family, network address, prefix length.

        None for a route that the kernel did not make.
        """
        family, length, _src, _tos, _table, protocol, *_ = self.head
        return (family, self.attributes.get(_RTA_DST), length) if protocol == _RTPROT_KERNEL else None

    @property
    def gateway(self) -> IPv4Address | IPv6Address | None:
        """The next hop; None if the route has no gateway of its own family."""
        value = self.attributes.get(_RTA_GATEWAY)
        return None if value is None else ip_address(value)

    @property
    def onlink(self) -> bool:
        """Whether the kernel does not check that the gateway can be reached."""
        return bool(self.head[-1] & _RTNH_F_ONLINK)

    def __str__(self) -> str:
        """Return the destination, the gateway and the table in the words of ip-route(8)."""
        family, length, *_ = self.head
        size = 4 if family == socket.AF_INET else 16
        destination = ip_address(self.attributes.get(_RTA_DST, bytes(size)))
        to = f"{destination}/{length}" if length else "default" if family == socket.AF_INET else "::/0"
        via = "" if self.gateway is None else f" via {self.gateway}"
        table = _U32.unpack(self.attributes.get(_RTA_TABLE, _U32.pack(_RT_TABLE_MAIN)))[0]
        return f"{to}{via}" + ("" if table == _RT_TABLE_MAIN else f" table {table}")

    @property
    def shared(self) -> bool:
        """Whether the route has several next hops."""
        return _RTA_MULTIPATH in self.attributes

    def hops(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield the next hops of a shared route.

        Each is a tuple: interface index, offset in the RTA_MULTIPATH attribute, packed attributes of the hop.
        """
        value, at = self.attributes.get(_RTA_MULTIPATH, b""), 0
        while len(value) - at >= _RTNEXTHOP.size:
            length, _flags, _hops, index = _RTNEXTHOP.unpack_from(value, at)
            yield index, at, value[at + _RTNEXTHOP.size : at + length]
            at += max(length + 3 & ~3, _RTNEXTHOP.size)

    def leads_out_of(self, index: int) -> bool:
        """Return whether the route or one of its next hops leads out of an interface."""
        if self.shared:
            return any(hop == index for hop, _at, _data in self.hops())
        return self.attributes.get(_RTA_OIF) == _U32.pack(index)

    def on(self, index: int, old: int) -> Self:
        """Return a copy of the route with the interface index `old` replaced by `index`."""
        attributes = {kind: value for kind, value in self.attributes.items() if kind != _RTA_NH_ID}
        expires = _CACHEINFO_EXPIRES.unpack_from(attributes.pop(_RTA_CACHEINFO, bytes(_CACHEINFO_EXPIRES.size)))[2]
        if expires > 0 and self.head[0] == socket.AF_INET6:
            attributes[_RTA_EXPIRES] = _U32.pack(max(1, expires // 100))
        if self.shared:
            value = bytearray(attributes[_RTA_MULTIPATH])
            for hop, at, _data in self.hops():
                value[at + _RTNEXTHOP_FLAGS] &= _RTNH_F_ONLINK  # the kernel refuses DEAD and LINKDOWN
                if hop == old:
                    struct.pack_into("i", value, at + 4, index)
            attributes[_RTA_MULTIPATH] = bytes(value)
        else:
            attributes[_RTA_OIF] = _U32.pack(index)
        return replace(self, head=(*self.head[:-1], self.head[-1] & _RTNH_F_ONLINK), attributes=attributes)

    def add(self, rtnl: Rtnl) -> None:
        """Add the route; no error if it already exists.

        A route with one next hop is added to the existing routes to the same destination. A shared route replaces the
        route that it was copied from.
        """
        how = NLM_F_REPLACE if self.shared else NLM_F_APPEND
        _tolerant(rtnl, RTM_NEWROUTE, self._message(), NLM_F_CREATE | how, EEXIST)

    def remove(self, rtnl: Rtnl) -> None:
        """Remove the route; no error if it is gone."""
        _tolerant(rtnl, RTM_DELROUTE, self._message(), 0, ESRCH)

    def _message(self) -> bytes:
        return _RTMSG.pack(*self.head) + pack(self.attributes.items())


def addresses(rtnl: Rtnl, index: int) -> list[AddressRecord]:
    """Return the addresses of an interface in the kernel's order.

    IPv6 addresses that failed duplicate address detection are left out.
    """
    found: list[AddressRecord] = []
    for reply in rtnl.dump(RTM_GETADDR, _IFADDRMSG.pack(0, 0, 0, 0, index)):
        address = AddressRecord(_IFADDRMSG.unpack_from(reply.body), parse(reply.body, _IFADDRMSG.size))
        if address.head[0] in _FAMILIES and address.head[4] == index and not address.head[2] & _IFA_F_DADFAILED:
            found.append(address)
    return found


def restore(rtnl: Rtnl, index: int, name: str, before: Sequence[AddressRecord], old_name: str) -> None:
    """Restore the recorded addresses of an interface, with broadcast address, label and scope. Remove all others.

    An address that is present with the same configuration is not changed. An address that is added gets the lifetimes
    that it had when it was recorded. before: the recorded addresses. name: the current name of the interface. old_name:
    the name of the interface when the addresses were recorded.
    """
    wanted = [address.on(index, name, old_name) for address in before]

    def there() -> list[AddressRecord]:
        return [address.on(index, name, name) for address in addresses(rtnl, index)]

    for address in reversed(there()):
        if address.configuration not in [one.configuration for one in wanted]:
            address.remove(rtnl)
    # Reread the addresses: removing the first address of a subnet may have removed the others
    # (promote_secondaries).
    kept = {address.configuration for address in there()}
    for address in wanted:
        if address.configuration not in kept:
            address.add(rtnl)


def routes(rtnl: Rtnl, index: int) -> list[RouteRecord]:
    """Return the unicast routes that lead out of an interface, from all routing tables.

    Those without a gateway come first: the kernel refuses a gateway that no route reaches. NetworkManager adds the
    route of an address itself (noprefixroute), so that the address does not bring it.
    """
    found: list[RouteRecord] = []
    out = pack([(_RTA_OIF, _U32.pack(index))])  # the kernel leaves out other routes, of which there may be a million
    for family in _FAMILIES:
        for reply in rtnl.dump(RTM_GETROUTE, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0) + out):
            route = RouteRecord(_RTMSG.unpack_from(reply.body), parse(reply.body, _RTMSG.size))
            *_, kind, flags = route.head
            if kind == _RTN_UNICAST and not flags & _RTM_F_CLONED:
                found.extend(part for part in _split_hops(route) if part.leads_out_of(index))
    return sorted(found, key=lambda route: route.shared or bool(route.attributes.keys() & {_RTA_GATEWAY, _RTA_VIA}))


def _split_hops(route: RouteRecord) -> Iterator[RouteRecord]:
    """Split a shared IPv6 route into one route for each next hop. Yield any other route unchanged.

    Linux stores each next hop of an IPv6 route as a separate route, which is added and removed on its own. Only a dump
    combines them.
    """
    if not route.shared or route.head[0] != socket.AF_INET6:
        yield route
        return
    for index, _at, data in route.hops():
        attributes = {kind: value for kind, value in route.attributes.items() if kind != _RTA_MULTIPATH}
        yield replace(route, attributes=attributes | parse(data) | {_RTA_OIF: _U32.pack(index)})


def _tolerant(rtnl: Rtnl, kind: int, message: bytes, flags: int, harmless: int) -> None:
    try:
        rtnl.ask(kind, message, flags)
    except VirtError as refusal:
        if refusal.errno != harmless:
            raise
