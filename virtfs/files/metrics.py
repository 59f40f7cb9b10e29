"""The file metrics: every counter in the text format that Prometheus reads.

The only module that knows prometheus_client. Its registry of the process is not used: what a scrape shows is the
mount's interfaces and nothing of the Python that serves them. Names keep the rules that `promtool check metrics`
tests: counters end in _total, units are base units and in the name, nothing is without a HELP.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from virtfs.core.values import counter
from virtfs.core.virt import COUNTERS
from virtfs.forward.wire import Wire

# By the names of core.virt.Counters. rx is towards virt, tx towards the host.
COUNTED: Final[dict[str, str]] = {
    "rx_frames": "Frames that were read from the interface.",
    "rx_bytes": "Bytes in the frames that were read from the interface.",
    "rx_dropped": "Frames from the host that nobody read: no reader, a full queue, down, or rejected by a filter.",
    "tx_frames": "Frames written to the interface that went to the host.",
    "tx_bytes": "Bytes in the frames that went to the host.",
    "tx_dropped": "Frames written to the interface that did not go to the host, for whatever reason.",
    "tx_oversize": "Frames written that were dropped because they were longer than the MTU allows.",
    "tx_short": "Frames written that were dropped because they were shorter than an Ethernet header.",
    "tx_down": "Frames written that were dropped because the interface was down.",
    "tx_spoofed": "Frames written that were dropped because their source was another address.",
}

_GAUGES: Final[dict[str, tuple[str, Callable[[Wire], int]]]] = {
    "up": ("Whether the interface is up, 1 or 0.", lambda wire: wire.virt.host.up),
    "carrier": ("Whether the host sees a cable plugged in, 1 or 0.", lambda wire: wire.virt.host.carrier),
    "mtu_bytes": ("Largest payload of a frame.", lambda wire: wire.virt.host.mtu),
    "queue_frames": ("Frames that may wait for a reader.", lambda wire: wire.virt.host.queue),
    "readers": ("How often frame, hex and rx are open for reading.", lambda wire: wire.readers),
}


def metrics(version: str, wires: Iterable[Wire]) -> str:
    """The text of the file: a line for each value of each interface, labelled virt="virt3", in the order given."""
    return generate_latest(_Mount(version, list(wires))).decode()


class _Mount(Collector):
    """The interfaces of a mount, as generate_latest wants them."""

    def __init__(self, version: str, wires: list[Wire]) -> None:
        self._version = version
        self._wires = wires

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("virtfs", "The virtfs that serves this mount.", {"version": self._version})
        for name in COUNTERS:
            count = CounterMetricFamily(f"virtfs_{name}", COUNTED[name], labels=["virt"])
            for wire in self._wires:
                count.add_metric([wire.virt.name], int(counter(wire.virt, name)))
            yield count
        for name, (meaning, value) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"virtfs_{name}", meaning, labels=["virt"])
            for wire in self._wires:
                gauge.add_metric([wire.virt.name], value(wire))
            yield gauge
