"""Move the addresses and routes of an interface to the bridge it joins, and back.

A machine that is reached through eth0 must stay reachable when eth0 joins a bridge, whatever happens in between. So
every address and route is copied to the bridge before it is removed from eth0, and each step is one request to the
kernel. A process that dies after any step leaves a machine that has each address and route at least once. Running the
steps again from the start completes the move.

While both interfaces have them, the older ones take precedence. The machine is unreachable only from the moment the
port joins until its own addresses and routes are removed, some milliseconds. During that time packets leave through the
port while ARP replies come in through the bridge.
"""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce
from ipaddress import ip_network
from typing import Any

from pyroute2.netlink.rtnl import RTM_GETLINK, RTM_SETLINK
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from virtfs.core.ip import IpInterface
from virtfs.host.ipconfig import addresses, routes
from virtfs.host.netlink_values import Link, link_of
from virtfs.host.rtnl import Rtnl

_IFF_UP = 0x1  # linux/if.h


@dataclass(frozen=True, slots=True)
class IpConfig:
    """The keys of addresses and routes. A key does not depend on the interface."""

    addresses: frozenset[tuple[object, ...]] = frozenset()
    routes: frozenset[tuple[object, ...]] = frozenset()

    @property
    def networks(self) -> frozenset[tuple[object, ...]]:
        """The networks of the addresses, in the form of ipconfig.RouteRecord.network."""
        return frozenset(_network(*key) for key in self.addresses)

    def __or__(self, other: "IpConfig") -> "IpConfig":
        return IpConfig(self.addresses | other.addresses, self.routes | other.routes)

    def __sub__(self, other: "IpConfig") -> "IpConfig":
        return IpConfig(self.addresses - other.addresses, self.routes - other.routes)


def _network(family: Any, address: Any, length: Any) -> tuple[object, ...]:
    return family, ip_network((address, length), strict=False).network_address.packed, length


def ip_config(rtnl: Rtnl, index: int) -> IpConfig:
    """Return the addresses and routes that an interface has now."""
    return IpConfig(
        frozenset(address.key for address in addresses(rtnl, index)),
        frozenset(route.key for route in routes(rtnl, index)),
    )


@dataclass(slots=True)
class Adoptions:
    """The members that one bridge has adopted, by interface index, and the origin of each address and route.

    Those of unknown origin are attributed to the member that was adopted first. This covers addresses that came later
    (by DHCP, by hand), and all of them if an earlier daemon did the adopting.
    """

    # What belongs to the bridge itself: it was there before any adoption, or was set by the verb inet.
    own: IpConfig = field(default_factory=IpConfig)
    brought: dict[int, IpConfig] = field(default_factory=dict)

    def note(self, rtnl: Rtnl, bridge: int, port: int) -> None:
        """Record what the port has. Call it before adopt()."""
        config = ip_config(rtnl, port)
        member = link(rtnl, port).master == bridge
        if not self.brought and not member:
            self.own |= ip_config(rtnl, bridge) - config
        self.brought[port] = config

    def keep(self, address: IpInterface) -> None:
        """Record an address that was given to the bridge itself."""
        self.own |= IpConfig(frozenset((_key(address),)))

    def is_own(self, address: IpInterface) -> bool:
        """Return whether an address on the bridge is the bridge's own, not a member's."""
        return not self.brought or _key(address) in self.own.addresses

    def staying(self, rtnl: Rtnl, bridge: int, port: int) -> IpConfig:
        """Return what stays on the bridge when this member leaves."""
        if next(iter(self.brought)) != port:
            return ip_config(rtnl, bridge) - self.brought[port]
        others = (held for index, held in self.brought.items() if index != port)
        return reduce(IpConfig.__or__, others, self.own)


def _key(address: IpInterface) -> tuple[object, ...]:
    """Return the key that ipconfig.AddressRecord has for an address."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return family, address.ip.packed, address.network.prefixlen


def adopt(rtnl: Rtnl, bridge: int, port: int) -> Iterator[str]:
    """Make `port` a member of `bridge` and move its addresses and routes there. Yield a word after each step.

    The bridge gets the port's MAC, under which the neighbours know those addresses. If the port is up, the bridge is
    set up too, because routes need that. VirtError: the kernel's error; what was copied by then is still on the port as
    well.
    """
    wire, master = link(rtnl, port), link(rtnl, bridge)
    if master.address != wire.address:
        _set_address(rtnl, bridge, wire.address)
        yield "address"
    if wire.up and not master.up:
        _set_up(rtnl, bridge)
        yield "up"
    yield from _move(rtnl, wire, master, IpConfig(), bridge)


def give_back(rtnl: Rtnl, bridge: int, port: int, staying: IpConfig) -> Iterator[str]:
    """Undo adopt(): remove the port from the bridge and move everything but `staying` back to it."""
    wire, master = link(rtnl, port), link(rtnl, bridge)
    yield from _move(rtnl, master, wire, staying, 0)
    if master.address == wire.address:
        # Two interfaces in one network must not share a MAC, so the bridge gets a random, locally administered one.
        _set_address(rtnl, bridge, bytes((0x02,)) + os.urandom(5))
        yield "address"


def _move(rtnl: Rtnl, source: Link, target: Link, staying: IpConfig, master: int) -> Iterator[str]:
    there = ip_config(rtnl, target.index)
    for address in addresses(rtnl, source.index):
        if address.key not in there.addresses | staying.addresses:
            address.on(target.index, target.name, source.name).add(rtnl)
            yield "copied an address"
    # The kernel has added its own routes for the new addresses: ask again. An interface that is down has no routes.
    there = ip_config(rtnl, target.index)
    for route in routes(rtnl, source.index) if link(rtnl, target.index).up else ():
        if route.key in staying.routes or route.network in staying.networks:
            continue  # a route that the kernel made for an address stays with the address
        if route.shared or route.key not in there.routes:
            route.on(target.index, source.index).add(rtnl)
            yield "copied a route"
    port = source if master else target
    if link(rtnl, port.index).master != (master or None):
        _set_master(rtnl, port.index, master)
        yield "member" if master else "no member"
    # In reverse: removing the first address of a subnet would remove the others (promote_secondaries).
    for address in reversed(addresses(rtnl, source.index)):
        if address.key not in staying.addresses:
            address.remove(rtnl)
            yield "removed an address"
    for route in routes(rtnl, source.index):
        if route.key in staying.routes or route.network in staying.networks:
            continue
        # The copy of a route with several next hops has replaced the original, so there is nothing to remove.
        if not route.shared:
            route.remove(rtnl)
            yield "removed a route"


def link(rtnl: Rtnl, index: int) -> Link:
    """Return an interface of the socket's network namespace, by index. VirtError ENODEV: there is none."""
    question = ifinfmsg()
    question["index"] = index
    (answer,) = rtnl.ask(RTM_GETLINK, question)
    return link_of(answer)


def _set_address(rtnl: Rtnl, index: int, address: bytes) -> None:
    change = ifinfmsg()
    change["index"] = index
    change["attrs"] = [("IFLA_ADDRESS", address.hex(":"))]
    rtnl.ask(RTM_SETLINK, change)


def _set_up(rtnl: Rtnl, index: int) -> None:
    change = ifinfmsg()
    change["index"] = index
    change["flags"] = change["change"] = _IFF_UP
    rtnl.ask(RTM_SETLINK, change)


def _set_master(rtnl: Rtnl, index: int, master: int) -> None:
    change = ifinfmsg()
    change["index"] = index
    change["attrs"] = [("IFLA_MASTER", master)]
    rtnl.ask(RTM_SETLINK, change)
