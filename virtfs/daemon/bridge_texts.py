"""The lines of all bridges in the ctl files and in the state file."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from virtfs.core.bridge import NEW, Bridge, BridgeState, steps, without
from virtfs.core.grammar import Action
from virtfs.daemon import bridge_lines as lines
from virtfs.daemon.bridge_registry import BridgeRegistry, Managed, Port
from virtfs.daemon.interface import Interface
from virtfs.daemon.registry import Registry


class _Origins(NamedTuple):
    """Everything that the lines of a bridge are made from."""

    state: BridgeState
    gone: tuple[Port, ...]  # the ports of vanished taps whose lines join them to the bridge
    names: tuple[str | None, ...]  # of the members in `state` and `gone`, see BridgeTexts._name
    adoptions: tuple[object, ...]


class _Lines(NamedTuple):
    """The lines of a bridge before and after those of the interfaces, and what they were made from."""

    origins: _Origins
    before: tuple[str, ...]
    after: tuple[str, ...]


class BridgeTexts:
    """The lines of ctl for the bridges of a mount."""

    def __init__(self, registry: Registry, bridges: BridgeRegistry, mark: str) -> None:
        """registry: the interfaces whose taps may be members. mark: the mark of the mount (host.marks)."""
        self._registry = registry
        self._bridges = bridges
        self._mark = mark
        self._made: dict[Managed, _Lines] = {}

    @property
    def made(self) -> list[str]:
        """The names of the bridges that virtfs made and that exist."""
        return [managed.bridge.name for managed in self._bridges if managed.found is None and not managed.bridge.lost]

    @property
    def found(self) -> list[str]:
        """The names of the bridges that virtfs found on the host, even of those that are lost."""
        return [managed.bridge.name for managed in self._bridges if managed.found is not None]

    def text(self, bridge: Bridge) -> str:
        """Return verbs that give a new bridge the current state of `bridge`."""
        managed = self._bridges.get(bridge.name)
        state, adoptions = managed.bridge.state, managed.adoptions
        addresses = adoptions.without_shares(state.addresses, [member.index for member in state.members])
        return lines.verbs(bridge.name, replace(state, addresses=addresses))

    def renewals(self) -> Iterator[None]:
        """Make the lines of the bridges that have changed, one bridge in each step."""
        for managed in self._bridges:
            self._renew(managed)
            yield

    def lines(self) -> tuple[list[str], list[str]]:
        """Return the lines of all bridges that precede the lines of the interfaces, and those that follow them.

        The first create the bridges. The second configure the taps of this mount as bridge ports, after the verb
        `bridge` in the lines of the interfaces has joined the taps to their bridges. Lines made earlier are used again
        if nothing that they were made from has changed.
        """
        made = {managed: self._renew(managed) for managed in self._bridges}
        self._made = made  # without the bridges that are destroyed
        before = [line for its in made.values() for line in its.before]
        return before, [line for its in made.values() for line in its.after]

    def _renew(self, managed: Managed) -> _Lines:
        """Return the lines of a bridge. They are kept until something that they were made from changes."""
        known, origins = self._made.get(managed), self._origins(managed)
        if known is None or known.origins != origins:
            known = self._make_lines(managed, origins)
        elif known.origins.state is not origins.state:
            known = known._replace(origins=origins)  # the next comparison finds the same objects, and is fast
        self._made[managed] = known
        return known

    def _origins(self, managed: Managed) -> _Origins:
        state, its = managed.bridge.state, managed.adoptions
        gone = self._gone(managed, state) if managed.gone else ()
        names = [self._name(managed, member.index) for member in state.members]
        names += [self._name(managed, port.member.index) for port in gone]
        # These are changed in place, by another thread.
        adoptions = its.own, tuple(its.brought.items()), tuple(its.recalled.items()), managed.returned
        return _Origins(state, gone, tuple(names), adoptions)

    def _make_lines(self, managed: Managed, origins: _Origins) -> _Lines:
        name, divided = managed.bridge.name, self._divided(managed, origins)
        adopted = lines.adopted(name, origins.state, managed.adoptions)
        return _Lines(origins, (*adopted, *lines.before(name, *divided)), tuple(lines.after(name, *divided)))

    def again(self, managed: Managed) -> tuple[Action, ...]:
        """Return the verbs that make a lost bridge again, as its lines say. Lost taps are left out."""
        state, _ = self._divided(managed, self._origins(managed))
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

    def _divided(self, managed: Managed, origins: _Origins) -> tuple[BridgeState, frozenset[str]]:
        """Split the state of a bridge for ctl, as bridge_lines.divided does."""
        state = origins.state
        members = (*state.members, *(port.member for port in origins.gone))
        names = {member.index: name for member, name in zip(members, origins.names, strict=True)}
        # The line of the bridge adopts the members that are not taps of the mount. No line adopts a tap again, but if
        # the bridge is lost, the line of a tap has the addresses that the tap has again.
        adopted = [index for index, name in names.items() if name is None or index in managed.returned]
        state = replace(state, addresses=managed.adoptions.without_shares(state.addresses, adopted))
        if origins.gone:
            known = (*state.known, *(entry for port in origins.gone for entry in port.known))
            by_number = tuple(sorted(members, key=lambda member: member.number))
            state = replace(state, members=by_number, known=known)
        return lines.divided(state, names.get, self._mark)

    def _gone(self, managed: Managed, state: BridgeState) -> tuple[Port, ...]:
        """Return the ports of the taps that have vanished, if their lines join them to the bridge."""
        ports = []
        for index, port in managed.gone.items():
            interface = self._registry.last_at((None, index))
            replaced = state.member(port.member.name) is not None  # by another program's interface of the same name
            if interface is not None and not replaced and self._joins(interface, managed):
                ports.append(port)
        return tuple(ports)

    def _name(self, managed: Managed, index: int) -> str | None:
        """Return the name that the lines of a bridge use for the member with this interface index.

        It is None if the member is not a tap of the mount. It is "" for a tap that no line joins to the bridge: a tap
        of an interface that is not saved, and, if the bridge or the tap is lost, a tap that is destroyed or has joined
        another bridge.
        """
        interface = self._registry.last_at((None, index))
        if interface is None:
            return "" if index in managed.taps or index in managed.gone else None
        virt = interface.virt
        left = (managed.bridge.lost or virt.lost) and not self._joins(interface, managed)
        return "" if left or not virt.saved else virt.tap

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
