#!/usr/bin/env python3
"""A web client with its own network stack, over a frame file: ARP, IPv4, TCP and one HTTP request.

    examples/fetch.py 3 10.0.3.2 10.0.3.1 192.0.2.1     # or the interface's directory, /mnt/virt/virt3

sends through the gateway 10.0.3.1 and prints the answer of http://192.0.2.1/. internet.sh sets up such a network.
One read receives one frame, one write sends one. TCP (RFC 9293) is reduced to what one request and its response need:
one segment at a time, retransmitted when no answer comes.
"""

import os
import select
import socket
import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

from responder import ARP, ETHERNET, IPV4, REQUEST, TYPE_ARP, TYPE_IPV4, answer_arp, checksum, find

TCP_HEADER = struct.Struct("!HHIIBBHHH")  # ports, sequence, acknowledged, offset, flags, window, checksum, urgent
TCP = 6
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
ALL = b"\xff" * 6
PATIENCE = 0.5  # seconds until a retransmission
TRIES = 10


class Segment(NamedTuple):
    """The parts of a TCP segment that matter here."""

    sequence: int
    acknowledged: int
    flags: int
    data: bytes


class Stack:
    """A host on the Ethernet behind a frame file, with a gateway as its neighbour."""

    def __init__(self, name: str, address: str, gateway: str) -> None:
        virt, file = find(name)
        self.mac = bytes.fromhex((virt / "address").read_text().replace(":", ""))
        self.ip, self.gateway = socket.inet_aton(address), socket.inet_aton(gateway)
        self.frames = file if isinstance(file, int) else os.open(file, os.O_RDWR)
        self.ready = select.poll()
        self.ready.register(self.frames, select.POLLIN)
        self.next_hop = ALL

    def send(self, to: bytes, kind: int, packet: bytes) -> None:
        """Send a frame."""
        os.write(self.frames, ETHERNET.pack(to, self.mac, kind) + packet)

    def receive(self) -> tuple[int, bytes] | None:
        """Return the type and payload of the next frame, or None after PATIENCE seconds. Answer ARP requests."""
        if not self.ready.poll(PATIENCE * 1000):
            return None
        frame = os.read(self.frames, 65553)
        _, source, kind = ETHERNET.unpack_from(frame)
        packet = frame[ETHERNET.size :]
        if kind == TYPE_ARP and (said := answer_arp(packet, self.mac, self.ip)):
            self.send(source, TYPE_ARP, said)
        return kind, packet

    def resolve(self) -> None:
        """Find the gateway's MAC address by ARP (RFC 826)."""
        for _ in range(TRIES):
            self.send(ALL, TYPE_ARP, ARP.pack(1, TYPE_IPV4, 6, 4, REQUEST, self.mac, self.ip, bytes(6), self.gateway))
            while received := self.receive():
                if received[0] == TYPE_ARP:
                    *_, sender, sender_ip, _, _ = ARP.unpack_from(received[1])
                    if sender_ip == self.gateway:
                        self.next_hop = sender
                        return
        raise TimeoutError("the gateway does not answer")

    def send_ip(self, to: bytes, protocol: int, payload: bytes) -> None:
        """Send a packet through the gateway."""
        fields = [0x45, 0, IPV4.size + len(payload), 0, 0x4000, 64, protocol, 0, self.ip, to]
        fields[7] = checksum(IPV4.pack(*fields))
        self.send(self.next_hop, TYPE_IPV4, IPV4.pack(*fields) + payload)

    def receive_ip(self, source: bytes, protocol: int) -> bytes | None:
        """Return the payload of the next packet from `source` to us, or None after PATIENCE seconds."""
        while received := self.receive():
            kind, packet = received
            if kind == TYPE_IPV4:
                version, _, length, _, fragment, _, its, _, sender, to = IPV4.unpack_from(packet)
                if (its, sender, to, fragment & 0x3FFF) == (protocol, source, self.ip, 0):
                    return packet[(version & 15) * 4 : length]
        return None


class Connection:
    """The client's end of a TCP connection."""

    def __init__(self, stack: Stack, server: str, port: int) -> None:
        self.stack, self.server = stack, socket.inet_aton(server)
        self.ours, self.theirs = 49152 + int.from_bytes(os.urandom(2)) % 16384, port
        self.sequence, self.expected = int.from_bytes(os.urandom(4)), 0

    def send(self, flags: int, data: bytes = b"") -> None:
        """Send a segment at the current sequence number."""
        head = [self.ours, self.theirs, self.sequence, self.expected, 5 << 4, flags, 65535, 0, 0]
        size = TCP_HEADER.size + len(data)
        pseudo = self.stack.ip + self.server + struct.pack("!HH", TCP, size)
        head[7] = checksum(pseudo + TCP_HEADER.pack(*head) + data)
        self.stack.send_ip(self.server, TCP, TCP_HEADER.pack(*head) + data)

    def receive(self) -> Segment | None:
        """Return the next segment of this connection, or None after PATIENCE seconds."""
        while (packet := self.stack.receive_ip(self.server, TCP)) is not None:
            theirs, ours, sequence, acknowledged, offset, flags, *_ = TCP_HEADER.unpack_from(packet)
            if (theirs, ours) == (self.theirs, self.ours):
                if flags & RST:
                    raise ConnectionRefusedError("the server refuses or resets the connection")
                return Segment(sequence, acknowledged, flags, packet[(offset >> 4) * 4 :])
        return None

    def say(self, flags: int, data: bytes = b"") -> Segment:
        """Send a segment again and again until it is acknowledged. Return the segment with the acknowledgement."""
        after = (self.sequence + len(data) + bool(flags & (SYN | FIN))) & 0xFFFFFFFF
        for _ in range(TRIES):
            self.send(flags, data)
            while segment := self.receive():
                if segment.flags & ACK and segment.acknowledged == after:
                    self.sequence = after
                    return segment
        raise TimeoutError("the server does not answer")

    def open(self) -> None:
        """Do the three-way handshake."""
        self.expected = (self.say(SYN).sequence + 1) & 0xFFFFFFFF
        self.send(ACK)

    def ask(self, question: bytes) -> Iterator[bytes]:
        """Send a request. Yield the response in pieces until the server closes the connection."""
        segment: Segment | None = self.say(PSH | ACK, question)
        early: dict[int, Segment] = {}  # segments that came out of order, by sequence number
        silence = 0
        while silence < TRIES:
            silence = 0 if segment else silence + 1
            if segment:
                early[segment.sequence] = segment
            while here := early.pop(self.expected, None):
                self.expected = (self.expected + len(here.data)) & 0xFFFFFFFF
                yield here.data
                if here.flags & FIN:
                    self.expected = (self.expected + 1) & 0xFFFFFFFF
                    self.say(FIN | ACK)
                    return
            self.send(ACK)
            segment = self.receive()
        raise TimeoutError("the server has stopped sending before the end of its response")


def main(name: str, address: str, gateway: str, server: str) -> None:
    """Print the server's front page."""
    stack = Stack(name, address, gateway)
    stack.resolve()
    connection = Connection(stack, server, 80)
    connection.open()
    answer = b"".join(connection.ask(f"GET / HTTP/1.0\r\nHost: {server}\r\n\r\n".encode()))
    sys.stdout.buffer.write(answer.partition(b"\r\n\r\n")[2])


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit("usage: fetch.py NUMBER|DIRECTORY|fd=N ADDRESS GATEWAY SERVER")
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        sys.exit(f"fetch.py: {error}")
