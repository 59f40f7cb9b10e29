"""inject compared with tcpreplay: its speed, and how exactly it keeps the recorded timing.

The speed is measured with frames of the smallest size, and with frames of mixed lengths (lengths.py).

tcpreplay can send in two ways. The usual one is a packet socket, here on one end of a veth pair, so that the host
receives the frames at the other end. If the interface is called tapN, tcpreplay writes to a tap that it opens,
as inject does.
"""

import contextlib
import socket
import statistics
import struct
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from arena import RUN, make_tap
from lab import LAST, QUEUE, SIZE, SUBJECT, Lab, ip, remove, run
from lengths import MIXTURES

FRAMES = 200_000
PACED, APART = 500, 3_000_000  # frames, and the ns between two of them
IGNORED = b"\xff" * 6 + b"\x02\0\0\0\0\x02" + b"\x88\xb5"  # a broadcast with an EtherType that the kernel ignores
SOL_SOCKET, SO_TIMESTAMPNS = socket.SOL_SOCKET, 35  # asm-generic/socket.h
ETH_P_ALL = 3
SOCKET, OWN = "tcpreplay, packet socket", "tcpreplay, tap of its own"


def measure(lab: Lab) -> None:
    """Measure and print the part "inject": the smallest frames."""
    with _ends(lab):
        _compare(lab, "as fast as possible", [SIZE] * FRAMES)


def measure_mixed(lab: Lab) -> None:
    """Measure and print the part "inject-mixed": frames of mixed lengths."""
    with _ends(lab):
        for mixture, lengths in MIXTURES.items():
            _compare(lab, f"as fast as possible, {mixture}", lengths(FRAMES))


def measure_pace(lab: Lab) -> None:
    """Measure and print the part "pace": the send times of a replay with the recorded timing."""
    with _ends(lab):
        _measure_drift(lab)


@contextlib.contextmanager
def _ends(lab: Lab) -> Iterator[None]:
    """Create the interfaces of virtfs and of tcpreplay."""
    lab.ctl("create 3 up")
    lab.server.pin([LAST])
    ip("link add replay type veth peer name replayed")
    for end in ("replay", "replayed"):
        ip(f"link set {end} addrgenmode none up")
    make_tap("tap998", "10.78.1.1", QUEUE)
    try:
        yield
    finally:
        lab.ctl("destroy 3")
        ip("link del replay")
        ip("link del tap998")


def _compare(lab: Lab, what: str, lengths: Sequence[int]) -> None:
    file = RUN / "fast.pcap"
    file.write_bytes(pcap(lengths, 1000))
    rivals: dict[str, Callable[[], float]] = {
        SUBJECT: lambda: _inject(lab, file),
        SOCKET: lambda: _tcpreplay("replay", file),
        OWN: lambda: _tcpreplay("tap998", file),
    }
    lab.compare(f"inject: {what}", "frames/s", lab.rounds_of(rivals), {SOCKET: 1.0})
    remove(file)


def _measure_drift(lab: Lab) -> None:
    slow = RUN / "slow.pcap"
    slow.write_bytes(pcap([SIZE] * PACED, APART))
    lab.ctl("virt3 pace 1")
    drifts: dict[str, Callable[[], tuple[float, float, float]]] = {
        SUBJECT: lambda: _drift("tap3", lambda: _inject(lab, slow)),
        SOCKET: lambda: _drift("replay", lambda: _tcpreplay("replay", slow, topspeed=False)),
    }
    offs = {name: [figure() for _ in range(lab.rounds)] for name, figure in drifts.items()}
    for what, index in (("last frame", 0), ("median", 1), ("largest", 2)):
        samples = {name: [off[index] for off in rounds] for name, rounds in offs.items()}
        seconds = PACED * APART / 1e9
        lab.within(f"pace 1: error of the send times in a replay of {seconds:.1f} s, {what}", "ms", samples, 0)
    remove(slow)


def pcap(lengths: Iterable[int], apart: int) -> bytes:
    """Return a pcap file of frames of these lengths that are `apart` ns apart (pcap-savefile(5), with nanoseconds)."""
    pieces = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)]
    record = struct.Struct("<IIII")
    for number, length in enumerate(lengths):
        pieces.append(record.pack(*divmod(number * apart, 1_000_000_000), length, length))
        pieces.append(IGNORED.ljust(length, b"\0"))
    return b"".join(pieces)


def _inject(lab: Lab, file: Path) -> float:
    """Return the frames sent per second, by the time that dd reports: a write(2) returns when its frames are sent."""
    dd = ["dd", f"if={file}", f"of={lab.server.directory}/virt3/inject", "bs=1M"]
    told = run("taskset", "-c", LAST, "env", "LC_ALL=C", *dd, stderr=subprocess.STDOUT)
    return FRAMES / float(told.split(" copied, ")[1].split()[0])


def _tcpreplay(ifname: str, file: Path, topspeed: bool = True) -> float:
    """Return the packets sent per second, as tcpreplay reports: without the time to open the interface and the file."""
    told = run("taskset", "-c", LAST, "tcpreplay", *(["-t"] if topspeed else []), "-i", ifname, file)
    rate = next(line for line in told.splitlines() if line.startswith("Actual:"))
    packets, seconds = int(rate.split()[1]), float(rate.split(" in ")[1].split()[0])
    return packets / seconds


def _drift(ifname: str, replay: Callable[[], object]) -> tuple[float, float, float]:
    """Return the errors of the send times in ms: of the last frame, the median and the largest.

    An error is measured by the kernel's time stamps, against the first frame's time plus the recorded distance.
    """
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
