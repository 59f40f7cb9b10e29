"""Cable: a cable between two interfaces of a mount, with its counters."""

import errno
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from virtfs.client.folder import Missing
from virtfs.client.tables import Table

Direction = Literal["out", "in"]


class Network(Protocol):
    """The mount of a cable."""

    def status(self) -> dict[str, Any]:
        """Return the state of the mount: the object in status.json."""

    def ctl(self, text: str) -> None:
        """Write lines of commands to ctl."""


class Directions(dict[Direction, Table[int]]):
    """The counters of a cable, by direction: "out" and "in". KeyError, which is also an OSError: there is no other."""

    def __missing__(self, name: object) -> Table[int]:
        """Raise the error, which says where a counter is."""
        counter = f': stats["out"][{name!r}]' if name in self["out"] else ""
        raise Missing(errno.ENOENT, f'stats has "out" and "in", not {name!r}{counter}')


@dataclass(frozen=True, slots=True)
class _Fields:
    net: Network
    ends: tuple[str, str]
    impair: str


class Cable(_Fields):
    """A cable between two interfaces. impair: the impairment of the cable itself, as in the command `cable`.

    The impairment of a cable cannot change: make a new cable, or set the attribute `impair` of an interface at its end.

    >>> net.cable(3, 4, delay="20ms").impair
    'delay 20ms'
    """

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        advice = ": make a new cable with uncable() and cable(), or set it at an end, as in v.impair = 'loss 5%'"
        raise AttributeError(f"{name} of a cable cannot be set{advice if name == 'impair' else ''}")

    @property
    def stats(self) -> Directions:
        """The counters of both directions: "out" is from the first end to the second, "in" the reverse.

        OSError ENOENT: the cable no longer exists.

        >>> net.cable(3, 4).stats["out"]["frames"]
        0
        """
        for cable in self.net.status()["cables"]:
            if {*cable["ends"]} == {*self.ends}:
                out, back = ("out", "in") if cable["ends"] == [*self.ends] else ("in", "out")
                return Directions({"out": _counters(cable["stats"][out]), "in": _counters(cable["stats"][back])})
        ends = " and ".join(self.ends)
        raise OSError(errno.ENOENT, f"there is no cable between {ends}: read its counters before you remove it")

    def destroy(self) -> None:
        """Remove the cable. OSError: ENOENT, it no longer exists.

        >>> net.cable(3, 4).destroy()
        >>> net.cables
        []
        """
        self.net.ctl(f"uncable {' '.join(self.ends)}")


def _counters(counts: dict[str, int]) -> Table[int]:
    return Table("counter", counts)
