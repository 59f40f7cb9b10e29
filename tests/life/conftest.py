"""Another machine's network."""

from collections.abc import Callable

import pytest
from harness.places import Place


@pytest.fixture
def elsewhere(places: Callable[[], Place]) -> Place:
    """Another network namespace."""
    return places()
