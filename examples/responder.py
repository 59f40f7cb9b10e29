#!/usr/bin/env python3
"""A host in Python: answers ARP and ping for one address, over a frame file or on the tap itself.

    echo ensure 3 up inet 10.0.3.1/24 >/mnt/virt/ctl
    examples/responder.py 3 10.0.3.2 &                      # or virt3, or its directory, /mnt/virt/virt3
    ping -c 3 10.0.3.2
    virtfs exec 3 -- examples/responder.py fd=3 10.0.3.2    # instead of the second line: on the tap itself

One read receives one frame, one write sends one; the rest is RFC 826 (ARP), 791 (IP) and 792 (ICMP).
"""

import errno
import os
import re
import socket
import struct
import sys
from pathlib import Path

ETHERNET = struct.Struct("!6s6sH")  # destination, source, type
ARP = struct.Struct("!HHBBH6s4s6s4s")  # Ethernet, IPv4, 6, 4, operation, sender's MAC and IP, target's MAC and IP
IPV4 = struct.Struct("!BBHHHBBH4s4s")  # … time to live, protocol, checksum, source, destination
TYPE_ARP, TYPE_IPV4 = 0x0806, 0x0800
REQUEST, REPLY = 1, 2
ICMP, ECHO_REQUEST, ECHO_REPLY = 1, 8, 0


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    total = sum(data[0::2]) * 256 + sum(data[1::2])
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def answer_arp(packet: bytes, mac: bytes, ip: bytes) -> bytes | None:
    """Return the answer to an ARP request for `ip`, or None for any other packet."""
    hardware, protocol, _, _, operation, sender, sender_ip, _, wanted = ARP.unpack_from(packet)
    if operation != REQUEST or wanted != ip:
        return None
    return ARP.pack(hardware, protocol, 6, 4, REPLY, mac, ip, sender, sender_ip)


def answer_ping(packet: bytes, ip: bytes) -> bytes | None:
    """Return the echo reply to an echo request for `ip`, or None for any other packet."""
    version, tos, length, ident, fragment, _, protocol, _, source, destination = IPV4.unpack_from(packet)
    header = (version & 15) * 4
    if protocol != ICMP or destination != ip or fragment & 0x3FFF or packet[header] != ECHO_REQUEST:
        return None
    echo = bytes([ECHO_REPLY, 0, 0, 0]) + packet[header + 4 : length]
    echo = echo[:2] + checksum(echo).to_bytes(2, "big") + echo[4:]
    fields = [0x45, tos, IPV4.size + len(echo), ident, 0, 64, ICMP, 0, ip, source]
    fields[7] = checksum(IPV4.pack(*fields))
    return IPV4.pack(*fields) + echo


def answer(frame: bytes, mac: bytes, ip: bytes) -> bytes | None:
    """Return the answer to a frame, from a host with these addresses, or None if it does not answer."""
    _, source, kind = ETHERNET.unpack_from(frame)
    packet = frame[ETHERNET.size :]
    said = None
    if kind == TYPE_ARP:
        said = answer_arp(packet, mac, ip)
    elif kind == TYPE_IPV4:
        said = answer_ping(packet, ip)
    return ETHERNET.pack(source, mac, kind) + said if said else None


def find(name: str) -> tuple[Path, Path | int]:
    """Return the directory of an interface, and what to open: its frame file, or the descriptor of `virtfs exec`.

    The other examples in Python use this function, too.

    name: the number of the interface, its name, the path of its directory, or fd=N.
    """
    numbered = re.fullmatch(r"(fd=|virt)?([0-9]+)", name)
    if numbered and not (numbered[1] == "virt" and os.path.exists(name)):
        number = int(numbered[2])
        if numbered[1] != "fd=":
            name = f"{os.environ.get('VIRTFS') or '/mnt/virt'}/virt{number}"  # set by virtfs shell
        elif virt := os.environ.get(f"VIRTFS_FD{number}"):  # set by virtfs exec
            return Path(virt), number
        else:
            raise OSError(f"{name}: not a descriptor of virtfs exec")
    try:
        os.stat(f"{name}/frame")
    except (FileNotFoundError, NotADirectoryError):
        hint = "no such interface: give its number, or the path of its directory"
        raise OSError(f"{name}: {hint}") from None
    return Path(name), Path(name, "frame")


def main(name: str, address: str) -> None:
    """Answer until the interface is set down or destroyed, which makes read fail."""
    ip = socket.inet_aton(address)
    virt, file = find(name)
    mac = bytes.fromhex((virt / "address").read_text().replace(":", ""))
    with open(file, "r+b", buffering=0) as frames:
        while frame := frames.read(65553):
            try:
                if said := answer(frame, mac, ip):
                    frames.write(said)
            except (struct.error, IndexError):
                continue  # truncated or malformed


if __name__ == "__main__":
    if len(sys.argv) != 3 or not re.fullmatch("fd=[0-9]+|(?!fd=).+", sys.argv[1]):
        print("usage: responder.py NUMBER|DIRECTORY|fd=N ADDRESS", file=sys.stderr)
        sys.exit(2)
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(0)
    except OSError as error:
        if error.errno in (errno.EFAULT, errno.EBADFD):
            sys.exit(f"responder.py: {sys.argv[1]}: the tap is gone")
        busy = "; another program has it (in virtfs exec, give fd=3 instead)" if error.errno == errno.EBUSY else ""
        sys.exit(f"responder.py: {error}{busy}")
