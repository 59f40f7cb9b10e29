"""Give back what a bridge has adopted from members that have left it without the verb `delete`.

Another program may take an adopted member out of the bridge, or delete it, while the bridge has the only copy of the
machine's addresses. If the member still exists, it gets its addresses and routes back at once, as `delete` does it.
Otherwise the bridge keeps them, until the member is adopted again or the bridge is released.

Another program may also delete the bridge itself, and with it the kernel's only copy. The members get back what the
bridge had when it was last queried.
"""

from dataclasses import dataclass

from virtfs.core.bridge import BridgeState
from virtfs.core.errors import VirtError
from virtfs.core.ip import IpInterface
from virtfs.core.quoting import quoted
from virtfs.host.bridge import HostBridge, master_of
from virtfs.host.bridge_adopt import Adoptions, add_again, bring_back, set_up
from virtfs.host.bridgeinfo import ask_link
from virtfs.host.netlink_messages import IFF_UP
from virtfs.host.rtnl import Rtnl, name_of


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
            return Departure(name, index, True, f"{quoted(name)} has left the bridge{_returned(rtnl, name, its)}")
    adoptions.keep_all(index, its)
    reason = f"{quoted(name)} {why}"
    return Departure(name, index, False, f"{reason}{_kept(bridge, name, its)}", reason)


def _returned(rtnl: Rtnl, name: str, its: frozenset[IpInterface]) -> str:
    if not its:
        return ""
    master = master_of(rtnl, name)
    useless = f', but they do not work while it is in "{master}"' if master else ""
    return f", and has its addresses again: {addresses_of(its)}{useless}"


def settle_deleted(rtnl: Rtnl, bridge: int, called: str, adoptions: Adoptions) -> list[Departure]:
    """Give the addresses and routes that a deleted bridge had adopted back to those of its members that still exist.

    bridge, called: the index and the name that the bridge had. `adoptions` is not changed, because the lines of the
    bridge depend on it.
    """
    vanished = (adoptions.recalled.keys() | adoptions.kept.keys()).difference(adoptions.names.values())
    ports: list[tuple[int | str, str]] = [*adoptions.names.items(), *((name, name) for name in sorted(vanished))]
    departures = []
    for port, name in ports:
        its = adoptions.last_of(port) if isinstance(port, int) else adoptions.last_of_vanished(port)
        present, wire = frozenset(record.address for record in its.addresses), ask_link(rtnl, port)
        if wire is None:
            lost = f": {addresses_of(present)} are lost" if present else ""
            departures.append(Departure(name, 0, False, f"{quoted(name)} is gone too{lost}", "is gone"))
            continue
        index: int = wire["index"]
        try:
            add_again(rtnl, its, index, bridge, called)
        except VirtError as refusal:
            why = f"not all addresses and routes can be moved back: {refusal.strerror}"
            departures.append(Departure(name, index, False, f"{quoted(name)} has left the bridge: {why}", why))
        else:
            sentence = f"{quoted(name)} has left the bridge{_returned(rtnl, name_of(wire), present)}"
            departures.append(Departure(name, index, True, sentence))
    return departures


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
