#!/usr/bin/env python3
"""A DHCP server by scapy on a frame file: the host's end of the wire asks it for an address.

    echo ensure 3 up >/mnt/virt/ctl
    examples/dhcp_server.py 3 10.0.3.1/24 10.0.3.100 10.0.3.199 &     # or the interface's directory
    busybox udhcpc -fqn -i tap3 -s /bin/true

The server is 10.0.3.1 and offers 10.0.3.100 to 10.0.3.199, until Ctrl-C. With -s, udhcpc (Debian: busybox) only prints
what it gets; without it, the script of the package udhcpc also sets address and /etc/resolv.conf. The tap can be in any
network namespace. Needs the Python of virtfs with scapy (`.venv/bin/python -m pip install scapy`), but no root: the
owner of the interface can run it.

scapy's answering machine DHCP_am makes the answers. This program adds what scapy takes from the kernel's tables
elsewhere, such as the source addresses, and answers ARP and ping as responder.py does.
"""

import struct
import sys
from ipaddress import ip_address, ip_interface
from socket import inet_aton
from typing import Any

try:
    from virtfs.scapy import VirtSocket  # the first import, since it says which scapy is needed
except ImportError as error:
    advice = (
        ": run it with the Python of virtfs (doc/python.md), such as .venv/bin/python" if error.name == "virtfs" else ""
    )
    sys.exit(f"dhcp_server.py: {error}{advice}")

from responder import answer, find
from scapy.layers.dhcp import BOOTP, DHCP, DHCP_am
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

OFFER, ACK = 2, 5
VERBS = {OFFER: "offered to", ACK: "given to"}
FOR_ROUTERS = ("router", "name_server")  # options that the server leaves out, since it neither routes nor resolves


def option(packet: Packet, name: str) -> Any:
    """Return an option of a DHCP message, or None."""
    return next((one[1] for one in packet[DHCP].options if one[0] == name), None)


class Server(DHCP_am):
    """A host with the address `gw`, which gives others to its neighbours."""

    mac: str

    def is_request(self, frame: Packet) -> bool:
        """Return whether make_reply might answer a frame."""
        return Ether in frame

    def make_reply(self, frame: Packet) -> Packet | None:
        """Return the answer to a frame, or None if there is none."""
        if DHCP not in frame:
            try:
                said = answer(frame.original, bytes.fromhex(self.mac.replace(":", "")), inet_aton(self.gw))
            except (struct.error, IndexError):
                return None  # truncated or malformed
            return Ether(said) if said else None
        if option(frame, "message-type") not in (1, 3) or option(frame, "server_id") not in (None, self.gw):
            return None  # neither DISCOVER nor REQUEST, or for another server
        if frame.src not in self.leases and not self.pool:
            return None  # all addresses are taken
        reply: Packet = super().make_reply(frame)  # type: ignore[no-untyped-call]
        reply.src, reply[IP].src = self.mac, self.gw
        reply[BOOTP].ciaddr = reply[BOOTP].giaddr = "0.0.0.0"
        reply[DHCP].options = [one for one in reply[DHCP].options if one[0] not in FOR_ROUTERS]
        return reply

    def print_reply(self, frame: Packet, reply: Packet) -> None:
        """Print a line for each offer and each lease."""
        if DHCP in reply:
            print(reply[BOOTP].yiaddr, VERBS[option(reply, "message-type")], frame.src, flush=True)


def main(name: str, own: str, first: str, last: str) -> None:
    """Serve until the interface is set down or destroyed, or until Ctrl-C."""
    virt, _ = find(name)
    here = ip_interface(own)
    pool = [str(ip_address(number)) for number in range(int(ip_address(first)), int(ip_address(last)) + 1)]
    with VirtSocket(virt) as wire:
        server = wire.am(Server, gw=str(here.ip), network=str(here.network), pool=pool, lease_time=3600)
        server.mac = (virt / "address").read_text().strip()
        print(f"{here.ip} serves {virt}", flush=True)
        server()


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit("usage: dhcp_server.py NUMBER|DIRECTORY ADDRESS/LENGTH FIRST LAST")
    try:
        main(*sys.argv[1:])
    except (OSError, ValueError) as error:
        sys.exit(f"dhcp_server.py: {error}")
