#!/usr/bin/env python3
"""A scapy session on a frame file: find the MAC address of a host and ping the host.

    echo ensure 3 up inet 10.0.3.1/24 >/mnt/virt/ctl
    examples/scapy_session.py 3 10.0.3.1 10.0.3.2       # or the interface's directory, /mnt/virt/virt3

needs the Python of virtfs (doc/python.md) with scapy: put `.venv/bin/python` before the second line. It asks for the
MAC address of 10.0.3.1, as 10.0.3.2. With virtfs.scapy.VirtSocket, scapy's send, sr, sr1, sniff and answering machines
work on a virt as on any interface. With `.venv/bin/python -i`, it gives a prompt with the socket `wire`.
"""

import sys

try:
    from virtfs.scapy import VirtSocket  # the first import, since it says which scapy is needed
except ImportError as error:
    advice = (
        ": run it with the Python of virtfs (doc/python.md), such as .venv/bin/python" if error.name == "virtfs" else ""
    )
    sys.exit(f"scapy_session.py: {error}{advice}")

from responder import find
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

PATIENCE = 5  # seconds


def ask(wire: VirtSocket, own_mac: str, own: str, other: str) -> None:
    """Send an ARP request, then a ping."""
    who_has = Ether(src=own_mac, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=own_mac, psrc=own, pdst=other)
    found = wire.sr1(who_has, timeout=PATIENCE, verbose=False)
    if found is None:
        sys.exit(f"{other} does not answer the ARP request")
    mac = found[ARP].hwsrc
    print(f"{other} is at {mac}")

    ping = Ether(src=own_mac, dst=mac) / IP(src=own, dst=other) / ICMP() / Raw(b"hello from a file")
    answer = wire.sr1(ping, timeout=PATIENCE, verbose=False)
    if answer is None:
        sys.exit(f"{other} does not answer the ping")
    print(answer.summary())


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: scapy_session.py NUMBER|DIRECTORY ADDRESS OWN-ADDRESS")
    try:
        virt, _ = find(sys.argv[1])
        wire = VirtSocket(virt)
        ask(wire, (virt / "address").read_text().strip(), sys.argv[3], sys.argv[2])
    except OSError as error:
        sys.exit(f"scapy_session.py: {error}")
