"""Rates of interfaces, from samples of status.json. Pure: needs neither a mount nor a clock.

rates_of      the rates between two samples
Interfaces    the interfaces of several mounts, with their current and recent rates
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Object = Mapping[str, Any]
Rates = Mapping[str, float]  # rates per second, keyed by counter name

RATES: Final = ("rx_frames", "rx_bytes", "rx_dropped", "tx_frames", "tx_bytes", "tx_dropped")
PAST: Final = 600  # number of rates to keep for a plot: more than the width of any terminal


def rates_of(first: Object, second: Object, seconds: float) -> dict[str, dict[str, float]]:
    """Return the rates per second of each interface that is in both samples of status.json, keyed by interface name.

    If a counter has decreased, because the interface was destroyed and re-created between the samples, its rate is 0.
    """
    before = {virt["name"]: virt["stats"] for virt in first["virts"]}
    return {
        virt["name"]: {name: _rate(before[virt["name"]][name], virt["stats"][name], seconds) for name in RATES}
        for virt in second["virts"]
        if virt["name"] in before
    }


def _rate(before: int, after: int, seconds: float) -> float:
    return max(0.0, round((after - before) / seconds, 3))


@dataclass(slots=True)
class Interface:
    """An interface as of the latest sample.

    directory: the mount point. virt: the interface's object in status.json. rates: the rates of all its counters, empty
    until there are two samples. past: the frames received and sent per second at each recent sample, oldest first.
    """

    directory: str
    virt: Object
    rates: Rates = field(default_factory=dict)
    past: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=PAST))

    @property
    def key(self) -> tuple[str, int]:
        """The mount point and the unit. They identify an interface and define the order of interfaces."""
        return self.directory, self.virt["unit"]

    @property
    def drops(self) -> float:
        """The number of frames dropped per second."""
        return sum(rate for name, rate in self.rates.items() if name.endswith("_dropped"))

    @property
    def dropped(self) -> int:
        """The number of frames dropped so far."""
        return int(self.virt["stats"]["rx_dropped"] + self.virt["stats"]["tx_dropped"])

    def next(self, virt: Object, seconds: float) -> "Interface":
        """Return this interface as of the next sample, which was taken `seconds` later."""
        if virt["tap"]["index"] != self.virt["tap"]["index"] and not (virt["lost"] or self.virt["lost"]):
            return Interface(self.directory, virt)  # the interface was destroyed and re-created
        before = self.virt["stats"]
        rates = {name: _rate(before.get(name, 0), count, seconds) for name, count in virt["stats"].items()}
        self.past.append((rates["rx_frames"], rates["tx_frames"]))
        return Interface(self.directory, virt, rates, self.past)


class Interfaces:
    """The interfaces of several mounts, with the rates from the latest samples.

    place: the key by which mount points are sorted; None to sort them by name.
    """

    def __init__(self, place: Callable[[str], tuple[bool, str]] | None = None) -> None:
        self.place = place
        self._mounts: dict[str, tuple[float, dict[int, Interface]]] = {}

    def add(self, directory: str, at: float, status: Object) -> None:
        """Add a sample of a mount. at: its time in seconds. status: the object in status.json."""
        then, before = self._mounts.get(directory, (at, {}))
        known = {}
        for virt in status["virts"]:
            unit = virt["unit"]
            known[unit] = (
                before[unit].next(virt, at - then) if unit in before and at > then else Interface(directory, virt)
            )
        self._mounts[directory] = at, known

    def forget(self, directory: str) -> None:
        """Remove the interfaces of a mount."""
        self._mounts.pop(directory, None)

    def directories(self) -> set[str]:
        """Return the mount points of the mounts that have a sample."""
        return set(self._mounts)

    def __iter__(self) -> Iterator[Interface]:
        """Yield all interfaces, ordered by mount point and unit."""
        for directory in sorted(self._mounts, key=self.place):
            yield from self._mounts[directory][1].values()

    def __len__(self) -> int:
        return sum(len(known) for _, known in self._mounts.values())
