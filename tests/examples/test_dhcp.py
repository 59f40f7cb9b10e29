"""dhcp_client.py gets an address from dnsmasq, and dhcp_server.py gives one to udhcpc."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness.places import DIR, finished
from harness.serving import ENVIRONMENT, Mount, Virt, frame
from harness.waiting import until

EXAMPLES = Path(__file__).parents[2] / "examples"
CLIENT, SERVER = str(EXAMPLES / "dhcp_client.py"), str(EXAMPLES / "dhcp_server.py")
PIPE = subprocess.PIPE
_NO_ANSWER = "dhcp_client.py: no answer yet; trying for 30 s more\n"
_PIP = f"{sys.executable} -m pip"
# Without -s, the script of the package udhcpc would write to this machine's /etc/resolv.conf.
_SCRIPT = """#!/bin/sh
[ "$1" != bound ] || ip address add "$ip/$mask" dev "$interface"
"""


def lines_of(program: str) -> list[str]:
    """Return the indented lines of a program's head comment, which can be typed."""
    return [line.strip() for line in Path(program).read_text().split('"""')[1].splitlines() if line.startswith("    ")]


def test_the_client(mount: Mount) -> None:
    create, dnsmasq, _ = lines_of(CLIENT)
    mount.sh(f"{create}; mount -t tmpfs -o ro tmpfs /var/lib/misc")  # in virtfs shell, no leases can be written there
    mount.shell(f"exec {dnsmasq.removesuffix(' &')} --no-ping 2>/mnt/served")
    until(lambda: "sockets bound" in mount.sh("cat /mnt/served || true"), "dnsmasq serves")
    running = mount.start(sys.executable, CLIENT, "3", env={**os.environ, "VIRTFS": DIR}, stdout=PIPE, stderr=PIPE)
    output, complaint = finished(running)
    assert complaint in ("", _NO_ANSWER)  # the latter if dnsmasq is slow
    got = re.fullmatch(r"(10\.0\.3\.\d+)/24, router 10\.0\.3\.1, for 3600 s, from 10\.0\.3\.1\n", output)
    assert got, output
    assert f"DHCPACK(tap3) {got[1]} {mount.read('virt3/address')}" in mount.sh("cat /mnt/served")
    mount.end_programs()
    mount.sh("umount /var/lib/misc")


def test_the_client_says_what_is_wrong(virt: Virt) -> None:
    """It survives any frame, tells of a missing answer, and ends when its interface is set down."""
    client = virt.mount.start(sys.executable, CLIENT, f"{DIR}/{virt.name}", stdout=PIPE, stderr=PIPE)
    until(lambda: virt.count("tx_frames") > 0, "a DISCOVER")
    for length in (14, 20, 30, 60, 400):
        virt.host_sends(frame(length)[:12] + b"\x08\x00\x45" + frame(length)[15:])
    until(lambda: virt.count("rx_frames") >= 5, "the client has read the frames")
    until(lambda: virt.count("tx_frames") > 1, "another DISCOVER")
    virt.set("down")
    assert finished(client) == ("", f"{_NO_ANSWER}dhcp_client.py: [Errno 112] Host is down\n")
    assert client.returncode == 1


def _server(virt: Virt, last: str) -> "subprocess.Popen[str]":
    """Start the server, with the addresses from 10.0.3.100 on."""
    words = [sys.executable, SERVER, str(virt.unit), "10.0.3.1/24", "10.0.3.100", last]
    server = virt.mount.start(*words, env={**ENVIRONMENT, "VIRTFS": DIR}, stdout=PIPE, stderr=PIPE)
    virt.mount.sh(f"cat {virt.name}/wait/reader")
    assert server.stdout is not None
    assert server.stdout.readline() == f"10.0.3.1 serves {DIR}/{virt.name}\n"
    return server


def test_the_server(virt: Virt) -> None:
    """It survives any frame, and gives away all of its addresses."""
    mount = virt.mount
    mount.root.call(Path.write_text, Path("/mnt/script"), _SCRIPT)
    mount.sh("chmod +x /mnt/script")
    server = _server(virt, "10.0.3.101")
    for length in (14, 20, 30):
        for kind in (b"\x08\x06", b"\x08\x00\x45"):
            virt.host_sends((frame(14)[:12] + kind + frame(60)[15:])[:length])
    assert server.stdout is not None
    ask = f"busybox udhcpc -fqn -A0 -T1 -t5 -i {virt.tap} -s /mnt/script 2>&1"
    for number, address in enumerate(["10.0.3.100", "10.0.3.101"]):
        mac = f"02:00:00:00:00:0{number}"
        mount.sh(f"ip address flush dev {virt.tap}; ip link set {virt.tap} address {mac}")
        assert f"lease of {address} obtained from 10.0.3.1, lease time 3600" in mount.sh(ask)
        assert server.stdout.readline() == f"{address} offered to {mac}\n"
        assert server.stdout.readline() == f"{address} given to {mac}\n"
        assert f"{address}/24" in mount.ip(f"address show dev {virt.tap}")
    mount.sh("ping -q -c1 -w20 10.0.3.1")
    mount.sh(f"ip link set {virt.tap} address 02:00:00:00:00:02")
    assert "no lease" in mount.sh(f"{ask.replace('-t5', '-t1')} || true")
    os.killpg(server.pid, signal.SIGINT)
    assert finished(server) == ("", "")
    assert server.returncode == 0


@pytest.mark.parametrize(
    ("program", "words", "complaint"),
    [
        (
            CLIENT,
            ["/nowhere"],
            "dhcp_client.py: /nowhere: no such interface: give its number, or the path of its directory\n",
        ),
        (CLIENT, [], "usage: dhcp_client.py NUMBER|DIRECTORY|fd=N\n"),
        (SERVER, [], f"dhcp_server.py: virtfs.scapy needs scapy 2.5 or newer: run `{_PIP} install scapy`\n"),
    ],
)
def test_they_say_what_they_lack(mount: Mount, tmp_path: Path, program: str, words: list[str], complaint: str) -> None:
    (tmp_path / "scapy.py").touch()  # a module without scapy's contents
    path = f"{tmp_path}:{ENVIRONMENT['PYTHONPATH']}"
    running = mount.start(sys.executable, program, *words, env={**ENVIRONMENT, "PYTHONPATH": path}, stderr=PIPE)
    assert finished(running) == ("", complaint)
    assert running.returncode == 1
