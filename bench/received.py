"""rx compared with frame: frames read per second from a full queue. The reader has a CPU to itself."""

from collections.abc import Callable

from arena import build
from lab import FIRST, LAST, SIZE, Lab, run

SECONDS = 0.3
RX, FRAME = "virtfs, rx", "virtfs, frame"


def measure(lab: Lab) -> None:
    """Measure and print the part "rx"."""
    client = build("client")
    lab.ctl("create 3 up")
    lab.server.pin([LAST])

    def reads(file: str) -> Callable[[], float]:
        command = [client, "read", lab.server.directory / f"virt3/{file}", SECONDS, SIZE, "tap3"]
        return lambda: _rate(run("taskset", "-c", FIRST, *command))

    rates = lab.rounds_of({RX: reads("rx"), FRAME: reads("frame")})
    lab.compare("rx: 60-byte frames read, in batches of 200 that wait already", "frames/s", rates, {FRAME: 5})
    lab.ctl("destroy 3")


def _rate(told: str) -> float:
    frames, nanoseconds = map(int, told.split())
    return frames / nanoseconds * 1e9
