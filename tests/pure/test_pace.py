"""The schedule of a replay, with times supplied by the test."""

import errno

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from virtfs.core.errors import VirtError
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
    """Times are relative to the first frame, so delays do not add up."""
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


# The times that a file can contain: 64-bit counts of ticks of up to a second, plus a signed 64-bit offset in seconds.
_recorded = st.integers(-(2**63) * NANOSECOND, 2**65 * NANOSECOND)


@given(_recorded, _recorded, _factors, st.integers(1, 2**62))
@example(0, 2**64 * NANOSECOND, 0.001, NOW)
@example(0, 2**63 - 1 - NOW, 1, NOW)
@example(0, 2**63 - NOW, 1, NOW)
def test_no_time_is_beyond_the_clock(first: int, second: int, factor: float, now: int) -> None:
    """A frame is due at a time that fits a 64-bit clock, or the error says how many years away it is."""
    pace = Pace()
    assert pace.due(first, factor, now) == now
    apart = (second - first) / factor
    if now + int(apart) >= 2**63:
        years = int(apart / NANOSECOND / 31_556_952)
        with pytest.raises(VirtError, match=f"is due in {str(years)[:9]}") as refused:
            pace.due(second, factor, now)
        assert refused.value.errno == errno.ERANGE
    else:
        assert pace.due(second, factor, now) == now + int(apart)
    assert pace.due(first, factor, now) == now


def test_the_refusal_says_when_the_frame_is_due() -> None:
    pace = Pace()
    pace.due(0, 0.5, NOW)
    with pytest.raises(
        VirtError, match=r"at pace 0\.5 the frame is due in 2000 years; the limit is 292: set a higher pace"
    ):
        pace.due(1000 * 31_556_952 * NANOSECOND, 0.5, NOW)
