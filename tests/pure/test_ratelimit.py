"""The limit on how often events of one kind are reported."""

from hypothesis import given
from hypothesis import strategies as st

from virtfs.core.ratelimit import RateLimit


def test_each_kind_has_a_number_in_an_interval() -> None:
    limit: RateLimit[str] = RateLimit(2, 10)
    assert [limit.admit("a", 0), limit.admit("a", 1), limit.admit("a", 2), limit.admit("b", 3)] == [
        *(True, True, False),
        True,
    ]
    assert limit.next_due() == 10
    assert limit.due(9.9) == []
    assert limit.due(10) == [("a", 1)]
    assert limit.next_due() is None
    assert limit.admit("a", 10)


def test_an_interval_in_which_all_were_admitted_is_not_reported() -> None:
    limit: RateLimit[str] = RateLimit(2, 10)
    assert limit.admit("a", 0)
    assert limit.next_due() is None
    assert limit.due(10) == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 3))))
def test_each_event_is_admitted_or_reported_and_no_interval_has_too_many(events: list[tuple[str, float]]) -> None:
    limit: RateLimit[str] = RateLimit(3, 5)
    now, reported, admitted = 0.0, 0, []
    for kind, pause in events:
        now += pause
        reported += sum(count for _, count in limit.due(now))
        if limit.admit(kind, now):
            admitted.append((kind, now))
    reported += sum(count for _, count in limit.due(now + 5))
    assert len(admitted) + reported == len(events)
    for kind, since in admitted:
        # An interval begins with an event, so any 5 s overlap at most two intervals.
        assert sum(k == kind and since <= time < since + 5 for k, time in admitted) <= 6
