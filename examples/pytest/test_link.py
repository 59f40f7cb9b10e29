"""Two hosts of the kernel and a bad link between them. Every run loses the same packets.

    virtfs shell -- pytest examples/pytest

The hosts are network namespaces. The cable has a seed, and nothing but these tests sends a frame, so the first run and
the hundredth see the same. doc/testing.md explains the fixture `lab`.
"""

import re

import pytest

from virtfs.testing.lab import Host, Lab


@pytest.fixture
def hosts(lab: Lab) -> tuple[Host, Host]:
    """Two hosts that can reach each other over a cable without faults."""
    a, b = lab.host("a", "10.0.0.1/24"), lab.host("b", "10.0.0.2/24")
    lab.cable(a, b)
    a.run("ping", "-c1", "-w20", b.address)  # now each host knows the MAC address of the other
    lab.uncable(a, b)
    return a, b


def lost(a: Host, b: Host, count: int) -> set[int]:
    """Return which of the first `count` pings from a to b are not answered.

    With -w, ping goes on until it has `count` answers. Without it, ping would not wait for answers that are late.
    """
    output = a.run("ping", "-nc", str(count), "-i0.02", "-w20", b.address).stdout
    return {*range(1, count + 1)} - {int(number) for number in re.findall(r"icmp_seq=(\d+)", output)}


def test_a_lossy_link_loses_the_same_pings_in_every_run(lab: Lab, hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    cable = lab.cable(a, b, delay="2ms", loss="10%", seed=4)
    assert lost(a, b, 40) == {11, 12, 13, 26, 31}
    assert cable.stats["out"]["lost"] >= 2
    assert cable.stats["in"]["lost"] >= 3


def test_a_long_link_takes_its_time(lab: Lab, hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    lab.cable(a, b, delay="20ms")
    output = a.run("ping", "-nc3", "-i0.02", "-w20", b.address).stdout
    assert min(float(time) for time in re.findall(r"time=([\d.]+)", output)) >= 40


def test_an_unplugged_cable_carries_nothing(lab: Lab, hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    lab.cable(a, b)
    assert lost(a, b, 3) == set()
    lab.uncable(a, b)
    assert ", 100% packet loss" in a.run("ping", "-qc3", "-i0.02", "-W1", b.address, check=False).stdout
