"""A bridge of the host: how it is, and the verbs that lead from one state to another.

One function, `steps`, serves three ends: what would rebuild a bridge (from a new one), what undoes a line that
failed, and what leaves a bridge of somebody else's as it was found.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from virtfs.core.ethernet import MTU_DEFAULT
from virtfs.core.grammar import Action
from virtfs.core.ids import BridgeName
from virtfs.core.ip import IpInterface

# brconfig(8)'s defaults, which a new bridge of virtfs has; Linux' own are no limit and 300 seconds.
MAXADDR_DEFAULT: Final = 100
TIMEOUT_DEFAULT: Final = 1200  # seconds

FORWARDING: Final = 3  # a member's spanning tree state: disabled, listening, learning, forwarding, blocking

# The path costs that Linux chooses by the speed of a link (net/bridge/br_if.c port_cost); a tap's is 2, or 100 by an
# older kernel. It does not tell a chosen cost from one that was set: one of these is not said again.
_CHOSEN: Final = (1, 2, 3, 4, 5, 19, 100)


@dataclass(frozen=True, slots=True)
class Member:
    """One port. priority is 0 to 255 in steps of 4, as brconfig counts; Linux keeps a quarter of it.

    groupfwd: the link-local groups whose frames from here are forwarded, beside those of the bridge; bit N stands for
    01:80:c2:00:00:0N.
    """

    name: str
    number: int = 0  # of the port within its bridge
    learn: bool = True
    discover: bool = True
    protect: bool = False
    priority: int = 128
    cost: int = 100
    groupfwd: int = 0
    state: int = FORWARDING
    adopted: bool = False  # its addresses and routes are the bridge's for now

    @property
    def usual_cost(self) -> bool:
        """Whether its path cost may be the one that Linux chose."""
        return self.cost in _CHOSEN


@dataclass(frozen=True, slots=True)
class Known:
    """An address in the bridge's table, those of its ports excepted. age: seconds since a frame came from it."""

    address: bytes
    member: str
    age: int = 0
    static: bool = False


@dataclass(frozen=True, slots=True)
class BridgeState:
    """A bridge as the kernel tells it. Times are seconds; maxaddr 0 is no limit, timeout 0 is never.

    groupfwd: the link-local groups whose frames are forwarded, as of a member.
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
    known: tuple[Known, ...] = ()
    addresses: tuple[IpInterface, ...] = ()

    def member(self, name: str) -> Member | None:
        """The member of that name."""
        return next((member for member in self.members if member.name == name), None)


@dataclass(slots=True, eq=False)
class Bridge:
    """One bridge that virtfs has, made or attached to."""

    name: BridgeName
    state: BridgeState
    lost: bool = False  # deleted or renamed, by another's hand


def steps(now: BridgeState, to: BridgeState) -> tuple[Action, ...]:
    """The verbs that make the bridge that is `now` what it is in `to`; learned addresses and its MAC are left alone."""
    return tuple(_steps(now, to))


def _steps(now: BridgeState, to: BridgeState) -> Iterator[Action]:
    for member in now.members:
        if to.member(member.name) is None:
            yield Action("delete", (member.name,))
    for member in to.members:
        if now.member(member.name) is None:
            yield Action("add", (member.name, "adopt") if member.adopted else (member.name,))
    yield from _parameters(now, to)
    for member in to.members:
        yield from _of_member(now.member(member.name), member)
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


def _parameters(now: BridgeState, to: BridgeState) -> Iterator[Action]:
    """fwddelay 0, which others like to set, no verb can say: the shortest that one can is the nearest."""
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
    if to.cost != was.cost if now else not to.usual_cost:
        yield Action("ifpathcost", (to.name, to.cost))


def _statics(now: BridgeState, to: BridgeState) -> Iterator[Action]:
    there = {(known.address, known.member) for known in now.known if known.static}
    wanted = {(known.address, known.member): None for known in to.known if known.static}
    members = {member.name for member in to.members}
    addresses = {address for address, _ in wanted}
    for address, member in there:
        if address not in addresses and member in members:  # with a member its addresses go
            yield Action("deladdr", (address,))
    for address, member in wanted:
        if (address, member) not in there:
            yield Action("static", (member, address))


def _inet(verb: str, address: IpInterface) -> str:
    return verb if address.version == 4 else f"{verb}6"


NEW: Final = BridgeState()


def without(state: BridgeState, names: frozenset[str]) -> BridgeState:
    """The bridge as it is before those members come: no trace of them."""
    members = tuple(member for member in state.members if member.name not in names)
    known = tuple(known for known in state.known if known.member not in names)
    return replace(state, members=members, known=known)


def steps_after(state: BridgeState, names: frozenset[str]) -> tuple[Action, ...]:
    """What is left to do when `steps(NEW, without(state, names))` is done and those members have come plainly."""
    start = without(state, names)
    came = tuple(Member(member.name) for member in state.members if member.name in names)
    # A cost that Linux chooses by itself is no difference.
    came = tuple(
        replace(member, cost=wanted.cost) if (wanted := state.member(member.name)) and wanted.usual_cost else member
        for member in came
    )
    return steps(replace(start, members=start.members + came, stp=start.stp and bool(start.members)), state)
