"""The effect of each verb on a bridge, and how a line is undone.

The functions here block, because host.bridge does, so they are called in a thread. To undo a line, `put_back` compares
the bridge with its state before the line ran, and carries out the verbs that restore that state.
"""

import errno
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from virtfs.core.bridge import BridgeState, steps, without
from virtfs.core.bridgeplan import Taps, interfaces_of, plan, renamed
from virtfs.core.errors import VirtError
from virtfs.core.grammar import Action
from virtfs.core.ip import IpInterface
from virtfs.core.leftover import adopted, cut_short
from virtfs.host.bridge import HostBridge, master_of
from virtfs.host.bridge_leave import give_back_recalled, settle
from virtfs.host.bridgeinfo import ask_link
from virtfs.host.bridgeports import Settings
from virtfs.host.marks import adopting, adopting_of, alias_of, set_mark
from virtfs.host.rtnl import Rtnl

log = logging.getLogger(__name__)

Effect = Callable[..., None]


def _parameter(verb: str) -> Effect:
    return lambda bridge, value: bridge.set_parameter(verb, value)


def _port(attribute: str, value: int) -> Effect:
    return lambda bridge, name: bridge.set_port(name, attribute, value)


def _add(bridge: HostBridge, name: str, *option: str) -> None:
    if option:
        bridge.adopt(name)
    else:
        bridge.add(name)


EFFECTS: Final[dict[str, Effect]] = {
    "up": lambda bridge: bridge.links.set(bridge, up=True),
    "down": lambda bridge: bridge.links.set(bridge, up=False),
    "add": _add,
    "delete": lambda bridge, name: bridge.remove(name),
    **{verb: _parameter(verb) for verb in ("maxaddr", "maxage", "fwddelay", "hellotime", "priority", "groupfwd")},
    "timeout": lambda bridge, seconds: bridge.set_timeout(seconds),
    "static": lambda bridge, name, address: bridge.set_static(name, address),
    "deladdr": lambda bridge, address: bridge.forget(address),
    "flush": lambda bridge: bridge.flush(),
    "flushall": lambda bridge: bridge.flush_all(),
    "discover": _port("IFLA_BRPORT_UNICAST_FLOOD", 1),
    "-discover": _port("IFLA_BRPORT_UNICAST_FLOOD", 0),
    "learn": _port("IFLA_BRPORT_LEARNING", 1),
    "-learn": _port("IFLA_BRPORT_LEARNING", 0),
    "protect": _port("IFLA_BRPORT_ISOLATED", 1),
    "-protect": _port("IFLA_BRPORT_ISOLATED", 0),
    "stp": lambda bridge, name: bridge.set_stp(True),
    "-stp": lambda bridge, name: bridge.set_stp(False),
    # brconfig(8) allows 0 to 255. Linux allows 0 to 63 (BR_MAX_PORT_PRIORITY in
    # net/bridge/br_private.h has 6 bits), so the value is divided by 4.
    "ifpriority": lambda bridge, name, value: bridge.set_port(name, "IFLA_BRPORT_PRIORITY", value // 4),
    "ifpathcost": lambda bridge, name, value: bridge.set_port(name, "IFLA_BRPORT_COST", value),
    "ifgroupfwd": lambda bridge, name, mask: bridge.set_port(name, "IFLA_BRPORT_GROUP_FWD_MASK", mask),
    "mtu": lambda bridge, mtu: bridge.links.set(bridge, mtu=mtu),
    **{verb: lambda bridge, address: bridge.links.add_address(bridge, address) for verb in ("inet", "inet6")},
    **{verb: lambda bridge, address: bridge.links.remove_address(bridge, address) for verb in ("-inet", "-inet6")},
}


def carry_out(bridge: HostBridge, actions: tuple[Action, ...], taps: Taps, ensure: bool) -> None:
    """Carry out a whole line. If a verb fails, restore the bridge as far as possible and raise the error.

    ensure: whether the command is `ensure`, so that verbs already in effect are skipped instead of refused.
    """
    before, settings, own = bridge.look(), bridge.settings(), bridge.adoptions.own
    actions = renamed(actions, taps.names)
    todo = _plan(bridge.rtnl, before, actions, taps, ensure)
    left = {str(action.args[0]) for action in todo if action.verb == "delete"}
    # Do this first, because a `delete` in the same line gives back all addresses that the line does not set.
    for action in actions:
        if action.verb in ("inet", "inet6"):
            bridge.adoptions.keep(action.args[0], left)  # type: ignore[arg-type]
    try:
        for action in todo:
            EFFECTS[action.verb](bridge, *action.args)
    except BaseException:
        put_back(bridge, before, settings, left)
        bridge.adoptions.own = own
        raise


def check(rtnl: Rtnl, before: BridgeState, actions: tuple[Action, ...], taps: Taps, ensure: bool) -> None:
    """Raise the error that carry_out() would raise for a line. before: the state of the bridge."""
    _plan(rtnl, before, renamed(actions, taps.names), taps, ensure)


def _plan(rtnl: Rtnl, before: BridgeState, actions: tuple[Action, ...], taps: Taps, ensure: bool) -> tuple[Action, ...]:
    masters = {name: master for name in interfaces_of(actions) if (master := master_of(rtnl, name)) is not None}
    return plan(before, actions, masters, ensure, taps)


def put_back(bridge: HostBridge, to: BridgeState, settings: Mapping[str, Settings], left: Collection[str] = ()) -> None:
    """Restore a bridge to the state `to` as far as possible. Errors are only logged.

    The members are restored first, because addresses and the MTU depend on them.
    settings: the port settings that no verb sets, keyed by member name. They are restored only for the members that
    this call adds to the bridge, and for those in `left`. Other members keep what other programs have set.
    left: the names of the members that the failed line may have removed. The line may also have re-added them.
    """
    try:
        members = tuple(a for a in steps(bridge.look(), to) if a.verb in ("add", "delete"))
        do(bridge, members)
        for name in {*left, *(str(action.args[0]) for action in members if action.verb == "add")}:
            if name in settings:
                _set_again(bridge, name, settings[name])
        now = bridge.look()
        if now.address != to.address:
            bridge.links.set(bridge, address=to.address)
        do(bridge, steps(now, to))
    except VirtError as refusal:
        log.info("cannot restore %s: %s", bridge.called, refusal.strerror)


def as_found(bridge: HostBridge, found: BridgeState) -> BridgeState:
    """Return the state to restore for a bridge that existed before virtfs attached to it.

    If another program has removed a member from the bridge, and the member now has addresses, leave out the member and
    these addresses. Link-local addresses do not count.
    """
    now = bridge.look()
    for member in found.members:
        its = [a for a in bridge.addresses_of(member.name) if not a.ip.is_link_local]
        if its and now.member(member.name) is None:
            found = without(found, frozenset((member.name,)))
            found = replace(found, addresses=tuple(a for a in found.addresses if a not in its))
    return found


def _set_again(bridge: HostBridge, name: str, settings: Settings) -> None:
    try:
        bridge.set_settings(name, settings)
    except VirtError as refusal:
        log.info("%s: cannot restore the settings of %s: %s", bridge.called, name, refusal.strerror)


def do(bridge: HostBridge, actions: tuple[Action, ...]) -> None:
    """Carry out verbs that restore a state. Errors are only logged."""
    for action in actions:
        try:
            EFFECTS[action.verb](bridge, *action.args)
        except VirtError as refusal:
            log.info('%s: cannot run "%s" to restore its state: %s', bridge.called, action.verb, refusal.strerror)


def give_back(bridge: HostBridge) -> dict[str, frozenset[IpInterface]]:
    """Remove the adopted members of a bridge, and give their addresses and routes back to them.

    Return the addresses that stay, by the names of the members that brought them and have vanished.
    """
    for member in bridge.look().members:
        with suppress_gone():
            if member.adopted:
                bridge.remove(member.name)
    settle(bridge, bridge.look())
    return give_back_recalled(bridge)


def attribute(bridge: HostBridge, now: BridgeState, actions: tuple[Action, ...], adopting: frozenset[int]) -> None:
    """Record which addresses a bridge took from members whose adoption was cut short when a server was killed.

    Addresses that the line itself sets are left out. The arguments are those of core.leftover.bridge_before().
    """
    own = {action.args[0] for action in actions if action.verb in ("inet", "inet6")}
    for name in sorted(map(str, cut_short(now, actions, adopting))):
        bridge.adoptions.attribute(name, [address for address in now.addresses if address not in own])


def mark_adopting(bridge: HostBridge, mark: str, actions: tuple[Action, ...]) -> None:
    """Mark a bridge before its line adds members. The mark keeps the next mount from removing adopted addresses.

    Interfaces that have left the bridge are removed from the mark, because the line may add them without `adopt`.
    """
    if any(action.verb == "add" for action in actions):
        names = adopted(actions)
        _mark(bridge, mark, {int(link["index"]) for name in names if (link := ask_link(bridge.rtnl, str(name)))})


def mark_deleted(bridge: HostBridge, mark: str, actions: tuple[Action, ...]) -> None:
    """Remove members from the mark after a line has deleted them, unless the line has adopted them again."""
    if names := {str(action.args[0]) for action in actions if action.verb == "delete"}:
        _mark(bridge, mark, gone=names)


def mark_left(bridge: HostBridge, mark: str) -> None:
    """Remove the interfaces that have left the bridge from the mark."""
    _mark(bridge, mark)


def _mark(bridge: HostBridge, mark: str, new: Collection[int] = (), gone: Collection[str] = ()) -> None:
    before = adopting_of(alias_of(bridge.rtnl, bridge.index), mark)
    if before or new:
        members = {member.index for member in bridge.look().members if member.name not in gone}
        indices = {*(before & members), *bridge.adoptions.brought, *new}
        if indices != before:
            set_mark(bridge.rtnl, adopting(mark, indices) if indices else mark, bridge.index)


@contextmanager
def suppress_gone() -> Iterator[None]:
    """Ignore ENXIO. It means that another program has deleted the bridge or the member, so nothing is left to do."""
    try:
        yield
    except VirtError as refusal:
        if refusal.errno != errno.ENXIO:
            raise
