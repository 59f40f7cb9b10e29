"""Fair queueing on a fake clock: a server that takes one request at a time, and users with different habits."""

import heapq
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfs.core.fair_share import GONE, FairShare

MS = 1_000_000
LOOK = 2_000  # ns that the server takes to look for requests


@dataclass
class User:
    """threads: programs that each send a request, wait for the answer, and pause. cost, pause: in ns."""

    cost: int
    pause: int
    threads: int = 1
    served: int = 0


def serve(users: list[User], time: int = 200 * MS, fair: bool = True) -> list[int]:
    """Simulate the server. Return how many requests of each user it has answered."""
    share: FairShare[int] = FairShare()
    arrivals = [(0, n) for n, user in enumerate(users) for _ in range(user.threads)]
    waiting: list[int] = []
    now = empty = 0
    while now < time:
        while arrivals and arrivals[0][0] <= now:
            _, user = heapq.heappop(arrivals)
            share.arrive(user, now, empty)
            waiting.append(user)
        empty = now
        chosen = share.choose(set(waiting), now) if fair else next(iter(waiting), None)
        if chosen is None:
            now += LOOK
            continue
        waiting.remove(chosen)
        now += users[chosen].cost
        share.spend(chosen, users[chosen].cost, now, bulk=chosen in waiting)
        users[chosen].served += 1
        heapq.heappush(arrivals, (now + users[chosen].pause, chosen))
    return [user.served for user in users]


def rate_left(attacker: User, fair: bool = True) -> float:
    """Return the rate of a ping-pong beside another user, as a fraction of its rate alone."""
    (alone,) = serve([User(10_000, 25_000)], fair=fair)
    beside, _ = serve([User(10_000, 25_000), attacker], fair=fair)
    return beside / alone


@pytest.mark.parametrize("threads", [1, 8, 100])
@pytest.mark.parametrize("cost", [5_000, 30_000, 100_000, MS, 2 * MS])
def test_a_ping_pong_keeps_half_of_its_rate(cost: int, threads: int) -> None:
    assert rate_left(User(cost, 2_000, threads)) > (0.5 if threads > 1 else 0.45)


def test_without_sharing_it_does_not() -> None:
    assert rate_left(User(30_000, 2_000, 8), fair=False) < 0.2


@pytest.mark.parametrize("cost", [5_000, 100_000, MS])
def test_a_user_who_sends_now_and_then_costs_the_other_little(cost: int) -> None:
    """Requests are not held for a user who is not expected soon."""
    (alone,) = serve([User(cost, 2_000, 8)])
    _, beside = serve([User(10_000, 5 * MS), User(cost, 2_000, 8)])
    assert beside > 0.85 * alone


@pytest.mark.parametrize("pause", [20_000, 60_000, 120_000])
def test_long_requests_are_not_held_for_ever_for_short_ones(pause: int) -> None:
    (alone,) = serve([User(MS, 10_000)])
    _, beside = serve([User(7_000, pause), User(MS, 10_000)])
    assert beside > 0.12 * alone


def test_users_of_one_kind_get_the_same() -> None:
    few, many = serve([User(20_000, 2_000, 4), User(20_000, 2_000, 40)])
    assert few == pytest.approx(many, rel=0.1)


def test_time_counts_and_not_requests() -> None:
    short, long = serve([User(10_000, 2_000, 8), User(200_000, 2_000, 8)])
    assert short * 10_000 == pytest.approx(long * 200_000, rel=0.1)


def test_time_that_was_not_used_is_not_saved() -> None:
    share: FairShare[str] = FairShare()
    share.arrive("late", 0, 0)
    share.arrive("busy", 0, 0)
    for now in range(0, 100 * MS, MS):
        assert share.choose({"busy"}, now + 10 * MS) == "busy"
        share.spend("busy", MS, now + 10 * MS)
    share.arrive("late", 120 * MS, 120 * MS)
    share.spend("late", 2 * MS, 122 * MS)
    assert share.choose({"late", "busy"}, 122 * MS) == "busy"


# A request takes at least 5 µs.
@given(
    st.lists(st.tuples(st.integers(5_000, 3 * MS), st.integers(0, 3 * MS), st.integers(1, 9)), min_size=1, max_size=5)
)
def test_nobody_starves_and_the_server_is_not_idle_for_long(habits: list[tuple[int, int, int]]) -> None:
    users = [User(*habit) for habit in habits]
    served = serve(users, 60 * MS)
    assert all(served)
    if any(user.threads > 1 and user.pause < 10_000 for user in users):
        work = sum(user.cost * count for user, count in zip(users, served, strict=True))
        assert work > MS, "a user always has a request waiting, and is held for at most 400 µs at a time"


def test_users_who_have_left_are_forgotten() -> None:
    share: FairShare[int] = FairShare()
    for user in range(3):
        share.arrive(user, user * MS, user * MS)
    share.begin(0, 0)
    assert share.forget([], 10 * MS, 8 * MS + 1) == [0, 2]
    assert share.forget([2], 50 * MS, MS) == [0, 2]
    share.end(0, 50 * MS)
    assert share.forget([], 60 * MS, MS) == []


def test_the_first_user_is_the_lowest_of_those_who_wait_or_come_soon() -> None:
    share: FairShare[str] = FairShare()
    assert share.first((), 0) == (None, 0)
    for _ in range(20):
        share.arrive("often", 100_000, 100_000)
        share.spend("often", 5_000, 100_000)
    share.arrive("seldom", 100_000, 100_000)
    assert share.first((), 100_000) == ("often", GONE), "nobody else has or will have a request"
    assert share.first(("seldom",), 100_000) == ("seldom", 20 * 5_000)
    share.spend("seldom", 150_000, 100_000)
    assert share.first(("seldom",), 100_000) == ("often", 50_000)
    assert share.first((), 10 * MS) == (None, 0), "nobody has sent a request for 10 ms"


def test_a_burst_costs_what_its_requests_cost() -> None:
    one: FairShare[str] = FairShare()
    burst: FairShare[str] = FairShare()
    for share in (one, burst):
        share.arrive("other", 0, 0)
        share.spend("other", 1_000_000, 0)
        share.arrive("user", 0, 0)
    for _ in range(10):
        one.choose(("user",), 0)
        one.spend("user", 5_000, 0)
    burst.served("user", 10, 50_000, 0)
    assert one.first(("user", "other"), 0) == burst.first(("user", "other"), 0) == ("user", 1_000_000 - 50_000)
