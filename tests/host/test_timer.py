"""A timer on the kernel's clock."""

import select
import time
from collections.abc import Iterator

import pytest

from virtfs.host.timer import Timer


@pytest.fixture
def timer() -> Iterator[Timer]:
    timer = Timer()
    yield timer
    timer.close()
    timer.close()


def fires(timer: Timer, seconds: float) -> bool:
    """Return whether the timer becomes readable within `seconds`."""
    return bool(select.select([timer.fd], [], [], seconds)[0])


@pytest.mark.parametrize("due", [1, 10**9 - 1])
def test_a_time_that_is_past_is_at_once(timer: Timer, due: int) -> None:
    timer.set(due)
    assert fires(timer, 5)


def test_a_time_to_come(timer: Timer) -> None:
    due = time.monotonic_ns() + 20_000_000
    timer.set(due)
    assert fires(timer, 5)
    assert time.monotonic_ns() >= due


@pytest.mark.parametrize("due", [2**63 - 1, 2**63, 2**64, 2**64 + 1, 10**9 * 2**64 + 1, 10**100])
def test_a_time_that_no_clock_reaches_never_comes(timer: Timer, due: int) -> None:
    timer.set(due)
    assert not fires(timer, 0)


def test_zero_is_never(timer: Timer) -> None:
    timer.set(1)
    timer.set(0)
    assert not fires(timer, 0)
