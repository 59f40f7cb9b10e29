"""The cables of a mount: which interfaces are joined in user space, and how."""

import errno
from collections.abc import Iterator

from virtfs.core.arguments import Impairments
from virtfs.core.errors import VirtError
from virtfs.core.grammar import Action, Command
from virtfs.core.impairment import UNIMPAIRED, Direction
from virtfs.daemon.interface import Interface
from virtfs.daemon.interfaces import Interfaces
from virtfs.forward.cable import Cable
from virtfs.forward.impaired import ImpairedWay


class Joined:
    """One cable, and what was said of it."""

    def __init__(self, first: Interface, second: Interface, impairments: Impairments) -> None:
        self.ends = first, second
        self.impairments = impairments
        self.cable = Cable(first.wire, second.wire)


class Cables:
    """All of a mount; an interface has one at most."""

    def __init__(self, interfaces: Interfaces) -> None:
        self._interfaces = interfaces
        self._all: list[Joined] = []

    def lines(self) -> Iterator[Command]:
        """The commands that would lay them again."""
        for joined in self._all:
            first, second = (end.virt.unit for end in joined.ends)
            actions = (Action("impair", (joined.impairments,)),) if joined.impairments else ()
            yield Command("cable", first, actions, second)

    def join(self, first: Interface, second: Interface, impairments: Impairments) -> None:
        """Lay a cable.

        Errors: EEXIST, it is there; EBUSY, one of them has a cable to another; ENXIO, one has lost its tap; EMFILE,
        ENFILE, ENOMEM, what it takes cannot be had.
        """
        for end in (first, second):
            if end.virt.lost:
                raise VirtError(errno.ENXIO, f"{end.virt.name} has lost its tap: destroy it")
        there = self._between(first, second)
        if there is not None:
            raise VirtError(errno.EEXIST, f"{first.virt.name} and {second.virt.name} have a cable already")
        for end in (first, second):
            if (other := self._at(end)) is not None:
                names = " and ".join(one.virt.name for one in other.ends)
                raise VirtError(errno.EBUSY, f"{end.virt.name} has a cable already: {names}")
        joined = Joined(first, second, impairments)
        said = dict(impairments)
        directions: tuple[Direction, Direction] = ("out", "in")
        impaired: list[ImpairedWay] = []
        try:
            for way, direction, name in zip(joined.cable.ways, directions, _streams(first, second), strict=True):
                if (new := way.impair(said.get(direction, UNIMPAIRED), name)) is not None:
                    impaired.append(new)
        except BaseException:
            joined.cable.discard()
            for one in impaired:
                one.close()
            raise
        self._all.append(joined)
        for work in (*(one.run for one in impaired), joined.cable.run):
            self._interfaces.later(work)

    def separate(self, first: Interface, second: Interface) -> None:
        """Take a cable out; ENOENT when there is none between the two."""
        joined = self._between(first, second)
        if joined is None:
            raise VirtError(errno.ENOENT, f"there is no cable between {first.virt.name} and {second.virt.name}")
        self._remove(joined)

    def remove(self, interface: Interface) -> None:
        """An interface goes, and its cable with it."""
        if (joined := self._at(interface)) is not None:
            self._remove(joined)

    def _remove(self, joined: Joined) -> None:
        self._all.remove(joined)
        joined.cable.stop()

    def _at(self, interface: Interface) -> Joined | None:
        return next((joined for joined in self._all if interface in joined.ends), None)

    def _between(self, first: Interface, second: Interface) -> Joined | None:
        joined = self._at(first)
        return joined if joined is not None and second in joined.ends else None


def _streams(first: Interface, second: Interface) -> tuple[str, str]:
    """What tells the two directions' chances apart, and is the same in every life of the mount."""
    one, other = first.virt.unit, second.virt.unit
    return f"{one}>{other}", f"{other}>{one}"
