"""Mounts as those of tests/mount, some that end and come again, and another machine's network."""

from collections.abc import Iterator

import pytest
from mount.conftest import Alone, _current, alone, mount, pytest_runtest_makereport, virt, virts
from mount.places import Place

from .lasting import Lasting, LastingOnes

__all__ = ["_current", "alone", "mount", "pytest_runtest_makereport", "virt", "virts"]


@pytest.fixture
def lasting(alone: Alone) -> Iterator[LastingOnes]:
    """Makes mounts for one test alone; what they leave to the next is taken away at its end."""

    def make(options: str = "") -> Lasting:
        lasting = Lasting(options)
        alone.made.append(lasting)
        made.append(lasting)
        return lasting

    made: list[Lasting] = []
    yield make
    for one in made:
        one.clear()


@pytest.fixture
def elsewhere() -> Iterator[Place]:
    """Another network namespace."""
    place = Place()
    yield place
    place.tidy()
    assert not place.close()
