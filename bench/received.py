"""rx beside frame: what a frame costs its reader while more wait, the reader on a CPU of its own."""

from collections.abc import Callable

from arena import build
from lab import FIRST, LAST, SIZE, Lab, run

SECONDS = 0.3
RX, FRAME = "virtfs, rx", "virtfs, frame"


def measure(lab: Lab) -> None:
    """All of it."""
    client = build("client")
    lab.ctl("create 3 up")
    lab.server.pin([LAST])

    def reads(file: str) -> Callable[[], float]:
        command = [client, "read", lab.server.directory / f"virt3/{file}", SECONDS, SIZE, "tap3"]
        return lambda: _rate(run("taskset", "-c", FIRST, *command))

    rates = lab.rounds_of({RX: reads("rx"), FRAME: reads("frame")})
    lab.compare("rx: 60-byte frames read, 200 at a time wait", "frames/s", rates, {FRAME: 5})
    lab.ctl("destroy 3")


def _rate(told: str) -> float:
    frames, nanoseconds = map(int, told.split())
    return frames / nanoseconds * 1e9
