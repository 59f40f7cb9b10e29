#!/usr/bin/env python3
"""A scapy session on a frame file: find the MAC address of a host and ping the host.

    echo create 3 up inet 10.0.3.1/24 >/mnt/virt/ctl
    examples/scapy_session.py /mnt/virt/virt3 10.0.3.1 10.0.3.2

asks for the MAC address of 10.0.3.1, as 10.0.3.2. With FrameSocket, scapy's send, sr, sr1, sniff and answering machines
work on a virt as on any interface. `python3 -i examples/scapy_session.py …` gives a prompt with the socket `wire`.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw
from scapy.supersocket import SuperSocket

PATIENCE = 5  # seconds


class FrameSocket(SuperSocket):
    """A frame file as a socket for scapy."""

    desc = "frames of a virt"

    def __init__(self, path: Path) -> None:
        self.file = path.open("r+b", buffering=0)
        self.ins = self.outs = self.file  # type: ignore[assignment]  # scapy needs only fileno and close

    def recv_raw(self, x: int = 65536) -> tuple[Any, bytes, float]:
        """Return the next frame: its scapy class, its bytes, the time of arrival."""
        return Ether, os.read(self.file.fileno(), x), time.time()

    def send(self, x: Packet) -> int:
        """Send a frame. Return its length in bytes."""
        return os.write(self.file.fileno(), bytes(x))


def ask(wire: FrameSocket, own_mac: str, own: str, other: str) -> None:
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
        sys.exit("usage: scapy_session.py .../virtN ADDRESS OWN-ADDRESS")
    virt = Path(sys.argv[1])
    wire = FrameSocket(virt / "frame")
    ask(wire, (virt / "address").read_text().strip(), sys.argv[3], sys.argv[2])
