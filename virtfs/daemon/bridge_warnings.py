"""Warn about a bridge that does not carry all frames from one port to another.

The line itself is accepted: the next line may change another MTU, and `cat ctl >ctl` has to work.
"""

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

from virtfs.core.bridge import Member
from virtfs.core.grammar import Action
from virtfs.core.ids import BridgeName, Unit
from virtfs.core.quoting import quoted
from virtfs.daemon.bridge_registry import BridgeRegistry, Managed
from virtfs.daemon.interface import Interface, Place
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.registry import Registry
from virtfs.host.bridge_filter import filtering
from virtfs.host.bridgeports import Port, other_ports
from virtfs.host.netns import where
from virtfs.host.rtnl import Rtnl

log = logging.getLogger(__name__)

TOLD = 1000  # maximum number of bridges that are remembered; beyond it, a bridge may get a warning again

# The verbs that make an interface a port.
_JOINING: Final = frozenset(("add", "bridge"))


class _Mtu(NamedTuple):
    """The MTU of a port, or of the bridge itself. own: whether virtfs has verbs for it."""

    mtu: int
    name: str
    own: bool

    @property
    def shown(self) -> str:
        return self.name if self.own else quoted(self.name)

    def line(self, mtu: int) -> str:
        """Return the line that sets this MTU, in quotes."""
        return quoted(f"{self.name} mtu {mtu}" if self.own else f"ip link set {self.name} mtu {mtu}")


class _Seen(NamedTuple):
    """A bridge after a line.

    name: as sentences show it. place: of the bridge itself. netns: the network namespace of the bridge, or "" for that
    of the server. ports: the MTUs of its ports. whole: the MTU of the bridge itself, if the line was about the bridge.
    sysctls: those that make its frames pass the packet filter.
    """

    name: str
    place: Place
    netns: str
    ports: list[_Mtu]
    whole: _Mtu | None
    sysctls: list[str]


class BridgeWarnings:
    """Compares the ports of a bridge after a line, and looks at the packet filter."""

    def __init__(self, kernel: Kernel, registry: Registry, bridges: BridgeRegistry) -> None:
        """registry: the interfaces whose taps may be ports. bridges: those that lines can change."""
        self._kernel = kernel
        self._registry = registry
        self._bridges = bridges
        self._told: set[Place] = set()  # the bridges about whose packet filter a line has been answered

    async def after(self, target: object, actions: tuple[Action, ...]) -> list[str]:
        """Return warnings about the bridge that a line has changed.

        target: the name of the bridge, or the unit of the interface, that the line has changed.
        """
        verbs = {action.verb for action in actions}
        joins = not verbs.isdisjoint(_JOINING)
        if not joins and "mtu" not in verbs:
            return []
        seen = await self._look(target)
        if seen is None:
            return []
        return [*(self._filtered(seen) if joins else ()), *_different_mtu(seen)]

    async def _look(self, target: object) -> _Seen | None:
        if isinstance(target, str):
            managed = self._bridges.find(BridgeName(target))
            return None if managed is None or managed.bridge.lost else self._managed(managed, whole=True)
        interface = self._registry.find(Unit(target)) if isinstance(target, int) else None
        if interface is None or interface.virt.lost or not interface.virt.host.bridge or interface.master is None:
            return None
        managed = self._bridges.find(BridgeName(interface.virt.host.bridge))
        if managed is not None and (None, managed.index) == (interface.place[0], interface.master):
            return None if managed.bridge.lost else self._managed(managed, whole=False)
        return await self._other(interface, interface.master)

    def _managed(self, managed: Managed, whole: bool) -> _Seen:
        bridge = managed.bridge
        place = None, managed.index
        mtu = _Mtu(bridge.state.mtu, bridge.name, own=True) if whole else None
        return _Seen(bridge.name, place, "", self._ports(place, bridge.state.members), mtu, filtering())

    async def _other(self, interface: Interface, bridge: int) -> _Seen:
        """Query the kernel for a bridge that no `create` has named. If that fails, its taps are known all the same.

        bridge: its interface index, in the network namespace of the tap.
        """
        others: list[Port] = []
        sysctls: list[str] = []
        place = interface.place[0], bridge
        own = frozenset(one.place[1] for one in self._taps(place))
        with suppress(OSError, MemoryError):
            others, sysctls = await self._kernel.call(where, interface.tap, partial(_query, bridge, own))
        virt = interface.virt
        return _Seen(quoted(virt.host.bridge), place, virt.netns, self._ports(place, others), None, sysctls)

    def _ports(self, bridge: Place, members: Iterable[Member | Port]) -> list[_Mtu]:
        """Return the MTUs of the ports of a bridge.

        Those of taps come from their interfaces, because the state of the bridge may not yet have what a line has
        changed.
        """
        others = (member for member in members if self._registry.last_at((bridge[0], member.index)) is None)
        return [
            *(_Mtu(tap.virt.host.mtu, tap.virt.name, own=True) for tap in self._taps(bridge)),
            *(_Mtu(member.mtu, member.name, own=False) for member in others),
        ]

    def _taps(self, bridge: Place) -> list[Interface]:
        namespace, master = bridge
        taps = [one for one in self._registry if one.master == master and one.place[0] == namespace]
        return [tap for tap in taps if not tap.virt.lost]

    def _filtered(self, seen: _Seen) -> list[str]:
        """Return a warning if frames between ports pass the packet filter. A bridge gets it once."""
        if len(seen.ports) < 2 or not seen.sysctls or seen.place in self._told:
            return []
        if len(self._told) >= TOLD:
            self._told.clear()
        self._told.add(seen.place)
        owner = f"network namespace {quoted(seen.netns)}" if seen.netns else "the host"
        sentence = f"frames between the ports of {seen.name} pass the packet filter of {owner} (br_netfilter)"
        effect = "its rules may drop them, packets with wrong headers vanish uncounted, and long ones are fragmented"
        line = f'"sysctl -w {" ".join(f"{sysctl}=0" for sysctl in seen.sysctls)}"{" there" if seen.netns else ""}'
        warning = f"{sentence}: {effect}: {line} lets all frames pass unchanged"
        log.warning("%s", warning)  # for tests whose fixture has made the bridge
        return [warning]


def _query(bridge: int, own: frozenset[int]) -> tuple[list[Port], list[str]]:
    """Return the ports of a bridge, and the sysctls of the packet filter, in the namespace of the thread. Blocks.

    own: the interface indices of the taps, which are left out.
    """
    with Rtnl() as rtnl:
        return other_ports(rtnl, bridge, own), filtering()


def _different_mtu(seen: _Seen) -> list[str]:
    """Return a warning if the MTUs differ: the bridge drops frames that are too long for a port (br_forward.c).

    The MTU of the bridge itself counts as that of a sender: the host sends frames up to this length.
    """
    senders: Sequence[_Mtu] = seen.ports if seen.whole is None else [*seen.ports, seen.whole]
    small = min(seen.ports, key=lambda port: port.mtu, default=None)
    large = max(senders, key=lambda sender: sender.mtu, default=None)
    if small is None or large is None or large.mtu <= small.mtu:
        return []
    port = f"its port {small.shown}" if large is seen.whole else f"{small.shown} in the same bridge"
    sentence = f"{large.shown} has mtu {large.mtu}, {port} {small.mtu}"
    effect = f"{seen.name} drops longer frames to {small.shown}, and no counter shows them"
    remedy = large.line(small.mtu) if large.own and not small.own else small.line(large.mtu)
    return [f"{sentence}: {effect}: give all ports the same mtu, as in {remedy}"]
