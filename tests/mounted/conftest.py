"""Fixture that makes interfaces whose taps are in separate network namespaces."""

from collections.abc import Callable

import pytest
from harness.places import Place
from harness.serving import Mount

from .hosts import Host

Hosts = Callable[..., Host]


@pytest.fixture
def hosts(mount: Mount, places: Callable[[], Place]) -> Hosts:
    """A function that makes hosts: interfaces whose taps are in separate network namespaces."""

    def make(number: int, verbs: str = "") -> Host:
        return Host(mount, places(), number, verbs)

    return make
