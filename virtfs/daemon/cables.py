"""The cables of a mount, and their impairments. A cable connects two interfaces, or an interface and a socket."""

import errno
from collections.abc import Iterator

import trio

from virtfs.core.arguments import Impairments
from virtfs.core.counters import Way
from virtfs.core.errors import VirtError
from virtfs.core.grammar import Action, Command
from virtfs.core.impairment import UNIMPAIRED, Direction
from virtfs.core.line_text import format_command
from virtfs.core.socketname import SocketName
from virtfs.daemon.interface import Interface
from virtfs.daemon.socket_cables import Plugged, SocketCables
from virtfs.files.events import Events
from virtfs.forward.cable import Cable
from virtfs.forward.impaired_path import ImpairedPath
from virtfs.forward.tasks import Start
from virtfs.host.relay import Room


class Joined:
    """One cable, with its ends."""

    def __init__(self, first: Interface, second: Interface, impairments: Impairments, room: Room, start: Start) -> None:
        self.ends = first, second
        self.cable = Cable(first.wire, second.wire, room, start)
        self.removing = trio.Lock()
        actions = (Action("impair", (impairments,)),) if impairments else ()
        # The command that would recreate the cable. A cable never changes.
        self.line = format_command(Command("cable", first.virt.unit, actions, second.virt.unit))


class Cables:
    """All cables of a mount. An interface has at most one.

    sockets: the cables whose far end is a socket. start: runs a task until the mount ends.
    """

    def __init__(self, events: Events, start: Start) -> None:
        self.sockets = SocketCables(events, start)
        self._events = events
        self._start = start
        self._room: Room | None = None  # created for the first cable
        self._all: list[Joined] = []

    def lines(self) -> Iterator[str]:
        """Yield a line for each cable, with the command that would recreate it."""
        for line, _, _ in self.described():
            yield line

    def saved_lines(self) -> Iterator[str]:
        """Yield the lines of the cables whose ends are recreated by lines of ctl."""
        for joined in self._all:
            if all(end.virt.saved for end in joined.ends):
                yield joined.line
        for plugged in self.sockets:
            if plugged.interface.virt.saved:
                yield plugged.line

    def ways(self) -> Iterator[tuple[Way, Way]]:
        """Yield the two directions of each cable: the one from its first end, then the one to its first end.

        The order of the cables is that of lines().
        """
        for _, ways, _ in self.described():
            yield ways

    def described(self) -> Iterator[tuple[str, tuple[Way, Way], dict[str, object] | None]]:
        """Yield a tuple for each cable: the command that would recreate it, its two directions, and its socket.

        The directions are ordered as in ways(). The socket is the object `socket` of status.json, or None if the cable
        connects two interfaces.
        """
        for joined in list(self._all):
            out, back = joined.cable.directions
            yield joined.line, (out.way, back.way), None
        for plugged in self.sockets:
            yield plugged.line, plugged.cable.ways, plugged.describe()

    def join(self, first: Interface, second: Interface, impairments: Impairments) -> None:
        """Connect two interfaces with a cable.

        impairments: "in" is the direction from `second` to `first`, and "out" is the opposite direction.
        VirtError: EEXIST, the two already have a cable; EBUSY, one of them has another cable, or its tap is lent to
        a program; ENXIO, one has lost its tap; EMFILE, ENFILE, ENOMEM.
        """
        self.check_join(first, second)
        if self._room is None:
            self._room = Room()
        joined = Joined(first, second, impairments, self._room, self._start)
        said = dict(impairments)
        directions: tuple[Direction, Direction] = ("out", "in")
        impaired: list[ImpairedPath] = []
        try:
            for way, direction in zip(joined.cable.directions, directions, strict=True):
                if (new := way.impair(said.get(direction, UNIMPAIRED), direction)) is not None:
                    impaired.append(new)
        except BaseException:
            joined.cable.discard()
            for one in impaired:
                one.close()
            raise
        self._all.append(joined)
        name = f"the cable between {first.virt.name} and {second.virt.name}"
        for work in (*(one.run for one in impaired), joined.cable.run):
            self._start(work, name=name)
        self._events.emit("cable", first.virt.name, peer=second.virt.name)

    async def plug(self, interface: Interface, name: SocketName, impairments: Impairments) -> None:
        """Connect an interface to a socket. VirtError: as for check_join() and SocketCables.plug()."""
        self.check_join(interface, name)
        await self.sockets.plug(interface, name, impairments)
        self._events.emit("cable", interface.virt.name, peer=str(name))

    def check_join(self, first: Interface, second: Interface | SocketName) -> None:
        """Raise the error, if any, that join() or plug() would raise because of the ends."""
        ends = (first, second) if isinstance(second, Interface) else (first,)
        for end in ends:
            end.expect_tap()
            end.expect_no_holder()
        if self._find(first, second) is not None:
            what = f"{first.virt.name} and {_name(second)} already have a cable"
            more = f"or write {first.virt.name} impair ..., which adds to the impairment of the cable"
            raise VirtError(errno.EEXIST, f"{what}: take it away with uncable {first.virt.unit} first, {more}")
        for end in ends:
            if (joined := self._at(end)) is not None:
                names = " and ".join(one.virt.name for one in joined.ends)
            elif (plugged := self.sockets.at(end)) is not None:
                names = f"{end.virt.name} and {plugged.name}"
            else:
                continue
            what = f"{end.virt.name} already has a cable, which connects {names}"
            raise VirtError(errno.EBUSY, f"{what}: take it away with uncable {end.virt.unit} first")

    async def separate(self, first: Interface, second: Interface | SocketName | None) -> None:
        """Remove a cable. The arguments and errors are those of get()."""
        found = self.get(first, second)
        if isinstance(found, Joined):
            await self._remove(found)
        else:
            await self._unplug(found)

    def get(self, first: Interface, second: Interface | SocketName | None) -> Joined | Plugged:
        """Return the cable between two ends, or the one of `first` if `second` is None. VirtError: ENOENT."""
        if second is None:
            its = self._at(first) or self.sockets.at(first)
            if its is None:
                raise VirtError(errno.ENOENT, f"{first.virt.name} has no cable")
            return its
        found = self._find(first, second)
        if found is None:
            raise VirtError(errno.ENOENT, f"there is no cable between {first.virt.name} and {_name(second)}")
        return found

    async def remove(self, interface: Interface) -> None:
        """Remove the cable of an interface that is being destroyed."""
        if (joined := self._at(interface)) is not None:
            await self._remove(joined)
        if (plugged := self.sockets.at(interface)) is not None:
            await self._unplug(plugged)

    async def _unplug(self, plugged: Plugged) -> None:
        await self.sockets.unplug(plugged)
        self._events.emit("uncable", plugged.interface.virt.name, peer=str(plugged.name))

    async def _remove(self, joined: Joined) -> None:
        # Both ends may be destroyed at the same time. The second call waits for the first.
        async with joined.removing:
            if joined in self._all:
                await joined.cable.stop()
                self._all.remove(joined)
                first, second = joined.ends
                self._events.emit("uncable", first.virt.name, peer=second.virt.name)

    def has(self, interface: Interface) -> bool:
        """Return whether an interface has a cable."""
        return self._at(interface) is not None or self.sockets.at(interface) is not None

    def other_end(self, interface: Interface) -> Interface | None:
        """Return the interface at the other end of a cable, or None if there is no cable, or a socket at its end."""
        joined = self._at(interface)
        return None if joined is None else next(end for end in joined.ends if end is not interface)

    def lost_with(self, interface: Interface) -> list[Interface]:
        """Return an interface, and the other end of its cable if that has lost its tap."""
        joined = self._at(interface)
        ends = () if joined is None else joined.ends
        return [interface, *(end for end in ends if end is not interface and end.virt.lost)]

    def _at(self, interface: Interface) -> Joined | None:
        return next((joined for joined in self._all if interface in joined.ends), None)

    def _find(self, first: Interface, second: Interface | SocketName) -> Joined | Plugged | None:
        if isinstance(second, SocketName):
            plugged = self.sockets.at(first)
            return plugged if plugged is not None and plugged.name == second else None
        joined = self._at(first)
        return joined if joined is not None and second in joined.ends else None


def _name(end: Interface | SocketName) -> str:
    return str(end) if isinstance(end, SocketName) else end.virt.name
