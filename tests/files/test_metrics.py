"""metrics, parsed with the parser of Prometheus."""

import os
from collections.abc import Iterator

import pytest
from harness.wires import plain_wire
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from virtfs.core.counters import CABLE_COUNTERS, CableCounters, Way
from virtfs.core.ids import Unit
from virtfs.core.memory import Memory
from virtfs.core.virt import COUNTERS, HostEnd, Virt
from virtfs.files.metrics import CABLE_COUNTED, COUNTED, metrics
from virtfs.forward.wire import Wire
from virtfs.host.fakes import FakeTap

Read = dict[str, Metric]


@pytest.fixture
def wires() -> Iterator[list[Wire]]:
    taps = [FakeTap(), FakeTap()]
    wires = [plain_wire(_virt(unit), tap) for unit, tap in zip((3, 10), taps, strict=True)]
    yield wires
    for wire, tap in zip(wires, taps, strict=True):
        wire.close()
        tap.close()


def _virt(unit: int) -> Virt:
    host = HostEnd(
        name=f"tap{unit}",
        index=unit,
        up=unit == 3,
        mtu=1400 + unit,
        address=bytes(6),
        carrier=unit == 3,
        promisc=False,
        queue=256,
        dropped=unit,
    )
    virt = Virt(Unit(unit), bytes(6), host)
    for position, name in enumerate(COUNTERS):
        setattr(virt.counters, name, 100 * unit + position)
    return virt


def read(wires: list[Wire], version: str = "1.2", mount: str = "/mnt/virt") -> Read:
    return {
        family.name: family
        for family in text_string_to_metric_families("".join(metrics(version, mount, wires, Memory())))
    }


def values(family: Metric) -> dict[str, float]:
    return {sample.labels["virt"]: sample.value for sample in family.samples}


@pytest.mark.parametrize("name", COUNTERS)
def test_each_counter_is_told_and_means_something(wires: list[Wire], name: str) -> None:
    family = read(wires)[f"virtfs_{name}"]
    assert family.type == "counter"
    assert {sample.name for sample in family.samples} == {f"virtfs_{name}_total"}
    assert family.documentation == COUNTED[name]
    of_taps = {"virt3": 3, "virt10": 10} if name == "rx_dropped" else {"virt3": 0, "virt10": 0}
    own = {wire.virt.name: getattr(wire.virt.counters, name) for wire in wires}
    assert values(family) == {virt: own[virt] + of_taps[virt] for virt in own}


def test_counters_of_a_cable(wires: list[Wire]) -> None:
    ways = [
        Way("virt3", "virt10", CableCounters(*range(1, 8))),
        Way("virt10", "virt3", CableCounters(*range(11, 18))),
    ]
    text = "".join(metrics("1.2", "/mnt/virt", wires, Memory(), ways=ways))
    told = {family.name: family for family in text_string_to_metric_families(text)}
    for position, name in enumerate(CABLE_COUNTERS):
        family = told[f"virtfs_cable_{name}"]
        assert (family.type, family.documentation) == ("counter", CABLE_COUNTED[name])
        values = {(sample.labels["from"], sample.labels["to"]): sample.value for sample in family.samples}
        assert values == {("virt3", "virt10"): 1 + position, ("virt10", "virt3"): 11 + position}


def test_gauges(wires: list[Wire]) -> None:
    wires[1].readers = 1
    wires[1].virt.lose()
    told = read(wires)
    expected = {
        "virtfs_lost": {"virt3": 0, "virt10": 1},
        "virtfs_up": {"virt3": 1, "virt10": 0},
        "virtfs_carrier": {"virt3": 1, "virt10": 0},
        "virtfs_mtu_bytes": {"virt3": 1403, "virt10": 1410},
        "virtfs_queue_frames": {"virt3": 256, "virt10": 256},
        "virtfs_readers": {"virt3": 0, "virt10": 1},
    }
    assert {name: values(told[name]) for name in expected} == expected
    assert {told[name].type for name in expected} == {"gauge"}


def test_the_version(wires: list[Wire]) -> None:
    (sample,) = read(wires)["virtfs_info"].samples
    assert (sample.labels, sample.value) == ({"mount": "/mnt/virt", "version": "1.2"}, 1)


def test_a_label_is_escaped(wires: list[Wire]) -> None:
    odd = 'a"b\\c\nd'
    (sample,) = read(wires, odd)["virtfs_info"].samples
    assert sample.labels == {"mount": "/mnt/virt", "version": odd}


def test_metrics_of_two_mounts_differ(wires: list[Wire]) -> None:
    """The node exporter refuses two files with the same metric and labels."""
    ways = [Way("virt3", "virt10", CableCounters())]
    state = {"saved": 1.0, "unsaved_since_seconds": 0.0, "failed_lines": 0.0}
    for directory in ("/mnt/a", "/mnt/with blanks"):
        text = "".join(metrics("1.2", directory, wires, Memory(), state, ways))
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        assert {"virtfs_info", "virtfs_up", "virtfs_cable_lost_total", "virtfs_state_saved"} <= {
            s.name for s in samples
        }
        assert {sample.labels["mount"] for sample in samples} == {directory}


def test_a_mount_point_that_is_not_text(wires: list[Wire]) -> None:
    (sample,) = read(wires, mount=os.fsdecode(b"/mnt/\xff\n"))["virtfs_info"].samples
    assert sample.labels["mount"] == r"/mnt/\xff\n"


def test_nothing_but_the_mount(wires: list[Wire]) -> None:
    """There are no metrics of the process, because node_exporter has them."""
    assert all(name.startswith("virtfs_") for name in read(wires))


def test_names_keep_prometheus_rules(wires: list[Wire]) -> None:
    """The rules of `promtool check metrics`: each metric has HELP and TYPE, and only counters end in _total."""
    text = "".join(metrics("1.2", "/mnt/virt", wires, Memory()))
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    helped = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP") and len(line.split()) > 3]
    assert names == helped
    for family in read(wires).values():
        assert (family.type == "counter") == all(sample.name.endswith("_total") for sample in family.samples)
        assert not set(family.name.split("_")) & {"ms", "kb", "kilobytes", "bits", "milliseconds", family.type}


def test_a_mount_without_interfaces() -> None:
    told = read([])
    assert told["virtfs_rx_frames"].samples == []
    assert len(told["virtfs_info"].samples) == 1
