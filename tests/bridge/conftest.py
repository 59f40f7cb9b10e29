"""A mount without bridges, and other machines."""

import json
from collections.abc import Callable, Iterator

import pytest
from harness.places import Place
from harness.serving import Mount
from harness.waiting import Stuck


@pytest.fixture
def mount(mount: Mount) -> Iterator[Mount]:
    """The module's mount, without a bridge."""
    yield mount
    try:
        for name in mount.sh("ls bridge").split():
            mount.ctl(f"destroy {name}")
    except (Stuck, OSError):
        mount.broken = True
        raise
    for row in json.loads(mount.ip("-json link")):
        if not row["ifname"].startswith(("lo", "tap")):
            # A cable goes with its other end, and may be just going with another machine.
            mount.sh(f"ip link del {row['ifname']} 2>/dev/null || true")


@pytest.fixture
def peer(places: Callable[[], Place]) -> Place:
    """Another machine."""
    return places()


@pytest.fixture
def other(places: Callable[[], Place]) -> Place:
    """A third one."""
    return places()
