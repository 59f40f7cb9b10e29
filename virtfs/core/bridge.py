"""The state of a host bridge, and the verbs that bring a bridge from one state to another.

steps() is used to give a new bridge a saved state, to undo a line that failed, and to restore a bridge that virtfs
attached to.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from virtfs.core.ethernet import MTU_DEFAULT
from virtfs.core.grammar import Action
from virtfs.core.ids import BridgeName
from virtfs.core.ip import IpInterface

# The defaults of brconfig(8), which new bridges get. The defaults of Linux are no limit and 300 seconds.
MAXADDR_DEFAULT: Final = 100
TIMEOUT_DEFAULT: Final = 1200  # seconds

# The spanning tree states of a port: 0 disabled, 1 listening, 2 learning, 3 forwarding, 4 blocking.
FORWARDING: Final = 3

# Path costs that Linux derives from the link speed (net/bridge/br_if.c port_cost): 2 for a tap, 100 on older kernels.
# rtnetlink does not show whether a cost was derived or configured, so these costs are never set on a new member.
_AUTOMATIC_COSTS: Final = (1, 2, 3, 4, 5, 19, 100)


@dataclass(frozen=True, slots=True)
class Member:
    """One port of a bridge.

    priority: 0 to 255 in steps of 4, as in brconfig(8). Linux stores a quarter of this number.
    groupfwd: mask of the link-local groups whose frames are forwarded from this port, in addition to those of the
    bridge. Bit N is the group 01:80:c2:00:00:0N.
    state: spanning tree state.
    adopted: whether the addresses and routes of the interface have been moved to the bridge.
    index: interface index. alias: as ip-link(8) shows it. mtu: MTU of the interface.
    """

    name: str
    number: int = 0  # port number within the bridge
    learn: bool = True
    discover: bool = True
    protect: bool = False
    priority: int = 128
    cost: int = 100
    groupfwd: int = 0
    state: int = FORWARDING
    adopted: bool = False
    index: int = 0
    alias: str = ""
    mtu: int = MTU_DEFAULT

    @property
    def automatic_cost(self) -> bool:
        """Whether Linux may have derived the path cost from the link speed."""
        return self.cost in _AUTOMATIC_COSTS


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """An entry of a bridge's address table. virtfs leaves out the entries for the addresses of the ports themselves.

    member: name of the port. age: seconds since the last frame from the address. static: the entry never expires.
    """

    address: bytes
    member: str
    age: int = 0
    static: bool = False


@dataclass(frozen=True, slots=True)
class BridgeState:
    """A bridge as the kernel reports it. Times are in seconds.

    maxaddr: maximum number of learned addresses, 0 for no limit. timeout: time until a learned address expires, 0 for
    never. groupfwd: mask of the link-local groups that the bridge forwards, as in Member.groupfwd. known: the address
    table. addresses: the bridge's IP addresses.
    """

    up: bool = False
    mtu: int = MTU_DEFAULT
    address: bytes = bytes(6)
    maxaddr: int = MAXADDR_DEFAULT
    timeout: int = TIMEOUT_DEFAULT
    maxage: int = 20
    fwddelay: int = 15
    hellotime: int = 2
    priority: int = 32768
    stp: bool = False
    groupfwd: int = 0
    members: tuple[Member, ...] = ()
    known: tuple[FdbEntry, ...] = ()
    addresses: tuple[IpInterface, ...] = ()

    def member(self, name: str) -> Member | None:
        """Return the member with this name; None if there is none."""
        return next((member for member in self.members if member.name == name), None)


@dataclass(slots=True, eq=False)
class Bridge:
    """A bridge that virtfs created or attached to."""

    name: BridgeName
    state: BridgeState
    lost: bool = False  # whether another program has deleted or renamed the bridge


def steps(now: BridgeState, to: BridgeState) -> tuple[Action, ...]:
    """Return the verbs that bring a bridge from the state `now` to the state `to`.

    Learned addresses and the MAC address of the bridge are not changed.
    """
    return tuple(_steps(now, to))


def _steps(now: BridgeState, to: BridgeState) -> Iterator[Action]:
    before, after = by_name(now), by_name(to)
    for member in now.members:
        if member.name not in after:
            yield Action("delete", (member.name,))
    for member in to.members:
        if member.name not in before:
            yield Action("add", (member.name, "adopt") if member.adopted else (member.name,))
    yield from _parameters(now, to)
    for member in to.members:
        yield from _of_member(before.get(member.name), member)
    if to.stp != now.stp and to.members:
        yield Action("stp" if to.stp else "-stp", (to.members[0].name,))
    yield from _statics(now, to)
    for address in now.addresses:
        if address not in to.addresses:
            yield Action(_inet("-inet", address), (address,))
    for address in to.addresses:
        if address not in now.addresses:
            yield Action(_inet("inet", address), (address,))
    if to.mtu != now.mtu:
        yield Action("mtu", (to.mtu,))
    if to.up != now.up:
        yield Action("up" if to.up else "down")


def by_name(state: BridgeState) -> dict[str, Member]:
    """Return the members by name. A bridge may have 1024 of them."""
    return {member.name: member for member in state.members}


def _parameters(now: BridgeState, to: BridgeState) -> Iterator[Action]:
    """Yield the verbs for parameters that differ.

    The kernel can report a value that the verb refuses, such as fwddelay 0. Such a value is raised to the verb's
    minimum.
    """
    for name, least in (
        ("priority", 0),
        ("hellotime", 1),
        ("fwddelay", 2),
        ("maxage", 6),
        ("maxaddr", 0),
        ("timeout", 0),
        ("groupfwd", 0),
    ):
        if getattr(to, name) != getattr(now, name):
            yield Action(name, (max(getattr(to, name), least),))


def _of_member(now: Member | None, to: Member) -> Iterator[Action]:
    was = now or Member(to.name)
    for name in ("learn", "discover", "protect"):
        if getattr(to, name) != getattr(was, name):
            yield Action(name if getattr(to, name) else f"-{name}", (to.name,))
    if to.priority != was.priority:
        yield Action("ifpriority", (to.name, to.priority))
    if to.groupfwd != was.groupfwd:
        yield Action("ifgroupfwd", (to.name, to.groupfwd))
    if to.cost != was.cost if now else not to.automatic_cost:
        yield Action("ifpathcost", (to.name, to.cost))


def _statics(now: BridgeState, to: BridgeState) -> Iterator[Action]:
    there = {(known.address, known.member) for known in now.known if known.static}
    wanted = {(known.address, known.member): None for known in to.known if known.static}
    members = {member.name for member in to.members}
    addresses = {address for address, _ in wanted}
    for address, member in there:
        # If the member itself is removed, no verb is needed: the kernel then removes its entries.
        if address not in addresses and member in members:
            yield Action("deladdr", (address,))
    for address, member in wanted:
        if (address, member) not in there:
            yield Action("static", (member, address))


def _inet(verb: str, address: IpInterface) -> str:
    return verb if address.version == 4 else f"{verb}6"


NEW: Final = BridgeState()


def without(state: BridgeState, names: frozenset[str]) -> BridgeState:
    """Return the state without the members in `names` and without their entries in the address table."""
    members = tuple(member for member in state.members if member.name not in names)
    known = tuple(known for known in state.known if known.member not in names)
    return replace(state, members=members, known=known)


def renamed(state: BridgeState, names: Mapping[str, str]) -> BridgeState:
    """Return the state with members renamed. names: maps old names to new ones; all other members keep their names."""
    changed = {old: new for old, new in names.items() if old != new}  # usually none, and replace() takes 3 µs
    members = tuple(replace(m, name=changed[m.name]) if m.name in changed else m for m in state.members)
    known = tuple(replace(k, member=changed[k.member]) if k.member in changed else k for k in state.known)
    return replace(state, members=members, known=known)


def steps_after(state: BridgeState, names: frozenset[str]) -> tuple[Action, ...]:
    """Return the verbs that complete the change to `state` after the members in `names` have joined the bridge.

    The caller must already have run the verbs of `steps(NEW, without(state, names))`.
    """
    start = without(state, names)
    came = tuple(Member(member.name) for member in state.members if member.name in names)
    # Linux derives an automatic cost itself, so do not treat it as a difference.
    all_ = by_name(state)
    came = tuple(
        replace(member, cost=wanted.cost) if (wanted := all_[member.name]).automatic_cost else member for member in came
    )
    return steps(replace(start, members=start.members + came, stp=start.stp and bool(start.members)), state)
