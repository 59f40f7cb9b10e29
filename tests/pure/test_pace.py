"""The schedule of a replay, by a clock of the test's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfs.core.pace import NANOSECOND, Pace

NOW = 5_000 * NANOSECOND
RECORDED = 1_700_000_000 * NANOSECOND
MS = NANOSECOND // 1000

_factors = st.floats(0.001, 1e6)
_times = st.lists(st.integers(0, 3600 * NANOSECOND), min_size=1, max_size=30).map(sorted)


def test_without_a_factor_all_is_due_at_once() -> None:
    pace = Pace()
    for number in range(5):
        assert pace.due(RECORDED + number * NANOSECOND, 0, NOW) == NOW


@pytest.mark.parametrize(("factor", "apart"), [(1, 100 * MS), (10, 10 * MS), (0.5, 200 * MS)])
def test_distances_are_those_recorded_over_the_factor(factor: float, apart: int) -> None:
    pace = Pace()
    for number in range(5):
        assert pace.due(RECORDED + number * 100 * MS, factor, NOW) == NOW + number * apart


def test_a_late_frame_does_not_delay_the_others() -> None:
    """The schedule is that of the first frame; what was sent late does not add up."""
    pace = Pace()
    assert pace.due(RECORDED, 1, NOW) == NOW
    assert pace.due(RECORDED + 10 * MS, 1, NOW + 35 * MS) == NOW + 10 * MS
    assert pace.due(RECORDED + 40 * MS, 1, NOW + 36 * MS) == NOW + 40 * MS


def test_another_factor_begins_anew() -> None:
    pace = Pace()
    pace.due(RECORDED, 1, NOW)
    later = NOW + 700 * MS
    assert pace.due(RECORDED + NANOSECOND, 4, later) == later
    assert pace.due(RECORDED + 2 * NANOSECOND, 4, later) == later + NANOSECOND // 4
    assert pace.due(RECORDED + 3 * NANOSECOND, 0, later) == later
    assert pace.due(RECORDED + 9 * NANOSECOND, 4, later + MS) == later + MS


def test_a_frame_without_a_time_is_due_at_once() -> None:
    pace = Pace()
    pace.due(RECORDED, 1, NOW)
    assert pace.due(None, 1, NOW + 3) == NOW + 3
    assert pace.due(RECORDED + 100 * NANOSECOND, 1, NOW + 4) == NOW + 4


def test_a_recording_that_jumps_back_is_due_at_once() -> None:
    pace = Pace()
    pace.due(RECORDED, 1, NOW)
    assert pace.due(RECORDED - NANOSECOND, 1, NOW + MS) <= NOW + MS
    assert pace.due(RECORDED + 20 * MS, 1, NOW + MS) == NOW + 20 * MS


@given(_times, _factors)
def test_order_and_total(times: list[int], factor: float) -> None:
    pace = Pace()
    due = [pace.due(RECORDED + at, factor, NOW) for at in times]
    assert due == sorted(due)
    assert due[0] == NOW
    assert due[-1] - NOW == pytest.approx((times[-1] - times[0]) / factor, abs=1, rel=1e-9)
