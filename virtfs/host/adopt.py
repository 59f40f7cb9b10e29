"""Moving an interface's addresses and routes to the bridge it becomes a member of, and back.

A machine that is reached through eth0 must stay so when eth0 is put into a bridge, whatever happens in between.
So make comes before break: every address and route is on the bridge before it leaves eth0, and each step is one
request to the kernel. Whoever dies after any step leaves a machine that has each of them at least once; the same
steps, taken again from the start, complete the move.

While both have them the older ones count. So the machine can be reached at every moment but one: from the port's
coming in until what it had is removed from it, some milliseconds, packets still leave by the port while the answers
of ARP come in by the bridge.
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
from virtfs.host.link import Link, link_of
from virtfs.host.rtnl import Rtnl

_IFF_UP = 0x1  # linux/if.h


@dataclass(frozen=True, slots=True)
class IpConfig:
    """Addresses and routes, by what is the same on whatever interface they are."""

    addresses: frozenset[tuple[object, ...]] = frozenset()
    routes: frozenset[tuple[object, ...]] = frozenset()

    @property
    def networks(self) -> frozenset[tuple[object, ...]]:
        """The addresses' networks, as ipconfig.RouteRecord has them."""
        return frozenset(_network(*key) for key in self.addresses)

    def __or__(self, other: "IpConfig") -> "IpConfig":
        return IpConfig(self.addresses | other.addresses, self.routes | other.routes)

    def __sub__(self, other: "IpConfig") -> "IpConfig":
        return IpConfig(self.addresses - other.addresses, self.routes - other.routes)


def _network(family: Any, address: Any, length: Any) -> tuple[object, ...]:
    return family, ip_network((address, length), strict=False).network_address.packed, length


def ip_config(rtnl: Rtnl, index: int) -> IpConfig:
    """What an interface holds now."""
    return IpConfig(
        frozenset(address.key for address in addresses(rtnl, index)),
        frozenset(route.key for route in routes(rtnl, index)),
    )


@dataclass(slots=True)
class Adoptions:
    """Which members one bridge has adopted, by interface index, and what is whose.

    What nobody is known to have brought belongs to the member that was adopted first: an address that came since
    (by DHCP, by hand), and all of them when an earlier daemon did the adopting.
    """

    own: IpConfig = field(default_factory=IpConfig)  # the bridge's: from before any was adopted, or by the verb inet
    brought: dict[int, IpConfig] = field(default_factory=dict)

    def note(self, rtnl: Rtnl, bridge: int, port: int) -> None:
        """To be called before `adopt`."""
        its = ip_config(rtnl, port)
        member = link(rtnl, port).master == bridge
        if not self.brought and not member:
            self.own |= ip_config(rtnl, bridge) - its
        self.brought[port] = its

    def keep(self, address: IpInterface) -> None:
        """An address that is given to the bridge itself."""
        self.own |= IpConfig(frozenset((_key(address),)))

    def is_own(self, address: IpInterface) -> bool:
        """Whether an address of the bridge is its own, not a member's."""
        return not self.brought or _key(address) in self.own.addresses

    def staying(self, rtnl: Rtnl, bridge: int, port: int) -> IpConfig:
        """What the bridge keeps when this member leaves."""
        if next(iter(self.brought)) != port:
            return ip_config(rtnl, bridge) - self.brought[port]
        others = (held for index, held in self.brought.items() if index != port)
        return reduce(IpConfig.__or__, others, self.own)


def _key(address: IpInterface) -> tuple[object, ...]:
    """As of ipconfig.AddressRecord."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return family, address.ip.packed, address.network.prefixlen


def adopt(rtnl: Rtnl, bridge: int, port: int) -> Iterator[str]:
    """Make `port` a member of `bridge` and move what it holds there. Each step done is told by a word.

    The bridge gets its MAC, under which the neighbours know those addresses, and is set up if it is: routes need
    that. VirtError: the kernel's; what was copied by then is still on the port as well.
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
    """The reverse: what the bridge holds, but for `staying`, moves to the port, which is a member no more."""
    wire, master = link(rtnl, port), link(rtnl, bridge)
    yield from _move(rtnl, master, wire, staying, 0)
    if master.address == wire.address:
        # Two of one address in one network would be one too many. Any that is nobody's will do.
        _set_address(rtnl, bridge, bytes((0x02,)) + os.urandom(5))
        yield "address"


def _move(rtnl: Rtnl, source: Link, target: Link, staying: IpConfig, master: int) -> Iterator[str]:
    there = ip_config(rtnl, target.index)
    for address in addresses(rtnl, source.index):
        if address.key not in there.addresses | staying.addresses:
            address.on(target.index, target.name, source.name).add(rtnl)
            yield "copied an address"
    # With an address its kernel's own routes have come: ask again. What is down can have none.
    there = ip_config(rtnl, target.index)
    for route in routes(rtnl, source.index) if link(rtnl, target.index).up else ():
        if route.key in staying.routes or route.network in staying.networks:
            continue  # what the kernel made for an address stays with that
        if route.shared or route.key not in there.routes:
            route.on(target.index, source.index).add(rtnl)
            yield "copied a route"
    port = source if master else target
    if link(rtnl, port.index).master != (master or None):
        _set_master(rtnl, port.index, master)
        yield "member" if master else "no member"
    # The last first: with the first address of a subnet the others would go (promote_secondaries).
    for address in reversed(addresses(rtnl, source.index)):
        if address.key not in staying.addresses:
            address.remove(rtnl)
            yield "removed an address"
    for route in routes(rtnl, source.index):
        if route.key in staying.routes or route.network in staying.networks:
            continue
        if not route.shared:  # such a one was replaced
            route.remove(rtnl)
            yield "removed a route"


def link(rtnl: Rtnl, index: int) -> Link:
    """An interface of our own network namespace. VirtError ENODEV."""
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
