"""Decide which settings of a leftover interface or bridge to reset before its line of the state file is replayed.

A killed server leaves its interfaces and bridges behind. A line of the state file gives only the settings that differ
from those of a new interface or bridge. If the server was killed while it ran a line, the kernel may have other
settings too, and these must be undone first. virt_before() and bridge_before() return a state from which replaying the
line gives exactly the settings in the line. Current settings that the line would set anyway are kept, so that a working
interface or bridge is not disturbed.
"""

from dataclasses import replace
from typing import Final

from virtfs.core.bridge import NEW, BridgeState, Member
from virtfs.core.ethernet import MTU_DEFAULT
from virtfs.core.grammar import Action
from virtfs.core.ip import IpInterface
from virtfs.core.virt import QUEUE, Virt

# The bridge parameters to reset if the line does not set them. The MTU is left out: unless a program has set it, Linux
# derives it from the members (net/bridge/br_if.c br_mtu_auto_adjust).
_PARAMETERS: Final = ("maxaddr", "timeout", "maxage", "fwddelay", "hellotime", "priority", "groupfwd", "up", "stp")


def virt_before(now: Virt, actions: tuple[Action, ...], queue: int = QUEUE) -> Virt:
    """Return the state that an interface must be reset to before its line of the state file is replayed.

    now: the state of the interface as it was found. actions: the verbs of its line. queue: that of a new interface.
    """
    host, said = now.host, {action.verb for action in actions}
    addresses = _arguments(actions, "inet", "inet6")
    return replace(
        now.snapshot(),
        persist=now.persist and "persist" in said,
        host=replace(
            host,
            mtu=host.mtu if "mtu" in said else MTU_DEFAULT,
            queue=host.queue if "queue" in said else queue,
            promisc=host.promisc and "promisc" in said,
            addresses=tuple(address for address in host.addresses if address in addresses),
            bridge=host.bridge if host.bridge in _arguments(actions, "bridge") else "",
            up=host.up and "up" in said,
        ),
    )


def bridge_before(
    now: BridgeState,
    actions: tuple[Action, ...],
    ours: frozenset[str],
    adopting: frozenset[int] = frozenset(),
    kept: frozenset[IpInterface] = frozenset(),
) -> BridgeState:
    """Return the state that a bridge must be reset to before its line of the state file is replayed.

    now: the state of the bridge as it was found. ours: the names of taps whose own lines determine whether they are
    members. adopting: the indices of the members whose addresses the bridge may have taken over. If the line does not
    adopt such a member, the member's adoption was cut short. Then the member stays in the bridge, and the bridge stays
    up and keeps all addresses, because the machine may be reached through them. kept: the addresses that members had
    brought to the bridge. If a member has vanished, the bridge has the only copy.
    """
    said = {action.verb for action in actions}
    moving = cut_short(now, actions, adopting)
    addresses, added = _arguments(actions, "inet", "inet6"), _arguments(actions, "add") | ours | moving
    keep = bool(moving or adopted(actions))  # an interface loses its addresses only after it has become a member
    if moving and now.up:
        said.add("up")
    return replace(
        now,
        **{name: getattr(NEW, name) for name in _PARAMETERS if name not in said},
        members=tuple(_new(member) for member in now.members if member.name in added),
        known=(),
        addresses=tuple(address for address in now.addresses if address in addresses | kept or keep),
    )


def adopted(actions: tuple[Action, ...]) -> frozenset[object]:
    """Return the names of the members that a line adopts."""
    return frozenset(action.args[0] for action in actions if action.verb == "add" and len(action.args) > 1)


def cut_short(now: BridgeState, actions: tuple[Action, ...], adopting: frozenset[int]) -> frozenset[object]:
    """Return the names of the members whose adoption was cut short: those in `adopting` that the line does not adopt.

    The arguments are those of bridge_before().
    """
    return frozenset(member.name for member in now.members if member.index in adopting) - adopted(actions)


def _arguments(actions: tuple[Action, ...], *verbs: str) -> frozenset[object]:
    return frozenset(action.args[0] for action in actions if action.verb in verbs and action.args)


def _new(member: Member) -> Member:
    """Return a copy of a member with default settings but its old cost: no request can make the cost automatic."""
    fresh = Member(member.name)
    return replace(
        member,
        learn=fresh.learn,
        discover=fresh.discover,
        protect=fresh.protect,
        priority=fresh.priority,
        groupfwd=fresh.groupfwd,
    )
