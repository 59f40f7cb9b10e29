"""The streams' tests run on mounts as those of tests/mount, some with networks of their own behind the taps."""

from collections.abc import Callable, Iterator

import pytest
from mount.conftest import Alone, _current, alone, mount, pytest_runtest_makereport, virt, virts
from mount.places import Place
from mount.serving import Mount

from .hosts import Host

__all__ = ["Alone", "_current", "alone", "mount", "pytest_runtest_makereport", "virt", "virts"]

Hosts = Callable[..., Host]


@pytest.fixture
def places() -> Iterator[Callable[[], Place]]:
    """Makes network namespaces."""
    made: list[Place] = []

    def make() -> Place:
        made.append(Place())
        return made[-1]

    yield make
    for place in made:
        place.tidy()
        assert not place.close()


@pytest.fixture
def hosts(mount: Mount, places: Callable[[], Place]) -> Hosts:
    """Makes hosts: a fresh interface each, its tap in a network namespace of its own."""

    def make(number: int, verbs: str = "") -> Host:
        return Host(mount, places(), number, verbs)

    return make
