"""DHCP over a cable with common programs: dnsmasq is the server, udhcpc a client that uses a packet socket.

While the cable's offload is on, UDP checksums are not computed, as over a veth pair. Readers of a packet socket are
told so by TP_STATUS_CSUMNOTREADY (packet(7)), which DHCP clients honour. Other programs see a wrong checksum.
"""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from harness.places import finished
from harness.serving import Mount
from harness.waiting import until

from .conftest import Hosts
from .hosts import Host

Pair = tuple[Host, Host]

# Prints for each answer of the server whether its checksum is right, and whether TP_STATUS_CSUMNOTREADY is set.
_WATCH = """
import socket, struct, sys
packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
packets.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA
packets.bind((sys.argv[1], 3))
print("listening", flush=True)
while True:
    frame, extra, _, _ = packets.recvmsg(2048, 100)
    if frame[12:14] == b"\\x08\\0" and frame[23] == 17 and frame[34:38] == struct.pack(">HH", 67, 68):
        (status,) = struct.unpack_from("I", extra[0][2])
        udp = frame[34 : 34 + int.from_bytes(frame[38:40], "big")]
        summed = frame[26:34] + struct.pack(">HH", 17, len(udp)) + udp + bytes(len(udp) % 2)
        right = sum(struct.unpack(f">{len(summed) // 2}H", summed)) % 0xFFFF == 0
        print("right" if right else "wrong", "unready" if status & 8 else "ready", flush=True)
"""


@pytest.fixture
def pair(mount: Mount, hosts: Hosts) -> Iterator[Pair]:
    """A DHCP server, a client without an address, and a cable between them."""
    server, client = hosts(1), hosts(2)
    mount.ctl("cable 1 2")
    client.place.ip(f"address flush dev {client.tap}")
    words = f"--no-daemon --conf-file=/dev/null --port=0 --user=root --pid-file= --interface={server.tap} --no-ping"
    words += " --bind-interfaces --dhcp-range=10.0.0.50,10.0.0.60,1h --dhcp-leasefile=/mnt/leases"
    dnsmasq = server.place.start("dnsmasq", *words.split(), stderr=subprocess.PIPE)
    assert dnsmasq.stderr is not None
    until(lambda: "bound" in dnsmasq.stderr.readline(), "dnsmasq listens")  # type: ignore[union-attr]
    yield server, client
    dnsmasq.terminate()
    finished(dnsmasq)


def asked(client: Host) -> set[str]:
    """Run udhcpc until it has an address. Returns what _WATCH printed for the answers."""
    watch = client.place.start(sys.executable, "-c", _WATCH, client.tap, stdout=subprocess.PIPE)
    assert watch.stdout is not None
    assert watch.stdout.readline() == "listening\n"
    script = f'#!/bin/sh\n[ "$1" != bound ] || ip address add $ip/24 dev {client.tap}\n'
    client.place.sh(f"cat >/mnt/script <<'END'\n{script}END\nchmod +x /mnt/script")
    client.place.sh(f"busybox udhcpc -i {client.tap} -n -q -f -t 5 -T 1 -s /mnt/script")
    seen = [watch.stdout.readline(), watch.stdout.readline()]  # the offer, the acknowledgement
    watch.terminate()
    finished(watch)
    return {line.strip() for line in seen}


def test_with_offload(pair: Pair) -> None:
    """The checksum is not computed, and the kernel says so. udhcpc accepts the answers."""
    server, client = pair
    assert asked(client) == {"wrong unready"}
    assert client.ping(server, 1).complete


def test_with_somebody_who_reads(pair: Pair) -> None:
    server, client = pair
    reader = server.open(os.O_RDONLY)
    assert asked(client) == {"right ready"}
    reader.close()


def test_with_the_server_s_checksums_turned_on_by_hand(pair: Pair) -> None:
    """A setting made with ethtool survives when the cable's offload returns after a reader has closed."""
    server, client = pair
    server.place.sh(f"ethtool -K {server.tap} tx off")
    assert asked(client) == {"right ready"}
    reader = server.open(os.O_RDONLY)
    server.until("next", "0")
    reader.close()
    until(lambda: "frame" not in server.read("clients"), "nobody reads")
    assert asked(client) == {"right ready"}
    server.place.sh(f"ethtool -K {server.tap} tx on")
    assert asked(client) == {"wrong unready"}
