"""Each block of doc/works-with.md works as described.

The tests run its lines, and add only what the lines presuppose (a program, a certificate, a
container).
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import compiled
from harness.places import Place
from harness.serving import Mount, frame
from harness.waiting import until

from .markdown import ROOT, blocks, section

_MORE = (ROOT / "doc/works-with.md").read_text()
_SECTION = section(_MORE, "In a few lines")
_CREATE = re.findall(r"`(echo ensure .*?)`", _SECTION)[0]
_LINES = {
    re.split("[:,']", comment)[0].removeprefix("A "): commands
    for comment, _, commands in (part[2:].partition("\n") for part in blocks(_SECTION)[0].text.split("\n\n"))
}
_SLOW = pytest.mark.timeout(120)


def more(heading: str) -> list[str]:
    """Return the blocks of a section of doc/works-with.md."""
    return [block.text for block in blocks(section(_MORE, heading)) if block.language == "sh"]


@pytest.fixture
def host(mount: Mount) -> Mount:
    """Return a mount with the page's interface 3."""
    mount.sh(_CREATE)
    return mount


@pytest.fixture
def hosts(alone: Callable[..., Mount]) -> Iterator[tuple[Mount, Mount]]:
    yield from hosts_of(alone)


def hosts_of(alone: Callable[..., Mount]) -> Iterator[tuple[Mount, Mount]]:
    """Yield two machines, 192.0.2.1 and 192.0.2.2, each with an interface 3, whose taps have 10.0.3.1 and 10.0.3.2."""
    both = alone(), alone()
    both[0].ip(f"link add name wire0 type veth peer name wire1 netns {both[1].pid}")
    for number, here in enumerate(both):
        here.ip(f"address add 192.0.2.{number + 1}/24 dev wire{number}")
        here.ip(f"link set wire{number} up")
        here.sh(_CREATE.replace("10.0.3.1", f"10.0.3.{number + 1}"))
    yield both
    both[0].ip("link delete wire0")


AS_DAEMON = "setpriv --reuid=1 --regid=1 --clear-groups"


def with_virtfs(host: Mount, line: str) -> str:
    """Return a line that runs `virtfs` as the user daemon, from a copy of this checkout that every user can read."""
    host.sh(f"mountpoint -q /mnt/checkout || {{ mkdir /mnt/checkout; mount --rbind {ROOT} /mnt/checkout; }}")
    return line.replace("virtfs exec", f"env PYTHONPATH=/mnt/checkout {AS_DAEMON} {sys.executable} -m virtfs exec")


def start(place: Place, commands: str) -> "subprocess.Popen[str]":
    """Run commands in /mnt, which is empty. The last one replaces the shell, and keeps running."""
    *before, last = commands.strip().splitlines()
    return place.start("bash", "-c", "\n".join(["cd /mnt", *before, f"exec {last}"]), stdin=subprocess.DEVNULL)


def test_all_of_them_are_tried() -> None:
    assert list(_LINES) == ["QEMU", "socket", "lwIP", "slirp4netns", "socat", "VXLAN", "container", "dnsmasq", "scapy"]
    assert {line for line in re.findall("^## (.*)", _MORE, re.MULTILINE) if more(line)} == {
        "In a few lines", "Native speed", "Sockets", "Programs that open /dev/net/tun", "slirp4netns", "socat", "VXLAN",
        "scapy",
    }  # fmt: skip


def test_an_address_from_dnsmasq(host: Mount) -> None:
    host.sh("mount -t tmpfs -o ro tmpfs /var/lib/misc")  # in virtfs shell, no leases can be written there
    start(host, f"{_LINES['dnsmasq'].strip()} --no-ping 2>/mnt/served")
    until(lambda: "sockets bound" in host.sh("cat /mnt/served || true"), "dnsmasq serves")
    got = host.sh(f"{sys.executable} {ROOT}/examples/dhcp_client.py virt3")
    assert re.match(r"10\.0\.3\.\d+/24, ", got)
    host.end_programs()
    host.sh("umount /var/lib/misc")


def test_qemu_over_frame(host: Mount) -> None:
    """examples/pxe.sh boots over it."""
    exchanges_frames(host, _LINES["QEMU"].strip(), lambda: "1" in host.sh("cat virt3/wait/reader"))


@pytest.mark.parametrize("commands", [_LINES["socket"], more("Sockets")[0]], ids=["stream", "dgram"])
def test_qemu_over_a_socket(host: Mount, commands: str) -> None:
    cable, _, qemu = commands.replace("/tmp/", "/mnt/").strip().partition("\n")
    host.sh(cable)
    exchanges_frames(host, qemu, lambda: '"state": "connected"' in host.read("status.json"))


def exchanges_frames(host: Mount, qemu: str, connected: Callable[[], bool]) -> None:
    """Assert that QEMU sends and receives frames.

    The firmware halts the processor of the virtual machine at once. QEMU itself sends and records frames.
    """
    host.sh("(head -c 65520 /dev/zero; printf '\\372\\364'; head -c 14 /dev/zero) >/mnt/halt")  # cli, hlt
    more = "-bios /mnt/halt -display none -monitor stdio -object filter-dump,id=d,netdev=n,file=/mnt/dump"
    machine = host.start("bash", "-c", f"{qemu} {more} >/mnt/screen 2>&1", stdin=subprocess.PIPE)
    assert machine.stdin is not None
    until(connected, "QEMU is connected")
    machine.stdin.write("announce_self\n")
    machine.stdin.flush()
    until(lambda: host.read("virt3/stats/tx_frames") != "0", "a frame from QEMU")
    host.sh("ping -c1 -W0.1 10.0.3.2 >/dev/null || true")
    until(lambda: "who-has 10.0.3.2" in host.sh("tcpdump -nr /mnt/dump arp 2>/dev/null || true"), "a frame to QEMU")


def test_passt(host: Mount) -> None:
    """A program in the namespace reads from a server that listens only on an address of the host."""
    host.sh("ip netns add far; ip link add up0 type veth peer name up1; ip address add 192.0.2.9/24 dev up0")
    host.sh("ip link set up1 up; ip link set up0 up; ip route add default via 192.0.2.1")
    host.sh("mkdir -m 777 /mnt/open; echo hello >/mnt/page")
    start(host, "socat -U TCP-LISTEN:8000,bind=192.0.2.9,reuseaddr OPEN:/mnt/page")
    start(host, more("Sockets")[1].replace("/tmp/", "/mnt/open/").strip() + " 2>/mnt/said")
    until(lambda: '"state": "connected"' in host.read("status.json"), "passt is connected")
    assert host.sh("ip netns exec far socat -u TCP:192.0.2.9:8000 -") == "hello\n"
    host.end_programs()
    host.sh("ip netns delete far; ip link delete up0; rm -r /mnt/open")


def test_slirp4netns_over_a_socket(host: Mount) -> None:
    start(host, more("Sockets")[2].replace("/tmp/", "/mnt/").strip() + " >/mnt/said 2>&1")
    until(lambda: '"state": "connected"' in host.read("status.json"), "slirp4netns is connected")
    host.sh("ping -q -c1 -w20 10.0.2.2")


def test_two_hosts_over_tcp(hosts: tuple[Mount, Mount]) -> None:
    there, here = more("Sockets")[3:]
    hosts[1].sh(there)
    hosts[0].sh(here)
    until(lambda: '"state": "connected"' in hosts[0].read("status.json"), "the hosts are connected")
    reach_each_other(hosts)


@pytest.fixture(scope="module")
def lwip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled.example("lwip", tmp_path_factory.mktemp("lwip"))


@pytest.mark.parametrize("way", ["frame", "bind", "exec"])
def test_lwip(host: Mount, lwip: Path, way: str) -> None:
    """The owner of the interface runs it, without root."""
    host.sh(f"echo virt3 owner daemon >ctl; cp {lwip} /mnt")
    line = {
        "frame": f"{AS_DAEMON} {_LINES['lwIP'].strip()}",
        "bind": more("Programs that open /dev/net/tun")[1].replace("exec ", f"exec {AS_DAEMON} "),
        "exec": with_virtfs(host, more("Programs that open /dev/net/tun")[0]),
    }[way]
    start(host, line.replace("examples/c/lwip", "/mnt/lwip"))
    host.sh("cat virt3/wait/reader; ping -q -c2 -i0.1 -w20 10.0.3.2")
    assert host.sh("echo hello, lwIP | socat -t5 - TCP:10.0.3.2:7") == "hello, lwIP\n"


def test_the_readme_has_lines_of_this_page() -> None:
    """So the tests of this page run them."""
    (block,) = [one.text for one in blocks((ROOT / "README.md").read_text()) if "qemu-system" in one.text]
    assert [line for line in block.splitlines() if line not in _MORE] == []


@pytest.mark.parametrize("at", [0, 1], ids=["plain", "header"])
def test_qemu_accepts_the_descriptor(host: Mount, at: int) -> None:
    """examples/pxe.sh boots over it."""
    host.sh("echo virt3 owner daemon >ctl")
    line = with_virtfs(host, more("Native speed")[at].strip())
    command = f"{line} -S -display none -monitor stdio -nodefaults <<<'info network\nquit'"
    output = host.sh(f"cd /mnt; {command}", seconds=60)
    assert "type=tap,fd=3" in output
    assert " fd " not in output


def test_slirp4netns(host: Mount) -> None:
    """A program in the namespace reads from a server that listens only on an address of the host."""
    host.sh("ip netns add far; ip address add 192.0.2.9/32 dev lo; echo hello >/mnt/page")
    start(host, "socat -U TCP-LISTEN:8000,bind=192.0.2.9,reuseaddr OPEN:/mnt/page")
    start(host, f"{_LINES['slirp4netns'].strip()} >/mnt/said 2>&1")
    host.sh("cat virt3/wait/reader; until ss -Hltn | grep -q :8000; do :; done")
    assert host.sh("ip netns exec far socat -u TCP:192.0.2.9:8000 -") == "hello\n"
    host.end_programs()
    host.sh("ip netns delete far; ip address delete 192.0.2.9/32 dev lo")


def test_slirp4netns_for_a_shell(host: Mount) -> None:
    """The block works for any existing namespace, here that of a shell."""
    shell = host.start("unshare", "--net", "cat", stdin=subprocess.PIPE)
    until(lambda: Path(f"/proc/{shell.pid}/comm").read_text() == "cat\n", "a shell in its namespace")
    start(host, more("slirp4netns")[0].replace("$PID", str(shell.pid)).strip() + " >/mnt/said 2>&1")
    inside = f"nsenter --target {shell.pid} --net"
    host.sh(f"until {inside} ip route | grep -q default; do :; done; {inside} ping -q -c1 -w20 10.0.2.2")


def connected(hosts: tuple[Mount, Mount]) -> None:
    """Assert that the machines reach each other once a program has opened the frame file."""
    hosts[0].sh("cat virt3/wait/reader")
    reach_each_other(hosts)


def reach_each_other(hosts: tuple[Mount, Mount]) -> None:
    """Assert that the machines reach each other over their taps, with small and full-sized frames."""
    hosts[0].sh("ping -q -c2 -i0.1 -w20 10.0.3.2; ping -q -c50 -i0.002 -s1472 -w20 10.0.3.2")
    hosts[1].sh("ping -q -c2 -i0.1 -w20 10.0.3.1")


def test_socat_over_udp(hosts: tuple[Mount, Mount]) -> None:
    start(hosts[1], _LINES["socat"].replace("192.0.2.2", "192.0.2.1"))
    start(hosts[0], _LINES["socat"])
    hosts[1].sh("cat virt3/wait/reader")
    connected(hosts)


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_socat_over_a_byte_stream(hosts: tuple[Mount, Mount], tls: bool) -> None:
    tcp_there, tcp_here, certificate, tls_there, tls_here = more("socat")
    if tls:
        hosts[0].sh(f"cd /mnt; {certificate.strip()} 2>/dev/null")
        for name in ("lab.key", "lab.crt"):
            text = hosts[0].sh(f"cat /mnt/{name}")
            hosts[1].sh(f"cat >/mnt/{name} <<'EOT'\n{text}EOT")
    start(hosts[1], tls_there if tls else tcp_there)
    hosts[1].sh("until ss -Hltn | grep -q :555; do :; done")
    start(hosts[0], tls_here if tls else tcp_here)
    hosts[1].sh("cat virt3/wait/reader")
    connected(hosts)


def test_vxlan(hosts: tuple[Mount, Mount]) -> None:
    """A frame written to one machine's frame file is read from the other machine's."""
    for number, here in enumerate(hosts):
        here.sh(_LINES["VXLAN"].replace("192.0.2.2", f"192.0.2.{2 - number}"))
    near, far = (host.root.open("virt3/frame") for host in hosts)
    near.write(frame(1400))
    until(lambda: far.read() == frame(1400), "the frame")
    (block,) = more("VXLAN")
    for number, here in enumerate(hosts, 1):
        # The page's interface has 10.0.3.1 on both machines.
        here.sh(f"echo virt3 -inet 10.0.3.{number} inet 10.0.3.1/24 >ctl")
        here.sh(block.replace("inet 10.0.3.1/24", f"inet 10.0.3.{number}/24"))
    hosts[0].sh("ping -q -c1 -w20 10.0.3.2")
    for host in hosts:
        host.sh("echo destroy bridge0 >ctl; ip link delete vxlan7")


def test_a_container(host: Mount) -> None:
    """The container has the tap; its frames are read outside. A shell function `docker` prints the container's PID."""
    container = host.start("unshare", "--net", "cat", stdin=subprocess.PIPE)
    until(lambda: Path(f"/proc/{container.pid}/comm").read_text() == "cat\n", "a container")
    docker = f'docker() {{ test "$*" = "inspect -f {{{{.State.Pid}}}} NAME" && echo {container.pid}; }}'
    host.sh(f"{docker}\n{_LINES['container']}")
    assert "10.7.0.2/24" in host.sh(f"nsenter --target {container.pid} --net ip -brief address show dev tap7")
    assert host.sh(
        f"dd if=virt7/frame bs=2048 count=1 status=none | xxd -p -l 6 & cat virt7/wait/reader\n"
        f"nsenter --target {container.pid} --net ping -c1 -W1 10.7.0.3 >/dev/null; wait"
    ).split() == ["1", "ffffffffffff"]


@_SLOW
def test_scapy(host: Mount) -> None:
    command = _LINES["scapy"].replace("examples/", f"{ROOT}/examples/").replace(".venv/bin/python", sys.executable)
    output = host.sh(f"echo 'print(wire.desc)' | {command}", seconds=60)
    assert "10.0.3.1 is at" in output
    assert "echo-reply" in output
    assert "frames of a virt" in output


@_SLOW
def test_scapy_reads_a_capture(host: Mount) -> None:
    program = host.shell(more("scapy")[0].replace("python3", sys.executable), stdout=subprocess.PIPE)
    until(lambda: " pcap " in host.read("virt3/clients"), "scapy reads", 60)
    host.sh("ping -c1 -W1 10.0.3.2 || true")
    assert program.stdout is not None
    assert "ARP who has 10.0.3.2 says 10.0.3.1" in program.stdout.readline()
