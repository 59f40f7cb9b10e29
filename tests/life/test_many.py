"""Many interfaces: the resources of each, and their creation and destruction by one write."""

import os
from pathlib import Path

from harness.fixtures import Alone
from harness.serving import Mount
from harness.waiting import until

MANY = 150
PAGE = os.sysconf("SC_PAGE_SIZE")


def memory(mount: Mount) -> int:
    """Return the resident memory of the server in bytes."""
    return int(Path(f"/proc/{mount.server.pid}/statm").read_text().split()[1]) * PAGE


def lines(verb: str) -> str:
    return "".join(f"{verb} {unit}\n" for unit in range(MANY))


def test_what_many_interfaces_take(alone: Alone) -> None:
    mount = alone()
    mount.ctl(lines("create"))
    mount.ctl(lines("destroy"))  # modules that the first interfaces load stay loaded
    before, files = memory(mount), len(mount.descriptors())
    mount.ip("link add tap9999 type bridge")
    mount.ctl(lines("create"))
    until(lambda: len(mount.descriptors()) <= files + MANY, "one descriptor each")
    assert memory(mount) - before < MANY * 60 << 10
    assert len(mount.units()) == MANY
    mount.ctl(lines("destroy"))
    assert mount.units() == []
    assert "tap" not in mount.ip("-br link").replace("tap9999", ""), "the taps are gone when the write returns"
    until(lambda: len(mount.descriptors()) <= files, "the server has closed all")
    mount.ip("link del tap9999")
