"""What an interface holds of the network layer, addresses and routes, to be moved to another interface.

Each is copied as the kernel told it, attribute by attribute: lifetimes, metrics, protocols and what later
kernels add go along.
"""

import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from errno import EADDRNOTAVAIL, EEXIST, ESRCH
from typing import Final, Self

from pyroute2.netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE
from pyroute2.netlink.rtnl import RTM_DELADDR, RTM_DELROUTE, RTM_GETADDR, RTM_GETROUTE, RTM_NEWADDR, RTM_NEWROUTE

from virtfs.core.errors import VirtError
from virtfs.host.attributes import Attributes, Raw, body, pack, parse
from virtfs.host.rtnl import Rtnl

_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
_U32 = struct.Struct("I")

# linux/if_addr.h
_IFADDRMSG = struct.Struct("BBBBi")  # family, prefix length, flags, scope, interface
_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 3, 6, 8
_IFA_F_NODAD = 0x02
# What the one who sets an address says; the rest of the flags tells how it is.
_IFA_F_SET = 0x10 | 0x100 | 0x200 | 0x400 | 0x800  # HOMEADDRESS MANAGETEMPADDR NOPREFIXROUTE MCAUTOJOIN STABLE_PRIVACY
_IFA_F_DADFAILED = 0x08

# linux/rtnetlink.h
_RTMSG = struct.Struct("BBBBBBBBI")  # family, lengths of dst and src, tos, table, protocol, scope, type, flags
_RTNEXTHOP = struct.Struct("HBBi")  # length, flags, hops, interface
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_MULTIPATH = 1, 4, 5, 6, 9
_RTA_CACHEINFO, _RTA_TABLE, _RTA_VIA, _RTA_EXPIRES, _RTA_NH_ID = 12, 15, 18, 23, 30
_RTN_UNICAST = 1
_RTPROT_KERNEL = 2
_RTM_F_CLONED = 0x200
_RTNH_F_ONLINK = 4
_CACHEINFO_EXPIRES = struct.Struct("IIi")  # struct rta_cacheinfo, its head: clntref, lastuse, expires in 1/100 s


@dataclass(frozen=True)
class AddressRecord:
    """One address of one interface."""

    head: tuple[int, ...]  # struct ifaddrmsg
    attributes: Attributes

    @property
    def key(self) -> tuple[object, ...]:
        """What is the same on whatever interface it is."""
        own = self.attributes.get(_IFA_LOCAL) or self.attributes.get(_IFA_ADDRESS)
        return self.head[0], own, self.head[1]

    @property
    def said(self) -> tuple[object, ...]:
        """What whoever set it has said of it, how long it still lives excepted; as `on` leaves it."""
        return self.head, frozenset((kind, data) for kind, data in self.attributes.items() if kind != _IFA_CACHEINFO)

    def on(self, index: int, name: str, old_name: str) -> Self:
        """It, on another interface. A label such as eth0:1 follows if the new one is short enough."""
        attributes = dict(self.attributes)
        flags = _U32.unpack(attributes.get(_IFA_FLAGS, _U32.pack(self.head[2])))[0] & _IFA_F_SET
        # It is known to be nobody else's: no need to ask (and to wait) before it may be used.
        attributes[_IFA_FLAGS] = _U32.pack(flags | (_IFA_F_NODAD if self.head[0] == socket.AF_INET6 else 0))
        label = attributes.pop(_IFA_LABEL, b"").rstrip(b"\0").decode(errors="surrogateescape")
        if label.startswith(f"{old_name}:") and len(new := name + label.removeprefix(old_name)) < 16:
            attributes[_IFA_LABEL] = new.encode() + b"\0"
        family, length, _flags, scope, _index = self.head
        return replace(self, head=(family, length, 0, scope, index), attributes=attributes)

    def add(self, rtnl: Rtnl) -> None:
        """Give it to its interface; no error if it is there."""
        _tolerant(rtnl, RTM_NEWADDR, self._message(), NLM_F_CREATE | NLM_F_EXCL, EEXIST)

    def remove(self, rtnl: Rtnl) -> None:
        """Take it from its interface; no error if it is gone."""
        _tolerant(rtnl, RTM_DELADDR, self._message(), 0, EADDRNOTAVAIL)

    def _message(self) -> bytes:
        return _IFADDRMSG.pack(*self.head) + pack(self.attributes.items())


@dataclass(frozen=True)
class RouteRecord:
    """One unicast route that leads out of one interface, or by several next hops also out of it."""

    head: tuple[int, ...]  # struct rtmsg
    attributes: Attributes

    @property
    def key(self) -> tuple[object, ...]:
        """What is the same whatever interface it leads out of."""
        family, dst_len, _src, tos, *_ = self.head
        parts = (_RTA_TABLE, _RTA_DST, _RTA_PRIORITY, _RTA_GATEWAY, _RTA_VIA)
        return family, dst_len, tos, *(self.attributes.get(kind) for kind in parts)

    @property
    def network(self) -> tuple[object, ...] | None:
        """Of a route that the kernel made for an address, the network of both: family, address, length."""
        family, length, _src, _tos, _table, protocol, *_ = self.head
        return (family, self.attributes.get(_RTA_DST), length) if protocol == _RTPROT_KERNEL else None

    @property
    def shared(self) -> bool:
        """Whether it has several next hops."""
        return _RTA_MULTIPATH in self.attributes

    def hops(self) -> Iterator[tuple[int, int, bytes]]:
        """Of a shared one each next hop: interface, where in the attribute it lies, its attributes."""
        value, at = self.attributes.get(_RTA_MULTIPATH, b""), 0
        while len(value) - at >= _RTNEXTHOP.size:
            length, _flags, _hops, index = _RTNEXTHOP.unpack_from(value, at)
            yield index, at, value[at + _RTNEXTHOP.size : at + length]
            at += max(length + 3 & ~3, _RTNEXTHOP.size)

    def leads_out_of(self, index: int) -> bool:
        """Whether it uses an interface."""
        if self.shared:
            return any(hop == index for hop, _at, _data in self.hops())
        return self.attributes.get(_RTA_OIF) == _U32.pack(index)

    def on(self, index: int, old: int) -> Self:
        """It, out of another interface where it led out of `old`."""
        attributes = {kind: value for kind, value in self.attributes.items() if kind != _RTA_NH_ID}
        expires = _CACHEINFO_EXPIRES.unpack_from(attributes.pop(_RTA_CACHEINFO, bytes(_CACHEINFO_EXPIRES.size)))[2]
        if expires > 0 and self.head[0] == socket.AF_INET6:
            attributes[_RTA_EXPIRES] = _U32.pack(max(1, expires // 100))
        if self.shared:
            value = bytearray(attributes[_RTA_MULTIPATH])
            for hop, at, _data in self.hops():
                if hop == old:
                    struct.pack_into("i", value, at + 4, index)
            attributes[_RTA_MULTIPATH] = bytes(value)
        else:
            attributes[_RTA_OIF] = _U32.pack(index)
        return replace(self, head=(*self.head[:-1], self.head[-1] & _RTNH_F_ONLINK), attributes=attributes)

    def add(self, rtnl: Rtnl) -> None:
        """Make it beside what is there; one with several next hops takes the place of what it was."""
        how = NLM_F_REPLACE if self.shared else NLM_F_APPEND
        _tolerant(rtnl, RTM_NEWROUTE, self._message(), NLM_F_CREATE | how, EEXIST)

    def remove(self, rtnl: Rtnl) -> None:
        """Remove it; no error if it is gone."""
        _tolerant(rtnl, RTM_DELROUTE, self._message(), 0, ESRCH)

    def _message(self) -> bytes:
        return _RTMSG.pack(*self.head) + pack(self.attributes.items())


def addresses(rtnl: Rtnl, index: int) -> list[AddressRecord]:
    """The addresses of an interface that are in use, in the kernel's order."""
    found: list[AddressRecord] = []
    for message in rtnl.dump(RTM_GETADDR, Raw(_IFADDRMSG.pack(0, 0, 0, 0, index))):
        data = body(message)
        address = AddressRecord(_IFADDRMSG.unpack_from(data), parse(data[_IFADDRMSG.size :]))
        if address.head[0] in _FAMILIES and address.head[4] == index and not address.head[2] & _IFA_F_DADFAILED:
            found.append(address)
    return found


def restore(rtnl: Rtnl, index: int, name: str, before: Sequence[AddressRecord], old_name: str) -> None:
    """Make an interface's addresses what they were, with broadcast address, label and scope. One that is there as it
    was is not touched; how long the others live is as it was then. old_name: what the interface was called.
    """
    wanted = [address.on(index, name, old_name) for address in before]

    def there() -> list[AddressRecord]:
        return [address.on(index, name, name) for address in addresses(rtnl, index)]

    for address in reversed(there()):
        if address.said not in [one.said for one in wanted]:
            address.remove(rtnl)
    # With the first address of a subnet the others may have gone: ask again.
    kept = {address.said for address in there()}
    for address in wanted:
        if address.said not in kept:
            address.add(rtnl)


def routes(rtnl: Rtnl, index: int) -> list[RouteRecord]:
    """The unicast routes of every table that lead out of an interface."""
    found: list[RouteRecord] = []
    for family in _FAMILIES:
        for message in rtnl.dump(RTM_GETROUTE, Raw(_RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))):
            data = body(message)
            route = RouteRecord(_RTMSG.unpack_from(data), parse(data[_RTMSG.size :]))
            *_, kind, flags = route.head
            if kind == _RTN_UNICAST and not flags & _RTM_F_CLONED:
                found.extend(part for part in _parted(route) if part.leads_out_of(index))
    return found


def _parted(route: RouteRecord) -> Iterator[RouteRecord]:
    """IPv6 keeps next hops as routes of their own, which can come and go one by one; only a dump joins them."""
    if not route.shared or route.head[0] != socket.AF_INET6:
        yield route
        return
    for index, _at, data in route.hops():
        attributes = {kind: value for kind, value in route.attributes.items() if kind != _RTA_MULTIPATH}
        yield replace(route, attributes=attributes | parse(data) | {_RTA_OIF: _U32.pack(index)})


def _tolerant(rtnl: Rtnl, kind: int, message: bytes, flags: int, harmless: int) -> None:
    try:
        rtnl.ask(kind, Raw(message), flags)
    except VirtError as refusal:
        if refusal.errno != harmless:
            raise
