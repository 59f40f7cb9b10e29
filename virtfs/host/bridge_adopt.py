"""Move the addresses and routes of an interface to the bridge that it joins, and back.

A machine that is reached through eth0 must stay reachable when eth0 joins a bridge, even if this process dies halfway.
So every address and route is copied to the bridge before it is removed from eth0, and each step is one request to the
kernel. After any step each address and route is on at least one of the two interfaces. Running the steps again from
the start completes the move.

While an address or route is on both interfaces, the older copy takes precedence. The machine is unreachable for a few
milliseconds: from the moment eth0 joins the bridge until the addresses and routes of eth0 are removed. During that time
packets leave through eth0, but ARP replies arrive through the bridge.
"""

import os
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, NamedTuple

from virtfs.core.errors import VirtError
from virtfs.core.ip import IpInterface
from virtfs.core.quoting import quoted
from virtfs.host import netlink_messages as m
from virtfs.host.bridgeinfo import ask_link
from virtfs.host.ipconfig import AddressRecord, RouteRecord, addresses, routes
from virtfs.host.netlink_values import Link, link_of
from virtfs.host.rtnl import Rtnl


@dataclass(frozen=True, slots=True)
class IpConfig:
    """A set of addresses and routes, identified by their keys: AddressRecord.key and RouteRecord.key (ipconfig).

    A key does not depend on the interface.
    """

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


class IpRecords(NamedTuple):
    """Addresses and routes of one interface, in the kernel's order, with all that the kernel reports of them."""

    addresses: tuple[AddressRecord, ...] = ()
    routes: tuple[RouteRecord, ...] = ()

    @property
    def keys(self) -> IpConfig:
        """The identities of these addresses and routes."""
        return IpConfig(
            frozenset(address.key for address in self.addresses), frozenset(route.key for route in self.routes)
        )


def ip_records(rtnl: Rtnl, index: int) -> IpRecords:
    """Return the addresses and routes that an interface has now."""
    return IpRecords(tuple(addresses(rtnl, index)), tuple(routes(rtnl, index)))


def ip_config(rtnl: Rtnl, index: int) -> IpConfig:
    """Return the identities of the addresses and routes that an interface has now."""
    return ip_records(rtnl, index).keys


@dataclass(slots=True)
class Adoptions:
    """The adopted members of one bridge, and the addresses and routes that each of them brought.

    own: the addresses and routes that the bridge had before any adoption, and those that the verb inet set, unless a
    member has brought them too. brought: the addresses and routes of each adopted member, by interface index.

    inherited: whether a killed server left the bridge behind. The members may have brought any of the addresses and
    routes on such a bridge, so only those that the verb inet sets are the bridge's own. recalled: addresses that the
    bridge may still have, by the name of the interface that brought them: to that server's bridge, or to this one if
    the member has vanished. kept: the addresses and routes of the members that have vanished from this bridge, by name.
    note() removes the entries of a member. names: the names of the members in `brought`.

    last: the addresses and routes that the bridge had when it was last queried. If another program deletes the bridge,
    the kernel has them no more.

    An address or route of unknown origin is attributed to the member that was adopted first. Its origin is unknown if
    it was added later (by DHCP or by hand), or if an earlier daemon adopted the members.
    """

    own: IpConfig = field(default_factory=IpConfig)
    brought: dict[int, IpConfig] = field(default_factory=dict)
    inherited: bool = False
    recalled: dict[str, frozenset[IpInterface]] = field(default_factory=dict)
    kept: dict[str, IpConfig] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    last: IpRecords = field(default_factory=IpRecords)

    def note(self, rtnl: Rtnl, bridge: int, port: int) -> None:
        """Record the addresses and routes of a port. Call this before adopt().

        An address that the bridge has too counts as brought by the port. Otherwise it would stay on the bridge when the
        port leaves, and the kernel would refuse to move the routes through its network.
        """
        config, wire = ip_config(rtnl, port), link(rtnl, port)
        member = wire.master == bridge
        config |= self._take_vanished(rtnl, bridge, wire.name)
        if not self.brought and not member and not self.inherited:
            self.own |= ip_config(rtnl, bridge) - self._of_vanished(rtnl, bridge)
        self.own -= config
        self.brought[port], self.names[port] = config, wire.name

    def _take_vanished(self, rtnl: Rtnl, bridge: int, name: str) -> IpConfig:
        """Return the addresses and routes that the bridge has from a member that is back, and forget them."""
        recalled = self.recalled.pop(name, frozenset())
        part = _part_of(ip_records(rtnl, bridge), recalled) if recalled else IpConfig()
        return part | self.kept.pop(name, IpConfig())

    def _of_vanished(self, rtnl: Rtnl, bridge: int) -> IpConfig:
        """Return the addresses and routes that the bridge has from members that have vanished."""
        return self._of_vanished_in(ip_records(rtnl, bridge)) if self.recalled or self.kept else IpConfig()

    def _of_vanished_in(self, present: IpRecords) -> IpConfig:
        parts = (_part_of(present, its) for its in list(self.recalled.values()))
        return reduce(IpConfig.__or__, (*parts, *self.kept.values()), IpConfig())

    def forget(self, port: int) -> None:
        """Remove the record of a member."""
        self.brought.pop(port, None)
        self.names.pop(port, None)

    def keep_all(self, port: int, present: Collection[IpInterface]) -> None:
        """Keep the addresses and routes of a vanished member on the bridge, until the member is back.

        present: those of its addresses that are on the bridge.
        """
        self.kept[self.names[port]] = self.brought[port] | IpConfig(frozenset(map(_key, present)))
        if present:
            self.recalled[self.names[port]] = frozenset(present)
        self.forget(port)

    def own_kept(self, name: str) -> None:
        """Make the addresses and routes of a vanished member the bridge's own, because no line adopts the member again.

        name: the name of the member.
        """
        self.own |= self.kept.pop(name, IpConfig())

    def vanished(self, present: Collection[IpInterface]) -> dict[str, frozenset[IpInterface]]:
        """Return the addresses that the bridge keeps for vanished members, by member name.

        present: the addresses on the bridge.
        """
        foreign = frozenset(address for address in present if _key(address) not in self.own.addresses)
        kept = {name: its & foreign for name, its in list(self.recalled.items())}
        return {name: its for name, its in kept.items() if its}

    def shares(self, members: Mapping[int, str], present: Collection[IpInterface]) -> dict[str, frozenset[IpInterface]]:
        """Return the addresses that each member has brought, by member name.

        Members that have vanished are included. members: the names of all members, by index. present: the addresses on
        the bridge.
        """
        shares = {name: its.intersection(present) for name, its in list(self.recalled.items())}
        brought = {members[index]: config.addresses for index, config in list(self.brought.items()) if index in members}
        for name, keys in brought.items():
            shares[name] = frozenset(address for address in present if _key(address) in keys)
        if brought:  # addresses of unknown origin count as the first member's
            taken = self.own.addresses.union(map(_key, frozenset[IpInterface]().union(*shares.values())))
            shares[next(iter(brought))] |= {address for address in present if _key(address) not in taken}
        return shares

    def attribute(self, moving: str, present: Collection[IpInterface]) -> None:
        """Record that addresses of unknown origin were brought by a member whose adoption was cut short.

        moving: the name of the member. present: the addresses on the bridge, except the bridge's own.
        """
        known = frozenset[IpInterface]().union(*self.recalled.values())
        self.recalled[moving] = self.recalled.get(moving, frozenset()) | (frozenset(present) - known)

    def keep(self, address: IpInterface, leaving: Collection[str] = ()) -> None:
        """Record that an address belongs to the bridge itself, unless a member has brought it.

        leaving: the names of the members that the same line deletes. What they have brought stays on the bridge.
        """
        key = _key(address)
        staying = [config for index, config in self.brought.items() if self.names[index] not in leaving]
        if not any(key in config.addresses for config in staying):
            self.own |= IpConfig(frozenset((key,)))

    def without_shares(self, present: Sequence[IpInterface], members: Collection[int]) -> tuple[IpInterface, ...]:
        """Return the addresses on the bridge without those that some members, and all vanished ones, have brought.

        present: the addresses on the bridge. members: the interface indices of these members.
        """
        theirs = {self.names[index] for index in list(self.brought) if index in members} | self.recalled.keys()
        shares = self.shares(self.names, present) if theirs else {}
        left_out = frozenset[IpInterface]().union(*(shares[name] for name in theirs))
        return tuple(a for a in present if a not in left_out or _key(a) in self.own.addresses)

    def staying(self, rtnl: Rtnl, bridge: int, port: int) -> IpConfig:
        """Return the addresses and routes that stay on the bridge when a member leaves."""
        return self._staying_in(ip_records(rtnl, bridge), port)

    def _staying_in(self, present: IpRecords, port: int) -> IpConfig:
        if next(iter(self.brought)) != port:
            return (present.keys - self.brought[port]) | self.own
        others = (held for index, held in self.brought.items() if index != port)
        return reduce(IpConfig.__or__, others, self.own | self._of_vanished_in(present))

    def latest(self, rtnl: Rtnl, bridge: int, up: bool) -> IpRecords:
        """Return the addresses and routes of the bridge, for `last`.

        The kernel removes the routes and the IPv6 addresses of a bridge that is set down, for example before
        brctl(8) deletes it. They stay in the result. up: whether the bridge was up just before the call.
        """
        now, last = ip_records(rtnl, bridge), self.last
        if up and _is_up(rtnl, bridge):  # it may have been set down before its addresses and routes were read
            return now
        known, there = last.keys.addresses, now.keys.addresses
        stay = (a for a in last.addresses if a.key in there or a.head[0] == socket.AF_INET6)
        return IpRecords((*stay, *(a for a in now.addresses if a.key not in known)), last.routes)

    def last_of(self, port: int) -> IpRecords:
        """Return the part of `last` that a member would get if it left the bridge."""
        staying = self._staying_in(self.last, port)
        stays = _Staying(staying, self.last.addresses)
        its = tuple(address for address in self.last.addresses if address.key not in staying.addresses)
        return IpRecords(its, tuple(route for route in self.last.routes if not stays(route)))

    def last_of_vanished(self, name: str) -> IpRecords:
        """Return the part of `last` that belongs to a member that has vanished."""
        keys = _part_of(self.last, self.recalled.get(name, frozenset())) | self.kept.get(name, IpConfig())
        its = tuple(address for address in self.last.addresses if address.key in keys.addresses)
        return IpRecords(its, tuple(route for route in self.last.routes if route.key in keys.routes))


def _is_up(rtnl: Rtnl, index: int) -> bool:
    link = ask_link(rtnl, index)
    return link is not None and bool(link["flags"] & m.IFF_UP)


def _part_of(present: IpRecords, recalled: frozenset[IpInterface]) -> IpConfig:
    """Return the recalled addresses that a bridge still has, and its routes to or through their networks."""
    keys = {_key(address) for address in recalled}
    there = frozenset(address.key for address in present.addresses if address.key in keys)
    networks = IpConfig(there).networks
    through = [address.network for address in recalled]
    its = [
        route.key
        for route in present.routes
        if route.network in networks or any(route.gateway in network for network in through if route.gateway)
    ]
    return IpConfig(there, frozenset(its))


def _key(address: IpInterface) -> tuple[object, ...]:
    """Return the key of an address, in the form that ipconfig.AddressRecord uses."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return family, address.ip.packed, address.network.prefixlen


def adopt(rtnl: Rtnl, bridge: int, port: int) -> Iterator[str]:
    """Make a port a member of a bridge, and move the port's addresses and routes to the bridge.

    Yield a description after each step. The bridge gets the port's MAC, because that is the MAC that the neighbours
    have cached for those addresses. If the port is up, the bridge is brought up too, because a bridge that is down
    cannot have routes. VirtError: errors from the kernel. After an error each address and route is on the port, on the
    bridge, or on both.
    """
    wire, master = link(rtnl, port), link(rtnl, bridge)
    if master.address != wire.address:
        _set_address(rtnl, bridge, wire.address)
        yield "address"
    if wire.up and not master.up:
        set_up(rtnl, bridge)
        yield "up"
    yield from _move(rtnl, wire, master, IpConfig(), bridge)


def give_back(rtnl: Rtnl, bridge: int, port: int, staying: IpConfig) -> Iterator[str]:
    """Undo adopt(): remove the port from the bridge, and move addresses and routes back to the port.

    Those in `staying` stay on the bridge. Yield a description after each step.
    """
    yield from _back(rtnl, bridge, port, staying, 0)


def bring_back(rtnl: Rtnl, bridge: int, port: int, staying: IpConfig) -> None:
    """Move addresses and routes back to an interface that has left the bridge, as give_back() does.

    If the interface has joined another bridge, it stays there.
    """
    for _step in _back(rtnl, bridge, port, staying, None):
        pass


def add_again(rtnl: Rtnl, its: IpRecords, port: int, bridge: int, name: str) -> None:
    """Add addresses and routes of a bridge that has been deleted to an interface.

    An interface that is down gets no routes, because it cannot have any.
    bridge, name: the index and the name that the bridge had. VirtError: the first refusal of the kernel; the addresses
    and routes that it does not refuse are added in any case.
    """
    target = link(rtnl, port)
    refusals: list[VirtError] = []
    for address in its.addresses:
        try:
            address.on(port, target.name, name).add(rtnl)
        except VirtError as refusal:
            refusals.append(refusal)
    there = ip_config(rtnl, port).routes
    for route in its.routes if target.up else ():
        try:
            if route.shared or route.key not in there:
                route.on(port, bridge).add(rtnl)
        except VirtError as refusal:
            refusals.append(VirtError(refusal.errno, f"the route {quoted(str(route))}: {refusal.strerror}"))
    if refusals:
        raise refusals[0]


def _back(rtnl: Rtnl, bridge: int, port: int, staying: IpConfig, to: int | None) -> Iterator[str]:
    wire, master = link(rtnl, port), link(rtnl, bridge)
    yield from _move(rtnl, master, wire, staying, to)
    if master.address == wire.address:
        # Two interfaces in one network must not share a MAC, so the bridge gets a random, locally administered one.
        _set_address(rtnl, bridge, bytes((0x02,)) + os.urandom(5))
        yield "address"


def _move(rtnl: Rtnl, source: Link, target: Link, staying: IpConfig, master: int | None) -> Iterator[str]:
    """Move addresses and routes. master: the bridge that the port joins, by index; 0 for none, None for no change."""
    there = ip_config(rtnl, target.index)
    for address in addresses(rtnl, source.index):
        if address.key not in there.addresses | staying.addresses:
            address.on(target.index, target.name, source.name).add(rtnl)
            yield "copied an address"
    # Reread the target, because the kernel has added routes for the new addresses. An interface that is down cannot
    # have routes, so copy none to it.
    there = ip_config(rtnl, target.index)
    stays = _Staying(staying, addresses(rtnl, source.index))
    for route in routes(rtnl, source.index) if link(rtnl, target.index).up else ():
        if not stays(route) and (route.shared or route.key not in there.routes):
            _copy(rtnl, route, source, target)
            yield "copied a route"
    port = source if master else target
    if master is not None and link(rtnl, port.index).master != (master or None):
        _set_master(rtnl, port.index, master)
        yield "member" if master else "no member"
    # Remove addresses in reverse order: removing the first address of a subnet would also remove the others, unless the
    # sysctl promote_secondaries is set.
    for address in reversed(addresses(rtnl, source.index)):
        if address.key not in staying.addresses:
            address.remove(rtnl)
            yield "removed an address"
    for route in routes(rtnl, source.index):
        # A shared route (one with several next hops) has already been replaced by its copy.
        if not stays(route) and not route.shared:
            route.remove(rtnl)
            yield "removed a route"


class _Staying:
    """Tells which routes stay on an interface whose other addresses and routes move to another one."""

    def __init__(self, staying: IpConfig, present: Sequence[AddressRecord]) -> None:
        """staying: the addresses and routes that stay. present: all addresses of the interface."""
        self._staying = staying
        moving = (_network(*address.key) for address in present if address.key not in staying.addresses)
        self._reached = [_as_network(network) for network in moving]
        self._left = [_as_network(network) for network in staying.networks]

    def __call__(self, route: RouteRecord) -> bool:
        """Return whether a route stays.

        If an address stays, so do the route that the kernel made for it, and the routes through gateways in its
        network: without that address, the kernel refuses them (net/ipv4/fib_semantics.c fib_check_nh_v4_gw).
        """
        if route.key in self._staying.routes or route.network in self._staying.networks:
            return True
        if (gateway := route.gateway) is None or route.onlink:
            return False
        return any(gateway in one for one in self._left) and not any(gateway in one for one in self._reached)


def _as_network(network: tuple[object, ...]) -> IPv4Network | IPv6Network:
    _family, address, length = network
    return ip_network((address, length))  # type: ignore[arg-type]


def _copy(rtnl: Rtnl, route: RouteRecord, source: Link, target: Link) -> None:
    """Copy a route to another interface. VirtError: the kernel refuses it; the sentence names the route."""
    try:
        route.on(target.index, source.index).add(rtnl)
    except VirtError as refusal:
        what = f"cannot move the route {quoted(str(route))} from {quoted(source.name)} to {quoted(target.name)}"
        remedy = quoted(f"ip route delete {route} dev {source.name}")
        raise VirtError(refusal.errno, f"{what}: {refusal.strerror}: remove it with {remedy} first") from refusal


def link(rtnl: Rtnl, index: int) -> Link:
    """Return the interface with this index in the network namespace of `rtnl`. VirtError ENODEV: there is none."""
    answer = rtnl.ask_one(m.RTM_GETLINK, m.link(index))
    return link_of(answer.body)


def _set_address(rtnl: Rtnl, index: int, address: bytes) -> None:
    rtnl.ask(m.RTM_SETLINK, m.link(index, (m.IFLA_ADDRESS, address)))


def set_up(rtnl: Rtnl, index: int) -> None:
    """Set an interface up."""
    rtnl.ask(m.RTM_SETLINK, m.link(index, flags=m.IFF_UP, change=m.IFF_UP))


def _set_master(rtnl: Rtnl, index: int, master: int) -> None:
    rtnl.ask(m.RTM_SETLINK, m.link(index, (m.IFLA_MASTER, m.U32.pack(master))))
