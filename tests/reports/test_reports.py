"""ifconfig, status.json and metrics, compared with `ip` and the other files."""

import json
from typing import Any

import pytest
from harness.fixtures import Alone
from harness.places import Place
from harness.serving import Mount, Virt, Virts, frame
from harness.waiting import until
from prometheus_client.parser import text_string_to_metric_families

REPORTS = ["ifconfig", "status.json", "topology", "metrics"]


def shown(virt: Virt) -> list[str]:
    """Return the lines of ifconfig about an interface."""
    lines = virt.mount.read("ifconfig").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"{virt.name}:"))
    rest = next((n for n in range(first + 1, len(lines)) if not lines[n].startswith("\t")), len(lines))
    return lines[first:rest]


def status(virt: Virt) -> dict[str, Any]:
    """Return the object of status.json about an interface."""
    return next(one for one in json.loads(virt.mount.read("status.json"))["virts"] if one["name"] == virt.name)


def metrics(virt: Virt) -> dict[str, float]:
    """Return the values of metrics about an interface, by name."""
    families = text_string_to_metric_families(virt.mount.read("metrics") + "\n")
    return {s.name: s.value for family in families for s in family.samples if s.labels.get("virt") == virt.name}


def test_without_interfaces(mount: Mount) -> None:
    assert mount.read("ifconfig") == ""
    told = json.loads(mount.read("status.json"))
    assert (told["virts"], told["bridges"]) == ([], [])
    assert f"virtfs {told['version']}" == mount.read("version").partition(",")[0]
    assert f'virtfs_info{{mount="/mnt/virt",version="{told["version"]}"}} 1.0' in mount.read("metrics").splitlines()


@pytest.mark.parametrize("name", REPORTS)
def test_everybody_may_read_and_nobody_write(mount: Mount, name: str) -> None:
    assert mount.sh(f"stat -c %a {name}", uid=1000) == "444\n"
    mount.sh(f"cat {name}", uid=1000)
    assert "Permission denied" in mount.refused(f"echo >{name}", uid=1000)


@pytest.mark.parametrize("name", REPORTS)
def test_interfaces_are_in_order(mount: Mount, virts: Virts, name: str) -> None:
    mount.ctl("create 1010\ncreate 1002")
    text = mount.read(name)
    assert 0 <= text.index("virt1002") < text.index("virt1010")


def test_ifconfig_shows_what_the_verbs_set(virts: Virts) -> None:
    virt = virts("")
    assert shown(virt)[0] == f"{virt.name}: flags=0x8802<BROADCAST,SIMPLEX,MULTICAST> mtu 1500"
    virt.set("up mtu 1400 link b2:0a:00:0b:0e:77 inet 10.77.0.1/24 inet6 fe80::77/64 description a printer")
    assert shown(virt) == [
        f"{virt.name}: flags=0x8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> mtu 1400",
        '\tdescription: "a printer"',
        "\taddress: b2:0a:00:0b:0e:77",
        "\tstatus: active",
        "\tinet 10.77.0.1/24 broadcast 10.77.0.255 flags 0",
        f"\tinet6 fe80::77%{virt.name}/64 flags 0 scopeid {int(virt.read('tap/index')):#x}",
    ]


def test_ifconfig_shows_what_ip_did(virt: Virt) -> None:
    ip = virt.mount.ip
    ip("link add bridge9 type bridge")
    try:
        ip(f"link set {virt.tap} master bridge9 mtu 1300")
        ip(f"address add 10.78.0.1/30 dev {virt.tap}")
        first, *rest = shown(virt)
        assert first == f"{virt.name}: flags=0x8943<UP,BROADCAST,RUNNING,PROMISC,SIMPLEX,MULTICAST> mtu 1300"
        assert rest[-1] == "\tinet 10.78.0.1/30 broadcast 10.78.0.3 flags 0"
    finally:
        ip("link del bridge9")
    ip(f"link set {virt.tap} down")
    assert shown(virt)[0].startswith(f"{virt.name}: flags=0x8802<")
    assert virt.read("tap/carrier") == "1"
    assert "\tstatus: active" in shown(virt)


def test_status_is_what_ip_and_the_files_say(virts: Virts) -> None:
    virt = virts("up mtu 1400 inet 10.79.0.1/24 owner daemon mode 0660 strict")
    told = status(virt)
    assert (told["owner"], told["owner_name"], told["group_name"], told["mode"]) == (1, "daemon", "root", "0660")
    (kernels,) = json.loads(virt.mount.ip(f"-json address show dev {virt.tap}"))
    tap = told["tap"]
    assert (tap["name"], tap["index"], tap["mtu"]) == (kernels["ifname"], kernels["ifindex"], kernels["mtu"])
    assert (tap["address"], tap["up"]) == (kernels["address"], "UP" in kernels["flags"])
    assert tap["addresses"] == [f"{one['local']}/{one['prefixlen']}" for one in kernels["addr_info"]]
    assert (told["strict"], told["up"], told["address"]) == (True, True, virt.read("address"))


def test_status_of_a_lost_one(virt: Virt) -> None:
    virt.mount.ip(f"link del {virt.tap}")
    assert (status(virt)["lost"], status(virt)["up"]) == (True, False)
    assert metrics(virt)["virtfs_up"] == 0
    assert not any("inet" in line for line in shown(virt))


def test_status_of_a_bridge(virt: Virt) -> None:
    virt.mount.ctl(f"create bridge9 add {virt.name} up")
    try:
        (told,) = json.loads(virt.mount.read("status.json"))["bridges"]
        assert (told["name"], told["up"], [member["name"] for member in told["members"]]) == (
            "bridge9",
            True,
            [virt.tap],
        )
        assert status(virt)["tap"]["bridge"] == "bridge9"
    finally:
        virt.mount.ctl("destroy bridge9")


def test_metrics_and_status_are_what_stats_say(virt: Virt) -> None:
    file = virt.open()
    virt.host_sends(frame(100), frame(200))
    for size in (100, 200):
        assert len(file.read()) == size
    for length in (60, 10, 3000):
        file.write(frame(length))
    stats = status(virt)["stats"]
    assert (stats["rx_frames"], stats["rx_bytes"], stats["tx_frames"], stats["tx_bytes"]) == (2, 300, 1, 60)
    assert (stats["tx_dropped"], stats["tx_short"], stats["tx_oversize"]) == (2, 1, 1)
    assert {name: virt.count(name) for name in stats} == stats
    told = metrics(virt)
    assert {name: told[f"virtfs_{name}_total"] for name in stats} == stats
    assert (told["virtfs_readers"], told["virtfs_mtu_bytes"], told["virtfs_carrier"]) == (1, 1500, 1)


@pytest.mark.parametrize("away", [False, True], ids=["at home", "in another namespace"])
def test_what_the_kernel_dropped_is_counted_at_the_first_look(virt: Virt, elsewhere: Place, away: bool) -> None:
    """The kernel counts the drops of a full tap queue, and sends no notification about them."""
    host: Place = virt.mount
    if away:
        virt.mount.ip(f"link set {virt.tap} netns {elsewhere.pid}")
        elsewhere.ip(f"link set {virt.tap} up")
        host = elsewhere
    virt.set("queue 4")
    virt.open()
    before = metrics(virt)["virtfs_rx_dropped_total"]
    host.ip(f"address add 10.80.0.1/24 dev {virt.tap}")
    host.ip(f"neighbour add 10.80.0.2 lladdr 02:00:00:00:00:09 dev {virt.tap}")
    host.sh("for n in {1..20}; do echo $n >/dev/udp/10.80.0.2/9; done")
    assert metrics(virt)["virtfs_rx_dropped_total"] >= before + 16

    def alike() -> bool:
        of_status, of_metrics = status(virt)["stats"]["rx_dropped"], metrics(virt)["virtfs_rx_dropped_total"]
        return bool(of_status == of_metrics == virt.count("rx_dropped"))

    until(alike, "all three files agree")  # the host may send an IPv6 frame between two of the reads


def test_a_scrape_of_many_is_one_question(mount: Mount) -> None:
    """The text about 200 interfaces takes several read(2) calls, but is a snapshot of one moment."""
    mount.ctl("\n".join(f"create {unit}" for unit in range(2000, 2200)))
    families = list(text_string_to_metric_families(mount.sh("cat metrics")))
    by_virt = [family for family in families if any("virt" in sample.labels for sample in family.samples)]
    assert {len(family.samples) for family in by_virt} == {200}
    assert len(json.loads(mount.sh("cat status.json"))["virts"]) == 200


def test_a_stat_of_metrics_does_not_load_the_library(alone: Alone) -> None:
    """Loading it takes 25 ms, so the first read loads it in a thread. Yet the file is never taken for an empty one."""
    place = alone()
    assert place.sh("stat -c %s metrics") == "15\n"  # "# not read yet"
    assert "# HELP virtfs_" in place.sh("tar -c metrics | tar -xO")
    assert int(place.sh("stat -c %s metrics")) > 1000
    assert place.end() == 0
