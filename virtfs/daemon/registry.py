"""The interfaces of a mount, looked up by unit, by virt or by the place of the tap (interface.Place)."""

import errno
from collections.abc import Iterator

from virtfs.core.bridgeplan import Taps
from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit
from virtfs.core.virt import Virt
from virtfs.daemon.interface import Interface, Place
from virtfs.forward.recorder import Recorder
from virtfs.forward.wire import Wire


class Registry:
    """All interfaces, by unit. `lifecycle` adds and removes them."""

    def __init__(self) -> None:
        self._all: dict[Unit, Interface] = {}
        self._by_place: dict[Place, Interface] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Interface]:
        return iter([self._all[unit] for unit in sorted(self._all)])

    def __contains__(self, interface: Interface) -> bool:
        """Return whether this object is registered. A later interface with the same unit does not count."""
        return self._all.get(interface.virt.unit) is interface

    def add(self, interface: Interface) -> None:
        """Add an interface. Its unit must be free."""
        self._all[interface.virt.unit] = interface
        self._by_place[interface.place] = interface

    def remove(self, interface: Interface) -> None:
        """Remove an interface."""
        del self._all[interface.virt.unit]
        self._leave(interface)

    def move(self, interface: Interface, place: Place) -> None:
        """Set the place of an interface whose tap has moved."""
        self._leave(interface)
        interface.place = place
        if interface in self:
            self._by_place[place] = interface

    def _leave(self, interface: Interface) -> None:
        if self._by_place.get(interface.place) is interface:
            del self._by_place[interface.place]

    def find(self, unit: Unit) -> Interface | None:
        """Return the interface of a unit, or None."""
        return self._all.get(unit)

    def get(self, unit: Unit) -> Interface:
        """Return the interface of a unit. VirtError: ENXIO, there is none."""
        interface = self._all.get(unit)
        if interface is None:
            raise VirtError(errno.ENXIO, f'there is no interface "virt{unit}"')
        return interface

    def expect_none(self, unit: Unit | None) -> None:
        """Raise VirtError EEXIST if the unit has an interface, even one that has lost its tap."""
        interface = None if unit is None else self._all.get(unit)
        if interface is not None:
            remedy = f", but has lost its tap: {interface.remedy}" if interface.virt.lost else ""
            raise VirtError(errno.EEXIST, f'"{interface.virt.name}" already exists{remedy}')

    def of(self, virt: Virt) -> Interface:
        """Return the interface that this virt belongs to. VirtError: ENXIO, the interface was destroyed."""
        interface = self._all.get(virt.unit)
        if interface is None or interface.virt is not virt:
            raise VirtError(errno.ENXIO, f"{virt.name} is gone")
        return interface

    def at(self, place: Place) -> Interface | None:
        """Return the interface whose tap is at a place, or None."""
        interface = self._by_place.get(place)
        return None if interface is None or interface.virt.lost else interface

    def wires(self) -> list[Wire]:
        """Return the wires of all interfaces, ordered by unit."""
        return [interface.wire for interface in self]

    def recorders(self) -> list[Recorder]:
        """Return the recorders of all interfaces that still have a tap, ordered by unit."""
        return [interface.recorder for interface in self if not interface.virt.lost]

    def taps(self) -> Taps:
        """Return the names of all taps, for the lines of bridges."""
        names, elsewhere = dict[str, str](), dict[str, str]()
        for interface in self._all.values():
            virt = interface.virt
            if not virt.lost and interface.place[0] is None:
                names[virt.name] = names[virt.tap] = virt.host.name
            elif not virt.lost:
                elsewhere[virt.name] = elsewhere[virt.tap] = virt.netns
        return Taps(names, elsewhere)

    def last_at(self, place: Place) -> Interface | None:
        """Return the interface whose tap is at a place, or was there before another program deleted it, or None."""
        return self._by_place.get(place)
