"""Blocking functions that attach to a bridge, change it, query it and release it. Kernel.call runs them in a thread."""

import errno
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from virtfs.core.bridge import NEW, Bridge, BridgeState, steps
from virtfs.core.bridgeplan import Taps
from virtfs.core.errors import VirtError
from virtfs.core.grammar import Action
from virtfs.core.ids import BridgeName
from virtfs.core.ip import IpInterface
from virtfs.core.leftover import bridge_before
from virtfs.core.quoting import quoted
from virtfs.daemon.bridge_lines import Recalled
from virtfs.daemon.bridge_registry import Managed
from virtfs.daemon.bridge_verbs import (
    as_found,
    attribute,
    carry_out,
    check,
    do,
    give_back,
    mark_adopting,
    mark_deleted,
    mark_left,
    put_back,
    suppress_gone,
)
from virtfs.daemon.earlier import Earlier, vanished_from_host
from virtfs.daemon.kernel import Kernel
from virtfs.host.bridge import HostBridge, find
from virtfs.host.bridge_leave import Departure, addresses_of, settle, settle_deleted
from virtfs.host.bridge_make import make
from virtfs.host.bridgeinfo import ask_link, details
from virtfs.host.marks import adopting_of, alias_of, is_left, is_marked, set_mark
from virtfs.host.rtnl import Rtnl, name_of


def attach(kernel: Kernel, name: BridgeName, earlier: Earlier, recalled: Recalled) -> tuple[Managed, bool]:
    """Attach to a bridge, or make it. Return the bridge, and whether a killed server left it behind.

    earlier: what the state file lists. VirtError ENXIO: an earlier run found the bridge on the host, and it is gone.
    """
    with Rtnl() as rtnl:
        index = find(rtnl, name)
        made = index is None
        if index is None:
            if name in earlier.found:
                raise vanished_from_host(name, name)
            index = make(rtnl, kernel.links, name, kernel.mark)
        left = not made and is_left(alias_of(rtnl, index), kernel.mark, name in earlier.made)
        host = HostBridge(rtnl, kernel.links, name, index)
        if left:
            host.adoptions.inherited = True
            host.adoptions.recalled = {member: its for (bridge, member), its in recalled.items() if bridge == name}
        try:
            state, settings = host.look(), host.settings()
        except BaseException:
            if made:
                host.delete()
            raise
        found = None if made or left else state
        return Managed(Bridge(name, state), index, found, settings, host.adoptions), left


def renew(kernel: Kernel, managed: Managed, actions: tuple[Action, ...], made: frozenset[str]) -> None:
    """Reset the settings that a killed server left on a bridge, except those that the bridge's line sets.

    actions: the verbs of the line. made: the names of the taps and bridges that the killed server made.
    """
    with Rtnl() as rtnl:
        host = _host(kernel, rtnl, managed)
        kernel.links.quiet(host)
        now, alias = host.look(), alias_of(rtnl, managed.index)
        indices = adopting_of(alias, kernel.mark)
        attribute(host, now, actions, indices)
        kept = frozenset[IpInterface]().union(*host.adoptions.recalled.values())
        do(host, steps(now, bridge_before(now, actions, made, indices, kept)))


def _host(kernel: Kernel, rtnl: Rtnl, managed: Managed) -> HostBridge:
    return HostBridge(rtnl, kernel.links, managed.bridge.name, managed.index, managed.adoptions)


def change(kernel: Kernel, managed: Managed, actions: tuple[Action, ...], taps: Taps, ensure: bool) -> None:
    """Carry out the verbs of a line on a bridge. If one fails, restore the bridge as far as possible.

    ensure: as for bridge_verbs.carry_out().
    """
    with Rtnl() as rtnl:
        host, marked = _host(kernel, rtnl, managed), kernel.mark and managed.found is None
        if marked:
            mark_adopting(host, kernel.mark, actions)
        carry_out(host, actions, taps, ensure)
        if marked:
            with suppress(OSError):  # the line is done; the next line that adds a member tries again
                mark_deleted(host, kernel.mark, actions)


def predict(
    kernel: Kernel,
    name: BridgeName,
    managed: Managed | None,
    actions: tuple[Action, ...],
    taps: Taps,
    ensure: bool,
) -> None:
    """Raise the error that a line would cause, as far as it can be predicted.

    managed: None if the bridge must be made or attached to first. ensure: as for bridge_verbs.carry_out().
    """
    with Rtnl() as rtnl:
        if managed is not None:
            before = _host(kernel, rtnl, managed).look()
        else:
            index = find(rtnl, name)
            before = NEW if index is None else HostBridge(rtnl, kernel.links, name, index).look()
        check(rtnl, before, actions, taps, ensure)


class Seen(NamedTuple):
    """The state of a bridge.

    departures: the adopted members that have left it. gone: the indices of the interfaces that were members in its last
    known state and do not exist any more.
    """

    state: BridgeState
    departures: list[Departure]
    gone: frozenset[int]


def state_of(kernel: Kernel, managed: Managed) -> Seen | None:
    """Query the kernel for the state of a bridge, and return it. Return None if the bridge is gone.

    If adopted members have left the bridge, give their addresses back.
    """
    with Rtnl() as rtnl:
        host = _host(kernel, rtnl, managed)
        try:
            state = host.look()
            its = host.adoptions
            last = its.latest(rtnl, managed.index, state.up) if its.brought or its.recalled else its.last
            # A deletion that began during the query may show in part. The kernel holds a lock during the whole
            # deletion, and this request waits for it (net/core/rtnetlink.c rtnl_getlink).
            host.expect()
            its.last = last
            if departures := settle(host, state):
                if kernel.mark and managed.found is None:
                    with suppress(OSError):  # the next line that adds or deletes a member tries again
                        mark_left(host, kernel.mark)
                state = host.look()
            return Seen(state, departures, _gone(rtnl, managed.bridge.state, state))
        except VirtError as refusal:
            if refusal.errno != errno.ENXIO:
                raise
            return None


def _gone(rtnl: Rtnl, before: BridgeState, now: BridgeState) -> frozenset[int]:
    left = {member.index for member in before.members} - {member.index for member in now.members}
    return frozenset(index for index in left if ask_link(rtnl, index) is None)


def disown(kernel: Kernel, managed: Managed) -> str:
    """Take virtfs's mark off a bridge that another program has renamed. Return the new name, or "" if it is gone.

    Without the mark, the next mount does not take the bridge for one that a killed server has left behind.
    """
    with Rtnl() as rtnl:
        name = _new_name(rtnl, managed)
        if name and managed.found is None and is_marked(alias_of(rtnl, managed.index), kernel.mark):
            set_mark(rtnl, "", managed.index)
        return name


def settle_lost(kernel: Kernel, managed: Managed) -> tuple[str, list[Departure]]:
    """Release a bridge that another program has renamed or deleted. Return its new name, or "" if it is deleted.

    If it is deleted, give the addresses and routes that it had adopted back to its members, and return these members
    too. If it is renamed, leave it as it is, without the mark.
    """
    name = disown(kernel, managed)
    if name:
        return name, []
    with Rtnl() as rtnl:
        return "", settle_deleted(rtnl, managed.index, managed.bridge.name, managed.adoptions)


def new_name(managed: Managed) -> str:
    """Return the name that another program has given a bridge, or "" if it has its own name or is gone."""
    with Rtnl() as rtnl:
        return _new_name(rtnl, managed)


def _new_name(rtnl: Rtnl, managed: Managed) -> str:
    link = ask_link(rtnl, managed.index)
    name = "" if link is None or details(link) is None else name_of(link)
    return "" if name == managed.bridge.name else name


def _keeping(found: BridgeState, now: BridgeState, kept: Mapping[str, frozenset[IpInterface]]) -> BridgeState:
    """Return the state to restore, with the addresses that the bridge keeps, which need a bridge that is up."""
    staying = [address for its in kept.values() for address in its if address not in found.addresses]
    return replace(found, addresses=(*found.addresses, *staying), up=now.up if staying else found.up)


def release(kernel: Kernel, managed: Managed) -> list[str]:
    """Give the adopted addresses and routes back to the members of a bridge, and release the bridge.

    Return a sentence for each vanished member whose addresses are lost with the bridge.

    If virtfs made the bridge, delete it. Otherwise restore the state that it had before virtfs attached to it, but keep
    the addresses that were adopted from members that have vanished.
    If another program has renamed the bridge, leave it as it is, with its members and addresses.
    """
    if disown(kernel, managed):
        return []
    lost: list[str] = []
    with Rtnl() as rtnl:
        host = _host(kernel, rtnl, managed)
        with suppress_gone():
            settle(host, host.look())
            found = managed.found and as_found(host, managed.found)
            kept = give_back(host)
            if found is not None:
                put_back(host, _keeping(found, host.look(), kept), managed.settings)
                return []
            for name, its in kept.items():
                what = f"{managed.bridge.name} is deleted with {addresses_of(its)}"
                lost.append(f"{what}, which it has adopted from {quoted(name)}, which is gone")
        host.delete()
    return lost
