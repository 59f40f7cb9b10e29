"""metrics: the counters of all interfaces in the text format of Prometheus.

This is the only module that imports prometheus_client. It does not use the library's global registry, which would add
metrics of the server process to those of the interfaces. Names follow the rules of `promtool check metrics`: counters
end in _total, names contain the base unit, and every metric has a HELP line. Every line has the label `mount`, so that
the metrics of several mounts can be in one file or directory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from virtfs.core.bridge import Bridge
from virtfs.core.counters import CABLE_COUNTERS, Way
from virtfs.core.memory import Memory
from virtfs.core.quoting import one_line
from virtfs.core.values import counter
from virtfs.core.virt import COUNTERS
from virtfs.forward.socket_cable import SocketCable
from virtfs.forward.wire import Wire

# The HELP text of each field of core.virt.Counters. rx is the direction towards virt, tx towards the host.
COUNTED: Final[dict[str, str]] = {
    "rx_frames": "Frames read from the interface.",
    "rx_bytes": "Bytes in frames read from the interface.",
    "rx_dropped": "Frames from the host that were not read: no reader, queue full, down, or rejected by a filter.",
    "rx_lost": "Frames from the host that an impairment lost.",
    "rx_overlimit": "Frames from the host that an impairment dropped because its limit was reached.",
    "rx_duplicated": "Additional frames from the host that an impairment made.",
    "rx_reordered": "Frames from the host that an impairment sent ahead of delayed frames.",
    "rx_corrupted": "Frames from the host in which an impairment flipped a bit.",
    "tx_frames": "Frames written to the interface and sent to the host.",
    "tx_bytes": "Bytes in frames sent to the host.",
    "tx_dropped": "Frames written to the interface and not sent to the host, for any reason.",
    "tx_lost": "Frames towards the host that an impairment lost.",
    "tx_overlimit": "Frames towards the host that an impairment dropped because its limit was reached.",
    "tx_duplicated": "Additional frames towards the host that an impairment made.",
    "tx_reordered": "Frames towards the host that an impairment sent ahead of delayed frames.",
    "tx_corrupted": "Frames towards the host in which an impairment flipped a bit.",
    "tx_oversize": "Frames written and dropped because they were longer than the MTU allows.",
    "tx_short": "Frames written and dropped because they were shorter than an Ethernet header.",
    "tx_down": "Frames written and dropped because the interface was down.",
    "tx_spoofed": "Frames written and dropped because their source was not the address of the interface.",
}

# The HELP text of each field of core.counters.CableCounters.
CABLE_COUNTED: Final[dict[str, str]] = {
    "frames": "Frames that the cable has carried to its other end.",
    "bytes": "Bytes in frames that the cable has carried to its other end.",
    "lost": "Frames that the impairment of the cable lost.",
    "dropped": "Frames that the cable dropped: the limit of its impairment was reached, or the impairment ended.",
    "duplicated": "Additional frames that the impairment of the cable made.",
    "reordered": "Frames that the impairment of the cable sent ahead of delayed frames.",
    "corrupted": "Frames in which the impairment of the cable flipped a bit.",
}

_GAUGES: Final[dict[str, tuple[str, Callable[[Wire], int]]]] = {
    "lost": ("Whether the tap has vanished because another program deleted it, 1 or 0.", lambda wire: wire.virt.lost),
    "up": ("Whether the interface is up, 1 or 0.", lambda wire: wire.virt.host.up),
    "carrier": ("Whether the host sees a carrier, 1 or 0.", lambda wire: wire.virt.host.carrier),
    "mtu_bytes": ("Largest payload of a frame.", lambda wire: wire.virt.host.mtu),
    "queue_frames": ("Frames that may wait for a reader.", lambda wire: wire.virt.host.queue),
    "readers": ("Number of times that frame, hex, stream and rx are open for reading.", lambda wire: wire.readers),
}


T = TypeVar("T")

AT_ONCE = 16  # maximum number of interfaces in a piece of the text; a line takes 10 µs

# For each metric about memory use: the attribute of core.memory that has its value, and its HELP text.
_MEMORY: Final[dict[str, tuple[str, str]]] = {
    "memory_bytes": ("now", "Bytes that clients make the server hold, by kind."),
    "memory_highest_bytes": ("highest", "Largest value of virtfs_memory_bytes so far."),
}


# The HELP text of each gauge about the state file.
_STATE: Final[dict[str, str]] = {
    "saved": "Whether the state file has the current state, 1 or 0.",
    "unsaved_since_seconds": "Unix time at which the state file became out of date, or 0 if it is up to date.",
    "failed_lines": "Lines of the state file that could not be replayed.",
}


def metrics(
    version: str,
    mount: str,
    wires: Iterable[Wire],
    memory: Memory,
    state: Mapping[str, float] | None = None,
    ways: Iterable[Way] = (),
    sockets: Iterable[SocketCable] = (),
    bridges: Iterable[Bridge] = (),
) -> Iterator[str]:
    """Yield the text in pieces, with one line per metric and interface. Interfaces are in the order of `wires`.

    The lines of one piece are a consistent snapshot.

    mount: the path at which the file system is mounted, for the label `mount`.
    sockets: the cables whose far end is a socket.
    state: the value of each gauge about the state file, or None if there is no state file.
    ways: both directions of each cable.
    bridges: the bridges of the mount.
    The label `virt` names the interface, as in virt="virt3". The labels `from` and `to` name the ends of a cable.
    """
    described = ""
    for metric in _Mount(
        version, mount, list(wires), memory, state or {}, list(ways), list(sockets), list(bridges)
    ).collect():
        text = generate_latest(_One(metric)).decode()
        if metric.name == described:  # the metric continues, so leave out the HELP and TYPE lines
            text = text.split("\n", 2)[2]
        described = metric.name
        yield text


def _groups(all_: list[T]) -> list[list[T]]:
    """Divide a list into groups of at most AT_ONCE items. An empty list gives one empty group."""
    return [all_[at : at + AT_ONCE] for at in range(0, len(all_), AT_ONCE)] or [[]]


class _One(Collector):
    """A collector of a single metric, for generate_latest()."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric


class _Mount:
    """The metrics of a mount. A metric of many interfaces is divided into several parts with the same name."""

    def __init__(
        self,
        version: str,
        mount: str,
        wires: list[Wire],
        memory: Memory,
        state: Mapping[str, float],
        ways: list[Way],
        sockets: list[SocketCable],
        bridges: list[Bridge],
    ) -> None:
        self._version = version
        self._mount = one_line(mount)
        self._wires = wires
        self._memory = memory
        self._state = state
        self._ways = ways
        self._sockets = sockets
        self._bridges = bridges

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        labels = {"mount": self._mount, "version": self._version}
        yield InfoMetricFamily("virtfs", "The virtfs that serves this mount.", labels)
        for name in COUNTERS:
            for wires in _groups(self._wires):
                samples = [([wire.virt.name], counter(wire.virt, name)) for wire in wires]
                yield self._family(CounterMetricFamily, name, COUNTED[name], ["virt"], samples)
        for name in CABLE_COUNTERS:
            for ways in _groups(self._ways):
                samples = [([way.source, way.sink], getattr(way.counters, name)) for way in ways]
                yield self._family(CounterMetricFamily, f"cable_{name}", CABLE_COUNTED[name], ["from", "to"], samples)
        for name, (meaning, value) in _GAUGES.items():
            for wires in _groups(self._wires):
                samples = [([wire.virt.name], value(wire)) for wire in wires]
                yield self._family(GaugeMetricFamily, name, meaning, ["virt"], samples)
        yield from self._of_sockets()
        if self._bridges:
            meaning = "Whether another program has deleted or renamed the bridge, 1 or 0."
            lost = [([str(bridge.name)], float(bridge.lost)) for bridge in self._bridges]
            yield self._family(GaugeMetricFamily, "bridge_lost", meaning, ["bridge"], lost)
        for name, number in self._state.items():
            yield self._family(GaugeMetricFamily, f"state_{name}", _STATE[name], [], [([], number)])
        yield from self._of_memory()

    def _family(
        self,
        kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
        name: str,
        meaning: str,
        labels: list[str],
        samples: Iterable[tuple[list[str], float]],
    ) -> Metric:
        """Return a metric. samples: the values of `labels` and the value of the metric, for each line."""
        family = kind(f"virtfs_{name}", meaning, labels=["mount", *labels])
        for of_labels, value in samples:
            family.add_metric([self._mount, *of_labels], value)
        return family

    def _of_sockets(self) -> Iterator[Metric]:
        if not self._sockets:
            return
        ends = [[cable.wire.virt.name, str(cable.name)] for cable in self._sockets]
        labels = ["virt", "socket"]
        meaning = "Whether the socket of a cable is connected, 1 or 0."
        connected = [cable.state == "connected" for cable in self._sockets]
        yield self._family(GaugeMetricFamily, "cable_connected", meaning, labels, zip(ends, connected, strict=True))
        meaning = "Number of times that the socket of a cable was connected."
        counts = [cable.connections for cable in self._sockets]
        yield self._family(CounterMetricFamily, "cable_connections", meaning, labels, zip(ends, counts, strict=True))

    def _of_memory(self) -> Iterator[Metric]:
        kinds = self._memory.all.kinds
        for name, (field, meaning) in _MEMORY.items():
            samples = [([kind.label], getattr(usage, field)) for kind, usage in kinds.items()]
            yield self._family(GaugeMetricFamily, name, meaning, ["kind"], samples)
        limit, meaning = self._memory.all.limit, "Limit on the memory of all users together."
        yield self._family(GaugeMetricFamily, "memory_limit_bytes", meaning, [], [([], limit)])
        samples = [([kind.label], usage.refused) for kind, usage in kinds.items()]
        meaning = "Requests and frames refused for lack of memory, by kind."
        yield self._family(CounterMetricFamily, "memory_refused", meaning, ["kind"], samples)
