"""Fixtures: a mount without bridges, and places that stand for other machines."""

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
    mount.delete_links(*(name for name in mount.links() if not name.startswith(("lo", "tap"))))


@pytest.fixture
def peer(places: Callable[[], Place]) -> Place:
    """Return a place that stands for another machine."""
    return places()


@pytest.fixture
def other(places: Callable[[], Place]) -> Place:
    """Return a place that stands for a third machine."""
    return places()
