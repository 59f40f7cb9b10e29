"""Reads captures of a mount: `pcap` while it grows, `history` as a whole."""

import os
from contextlib import suppress
from pathlib import Path

from harness.captured import Captured
from harness.places import DIR
from harness.process import File
from harness.serving import Mount, Virt
from harness.waiting import until


class Watch:
    """A pcap file that is read while it grows, with reads of a given size."""

    def __init__(self, mount: Mount, path: str, size: int = 1 << 20) -> None:
        self.file: File = mount.root.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.data = b""
        self.ended = False
        self._size = size

    def look(self) -> Captured:
        """Read what is available and return the capture so far."""
        with suppress(BlockingIOError):
            while piece := self.file.read(self._size):
                self.data += piece
            self.ended = True
        return Captured(self.data)

    def until(self, frames: int) -> Captured:
        """Read until the capture has that many frames, and return it."""
        seen = self.look()

        def there() -> bool:
            nonlocal seen
            seen = self.look()
            return len(seen.frames) >= frames

        until(there, f"{frames} frames in a capture, not {len(seen.frames)}")
        return seen


def assert_paced(seen: Captured, begun: float, due: list[float]) -> None:
    """Check the times of the last frames of a capture.

    On a busy machine any frame may be late. No frame may be early, and of the second half, one must be in time.
    begun: the earliest time at which the first frame was due, in seconds since 1970. due: the due times, in seconds
    after that of the first frame.
    """
    sent = [packet.time / 1e9 for packet in seen.packets[-len(due) :]]
    assert len(sent) == len(due)
    early = [begun + late - at for at, late in zip(sent, due, strict=True)]
    assert max(early) < 0.001, "the clocks of the capture and of timers differ by less than this"
    late = [at - sent[0] - wanted for at, wanted in zip(sent, due, strict=True)]
    assert min(late[len(late) // 2 :]) < 0.1


def history(virt: Virt) -> Captured:
    """Return the current content of an interface's `history`."""
    return Captured(virt.mount.root.call(Path.read_bytes, Path(DIR, virt.name, "history")))
