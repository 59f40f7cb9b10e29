"""Fixtures for tests that use the kernel."""

from collections.abc import Iterator

import pytest
from harness.nets import Namespace, fresh, need_taps

from virtfs.host.links import Links
from virtfs.host.monitor import Monitor


@pytest.fixture
def network() -> Iterator[None]:
    """Run the test in a new, empty network namespace."""
    need_taps()
    with fresh():
        yield


@pytest.fixture
def elsewhere(network: None) -> Iterator[Namespace]:
    """Yield another new, empty network namespace."""
    with Namespace() as namespace:
        yield namespace


@pytest.fixture
def links(network: None) -> Iterator[Links]:
    with Links() as links:
        yield links


@pytest.fixture
def monitor(network: None) -> Iterator[Monitor]:
    with Monitor() as monitor:
        yield monitor
