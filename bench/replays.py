"""inject beside tcpreplay: how fast, and how true to the recording.

tcpreplay knows two ways to send: through a packet socket, here out of a veth whose other end receives as the tap's host
does, and, if its interface is called tapN, through a tap of its own, which is what inject does.
"""

import socket
import statistics
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

from arena import RUN, make_tap
from lab import LAST, QUEUE, SIZE, SUBJECT, Lab, ip, remove, run

FRAMES = 200_000
PACED, APART = 500, 3_000_000  # frames, and ns between them
IGNORED = b"\xff" * 6 + b"\x02\0\0\0\0\x02" + b"\x88\xb5"  # a broadcast of a type that no protocol takes
SOL_SOCKET, SO_TIMESTAMPNS = socket.SOL_SOCKET, 35  # asm-generic/socket.h
ETH_P_ALL = 3
SOCKET, OWN = "tcpreplay, packet socket", "tcpreplay, tap of its own"


def measure(lab: Lab) -> None:
    """All of it."""
    file, slow = RUN / "fast.pcap", RUN / "slow.pcap"
    file.write_bytes(pcap(FRAMES, 1000))
    slow.write_bytes(pcap(PACED, APART))
    lab.ctl("create 3 up")
    lab.server.pin([LAST])
    ip("link add replay type veth peer name replayed")
    for end in ("replay", "replayed"):
        ip(f"link set {end} addrgenmode none up")
    make_tap("tap998", "10.78.1.1", QUEUE)
    rivals: dict[str, Callable[[], float]] = {
        SUBJECT: lambda: _inject(lab, file),
        SOCKET: lambda: _tcpreplay("replay", file),
        OWN: lambda: _tcpreplay("tap998", file),
    }
    lab.compare("inject: as fast as it goes", "frames/s", lab.rounds_of(rivals), {SOCKET: 1.0})
    lab.ctl("virt3 pace 1")
    drifts: dict[str, Callable[[], tuple[float, float, float]]] = {
        SUBJECT: lambda: _drift("tap3", lambda: _inject(lab, slow)),
        SOCKET: lambda: _drift("replay", lambda: _tcpreplay("replay", slow, topspeed=False)),
    }
    offs = {name: [figure() for _ in range(lab.rounds)] for name, figure in drifts.items()}
    for what, index in (("the last frame's", 0), ("the median", 1), ("the largest", 2)):
        samples = {name: [off[index] for off in rounds] for name, rounds in offs.items()}
        seconds = PACED * APART / 1e9
        lab.within(f"pace 1: {what} distance from the recorded time, {seconds:.1f} s", "ms", samples, 0)
    lab.ctl("destroy 3")
    ip("link del replay")
    ip("link del tap998")
    remove(file)
    remove(slow)


def pcap(frames: int, apart: int) -> bytes:
    """Smallest frames, so many ns apart (pcap-savefile(5), with nanoseconds)."""
    head = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
    frame = IGNORED.ljust(SIZE, b"\0")
    record = struct.Struct("<IIII")
    return head + b"".join(
        record.pack(*divmod(n * apart, 1_000_000_000), SIZE, SIZE) + frame for n in range(frames)
    )


def _inject(lab: Lab, file: Path) -> float:
    """By dd's own clock, as the rivals by theirs; a write(2) returns when its frames have been sent."""
    dd = ["dd", f"if={file}", f"of={lab.server.directory}/virt3/inject", "bs=1M"]
    told = run("taskset", "-c", LAST, "env", "LC_ALL=C", *dd, stderr=subprocess.STDOUT)
    return FRAMES / float(told.split(" copied, ")[1].split()[0])


def _tcpreplay(ifname: str, file: Path, topspeed: bool = True) -> float:
    """By its own clock, which leaves out how long it takes to start: the interface and the file."""
    told = run("taskset", "-c", LAST, "tcpreplay", *(["-t"] if topspeed else []), "-i", ifname, file)
    rate = next(line for line in told.splitlines() if line.startswith("Actual:"))
    packets, seconds = int(rate.split()[1]), float(rate.split(" in ")[1].split()[0])
    return packets / seconds


def _drift(ifname: str, replay: Callable[[], object]) -> tuple[float, float, float]:
    """ms: of the last frame, and of all frames the median and the largest. By the kernel's time stamps."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as sniffer:
        sniffer.setsockopt(SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sniffer.setsockopt(SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        sniffer.bind((ifname, ETH_P_ALL))
        sniffer.settimeout(0)
        replay()
        times: list[int] = []
        while len(times) < PACED:
            frame, ancillary, _, _ = sniffer.recvmsg(2048, 128)
            if frame.startswith(IGNORED):
                seconds, nanoseconds = struct.unpack("qq", ancillary[0][2][:16])
                times.append(seconds * 1_000_000_000 + nanoseconds)
    late = [abs(time - times[0] - n * APART) / 1e6 for n, time in enumerate(times)]
    return late[-1], statistics.median(late), max(late)
