"""Fixtures: a mount without bridges, and places that stand for other machines."""

import json
from collections.abc import Callable, Iterator

import pytest
from harness.places import Place
from harness.serving import Mount
from harness.waiting import Stuck


@pytest.fixture
def mount(mount: Mount) -> Iterator[Mount]:
    """Yield the module's mount, and destroy its bridges and cables after the test."""
    yield mount
    try:
        for name in mount.sh("ls bridge").split():
            mount.ctl(f"destroy {name}")
    except (Stuck, OSError):
        mount.broken = True
        raise
    for row in json.loads(mount.ip("-json link")):
        if not row["ifname"].startswith(("lo", "tap")):
            # The kernel removes a veth with its peer, so this one may be vanishing with the other machine's namespace.
            mount.sh(f"ip link del {row['ifname']} 2>/dev/null || true")


@pytest.fixture
def peer(places: Callable[[], Place]) -> Place:
    """Return a place that stands for another machine."""
    return places()


@pytest.fixture
def other(places: Callable[[], Place]) -> Place:
    """Return a place that stands for a third machine."""
    return places()
