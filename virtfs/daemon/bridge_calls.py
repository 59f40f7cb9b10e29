"""Blocking functions that attach to a bridge, change it, query it and release it. Kernel.call runs them in a thread."""

import errno
from contextlib import suppress

from virtfs.core.bridge import NEW, Bridge, BridgeState, steps
from virtfs.core.bridgeplan import Taps
from virtfs.core.errors import VirtError
from virtfs.core.grammar import Action
from virtfs.core.ids import BridgeName
from virtfs.core.leftover import bridge_before
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
    put_back,
    suppress_gone,
)
from virtfs.daemon.kernel import Kernel
from virtfs.host.bridge import HostBridge, find
from virtfs.host.bridge_make import make
from virtfs.host.bridgeinfo import ask_link, details
from virtfs.host.marks import adopting_of, alias_of, is_left, is_marked, set_mark
from virtfs.host.rtnl import Rtnl, name_of


def attach(kernel: Kernel, name: BridgeName, ours: bool, recalled: Recalled) -> tuple[Managed, bool]:
    """Attach to a bridge, or make it. Return the bridge, and whether a killed server left it behind.

    ours: whether the state file says that an earlier run of virtfs made the bridge.
    """
    with Rtnl() as rtnl:
        index = find(rtnl, name)
        made = index is None
        if index is None:
            index = make(rtnl, kernel.links, name, kernel.mark)
        left = not made and is_left(alias_of(rtnl, index), kernel.mark, ours)
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
        do(host, steps(now, bridge_before(now, actions, made, indices)))


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


def state_of(kernel: Kernel, managed: Managed) -> BridgeState | None:
    """Query the kernel for the state of a bridge. Return None if the bridge is gone."""
    with Rtnl() as rtnl:
        try:
            state = _host(kernel, rtnl, managed).look()
            # A deletion that began during the query may show in part. The kernel holds a lock during the whole
            # deletion, and this request waits for it (net/core/rtnetlink.c rtnl_getlink).
            _host(kernel, rtnl, managed).expect()
            return state
        except VirtError as refusal:
            if refusal.errno != errno.ENXIO:
                raise
            return None


def disown(kernel: Kernel, managed: Managed) -> str:
    """Take virtfs's mark off a bridge that another program has renamed. Return the new name, or "" if it is gone.

    Without the mark, the next mount does not take the bridge for one that a killed server has left behind.
    """
    with Rtnl() as rtnl:
        name = _new_name(rtnl, managed)
        if name and managed.found is None and is_marked(alias_of(rtnl, managed.index), kernel.mark):
            set_mark(rtnl, "", managed.index)
        return name


def new_name(managed: Managed) -> str:
    """Return the name that another program has given a bridge, or "" if it has its own name or is gone."""
    with Rtnl() as rtnl:
        return _new_name(rtnl, managed)


def _new_name(rtnl: Rtnl, managed: Managed) -> str:
    link = ask_link(rtnl, managed.index)
    name = "" if link is None or details(link) is None else name_of(link)
    return "" if name == managed.bridge.name else name


def release(kernel: Kernel, managed: Managed) -> None:
    """Give the adopted addresses and routes back to the members of a bridge, and release the bridge.

    If virtfs made the bridge, delete it. Otherwise restore the state that it had before virtfs attached to it.
    If another program has renamed the bridge, leave it as it is, with its members and addresses.
    """
    if disown(kernel, managed):
        return
    with Rtnl() as rtnl:
        host = _host(kernel, rtnl, managed)
        if managed.found is not None:
            with suppress_gone():
                put_back(host, as_found(host, managed.found), managed.settings)
            return
        give_back(host)
        host.delete()
