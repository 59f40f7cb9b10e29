"""Read, change and restore the bridge membership of a tap, in any network namespace."""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from virtfs.core.bridge import FdbEntry, Member
from virtfs.core.errors import VirtError
from virtfs.core.ids import BridgeName
from virtfs.host import netns
from virtfs.host.bridge import HostBridge
from virtfs.host.bridgeinfo import ask_link, details
from virtfs.host.bridgeports import Settings
from virtfs.host.links import Links
from virtfs.host.rtnl import Rtnl, name_of
from virtfs.host.tap_protocol import Placed

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Membership:
    """The port state that the kernel discards when the port leaves its bridge.

    bridge: the name of the bridge. member: the port, with the settings that verbs set. static: the static entries of
    the port in the address table. settings: the port settings that no verb sets.
    """

    bridge: str
    member: Member
    static: tuple[FdbEntry, ...]
    settings: Settings


def bridge_of(tap: Placed) -> str:
    """Return the name of the bridge that the tap is in, or "" if it is in none. VirtError ENXIO: the tap is gone."""

    def ask(rtnl: Rtnl) -> str:
        bridge = _bridge_index(rtnl, tap.name())
        link = ask_link(rtnl, bridge) if bridge else None
        return "" if link is None else name_of(link)

    return _at(tap, ask)


def membership(tap: Placed, links: Links) -> Membership | None:
    """Return the membership of the tap, to pass to restore() later, or None if the tap is in no bridge."""

    def ask(rtnl: Rtnl) -> Membership | None:
        name = tap.name()
        index = _bridge_index(rtnl, name)
        link = ask_link(rtnl, index) if index else None
        if link is None:
            return None
        bridge = HostBridge(rtnl, links, BridgeName(name_of(link)), link["index"])
        members, known = bridge.ports()
        member = next(member for member in members if member.name == name)
        static = tuple(k for k in known if k.member == name and k.static)
        return Membership(bridge.called, member, static, bridge.settings()[name])

    return _at(tap, ask)


def expect_bridge(links: Links, name: str) -> None:
    """Check that this network namespace has a bridge of this name. VirtError ENXIO: it has none."""
    with Rtnl() as rtnl:
        _bridge(rtnl, links, name)


def join(tap: Placed, links: Links, name: str) -> None:
    """Make the tap a member of a bridge. If the tap is in another bridge, it leaves that bridge first.

    VirtError: ENXIO, there is no such bridge; EBUSY, the tap is part of another kind of interface, such as a bond.
    """

    def do(rtnl: Rtnl) -> None:
        _bridge(rtnl, links, name).add(_free(rtnl, tap.name()))

    _at(tap, do)


def leave(tap: Placed, links: Links) -> None:
    """Take the tap out of its bridge, if it is in one."""

    def do(rtnl: Rtnl) -> None:
        own = tap.name()
        if (index := _bridge_index(rtnl, own)) is not None:
            HostBridge(rtnl, links, BridgeName(""), index).remove(own)

    _at(tap, do)


def restore(tap: Placed, links: Links, before: Membership | None) -> None:
    """Restore a membership that membership() returned. None means that the tap was in no bridge."""
    if before is None:
        leave(tap, links)
        return

    def do(rtnl: Rtnl) -> None:
        own, member = tap.name(), before.member
        bridge = _bridge(rtnl, links, before.bridge)
        bridge.add(own)
        bridge.set_port(own, "IFLA_BRPORT_LEARNING", member.learn)
        bridge.set_port(own, "IFLA_BRPORT_UNICAST_FLOOD", member.discover)
        bridge.set_port(own, "IFLA_BRPORT_ISOLATED", member.protect)
        bridge.set_port(own, "IFLA_BRPORT_PRIORITY", member.priority // 4)
        bridge.set_port(own, "IFLA_BRPORT_COST", member.cost)
        bridge.set_port(own, "IFLA_BRPORT_GROUP_FWD_MASK", member.groupfwd)
        bridge.set_settings(own, before.settings)
        for known in before.static:
            bridge.set_static(own, known.address)

    _at(tap, do)


def _bridge(rtnl: Rtnl, links: Links, name: str) -> HostBridge:
    link = ask_link(rtnl, name)
    if link is None:
        hint = ""
        if netns.is_away():
            hint = " in the network namespace of the tap: create a second interface where the bridge is; cable the two"
        elif name.isdecimal():
            hint = f': did you mean "bridge{name}"?'
        raise VirtError(errno.ENXIO, f'bridge: there is no bridge "{name}"{hint}')
    if details(link) is None:
        raise VirtError(errno.ENXIO, f'bridge: "{name}" is not a bridge')
    return HostBridge(rtnl, links, BridgeName(name), link["index"])


def _bridge_index(rtnl: Rtnl, name: str) -> int | None:
    link = ask_link(rtnl, name)
    if link is None or link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_KIND") != "bridge":
        return None
    index: int = link.get_attr("IFLA_MASTER")
    return index


def _free(rtnl: Rtnl, name: str) -> str:
    link = ask_link(rtnl, name)
    kind = None if link is None else link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_KIND")
    if kind not in (None, "bridge"):
        raise VirtError(errno.EBUSY, f'bridge: "{name}" is part of a {kind}')
    return name


def _at(tap: Placed, function: Callable[[Rtnl], T]) -> T:
    """Call the function in the tap's namespace, with an rtnetlink socket that is closed afterwards."""

    def call() -> T:
        with Rtnl() as rtnl:
            return function(rtnl)

    return netns.where(tap, call)
