"""Mounts as those of tests/mount; each module's bridges are gone after each test."""

import json
from collections.abc import Iterator

import pytest
from mount.conftest import _current, alone, pytest_runtest_makereport, virt, virts
from mount.conftest import mount as plain_mount
from mount.places import Place
from mount.serving import Mount
from mount.waiting import Stuck

__all__ = ["_current", "alone", "plain_mount", "pytest_runtest_makereport", "virt", "virts"]


@pytest.fixture
def mount(plain_mount: Mount) -> Iterator[Mount]:
    """The module's mount, without a bridge."""
    yield plain_mount
    try:
        for name in plain_mount.sh("ls bridge").split():
            plain_mount.ctl(f"destroy {name}")
    except (Stuck, OSError):
        plain_mount.broken = True
        raise
    for row in json.loads(plain_mount.ip("-json link")):
        if not row["ifname"].startswith(("lo", "tap")):
            # A cable goes with its other end, and may be just going with another machine.
            plain_mount.sh(f"ip link del {row['ifname']} 2>/dev/null || true")


@pytest.fixture
def peer() -> Iterator[Place]:
    """Another machine: a network namespace of its own."""
    place = Place()
    yield place
    place.tidy()
    assert not place.close()


@pytest.fixture
def other() -> Iterator[Place]:
    """A third one."""
    place = Place()
    yield place
    place.tidy()
    assert not place.close()
