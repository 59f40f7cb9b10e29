"""Give back what a bridge has adopted from members that have left it without the verb `delete`.

Another program may take an adopted member out of the bridge, or delete it, while the bridge has the only copy of the
machine's addresses. If the member still exists, it gets its addresses and routes back at once, as `delete` does it.
Otherwise the bridge keeps them, until the member is adopted again or the bridge is released.
"""

from dataclasses import dataclass

from virtfs.core.bridge import BridgeState
from virtfs.core.errors import VirtError
from virtfs.core.ip import IpInterface
from virtfs.core.quoting import quoted
from virtfs.host.bridge import HostBridge, master_of
from virtfs.host.bridge_adopt import bring_back, set_up
from virtfs.host.bridgeinfo import ask_link
from virtfs.host.netlink_messages import IFF_UP
from virtfs.host.rtnl import name_of


@dataclass(frozen=True, slots=True)
class Departure:
    """An adopted member that has left the bridge.

    index: its interface index. returned: whether it has its addresses and routes again. reason: why it has not.
    """

    member: str
    index: int
    returned: bool
    sentence: str
    reason: str = ""


def settle(bridge: HostBridge, state: BridgeState) -> list[Departure]:
    """Give back what the members that have left the bridge had brought. state: the current state of the bridge."""
    adoptions, members = bridge.adoptions, {member.index: member.name for member in state.members}
    adoptions.names.update({index: members[index] for index in adoptions.brought if index in members})
    left = [index for index in adoptions.brought if index not in members]
    shares = adoptions.shares(adoptions.names, state.addresses) if left else {}
    return [_settle(bridge, index, shares[adoptions.names[index]]) for index in left]


def _settle(bridge: HostBridge, index: int, its: frozenset[IpInterface]) -> Departure:
    adoptions, rtnl, link = bridge.adoptions, bridge.rtnl, ask_link(bridge.rtnl, index)
    name = adoptions.names[index] if link is None else name_of(link)
    adoptions.names[index] = name
    why = "is gone"
    if link is not None:
        try:
            bring_back(rtnl, bridge.index, index, adoptions.staying(rtnl, bridge.index, index))
        except VirtError as refusal:
            why = f"has left the bridge, and its addresses cannot be moved back: {refusal.strerror}"
        else:
            adoptions.forget(index)
            return Departure(name, index, True, f"{quoted(name)} has left the bridge{_returned(bridge, name, its)}")
    adoptions.keep_all(index, its)
    reason = f"{quoted(name)} {why}"
    return Departure(name, index, False, f"{reason}{_kept(bridge, name, its)}", reason)


def _returned(bridge: HostBridge, name: str, its: frozenset[IpInterface]) -> str:
    if not its:
        return ""
    master = master_of(bridge.rtnl, name)
    useless = f', but they do not work while it is in "{master}"' if master else ""
    return f", and has its addresses again: {addresses_of(its)}{useless}"


def _kept(bridge: HostBridge, name: str, its: frozenset[IpInterface]) -> str:
    if not its:
        return ""
    remedy = f'"{bridge.called} add {name} adopt" makes it a member again once it is back'
    return f"; the bridge keeps the addresses that it has adopted from it, {addresses_of(its)}: {remedy}"


def addresses_of(its: frozenset[IpInterface]) -> str:
    """Return addresses as a text, sorted."""
    return ", ".join(sorted(map(str, its)))


def give_back_recalled(bridge: HostBridge) -> dict[str, frozenset[IpInterface]]:
    """Move the addresses and routes of vanished members to the interfaces that have their names now.

    Members whose adoption a kill has cut short get theirs back too. Return the addresses that stay on the bridge, by
    the name of the interface that is missing. VirtError: errors from the kernel.
    """
    kept: dict[str, frozenset[IpInterface]] = {}
    rtnl, adoptions = bridge.rtnl, bridge.adoptions
    for name, its in list(adoptions.recalled.items()):
        state, link = bridge.look(), ask_link(rtnl, name)
        if link is None:
            if present := its.intersection(state.addresses):
                kept[name] = present
            continue
        index: int = link["index"]
        adoptions.note(rtnl, bridge.index, index)
        if state.member(name) is not None:
            bridge.remove(name)
            continue
        if state.up and not link["flags"] & IFF_UP:
            set_up(rtnl, index)  # an interface that is down cannot have routes
        bring_back(rtnl, bridge.index, index, adoptions.staying(rtnl, bridge.index, index))
        adoptions.forget(index)
    return kept
