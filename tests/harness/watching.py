"""Captures of a mount: read while they go on, or at once."""

import os
from contextlib import suppress
from pathlib import Path

from harness.captured import Captured
from harness.places import DIR
from harness.process import File
from harness.serving import Mount, Virt
from harness.waiting import until


class Watch:
    """A pcap file that is read while it goes on, with reads of some size."""

    def __init__(self, mount: Mount, path: str, size: int = 1 << 20) -> None:
        self.file: File = mount.root.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.data = b""
        self.ended = False
        self._size = size

    def look(self) -> Captured:
        """Read all that is there."""
        with suppress(BlockingIOError):
            while piece := self.file.read(self._size):
                self.data += piece
            self.ended = True
        return Captured(self.data)

    def until(self, frames: int) -> Captured:
        """Read until there are as many frames."""
        seen = self.look()

        def there() -> bool:
            nonlocal seen
            seen = self.look()
            return len(seen.frames) >= frames

        until(there, f"{frames} frames in a capture, not {len(seen.frames)}")
        return seen


def history(virt: Virt) -> Captured:
    """What `history` of an interface holds now."""
    return Captured(virt.mount.root.call(Path.read_bytes, Path(DIR, virt.name, "history")))
