"""The lines of all bridges in the ctl files and in the state file."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from virtfs.core.bridge import NEW, Bridge, BridgeState, steps, without
from virtfs.core.grammar import Action
from virtfs.core.virt import Origin
from virtfs.daemon import bridge_lines as lines
from virtfs.daemon.bridge_registry import BridgeRegistry, Managed, Port
from virtfs.daemon.interface import Interface
from virtfs.daemon.registry import Registry


class BridgeTexts:
    """The lines of ctl for the bridges of a mount."""

    def __init__(self, registry: Registry, bridges: BridgeRegistry, mark: str) -> None:
        """registry: the interfaces whose taps may be members. mark: the mark of the mount (host.marks)."""
        self._registry = registry
        self._bridges = bridges
        self._mark = mark

    @property
    def made(self) -> list[str]:
        """The names of the bridges that virtfs made and that exist."""
        return [managed.bridge.name for managed in self._bridges if managed.found is None and not managed.bridge.lost]

    def text(self, bridge: Bridge) -> str:
        """Return verbs that give a new bridge the current state of `bridge`."""
        return lines.verbs(bridge.name, _described(self._bridges.get(bridge.name)))

    def lines_before(self) -> Iterator[str]:
        """Yield the lines that create the bridges. They must run before the lines that create interfaces."""
        for managed in self._bridges:
            name = managed.bridge.name
            yield from lines.adopted(name, managed.bridge.state, managed.adoptions)
            yield from lines.before(name, *self._divided(managed))

    def lines_after(self) -> Iterator[str]:
        """Yield the lines that configure the taps of this mount as bridge ports.

        They must run after the lines of the interfaces, whose verb `bridge` joins the taps to their bridges.
        """
        for managed in self._bridges:
            yield from lines.after(managed.bridge.name, *self._divided(managed))

    def again(self, managed: Managed) -> tuple[Action, ...]:
        """Return the verbs that make a lost bridge again, as its lines say. Lost taps are left out."""
        state, _ = self._divided(managed)
        lost = frozenset(interface.virt.tap for interface in self._registry if interface.virt.lost)
        return steps(NEW, without(state, lost))

    def of_lost_taps(self, managed: Managed) -> dict[Interface, Port]:
        """Return the lost interfaces whose lines join them to a bridge, and their ports."""
        lost: dict[Interface, Port] = {}
        for index, port in managed.ports().items():
            interface = self._registry.last_at((None, index))
            if interface is not None and interface.virt.lost and self._joins(interface, managed):
                lost[interface] = port
        return lost

    def _divided(self, managed: Managed) -> tuple[BridgeState, frozenset[str]]:
        """Split the state of a bridge for ctl, as bridge_lines.divided does."""
        state = _described(managed)
        if managed.gone:
            state = self._with_gone(managed, state)
        return lines.divided(state, partial(self._name, managed), self._mark)

    def _with_gone(self, managed: Managed, state: BridgeState) -> BridgeState:
        """Return the state with the ports of the taps that have vanished, if their lines join them to the bridge."""
        ports = []
        for index, port in managed.gone.items():
            interface = self._registry.last_at((None, index))
            replaced = state.member(port.member.name) is not None  # by another program's interface of the same name
            if interface is not None and not replaced and self._joins(interface, managed):
                ports.append(port)
        members = sorted((*state.members, *(port.member for port in ports)), key=lambda member: member.number)
        known = (*state.known, *(entry for port in ports for entry in port.known))
        return replace(state, members=tuple(members), known=known)

    def _name(self, managed: Managed, index: int) -> str | None:
        """Return the name that the lines of a bridge use for the member with this interface index.

        It is None if the member is not a tap of the mount. It is "" for a tap that no line joins to the bridge: a tap
        of an open clone, and, if the bridge or the tap is lost, a tap that is destroyed or has joined another bridge.
        """
        interface = self._registry.last_at((None, index))
        if interface is None:
            return "" if index in managed.taps or index in managed.gone else None
        virt = interface.virt
        left = (managed.bridge.lost or virt.lost) and not self._joins(interface, managed)
        return "" if left or virt.origin is Origin.CLONED else virt.tap

    def _joins(self, interface: Interface, managed: Managed) -> bool:
        """Return whether the line of an interface has the verb `bridge` with the name of this bridge."""
        return (self.lost_bridge_of(interface) or interface.virt.kept.bridge) == managed.bridge.name

    def lost_bridge_of(self, interface: Interface) -> str:
        """Return the name of the lost bridge that an interface was in, or "" if there is none.

        The result is "" too if the interface has joined another bridge since.
        """
        nsid, index = interface.place
        for name, managed in self._bridges.lost.items():
            member = nsid is None and index in managed.taps
            if member and (not interface.virt.kept.bridge or interface.master == managed.index):
                return name
        return ""


def _described(managed: Managed) -> BridgeState:
    """Return the state of a bridge that ctl shows as verbs. It does not include addresses adopted from members."""
    state = managed.bridge.state
    return replace(state, addresses=tuple(a for a in state.addresses if managed.adoptions.is_own(a)))
