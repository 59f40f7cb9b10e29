"""Attributes of bridges and ports that other programs set are kept, and restored when a removed port is put back."""

import errno
from typing import Any

import pytest
from harness import told
from harness.fixtures import Alone
from harness.process import fails
from harness.serving import Mount, Virt, Virts

BY_HAND = (
    "ip link set {bridge} type bridge mcast_snooping 0 nf_call_iptables 1 mcast_router 2 no_linklocal_learn 1",
    "bridge link set dev {port} hairpin on neigh_suppress on mcast_flood off fastleave on",
    "ip link set {port} type bridge_slave bcast_flood off",
)
OF_BRIDGE = ("mcast_snooping", "nf_call_iptables", "mcast_router", "no_linklocal_learn")
OF_PORT = ("hairpin", "neigh_suppress", "mcast_flood", "fastleave", "bcast_flood", "locked", "guard", "root_block")


def set_by_hand(mount: Mount, bridge: str, port: str) -> None:
    for words in BY_HAND:
        mount.sh(words.format(bridge=bridge, port=port))


def seen(mount: Mount, bridge: str, port: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the attributes of the bridge and of the port that set_by_hand() changes."""
    own, ports = told.data(mount, bridge), told.port(mount, port)
    return {name: own.get(name) for name in OF_BRIDGE}, {name: ports[name] for name in OF_PORT}


@pytest.fixture
def port(mount: Mount, virts: Virts) -> Virt:
    """Return a port of bridge0, after another program has set attributes of the port and of the bridge."""
    mount.ctl("create bridge0 up")
    virt = virts("up bridge bridge0")
    set_by_hand(mount, "bridge0", virt.tap)
    return virt


@pytest.mark.parametrize(
    "line",
    [
        "bridge0 down up mtu 1400 priority 5 timeout 0 maxaddr 2 hellotime 9 maxage 30 fwddelay 9 groupfwd 0x8",
        "bridge0 -learn {tap} -discover {tap} protect {tap} ifpriority {tap} 8 ifpathcost {tap} 9 ifgroupfwd {tap} 0x4",
        "bridge0 stp {tap} -stp {tap} static {tap} 02:00:00:00:00:09 inet 10.0.3.1/24 -inet 10.0.3.1",
        "bridge0 flushall",
        "ensure bridge0 add {tap} up",
        "{virt} down up mtu 1300 queue 9 promisc -promisc taplink 02:00:00:00:00:08 bridge bridge0",
    ],
)
def test_verbs_leave_it_alone(mount: Mount, port: Virt, line: str) -> None:
    before = seen(mount, "bridge0", port.tap)
    mount.ctl(line.format(tap=port.tap, virt=port.name))
    assert seen(mount, "bridge0", port.tap) == before


@pytest.mark.parametrize("line", ["delete {tap} add lo", "delete {tap} add {tap} add lo"])
def test_a_line_that_is_undone(mount: Mount, port: Virt, line: str) -> None:
    before = seen(mount, "bridge0", port.tap)
    with fails(errno.EINVAL):
        mount.ctl(f"bridge0 {line.format(tap=port.tap)}")
    assert seen(mount, "bridge0", port.tap) == before


@pytest.mark.parametrize("line", ["-bridge", "-bridge bridge bridge0", "bridge bridge9"])
def test_a_line_of_the_tap_that_is_undone(mount: Mount, port: Virt, line: str) -> None:
    mount.ip("link add bridge9 type bridge")
    mount.ctl(f"bridge0 ifgroupfwd {port.name} 0x4")
    before = seen(mount, "bridge0", port.tap)
    with fails(errno.EADDRNOTAVAIL):
        port.set(f"{line} -inet 10.9.9.9")
    assert seen(mount, "bridge0", port.tap) == before
    assert told.port(mount, port.tap)["group_fwd_mask"] == "0x4"


def test_a_tap_that_was_found_in_a_bridge(alone: Alone) -> None:
    mount = alone()
    mount.ip("link add bridge9 type bridge")
    mount.ip("tuntap add tap3 mode tap")
    mount.ip("link set tap3 master bridge9")
    set_by_hand(mount, "bridge9", "tap3")
    before = seen(mount, "bridge9", "tap3")
    for line in ("create 3 up", "create 3 -bridge"):
        mount.ctl(line)
        mount.ctl("destroy 3")
        assert seen(mount, "bridge9", "tap3") == before
    mount.ctl("create 3 up")
    mount.sh("bridge link set dev tap3 hairpin off")
    mount.ctl("destroy 3")
    assert told.port(mount, "tap3")["hairpin"] is False
    mount.ip("link del tap3")
    mount.ip("link del bridge9")
