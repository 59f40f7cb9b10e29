"""The upper bound in Python: what client.c does, on the tap's own descriptor, with no file system between.

python raw_tap.py write|read|roundtrip IFNAME SECONDS SIZE|ADDRESS; prints as client.c does. The frames are the same.
The kernel's side is the other way round: here "write" hands a frame to the kernel, "read" takes one from it.
"""

import os
import select
import socket
import struct
import sys
from ipaddress import IPv4Address
from time import perf_counter_ns

from arena import attach

BATCH = 200
LARGEST = 65536
PATIENCE = 0.1
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20  # linux/if_packet.h
BROADCAST, OURS = b"\xff" * 6, b"\x02\0\0\0\0\x02"
IGNORED = BROADCAST + OURS + b"\x88\xb5"


def write_frames(tap: int, budget: int, size: int) -> tuple[int, int]:
    frame, count, start = IGNORED.ljust(size, b"\0"), 0, perf_counter_ns()
    while perf_counter_ns() - start < budget:
        for _ in range(BATCH):
            os.write(tap, frame)
        count += BATCH
    return count, perf_counter_ns() - start


def read_frames(tap: int, budget: int, size: int, ifname: str) -> tuple[int, int]:
    frame, count, spent = IGNORED.ljust(size, b"\0"), 0, 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind((ifname, 0))
        out.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        while spent < budget:
            for _ in range(BATCH):
                out.send(frame)
            start = perf_counter_ns()
            for _ in range(BATCH):
                os.read(tap, LARGEST)
            spent += perf_counter_ns() - start
            count += BATCH
    return count, spent


def arp_request(address: str) -> bytes:
    target = IPv4Address(address)
    fixed = BROADCAST + OURS + struct.pack(">HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1)
    return (fixed + OURS + (target + 1).packed + bytes(6) + target.packed).ljust(60, b"\0")


def answered(tap: int) -> bool:
    """Takes frames up to the ARP reply; False if none comes for a while."""
    while True:
        try:
            frame = os.read(tap, LARGEST)
        except BlockingIOError:
            if not select.select([tap], [], [], PATIENCE)[0]:
                return False
        else:
            if frame[12:22:9] == b"\x08\x02":  # ARP's type and "reply", by one byte each
                return True


def round_trips(tap: int, budget: int, address: str) -> tuple[int, int]:
    request, count = arp_request(address), 0
    # Attaching turns the carrier on, but the tap sends only when linkwatch has seen it (net/core/link_watch.c).
    os.write(tap, request)
    while not answered(tap):
        os.write(tap, request)
    start = perf_counter_ns()
    while perf_counter_ns() - start < budget:
        os.write(tap, request)
        count += answered(tap)
    return count, perf_counter_ns() - start


def main(mode: str, ifname: str, seconds: str, what: str) -> None:
    tap, budget = attach(ifname), int(float(seconds) * 1e9)
    match mode:
        case "write":
            count, spent = write_frames(tap, budget, int(what))
        case "read":
            count, spent = read_frames(tap, budget, int(what), ifname)
        case "roundtrip":
            count, spent = round_trips(tap, budget, what)
        case _:
            raise SystemExit(f'unknown mode "{mode}"')
    print(count, spent)


if __name__ == "__main__":
    main(*sys.argv[1:])
