"""Cable: a cable between two interfaces of a mount, with its counters."""

import errno
from dataclasses import dataclass
from typing import Any, Protocol


class Network(Protocol):
    """The mount of a cable."""

    def status(self) -> dict[str, Any]:
        """Return the state of the mount: the object in status.json."""

    def ctl(self, text: str) -> None:
        """Write lines of commands to ctl."""


class Directions(dict[str, dict[str, int]]):
    """The counters of a cable, by direction: "out" and "in". KeyError: there is no such direction."""

    def __missing__(self, name: str) -> dict[str, int]:
        """Raise KeyError, which says where a counter is."""
        counter = f': stats["out"][{name!r}]' if name in self["out"] else ""
        raise KeyError(f'stats has "out" and "in", not {name!r}{counter}')


@dataclass(frozen=True, slots=True)
class Cable:
    """A cable between two interfaces. impair: the impairment of the cable itself, as in the command `cable`.

    >>> net.cable(3, 4, delay="20ms").impair
    'delay 20ms'
    """

    net: Network
    ends: tuple[str, str]
    impair: str

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
                return Directions({"out": cable["stats"][out], "in": cable["stats"][back]})
        raise OSError(errno.ENOENT, f"there is no cable between {' and '.join(self.ends)}")

    def destroy(self) -> None:
        """Remove the cable. OSError: ENOENT, it no longer exists.

        >>> net.cable(3, 4).destroy()
        >>> net.cables
        []
        """
        self.net.ctl(f"uncable {' '.join(self.ends)}")
