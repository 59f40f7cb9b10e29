"""Settings that other programs make on a tap: no verb undoes them, and ctl shows those that virtfs has a verb for."""

from typing import Any

import pytest
from harness import told
from harness.fixtures import Alone
from harness.serving import Mount, Virts

BY_HAND = (
    "ip link set {tap} alias wire group 5 allmulticast on gso_max_size 30000 arp off addrgenmode none",
    "ip link set {tap} mtu 1400 txqueuelen 77 promisc on address 02:00:00:00:00:77",
    "ip address add 10.9.9.1/24 dev {tap}",
    "ip address add fd00::9/64 dev {tap} nodad",
    "ip neighbour add 10.9.9.7 lladdr 02:00:00:00:00:07 dev {tap}",
    "tc qdisc replace dev {tap} root handle 8: pfifo limit 55",
    "tc qdisc add dev {tap} clsact",
    "ethtool -K {tap} tx-tcp-segmentation off gro off tx-vlan-stag-hw-insert off",
    "sysctl -q net.ipv4.conf.{tap}.rp_filter=2 net.ipv6.conf.{tap}.hop_limit=9",
)
VERBS = (
    "queue 9 queue 77",
    "mtu 1300 mtu 1400",
    "link 02:00:00:00:00:33 strict -strict exclusive none backlog 5 pace 1 mode 0666",
    "owner nobody group nogroup",
    "antispoof -antispoof persist -persist",
    "filter arp",
    "-filter",
    "history 64K",
    "-history",
    "impair delay 1ms",
    "-impair",
    "carrier open carrier always",
    "taplink 02:00:00:00:00:77 up",
    "inet 10.9.8.1/24 -inet 10.9.8.1",
    "bridge {bridge} -bridge",
)


def seen(mount: Mount, tap: str) -> dict[str, Any]:
    """Return the current values of the settings in BY_HAND."""
    link = told.link(mount, tap, "-details")
    names = ["ifalias", "group", "txqlen", "mtu", "address", "gso_max_size", "allmulti", "promiscuity"]
    features = "tx-tcp-segmentation: tx-tcp6-segmentation: generic-receive-offload: tx-vlan-stag-hw-insert:"
    return {
        "link": {name: link.get(name) for name in names},
        "flags": {"NOARP", "ALLMULTI", "PROMISC", "UP"} & set(link["flags"]),
        "addresses": told.addresses(mount, tap),
        "neighbours": mount.ip(f"neighbour show dev {tap}"),
        "qdiscs": mount.sh(f"tc qdisc show dev {tap}"),
        "wanted": mount.sh(
            f"ethtool -k {tap} | grep -E '{features.replace(' ', '|')}' | sed 's/off .requested on./on/'"
        ),
        "sysctls": mount.sh(f"sysctl net.ipv4.conf.{tap}.rp_filter net.ipv6.conf.{tap}.hop_limit"),
    }


def set_by_hand(mount: Mount, tap: str) -> None:
    for words in BY_HAND:
        mount.sh(words.format(tap=tap))


def test_verbs_leave_it_alone(virts: Virts) -> None:
    virt, other = virts(), virts()
    mount = virt.mount
    mount.ip("link add bridge9 type bridge")
    set_by_hand(mount, virt.tap)
    before = seen(mount, virt.tap)
    for line in VERBS:
        virt.set(line.format(bridge="bridge9"))
        assert seen(mount, virt.tap) == before, line
    for line in ("cable {0} {1}", "uncable {0} {1}", "cable {0} {1} delay 1ms", "uncable {0} {1}"):
        mount.ctl(line.format(virt.unit, other.unit))
        assert seen(mount, virt.tap) == before, line
    text = mount.read(f"{virt.name}/ctl")
    for word in ("mtu 1400", "queue 77", "promisc", "inet 10.9.9.1/24", "inet6 fd00::9/64"):
        assert word in text
    assert mount.read(f"{virt.name}/tap/address") == "02:00:00:00:00:77"
    mount.ip("link del bridge9")


@pytest.mark.parametrize("line", ["create 3 up", "create 3 queue 5 mtu 1300 filter arp", "create 3 carrier open"])
def test_a_tap_that_was_found_keeps_it(alone: Alone, line: str) -> None:
    """After `destroy` its settings are as before."""
    mount = alone()
    mount.ip("tuntap add tap3 mode tap")
    mount.ip("link set tap3 up")
    set_by_hand(mount, "tap3")
    before = seen(mount, "tap3")
    mount.ctl(f"{line}\ncreate 4 up\ncable 3 4")
    mount.ctl("destroy 3")
    assert seen(mount, "tap3") == before
    mount.ip("link del tap3")
