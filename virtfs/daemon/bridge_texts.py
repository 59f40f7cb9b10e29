"""The lines of all bridges in the ctl files and in the state file."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from virtfs.core.bridge import Bridge, BridgeState
from virtfs.daemon import bridge_lines as lines
from virtfs.daemon.bridge_registry import BridgeRegistry, Managed
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

    def _divided(self, managed: Managed) -> tuple[BridgeState, frozenset[str]]:
        """Split the state of a bridge for ctl, as bridge_lines.divided does."""
        name_of = partial(self._name_in_lost, managed) if managed.bridge.lost else self._registry.name_in_lines
        return lines.divided(_described(managed), name_of, self._mark)

    def _name_in_lost(self, managed: Managed, index: int) -> str | None:
        """Return the name that the lines of a lost bridge use for a member, as Registry.name_in_lines does.

        It is "" for a tap of the mount that has been destroyed or has joined another bridge since.
        """
        if index not in managed.taps:
            return None
        interface = self._registry.at((None, index))
        if interface is None or self.lost_bridge_of(interface) != managed.bridge.name:
            return ""
        return self._registry.name_in_lines(index)

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
