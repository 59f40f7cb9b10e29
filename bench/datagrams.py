"""UDP datagrams that are sent and received many at a time (udp(7): UDP_SEGMENT, UDP_GRO), as HTTP/3 servers do.

    datagrams.py receive PORT SECONDS       print "bound", then the bits received per second
    datagrams.py send ADDRESS PORT SECONDS

A kernel before Linux 5.0 has neither option.
"""

import socket
import sys
import time

UDP_SEGMENT, UDP_GRO = 103, 104  # linux/udp.h
SIZE, TOGETHER = 1448, 44  # bytes of a datagram; datagrams in one call, which have a little less than 64 KiB


def receive(port: int, seconds: float) -> None:
    """Receive until `seconds` after the first datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        receiver.bind(("", port))
        receiver.settimeout(seconds)
        print("bound", flush=True)
        room, count = bytearray(1 << 16), receiver.recv_into(bytearray(1 << 16))
        begin = time.monotonic()
        try:
            while (spent := time.monotonic() - begin) < seconds:
                count += receiver.recv_into(room)
        except TimeoutError:
            spent = seconds
        print(count * 8 / spent)


def send(address: str, port: int, seconds: float) -> None:
    """Send for `seconds`, even if the receiver has ended: an unconnected socket reports no ICMP errors."""
    data = bytes(SIZE * TOGETHER)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_UDP, UDP_SEGMENT, SIZE)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sender.sendto(data, (address, port))


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(int(sys.argv[2]), float(sys.argv[3]))
    else:
        send(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
