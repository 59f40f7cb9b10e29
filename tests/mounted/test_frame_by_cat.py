"""cat as a cable between two network namespaces."""

import json
import subprocess

import pytest
from harness.places import Place, finished
from harness.serving import Mount
from harness.waiting import PATIENCE, until, until_it_waits

from .conftest import Hosts


@pytest.fixture
def sides(mount: Mount, hosts: Hosts) -> tuple[Place, Place]:
    """Two machines, 10.0.0.1 and 10.0.0.2, connected by two cat processes."""
    places = hosts(1).place, hosts(2).place
    for a, b in ((1, 2), (2, 1)):
        cat = mount.shell(f"exec cat virt{a}/frame >virt{b}/frame")
        until_it_waits(cat.pid)
    return places


def test_ping(sides: tuple[Place, Place]) -> None:
    """`ping -c N -w S` succeeds once N requests have been answered."""
    sides[0].sh(f"ping -q -c5 -i0.02 -w{PATIENCE:g} 10.0.0.2")
    sides[1].sh(f"ping -q -c2 -i0.02 -w{PATIENCE:g} -M do -s 1472 10.0.0.1")


def test_iperf3(sides: tuple[Place, Place]) -> None:
    server = sides[1].start("stdbuf", "-oL", "iperf3", "-s", "-1", "--forceflush", stdout=subprocess.PIPE)
    assert server.stdout is not None
    until(lambda: "listening" in server.stdout.readline(), "iperf3 listens")  # type: ignore[union-attr]
    report = json.loads(sides[0].sh("iperf3 -J -t 2 -c 10.0.0.2", seconds=2 * PATIENCE))
    finished(server)
    assert report["end"]["sum_received"]["bits_per_second"] > 1e5
    assert report["end"]["sum_received"]["seconds"] > 1.5


def test_a_cable_of_cats_stopped_and_resumed_pings(mount: Mount, sides: tuple[Place, Place]) -> None:
    """bash's builtin kill sends SIGSTOP and SIGCONT to the cat processes."""
    sides[0].sh(f"ping -q -c2 -i0.02 -w{PATIENCE:g} 10.0.0.2")
    cats = [pid for pid, line in mount.processes().items() if line.startswith("cat virt")]
    assert len(cats) == 2
    mount.sh(f"kill -STOP {cats[0]} {cats[1]}")
    assert "100% packet loss" in sides[0].sh("ping -q -c2 -i0.02 -W1 10.0.0.2 || true")
    mount.sh(f"kill -CONT {cats[0]} {cats[1]}")
    sides[0].sh(f"ping -q -c2 -i0.02 -w{PATIENCE:g} 10.0.0.2")
