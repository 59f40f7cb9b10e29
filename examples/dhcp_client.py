#!/usr/bin/env python3
"""A DHCP client on a frame file: asks for an address, and prints it.

    echo ensure 3 up inet 10.0.3.1/24 >/mnt/virt/ctl
    dnsmasq -d --port=0 --interface=tap3 --bind-dynamic --leasefile-ro --dhcp-range=10.0.3.100,10.0.3.200 &
    examples/dhcp_client.py 3                   # or the interface's directory, /mnt/virt/virt3

The server is dnsmasq (Debian: dnsmasq-base), on the host's end of the wire. The client needs only the files `address`
and `frame`, so the owner of the interface can run it without root. It follows RFC 2131: an OFFER answers its DISCOVER,
and an ACK its REQUEST. To be the host with this address, start responder.py.
"""

import os
import select
import struct
import sys
import time
from ipaddress import ip_interface
from socket import inet_ntoa

from responder import ETHERNET, IPV4, TYPE_IPV4, checksum, find

UDP, UDP_HEADER = 17, struct.Struct("!HHHH")  # ports of source and destination, length, checksum (0: none)
BOOTP = struct.Struct("!BBBBIHH4s4s4s4s16s64x128x4s")  # … transaction, seconds, flags, four addresses, MAC, magic
MAGIC = bytes([99, 130, 83, 99])
TO_SERVER, TO_CLIENT, BROADCAST = 1, 2, 0x8000
ALL, NOBODY = b"\xff" * 6, bytes(4)
# Options (RFC 2132) and values of MESSAGE
MASK, ROUTER, ASKED, SECONDS, MESSAGE, SERVER, WANTED, END = 1, 3, 50, 51, 53, 54, 55, 255
DISCOVER, OFFER, REQUEST, ACK, NAK = 1, 2, 3, 5, 6
PATIENCE, TRIES = 1.0, 5  # seconds until the first retransmission, which doubles each time; number of transmissions


class Client:
    """A client behind a frame file."""

    def __init__(self, name: str) -> None:
        virt, file = find(name)
        self.mac = bytes.fromhex((virt / "address").read_text().replace(":", ""))
        self.frames = file if isinstance(file, int) else os.open(file, os.O_RDWR)
        self.transaction = int.from_bytes(os.urandom(4))

    def send(self, message: int, options: dict[int, bytes]) -> None:
        """Broadcast a message, from nobody, since the client has no address yet."""
        all_options = {MESSAGE: bytes([message]), WANTED: bytes([MASK, ROUTER, SECONDS]), **options}
        head = [TO_SERVER, 1, 6, 0, self.transaction, 0, BROADCAST, NOBODY, NOBODY, NOBODY, NOBODY, self.mac, MAGIC]
        body = BOOTP.pack(*head) + b"".join(bytes([code, len(value)]) + value for code, value in all_options.items())
        datagram = UDP_HEADER.pack(68, 67, UDP_HEADER.size + len(body) + 1, 0) + body + bytes([END])
        fields = [0x45, 0, IPV4.size + len(datagram), 0, 0, 64, UDP, 0, NOBODY, b"\xff" * 4]
        fields[7] = checksum(IPV4.pack(*fields))
        os.write(self.frames, ETHERNET.pack(ALL, self.mac, TYPE_IPV4) + IPV4.pack(*fields) + datagram)

    def received(self, frame: bytes) -> tuple[bytes, dict[int, bytes]] | None:
        """Return the address and the options in a frame, or None if it is no answer to this client."""
        packet = frame[ETHERNET.size :]
        if ETHERNET.unpack_from(frame)[2] != TYPE_IPV4 or packet[9] != UDP:
            return None
        datagram = packet[(packet[0] & 15) * 4 :]
        operation, _, _, _, transaction, _, _, _, address, *_, magic = BOOTP.unpack_from(datagram, UDP_HEADER.size)
        if (operation, transaction, magic) != (TO_CLIENT, self.transaction, MAGIC):
            return None
        options, rest = {}, datagram[UDP_HEADER.size + BOOTP.size :]
        while rest and rest[0] != END:
            if rest[0] == 0:  # padding
                rest = rest[1:]
            else:
                options[rest[0]], rest = rest[2 : 2 + rest[1]], rest[2 + rest[1] :]
        return address, options

    def ask(self, message: int, options: dict[int, bytes], answers: set[int]) -> tuple[bytes, dict[int, bytes]]:
        """Send a message until one of the answers arrives. Return its address and options."""
        for attempt in range(TRIES):
            if attempt == 1:
                left = PATIENCE * (2**TRIES - 2)
                print(f"dhcp_client.py: no answer yet; trying for {left:.0f} s more", file=sys.stderr)
            self.send(message, options)
            end = time.monotonic() + PATIENCE * 2**attempt
            while select.select([self.frames], [], [], max(0, end - time.monotonic()))[0]:
                try:
                    received = self.received(os.read(self.frames, 65553))
                except (struct.error, IndexError):
                    continue  # truncated or malformed
                if received and received[1].get(MESSAGE, b"\0")[0] in answers:
                    return received
        raise TimeoutError("no DHCP server answers")


def main(name: str) -> None:
    """Print the address, the router and the length of the lease."""
    client = Client(name)
    address, offer = client.ask(DISCOVER, {}, {OFFER})
    address, lease = client.ask(REQUEST, {ASKED: address, SERVER: offer[SERVER]}, {ACK, NAK})
    if lease[MESSAGE][0] == NAK:
        sys.exit("dhcp_client.py: the server has taken its offer back")
    own = ip_interface(f"{inet_ntoa(address)}/{inet_ntoa(lease[MASK])}")
    router = f", router {inet_ntoa(lease[ROUTER][:4])}" if ROUTER in lease else ""
    print(f"{own}{router}, for {int.from_bytes(lease[SECONDS])} s, from {inet_ntoa(lease[SERVER])}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: dhcp_client.py NUMBER|DIRECTORY|fd=N")
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        sys.exit(130)
    except KeyError as missing:
        sys.exit(f"dhcp_client.py: the server's answer lacks option {missing}")
    except OSError as error:
        sys.exit(f"dhcp_client.py: {error}")
