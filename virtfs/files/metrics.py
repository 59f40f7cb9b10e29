"""metrics: the counters of all interfaces in the text format of Prometheus.

This is the only module that imports prometheus_client. It does not use the library's global registry, which would add
metrics of the server process to those of the interfaces. Names follow the rules of `promtool check metrics`: counters
end in _total, names contain the base unit, and every metric has a HELP line.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from virtfs.core.counters import CABLE_COUNTERS, Way
from virtfs.core.memory import Memory
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

AT_ONCE = 64  # maximum number of interfaces in a piece of the text

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
    wires: Iterable[Wire],
    memory: Memory,
    state: Mapping[str, float] | None = None,
    ways: Iterable[Way] = (),
    sockets: Iterable[SocketCable] = (),
) -> Iterator[str]:
    """Yield the text in pieces, with one line per metric and interface. Interfaces are in the order of `wires`.

    The lines of one piece are a consistent snapshot.

    sockets: the cables whose far end is a socket.
    state: the value of each gauge about the state file, or None if there is no state file.
    ways: both directions of each cable.
    The label `virt` names the interface, as in virt="virt3". The labels `from` and `to` name the ends of a cable.
    """
    described = ""
    for metric in _Mount(version, list(wires), memory, state or {}, list(ways), list(sockets)).collect():
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
        wires: list[Wire],
        memory: Memory,
        state: Mapping[str, float],
        ways: list[Way],
        sockets: list[SocketCable],
    ) -> None:
        self._version = version
        self._wires = wires
        self._memory = memory
        self._state = state
        self._ways = ways
        self._sockets = sockets

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        yield InfoMetricFamily("virtfs", "The virtfs that serves this mount.", {"version": self._version})
        for name in COUNTERS:
            for wires in _groups(self._wires):
                count = CounterMetricFamily(f"virtfs_{name}", COUNTED[name], labels=["virt"])
                for wire in wires:
                    count.add_metric([wire.virt.name], counter(wire.virt, name))
                yield count
        for name in CABLE_COUNTERS:
            for ways in _groups(self._ways):
                count = CounterMetricFamily(f"virtfs_cable_{name}", CABLE_COUNTED[name], labels=["from", "to"])
                for way in ways:
                    count.add_metric([way.source, way.sink], getattr(way.counters, name))
                yield count
        for name, (meaning, value) in _GAUGES.items():
            for wires in _groups(self._wires):
                gauge = GaugeMetricFamily(f"virtfs_{name}", meaning, labels=["virt"])
                for wire in wires:
                    gauge.add_metric([wire.virt.name], value(wire))
                yield gauge
        yield from self._of_sockets()
        for name, number in self._state.items():
            yield GaugeMetricFamily(f"virtfs_state_{name}", _STATE[name], value=number)
        yield from self._of_memory()

    def _of_sockets(self) -> Iterator[Metric]:
        if not self._sockets:
            return
        labels = ["virt", "socket"]
        connected = GaugeMetricFamily(
            "virtfs_cable_connected", "Whether the socket of a cable is connected, 1 or 0.", labels=labels
        )
        connections = CounterMetricFamily(
            "virtfs_cable_connections", "Number of times that the socket of a cable was connected.", labels=labels
        )
        for cable in self._sockets:
            ends = [cable.wire.virt.name, str(cable.name)]
            connected.add_metric(ends, cable.state == "connected")
            connections.add_metric(ends, cable.connections)
        yield connected
        yield connections

    def _of_memory(self) -> Iterator[Metric]:
        kinds = self._memory.all.kinds
        for name, (field, meaning) in _MEMORY.items():
            gauge = GaugeMetricFamily(f"virtfs_{name}", meaning, labels=["kind"])
            for kind, usage in kinds.items():
                gauge.add_metric([kind.label], getattr(usage, field))
            yield gauge
        yield GaugeMetricFamily(
            "virtfs_memory_limit_bytes", "Limit on the memory of all users together.", self._memory.all.limit
        )
        refused = CounterMetricFamily(
            "virtfs_memory_refused", "Requests and frames refused for lack of memory, by kind.", labels=["kind"]
        )
        for kind, usage in kinds.items():
            refused.add_metric([kind.label], usage.refused)
        yield refused
