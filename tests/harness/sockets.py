"""Packet sockets in other namespaces."""

from harness import programs
from harness.places import Place
from harness.process import Process
from harness.waiting import PATIENCE


class There:
    """A packet socket on a tap in another namespace."""

    def __init__(self, place: Place, tap: str) -> None:
        self._process = Process(place)
        self._wire = self._process.call(programs.wire, tap)

    def send(self, *frames: bytes) -> None:
        """Send frames from the host's end."""
        self._process.call(programs.send, self._wire, frames)

    def get(self) -> bytes:
        """Return the next test frame that the host's end receives."""
        return self._process.call(programs.next_from_virt, self._wire, PATIENCE / 2)
