"""The blocks of a capture that describe it and its interfaces."""

import platform
from time import time_ns

from virtfs.core.pcapng import interface_description, interface_statistics, section_header
from virtfs.core.virt import Virt

SNAPLEN = 0  # snap length in bytes; 0 means no limit


def file_header(application: str) -> bytes:
    """Return the section header block, which begins every capture."""
    return section_header(platform.machine(), f"{platform.system()} {platform.release()}", application)


def interface_block(virt: Virt) -> bytes:
    """Return the interface description block of an interface."""
    return interface_description(virt.name, virt.description, virt.address, SNAPLEN, virt.filter or None)


class Watched:
    """One interface in one open capture. number: the id of the interface in the pcapng section."""

    __slots__ = ("begun", "dropped", "missed", "number", "received", "sees")

    def __init__(self, number: int) -> None:
        self.number = number
        self.sees = False  # whether the recorder delivers frames
        self.begun = time_ns()
        self.received = self.dropped = self.missed = 0

    def miss(self, frames: int) -> None:
        """Count dropped frames: in `dropped`, and in `missed` until a block reports them."""
        self.missed += frames
        self.dropped += frames

    def statistics(self) -> bytes:
        """Return the interface statistics block."""
        return interface_statistics(self.number, time_ns(), self.received, self.dropped, self.begun)
