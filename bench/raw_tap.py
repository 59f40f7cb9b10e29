"""The upper bound for Python: the work of client.c on the tap's own descriptor, without a file system.

python raw_tap.py write|read|roundtrip IFNAME SECONDS SIZE|ADDRESS. The frames and the output are those of client.c.
The modes are named from the program's point of view: "write" sends a frame to the host, "read" receives one from it.
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
PATIENCE = 0.1  # seconds
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
    """Read frames up to and including the ARP reply. Return false if no frame arrives for PATIENCE seconds."""
    while True:
        try:
            frame = os.read(tap, LARGEST)
        except BlockingIOError:
            if not select.select([tap], [], [], PATIENCE)[0]:
                return False
        else:
            if frame[12:22:9] == b"\x08\x02":  # one byte of the type (0x0806) and one of the operation (2)
                return True


def round_trips(tap: int, budget: int, address: str) -> tuple[int, int]:
    request, count = arp_request(address), 0
    # Attaching turns the carrier on, but the host sends nothing before linkwatch has processed the change
    # (net/core/link_watch.c).
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
