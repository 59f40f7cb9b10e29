"""The effect of an impaired wire on many frames. Random numbers are seeded, so every run gives the same result."""

import math
from collections import Counter
from itertools import groupby, pairwise, repeat
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfs.core.impairment import Distribution, Impairment
from virtfs.core.impairment_scheduler import Scheduler, table
from virtfs.core.impairment_text import parse_impairment

US, MS, SECOND = 10**3, 10**6, 10**9
MANY = 100_000
FOREVER = 2**70
EVERYTHING = (
    "delay 2ms 1ms 20% distribution pareto loss 3% 10% duplicate 2% reorder 25% 50% gap 3"
    " corrupt 5% rate 50mbit limit 40 seed 42"
)


def settings(words: str) -> Impairment:
    impairment, count = parse_impairment(words.split())
    assert count == len(words.split())
    return impairment


def frame(number: int, size: int = 60) -> bytes:
    return number.to_bytes(8, "big") + bytes(size - 8)


def number_of(frame: bytes) -> int:
    return int.from_bytes(frame[:8], "big")


def run(scheduler: Scheduler, count: int, every: int, size: int = 60) -> list[tuple[int, bytes]]:
    """Push frames at equal intervals, and pop each when it is due. Returns the times and frames that come out."""
    out: list[tuple[int, bytes]] = []
    next_due, pop, push, padding = scheduler.next_due, scheduler.pop, scheduler.push, bytes(size - 8)
    for now in range(0, count * every, every):
        while (due := next_due()) is not None and due <= now:  # drained(), inlined for speed
            out += zip(repeat(due), pop(due), strict=False)
        push(now, (now // every).to_bytes(8, "big") + padding)
    return out + drained(scheduler, FOREVER)


def drained(scheduler: Scheduler, until: int) -> list[tuple[int, bytes]]:
    out = []
    while (due := scheduler.next_due()) is not None and due <= until:
        out += [(due, frame) for frame in scheduler.pop(due)]
    return out


def passed(words: str, count: int = MANY, every: int = MS) -> list[int]:
    """Return the numbers of the frames that come out, in their order."""
    return [number_of(frame) for _when, frame in run(Scheduler(settings(words), 1), count, every)]


def delays(words: str) -> list[int]:
    """Return how long each of MANY frames waits, in ns."""
    limit = " limit 524288"
    return [when - number_of(frame) * MS for when, frame in run(Scheduler(settings(words + limit), 1), MANY, MS)]


def within(share: float, probability: float, count: int = MANY) -> bool:
    """Return whether a share is within 4 standard deviations (of a binomial distribution) of its probability."""
    return abs(share - probability) <= 4 * math.sqrt(probability * (1 - probability) / count)


def lost(words: str) -> list[bool]:
    there = set(passed(words))
    return [number not in there for number in range(MANY)]


def bursts(outcomes: list[bool]) -> list[int]:
    return [len(list(group)) for bad, group in groupby(outcomes) if bad]


def test_nothing_asked_nothing_done() -> None:
    scheduler = Scheduler(Impairment(), 1)
    assert scheduler.next_due() is None
    scheduler.push(7, b"frame")
    assert scheduler.next_due() == 7
    assert scheduler.pop(6) == []
    assert scheduler.pop(7) == [b"frame"]
    assert len(scheduler) == 0


def test_a_delay_is_exact_and_keeps_the_order() -> None:
    out = run(Scheduler(settings("delay 20ms"), 1), 1000, 100 * US)
    assert [(when, number_of(frame)) for when, frame in out] == [(n * 100 * US + 20 * MS, n) for n in range(1000)]


def test_frames_of_one_time_leave_as_they_came() -> None:
    scheduler = Scheduler(settings("delay 1ms"), 1)
    for number in range(100):
        scheduler.push(0, frame(number))
    assert [number_of(frame) for frame in scheduler.pop(MS)] == list(range(100))


# Mean and standard deviation of iproute2's tables (tc/*.dist), in units of the jitter.
@pytest.mark.parametrize(
    ("distribution", "mean", "deviation"),
    [("uniform", 0, 1 / math.sqrt(3)), ("normal", 0, 1), ("pareto", -0.0335, 0.820), ("paretonormal", -0.0253, 0.834)],
)
def test_jitter_is_distributed_as_by_tc(distribution: Distribution, mean: float, deviation: float) -> None:
    waited = delays(f"delay 20ms 4ms distribution {distribution}")
    error = 4 * deviation * 4 * MS / math.sqrt(MANY)
    assert fmean(waited) == pytest.approx((20 + 4 * mean) * MS, abs=error + 0.002 * MS)
    assert pstdev(waited) == pytest.approx(4 * deviation * MS, rel=0.02)
    assert fmean(table(distribution)) == pytest.approx(mean, abs=0.002)
    assert pstdev(table(distribution)) == pytest.approx(deviation, abs=0.002)


def test_the_reach_of_jitter() -> None:
    uniform = delays("delay 20ms 4ms")
    assert 16 * MS <= min(uniform) < 16.01 * MS
    assert 23.99 * MS < max(uniform) <= 24 * MS
    assert max(delays("delay 20ms 4ms distribution normal")) <= 36 * MS
    pareto = delays("delay 20ms 3ms distribution pareto")
    assert min(pareto) == pytest.approx(18 * MS, abs=1000), "the shortest wait: delay - 2/3 jitter"
    assert max(pareto) == 32 * MS, "the longest wait: delay + 4 jitter"


def test_jitter_never_sends_before_the_frame_came() -> None:
    waited = delays("delay 1ms 5ms")
    assert min(waited) == 0
    assert within(waited.count(0) / MANY, 0.4), "waits of -4 ms to 6 ms: four tenths are negative, and become 0"


def test_jitter_correlates() -> None:
    for correlation in (0, 25, 75):
        waited = [float(wait) for wait in _in_order_of_coming(f"delay 20ms 4ms {correlation}% distribution normal")]
        assert _correlation(waited) == pytest.approx(correlation / 100, abs=0.02)
        assert pstdev(waited) == pytest.approx(4 * MS, rel=0.03)


def _in_order_of_coming(words: str) -> list[int]:
    out = run(Scheduler(settings(words + " limit 524288"), 1), MANY, MS)
    return [when - number_of(frame) * MS for when, frame in sorted(out, key=lambda one: one[1])]


def _correlation(values: list[float]) -> float:
    mean, deviation = fmean(values), pstdev(values)
    return fmean((a - mean) * (b - mean) for a, b in pairwise(values)) / deviation**2


def test_jitter_reorders_as_netem_does() -> None:
    numbers = passed("delay 10ms 5ms", 1000)
    assert sorted(numbers) == list(range(1000))
    assert numbers != sorted(numbers)


@pytest.mark.parametrize("percent", [0.1, 1, 25, 50])
def test_loss(percent: float) -> None:
    outcomes = lost(f"loss {percent}%")
    assert within(fmean(outcomes), percent / 100)
    assert fmean(bursts(outcomes)) == pytest.approx(1 / (1 - percent / 100), rel=0.05)


def test_no_loss_and_nothing_but_loss() -> None:
    assert passed("loss 0%", 1000) == list(range(1000))
    assert passed("loss 100%", 1000) == []


def test_correlated_loss_loses_no_less_but_in_a_row() -> None:
    outcomes = lost("loss 10% 25%")
    assert fmean(outcomes) == pytest.approx(0.1, rel=0.05)
    after_a_loss = [after for before, after in pairwise(outcomes) if before]
    assert within(fmean(after_a_loss), 0.25 + 0.75 * 0.1, len(after_a_loss))


def test_gilbert_elliott_bursts() -> None:
    outcomes = lost("loss gemodel 1% 10%")
    assert fmean(outcomes) == pytest.approx(1 / 11, rel=0.08)
    lengths = bursts(outcomes)
    assert fmean(lengths) == pytest.approx(10, rel=0.08)
    assert pstdev(lengths) == pytest.approx(math.sqrt(90), rel=0.12), "lengths are geometric: sqrt(1-r)/r"


def test_gilbert_elliott_of_a_bad_wire_that_lets_some_through() -> None:
    outcomes = lost("loss gemodel 5% 20% 50% 1%")
    assert fmean(outcomes) == pytest.approx(0.2 * 0.5 + 0.8 * 0.01, rel=0.06)


def test_gilbert_elliott_with_one_number_is_plain_loss() -> None:
    outcomes = lost("loss gemodel 20%")
    assert within(fmean(outcomes), 0.2)
    assert fmean(bursts(outcomes)) == pytest.approx(1.25, rel=0.03)


def test_duplicates_are_the_same_frame() -> None:
    scheduler = Scheduler(settings("duplicate 10%"), 1)
    out = run(scheduler, MANY, MS)
    assert within(scheduler.counts.duplicated / MANY, 0.1)
    assert len(out) == MANY + scheduler.counts.duplicated
    twins = [(a, b) for (_, a), (_, b) in pairwise(out) if a == b]
    assert len(twins) == scheduler.counts.duplicated
    assert all(a is b for a, b in twins), "no copy is made"


def test_a_duplicate_has_a_fate_of_its_own() -> None:
    scheduler = Scheduler(settings("duplicate 100% loss 50%"), 1)
    out = [number_of(frame) for _when, frame in run(scheduler, MANY, MS)]
    copies = Counter(out)
    assert set(copies.values()) == {1, 2}, "a duplicate is not duplicated again"
    assert within(len(copies) / MANY, 0.75)
    assert within(len(out) / MANY / 2, 0.5, 2 * MANY)


def test_reorder_sends_a_share_at_once() -> None:
    scheduler = Scheduler(settings("delay 10ms reorder 25%"), 1)
    out = run(scheduler, MANY, MS)
    waits = [when - number_of(frame) * MS for when, frame in out]
    assert set(waits) == {0, 10 * MS}
    assert within(waits.count(0) / MANY, 0.25)
    assert waits.count(0) == scheduler.counts.reordered


def test_reorder_with_a_gap_is_every_nth() -> None:
    out = run(Scheduler(settings("delay 10ms reorder 100% gap 5"), 1), 100, MS)
    at_once = sorted(number_of(frame) for when, frame in out if when == number_of(frame) * MS)
    assert at_once == list(range(4, 100, 5))


def test_corrupt_flips_one_bit_anywhere() -> None:
    scheduler = Scheduler(settings("corrupt 10%"), 1)
    blank = bytes(60)
    wrong = []
    for _ in range(MANY):
        scheduler.push(0, blank)
        wrong += [int.from_bytes(frame, "big") for frame in scheduler.pop(0) if frame != blank]
    assert blank == bytes(60)
    assert within(len(wrong) / MANY, 0.1)
    assert len(wrong) == scheduler.counts.corrupted
    assert {value.bit_count() for value in wrong} == {1}
    assert {value.bit_length() for value in wrong} == set(range(1, 481)), "every bit is flipped at least once"


@pytest.mark.parametrize(("rate", "bits"), [("10mbit", 10**7), ("3mbit", 3 * 10**6), ("70gbit", 7 * 10**10)])
def test_rate_is_exact(rate: str, bits: int) -> None:
    scheduler = Scheduler(settings(f"rate {rate} limit 10000"), 1)
    for number in range(10_000):
        scheduler.push(0, frame(number, 1500))
    out = drained(scheduler, FOREVER)
    assert [number_of(frame) for _when, frame in out] == list(range(10_000))
    assert out[0][0] == 1500 * 8 * SECOND // bits
    assert out[-1][0] == 10_000 * 1500 * 8 * SECOND // bits, "rounding errors do not add up"


def test_an_idle_link_saves_nothing_up() -> None:
    scheduler = Scheduler(settings("rate 1mbit"), 1)
    scheduler.push(0, frame(0, 125))
    scheduler.push(5 * MS, frame(1, 125))
    scheduler.push(5 * MS, frame(2, 125))
    assert [when for when, _frame in drained(scheduler, FOREVER)] == [1 * MS, 6 * MS, 7 * MS]


def test_rate_comes_after_delay_and_keeps_the_order_under_jitter() -> None:
    scheduler = Scheduler(settings("delay 20ms rate 1mbit"), 1)
    for number in range(3):
        scheduler.push(0, frame(number, 125))
    assert [when for when, _frame in drained(scheduler, FOREVER)] == [21 * MS, 22 * MS, 23 * MS]
    assert passed("delay 10ms 5ms rate 1mbit", 1000) == list(range(1000))


def test_limit() -> None:
    scheduler = Scheduler(settings("delay 10ms limit 500"), 1)
    for number in range(800):
        scheduler.push(0, frame(number))
    assert len(scheduler) == 500
    assert scheduler.counts.overlimit == 300
    assert [number_of(frame) for frame in scheduler.pop(10 * MS)] == list(range(500))
    scheduler.push(10 * MS, frame(800))
    assert len(scheduler) == 1


def test_a_change_keeps_what_waits() -> None:
    scheduler = Scheduler(settings("delay 10ms"), 1)
    for number in range(3):
        scheduler.push(0, frame(number))
    scheduler.change(settings("delay 1ms limit 4"))
    scheduler.push(0, frame(3))
    scheduler.push(0, frame(4))
    scheduler.change(Impairment())
    scheduler.push(0, frame(5))
    out = [(when, number_of(frame)) for when, frame in drained(scheduler, FOREVER)]
    assert out == [(0, 5), (1 * MS, 3), (10 * MS, 0), (10 * MS, 1), (10 * MS, 2)]
    assert scheduler.counts.overlimit == 1


def test_a_change_of_the_rate_waits_for_the_frame_on_the_link() -> None:
    scheduler = Scheduler(settings("rate 1mbit"), 1)
    scheduler.push(0, frame(0, 1250))
    scheduler.change(settings("rate 10mbit"))
    scheduler.push(0, frame(1, 1250))
    assert [when for when, _frame in drained(scheduler, FOREVER)] == [10 * MS, 11 * MS]


def test_clear_forgets_what_waits() -> None:
    scheduler = Scheduler(settings("rate 1mbit"), 1)
    for number in range(3):
        scheduler.push(0, frame(number))
    assert scheduler.clear() == 3
    assert len(scheduler) == 0
    assert scheduler.next_due() is None
    scheduler.push(0, frame(3, 125))
    assert scheduler.next_due() == MS, "the link is free"


def test_the_same_seed_gives_the_same_fate() -> None:
    first, second = (run(Scheduler(settings(EVERYTHING), seed), 5000, 10 * US) for seed in (1, 2))
    assert first == second, "the seed of the settings overrides the argument"
    unnamed = settings(EVERYTHING.removesuffix("seed 42"))
    assert run(Scheduler(unnamed, 42), 5000, 10 * US) == first
    assert run(Scheduler(unnamed, 43), 5000, 10 * US) != first


def test_one_seed_is_other_luck_in_the_other_direction() -> None:
    there, back = (
        {number_of(frame) for _when, frame in run(Scheduler(settings("loss 10% seed 42"), 1, stream), MANY, MS)}
        for stream in ("in", "out")
    )
    assert within(len(there & back) / MANY, 0.81)


def test_naming_the_seed_again_starts_anew() -> None:
    scheduler = Scheduler(settings("loss 50% seed 42"), 1)

    def fate() -> list[bytes]:
        for number in range(100):
            scheduler.push(0, frame(number))
        return scheduler.pop(0)

    first = fate()
    assert fate() != first
    scheduler.change(settings("loss 50% seed 42"))
    assert fate() == first
    scheduler.change(settings("loss 50%"))
    assert fate() != first


@given(
    st.sampled_from(
        ["", "loss 10%", "loss gemodel 5% 30%", EVERYTHING, "delay 1ms 1ms limit 3", "duplicate 50% limit 5"]
    ),
    st.lists(st.tuples(st.integers(0, 2 * MS), st.booleans()), max_size=200),
    st.integers(0, 100),
)
def test_every_frame_is_accounted_for(words: str, steps: list[tuple[int, bool]], seed: int) -> None:
    """pushed + duplicated = lost + over the limit + waiting + popped. No frame is popped early or kept too long."""
    scheduler = Scheduler(settings(words), seed)
    now = pushed = popped = 0
    for pause, pushes in steps:
        now += pause
        if pushes:
            scheduler.push(now, frame(pushed))
            pushed += 1
        else:
            popped += len(scheduler.pop(now))
            due = scheduler.next_due()
            assert due is None or due > now
        counts = scheduler.counts
        assert pushed + counts.duplicated == counts.lost + counts.overlimit + len(scheduler) + popped
        assert len(scheduler) <= scheduler.settings.limit
