"""pcap compared with tcpdump -w, each with its defaults, while the host sends frames.

The frames are of the smallest size, or of mixed lengths (lengths.py).

The sender has one CPU, the capture the other. Two rates are measured: the frames captured per second while the sender
sends as fast as one CPU can, and the highest steady rate without a lost frame, found by bisection.
"""

import re
import signal
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from arena import RUN
from lab import LAST, SIZE, SUBJECT, Lab, attached, pause, program, remove, until
from lengths import MIXTURES

SECONDS = 0.5
HALVINGS = 6  # steps of the bisection
LENGTHS = 1000  # number of lengths in a mixture, which are sent in turn
RIVAL = "tcpdump -w"
SNIFFED = "sniffed"  # the rival's tap
_PACKET = 6  # type of an enhanced packet block
_QUIET = 0.3  # seconds without a new byte, after which the file is taken as complete
_RING = 1.2  # seconds; the kernel hands tcpdump a block of its ring that is not full after 1 s


@dataclass(frozen=True)
class Taken:
    """The result of a capture: frames sent, frames captured, and the seconds that sending took."""

    sent: int
    captured: int
    seconds: float


Capture = Callable[[float], Taken]  # its argument is the frames to send per second; 0 means as fast as one CPU can


def measure(lab: Lab) -> None:
    """Measure and print the part "pcap": the smallest frames."""
    _compare(lab, "", [SIZE])


def measure_mixed(lab: Lab) -> None:
    """Measure and print the part "pcap-mixed": frames of mixed lengths."""
    for mixture, lengths in MIXTURES.items():
        _compare(lab, f", {mixture}", lengths(LENGTHS))


def _compare(lab: Lab, of: str, lengths: Sequence[int]) -> None:
    with attached(SNIFFED):
        lab.ctl("create 3 up")
        captures: dict[str, Capture] = {
            SUBJECT: lambda rate: _virtfs(lab, rate, lengths),
            RIVAL: lambda rate: _tcpdump(lab, rate, lengths),
        }
        full = lab.rounds_of({name: _captured(capture) for name, capture in captures.items()})
        lab.compare(f"pcap: captured while one CPU sends as fast as it can{of}", "frames/s", full, {})
        whole = lab.rounds_of({name: _highest(capture) for name, capture in captures.items()})
        lab.compare(f"pcap: highest steady rate without a lost frame{of}", "frames/s", whole, {RIVAL: 1.0})
        lab.ctl("destroy 3")


def _captured(capture: Capture) -> Callable[[], float]:
    def figure() -> float:
        taken = capture(0)
        return taken.captured / taken.seconds

    return figure


def _highest(capture: Capture) -> Callable[[], float]:
    """Return a function that finds the highest rate without a lost frame, or 0 if every rate tried lost frames."""

    def figure() -> float:
        taken = capture(0)
        low, high = 0.0, taken.sent / taken.seconds
        if taken.captured >= taken.sent:
            return high
        for _ in range(HALVINGS):
            rate = (low + high) / 2
            taken = capture(rate)
            if taken.captured >= taken.sent:
                low = taken.sent / taken.seconds
            else:
                high = rate
        return low

    return figure


def _virtfs(lab: Lab, rate: float, lengths: Sequence[int]) -> Taken:
    file = RUN / "virtfs.pcapng"
    lab.server.pin([LAST])
    command = ["taskset", "-c", LAST, "cat", lab.server.directory / "virt3/pcap"]
    with open(file, "wb") as out, program(*command, stdout=out):
        until("the header of the capture", lambda: file.stat().st_size > 0)
        sent, seconds = lab.blast("tap3", SECONDS, rate, lengths=lengths)
        _until_still(file)
    captured = _packets(file.read_bytes())
    remove(file)
    return Taken(sent, captured, seconds)


def _tcpdump(lab: Lab, rate: float, lengths: Sequence[int]) -> Taken:
    file = RUN / "tcpdump.pcap"
    command = ["taskset", "-c", LAST, "tcpdump", "-Z", "root", "-ni", SNIFFED, "-w", file]
    with program(*command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:
            if "listening on" in line:
                break
        sent, seconds = lab.blast(SNIFFED, SECONDS, rate, lengths=lengths)
        pause(_RING)
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    remove(file)
    captured = re.search(r"(\d+) packets? captured", told)
    assert captured, told
    return Taken(sent, int(captured[1]), seconds)


def _until_still(file: Path) -> None:
    size = -1
    while size != (size := file.stat().st_size):
        pause(_QUIET)


def _packets(capture: bytes) -> int:
    """Return the number of packets in a little-endian pcapng file."""
    head, at, count = struct.Struct("<II").unpack_from, 0, 0
    while at < len(capture):
        kind, length = head(capture, at)
        count += kind == _PACKET
        at += length
    return count
