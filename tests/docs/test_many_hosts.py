"""The lines of doc/many-hosts.md join two machines."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator

import pytest
from harness.serving import Mount, frame
from harness.waiting import until

from .markdown import ROOT, blocks, section
from .test_works_with import hosts_of

_PAGE = (ROOT / "doc/many-hosts.md").read_text()


def lines(heading: str) -> list[str]:
    """Return the blocks of a section."""
    return [block.text for block in blocks(section(_PAGE, heading))]


@pytest.fixture
def hosts(alone: Callable[..., Mount]) -> Iterator[tuple[Mount, Mount]]:
    yield from hosts_of(alone)


def on_the_other(block: str) -> str:
    """Return lines for 192.0.2.1 with the addresses of 192.0.2.2."""
    for one, two in (("192.0.2.1", "192.0.2.2"), ("10.99.0.1", "10.99.0.2")):
        block = block.replace(one, "HERE").replace(two, one).replace("HERE", two)
    return block.replace("10.0.4.1", "10.0.4.2")


def test_vxlan(hosts: tuple[Mount, Mount]) -> None:
    (block,) = lines("Bridges with VXLAN ports")
    hosts[0].sh(block)
    hosts[1].sh(on_the_other(block))
    hosts[0].sh("ping -q -c1 -w20 10.0.4.2; ping -q -c1 -s 1422 -M do -w20 10.0.4.2")
    near, far = (host.root.open("virt3/frame") for host in hosts)
    near.write(frame(1400))
    until(lambda: far.read() == frame(1400), "the frame")
    for host in hosts:
        host.sh("echo destroy bridge0 >ctl; ip link delete vxlan7")


def test_the_address_of_a_bridge_stays(hosts: tuple[Mount, Mount]) -> None:
    """Without the line of the page, the bridge takes the lower address of its new port, and pings are lost."""
    (sets,) = re.findall(r"`(ip link set bridge0 .*?)`", _PAGE)
    (block,) = lines("Bridges with VXLAN ports")
    hosts[0].sh(f"{block}{sets}")
    hosts[1].sh(on_the_other(block))
    hosts[1].sh("ping -q -c1 -w20 10.0.4.1")
    hosts[0].sh("echo create 5 up taplink 00:00:00:00:00:01 bridge bridge0 >ctl")
    hosts[1].sh("ping -q -c1 -W20 10.0.4.1")
    hosts[0].sh("echo destroy 5 >ctl")
    hosts[1].sh("ping -q -c1 -W20 10.0.4.1")
    for host in hosts:
        host.sh("echo destroy bridge0 >ctl; ip link delete vxlan7")


def test_cable(hosts: tuple[Mount, Mount]) -> None:
    there, here = lines("Cables over TCP")
    hosts[0].sh(here)
    hosts[1].sh(there)
    hosts[0].sh("ping -q -c2 -i0.1 -w20 10.0.3.2; ping -q -c1 -s 1472 -M do -w20 10.0.3.2")


def test_the_cable_of_the_readme(hosts: tuple[Mount, Mount]) -> None:
    (block,) = [one.text for one in blocks((ROOT / "README.md").read_text()) if "cable 3 tcp" in one.text]
    there, here = re.split("(?=echo .*# in that of the other)", block)
    hosts[0].sh(there)
    assert re.search("[1-3] received", hosts[1].sh(here))


def start_frr(host: Mount, configuration: str) -> None:
    """Start zebra and bgpd, as FRR's frrinit.sh does if `bgpd=yes` is in /etc/frr/daemons."""
    host.sh(f"mkdir /mnt/frr; cat >/mnt/frr/frr.conf <<'E'\n{configuration}\nE\nchown -R frr:frr /mnt/frr")
    host.sh("vtysh -C -f /mnt/frr/frr.conf")
    for daemon in ("zebra", "bgpd"):
        places = ["--vty_socket", "/mnt/frr", "-z", "/mnt/frr/zserv.api", "-i", f"/mnt/frr/{daemon}.pid"]
        host.start(f"/usr/lib/frr/{daemon}", "-P0", *places, "-f", "/mnt/frr/frr.conf", stderr=subprocess.DEVNULL)
        host.sh(f"until test -S /mnt/frr/{daemon}.vty; do sleep 0.05; done")


@pytest.mark.timeout(120)
def test_evpn(hosts: tuple[Mount, Mount]) -> None:
    """The second machine is the route reflector too, so that two are enough."""
    block, configuration = lines("EVPN through FRR")
    hosts[0].sh(block)
    hosts[1].sh(on_the_other(block))
    hosts[1].ip("address add 192.0.2.254/24 dev wire1")
    reflector = configuration.replace(" neighbor 192.0.2.254 peer-group fabric\n", "").replace(
        "  neighbor fabric activate\n", "  neighbor fabric activate\n  neighbor fabric route-reflector-client\n"
    )
    assert reflector.count("fabric") == configuration.count("fabric")
    start_frr(hosts[1], reflector)
    hosts[1].sh("until ss -Hltn | grep -q :179; do sleep 0.05; done")
    start_frr(hosts[0], configuration)
    hosts[0].root.open("virt3/frame").write(frame(60))
    (bridge,) = json.loads(hosts[0].ip("-json link show bridge0"))
    for address in (frame()[6:12].hex(":"), bridge["address"]):
        show = "vtysh --vty_socket /mnt/frr -c 'show evpn mac vni 7'"
        hosts[1].sh(f"until {show} | grep -q '{address} remote *192.0.2.1'; do sleep 0.2; done", seconds=60)
    hosts[1].sh("ping -q -c1 -w20 10.0.4.1")
    for host in hosts:
        host.sh("echo destroy bridge0 >ctl; ip link delete vxlan7")


def test_wireguard(hosts: tuple[Mount, Mount]) -> None:
    """wireguard-go takes the place of a kernel without WireGuard."""
    (block,) = lines("WireGuard below")
    create = "ip link add wg0 type wireguard\n"
    before, _, after = block.partition(create)
    keys = []
    for host in hosts:
        host.sh("mkdir -p /run/wireguard; for dir in /etc /run; do mount -t tmpfs tmpfs $dir/wireguard; done")
        if host.sh(f"{create.strip()} 2>/dev/null && echo yes || echo no") == "no\n":
            host.start("wireguard-go", "-f", "wg0", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            host.sh("until test -S /run/wireguard/wg0.sock; do sleep 0.05; done")
        keys.append(host.sh(f"{before}wg pubkey </etc/wireguard/key").strip())
    hosts[0].sh(f"PEER_KEY={keys[1]}\n{after}")
    hosts[1].sh(f"PEER_KEY={keys[0]}\n{on_the_other(after)}")
    hosts[0].sh("ping -q -c1 -w20 -M do -s 1392 10.99.0.2")
    (vxlan,) = lines("Bridges with VXLAN ports")
    through = vxlan.replace("192.0.2", "10.99.0").replace("1450", "1370")
    hosts[0].sh(through)
    hosts[1].sh(on_the_other(through))
    hosts[0].sh("ping -q -c1 -w20 -M do -s 1342 10.0.4.2")
    for host in hosts:
        host.sh("echo destroy bridge0 >ctl; ip link delete vxlan7; ip link delete wg0")
