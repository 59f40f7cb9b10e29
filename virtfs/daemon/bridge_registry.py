"""The bridges of a mount, looked up by name, with the data needed to release them."""

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from virtfs.core.bridge import Bridge, BridgeState, FdbEntry, Member
from virtfs.core.errors import VirtError
from virtfs.core.ids import BridgeName
from virtfs.host.bridge_adopt import Adoptions
from virtfs.host.bridgeports import Settings


class Port(NamedTuple):
    """A port of a bridge, with its entries in the address table."""

    member: Member
    known: tuple[FdbEntry, ...]


@dataclass(slots=True, eq=False)
class Managed:
    """One bridge, and the data needed to release it.

    index: the interface index.
    found: the state of the bridge before virtfs attached to it, or None if virtfs made it.
    settings: the port settings that no verb sets, keyed by member name, as they were when virtfs attached.
    adoptions: the addresses and routes that the bridge has adopted from members.
    taps: the indices of the members that were taps of the mount when the bridge was lost.
    returned: the indices of the members that got their addresses back when the bridge was lost.
    gone: the ports of taps of the mount that have left the bridge, by interface index.
    added: the names of the interfaces that lines have added and not deleted since.
    leaving: whether virtfs is releasing the bridge.
    """

    bridge: Bridge
    index: int
    found: BridgeState | None
    settings: dict[str, Settings]
    adoptions: Adoptions
    taps: frozenset[int] = frozenset()
    returned: frozenset[int] = frozenset()
    gone: dict[int, Port] = field(default_factory=dict)
    added: frozenset[str] = frozenset()
    leaving: bool = False

    def ports(self) -> dict[int, Port]:
        """Return the ports in the last known state, and those in `gone`, by interface index."""
        state = self.bridge.state
        known: dict[str, list[FdbEntry]] = {}
        for entry in state.known:
            known.setdefault(entry.member, []).append(entry)
        now = {member.index: Port(member, tuple(known.get(member.name, ()))) for member in state.members}
        return {**self.gone, **now}


class BridgeRegistry:
    """All bridges, by name. `bridges` adds and removes them; `bridge_follow` records which ones are lost."""

    def __init__(self) -> None:
        self._all: dict[BridgeName, Managed] = {}  # sorted by number
        # The bridges that another program has deleted or renamed. Few interfaces need to be compared with them.
        self.lost: dict[BridgeName, Managed] = {}
        self._indices: tuple[frozenset[int], frozenset[int]] | None = None  # see indices()

    def __contains__(self, name: object) -> bool:
        return name in self._all

    def __iter__(self) -> Iterator[Managed]:
        return iter(list(self._all.values()))

    def __bool__(self) -> bool:
        return bool(self._all)

    def indices(self) -> tuple[frozenset[int], frozenset[int]]:
        """Return the interface indices of all bridges, and those of their members. They are kept until they change."""
        if self._indices is None:
            members = (member.index for managed in self._all.values() for member in managed.bridge.state.members)
            self._indices = frozenset(managed.index for managed in self._all.values()), frozenset(members)
        return self._indices

    def store(self, managed: Managed, state: BridgeState) -> None:
        """Store the state of a bridge."""
        if state.members != managed.bridge.state.members:
            self._indices = None
        managed.bridge.state = state

    def add(self, managed: Managed) -> None:
        """Add a bridge. Its name must be free."""
        self._indices = None
        everything = {**self._all, managed.bridge.name: managed}
        self._all = {name: everything[name] for name in sorted(everything, key=lambda name: (len(name), name))}

    def remove(self, managed: Managed) -> None:
        """Remove a bridge."""
        self._indices = None
        del self._all[managed.bridge.name]
        self.lost.pop(managed.bridge.name, None)

    def restore(self, managed: Managed, new: Managed, gone: dict[int, Port]) -> None:
        """Record that a lost bridge has been made again. Its files and the handles of their readers stay.

        new: the bridge that now has its name, which is not in the registry. gone: as for Managed.
        """
        managed.index, managed.found = new.index, new.found
        managed.settings, managed.adoptions = new.settings, new.adoptions
        managed.taps, managed.returned = frozenset(), frozenset()
        managed.gone, managed.added = gone, new.added
        managed.bridge.state, managed.bridge.lost = new.bridge.state, False
        self._indices = None
        self.lost.pop(managed.bridge.name, None)

    def find(self, name: BridgeName) -> Managed | None:
        """Return the bridge of this name, or None."""
        return self._all.get(name)

    def get(self, name: BridgeName) -> Managed:
        """Return the bridge of this name. VirtError: ENXIO, there is none."""
        managed = self._all.get(name)
        if managed is None:
            raise VirtError(errno.ENXIO, f'there is no bridge "{name}"')
        return managed

    def of(self, bridge: Bridge) -> Managed:
        """Return the data of this bridge. VirtError: ENXIO, the bridge was destroyed."""
        managed = self.get(bridge.name)
        if managed.bridge is not bridge:
            raise VirtError(errno.ENXIO, f"{bridge.name} is gone")
        return managed

    def expect_none(self, name: BridgeName) -> None:
        """Raise VirtError EEXIST if there is a bridge of this name, even a lost one."""
        if (managed := self._all.get(name)) is not None:
            remedy = f", but is lost: {_remedy(name)}" if managed.bridge.lost else ""
            raise VirtError(errno.EEXIST, f'"{name}" already exists{remedy}')


def vanished(name: BridgeName) -> VirtError:
    """Return the error of verbs and files of a lost bridge."""
    return VirtError(errno.ENXIO, f"{name} is lost: another program has deleted or renamed it: {_remedy(name)}")


def _remedy(name: BridgeName) -> str:
    return f'"ensure {name}" makes it again'
