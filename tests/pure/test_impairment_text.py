"""The words of impair: their meaning, refused words, and that the text of an impairment parses to the same one."""

import errno
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfs.core.errors import VirtError
from virtfs.core.impairment import Bursts, Impairment, Share
from virtfs.core.impairment_text import (
    GAP_MAX,
    LIMIT_MAX,
    SEED_MAX,
    format_impairment,
    format_impairments,
    parse_impairment,
    parse_impairment_verb,
    parse_impairments,
)

MS = 10**6
EVERYTHING = (
    "delay 20ms 5ms distribution normal loss 1% duplicate 0.1% reorder 25% 50% corrupt 0.1%"
    " rate 10mbit limit 500 seed 42"
)

_percents = st.fractions(0, 100, max_denominator=1000).map(float)
_shares = st.builds(Share, _percents, _percents)
_times = st.integers(0, 2**63 - 1)


@st.composite
def impairments(draw: st.DrawFn) -> Impairment:
    """Draw any impairment that can be written in words."""
    jitter = draw(st.just(0) | _times)
    delay = draw(st.just(0) | _times)
    waits = delay or jitter
    return Impairment(
        delay=delay,
        jitter=jitter,
        delay_correlation=draw(_percents),
        distribution=draw(st.sampled_from(["uniform", "normal", "pareto", "paretonormal"])) if jitter else "uniform",
        loss=draw(_shares | st.builds(Bursts, _percents, _percents, _percents, _percents)),
        duplicate=draw(_shares),
        reorder=(reorder := draw(_shares) if waits else Share()),
        gap=draw(st.integers(1, GAP_MAX)) if reorder != Share() else 1,
        corrupt=draw(_shares),
        rate=draw(st.integers(0, 2**63 - 1)),
        limit=draw(st.integers(1, LIMIT_MAX)),
        seed=draw(st.none() | st.integers(0, SEED_MAX)),
    )


def parsed(text: str) -> Impairment:
    words = text.split()
    impairment, count = parse_impairment(words)
    assert count == len(words)
    return impairment


def refused(text: str) -> VirtError:
    with pytest.raises(VirtError) as caught:
        parse_impairment_verb(text.split())
    return caught.value


def test_everything() -> None:
    assert parsed(EVERYTHING) == Impairment(
        delay=20 * MS,
        jitter=5 * MS,
        distribution="normal",
        loss=Share(1),
        duplicate=Share(0.1),
        reorder=Share(25, 50),
        corrupt=Share(0.1),
        rate=10_000_000,
        limit=500,
        seed=42,
    )
    assert format_impairment(parsed(EVERYTHING)) == EVERYTHING.replace(" reorder 25% 50% corrupt 0.1%", "").replace(
        "duplicate 0.1%", "duplicate 0.1% reorder 25% 50% corrupt 0.1%"
    )


@pytest.mark.parametrize(
    ("text", "impairment"),
    [
        ("", Impairment()),
        ("delay 100", Impairment(delay=100_000)),
        ("delay 20ms 5ms 25%", Impairment(delay=20 * MS, jitter=5 * MS, delay_correlation=25)),
        ("delay 0 5ms distribution uniform", Impairment(jitter=5 * MS)),
        ("loss 1", Impairment(loss=Share(1))),
        ("loss random 1% 25%", Impairment(loss=Share(1, 25))),
        ("loss gemodel 1%", Impairment(loss=Bursts(1, 99))),
        ("loss gemodel 1% 10%", Impairment(loss=Bursts(1, 10))),
        ("loss gemodel 1% 10% 70% 0.1%", Impairment(loss=Bursts(1, 10, 70, 0.1))),
        ("gap 5 reorder 25% delay 10ms", Impairment(delay=10 * MS, reorder=Share(25), gap=5)),
    ],
)
def test_each_word(text: str, impairment: Impairment) -> None:
    assert parsed(text) == impairment


@pytest.mark.parametrize(
    ("text", "count"),
    [("delay 20ms mtu 1400", 2), ("mtu 1400", 0), ("loss 1% 2% 3%", 3), ("rate 1mbit 20", 2), ("seed 1 # seed 2", 2)],
)
def test_it_ends_at_the_first_word_not_its_own(text: str, count: int) -> None:
    assert parse_impairment(text.split())[1] == count


@given(impairments())
def test_what_is_written_can_be_read(impairment: Impairment) -> None:
    assert parsed(format_impairment(impairment)) == impairment


@given(impairments(), impairments())
def test_both_directions_can_be_read(towards: Impairment, away: Impairment) -> None:
    text = format_impairments(towards, away)
    if not text:
        assert towards == away == Impairment()
        return
    found, count = parse_impairments(text.split())
    assert count == len(text.split())
    assert {"in": Impairment(), "out": Impairment()} | found == {"in": towards, "out": away}


def test_directions() -> None:
    delay = Impairment(delay=20 * MS)
    assert parse_impairment_verb(["delay", "20ms", "up"]) == (("in", "out"), delay, 2)
    assert parse_impairment_verb(["in", "delay", "20ms", "up"]) == (("in",), delay, 3)
    assert parse_impairment_verb(["out", "delay", "20ms"]) == (("out",), delay, 3)
    both = {"in": delay, "out": Impairment(loss=Share(1))}
    assert parse_impairments(["in", "delay", "20ms", "out", "loss", "1%", "up"]) == (both, 6)
    assert parse_impairments(["delay", "20ms", "up"]) == ({"in": delay, "out": delay}, 2)
    with pytest.raises(VirtError, match='"out" follows an impairment of both directions'):
        parse_impairments(["delay", "20ms", "out", "loss", "1%"])


@pytest.mark.parametrize(
    ("text", "number", "quotes"),
    [
        ("", errno.EINVAL, '"impair" needs'),
        ("in", errno.EINVAL, '"in" needs'),
        ("in mtu 1400", errno.EINVAL, '"mtu"'),
        ("both delay 20ms", errno.EINVAL, '"both"'),
        ("delay", errno.EINVAL, '"delay"'),
        ("delay soon", errno.EINVAL, '"soon"'),
        ("delay 20ms 5%", errno.EINVAL, '"5%"'),
        ("delay 20ms 5ms 101%", errno.ERANGE, '"101%"'),
        ("delay 20ms delay 5ms", errno.EINVAL, '"delay"'),
        ("delay 99999999999s", errno.ERANGE, '"99999999999s"'),
        ("delay 20ms 5ms distribution bell", errno.EINVAL, '"bell"'),
        ("delay 20ms distribution normal", errno.EINVAL, '"distribution"'),
        ("loss", errno.EINVAL, '"loss"'),
        ("loss 101%", errno.ERANGE, '"101%"'),
        ("loss -1%", errno.EINVAL, '"-1%"'),
        ("loss state 1%", errno.EINVAL, '"state"'),
        ("loss gemodel", errno.EINVAL, '"gemodel"'),
        ("loss gemodel 1% 2% 3% 400%", errno.ERANGE, '"400%"'),
        ("reorder 25%", errno.EINVAL, '"reorder"'),
        ("delay 1ms gap 5", errno.EINVAL, '"gap"'),
        ("delay 1ms reorder 1% gap 0", errno.ERANGE, '"0"'),
        ("corrupt much", errno.EINVAL, '"much"'),
        ("rate fast", errno.EINVAL, '"fast"'),
        ("limit 0", errno.ERANGE, '"0"'),
        ("limit 524289", errno.ERANGE, '"524289"'),
        ("seed -1", errno.ERANGE, '"-1"'),
        ("seed x", errno.EINVAL, '"x"'),
    ],
)
def test_refusals_quote_the_word(text: str, number: int, quotes: str) -> None:
    refusal = refused(text)
    assert refusal.errno == number
    assert refusal.strerror.startswith(quotes)


def test_one_direction_twice() -> None:
    with pytest.raises(VirtError, match='"in" is given twice'):
        parse_impairments(["in", "loss", "1%", "in", "loss", "2%"])


@given(st.lists(st.sampled_from([*EVERYTHING.split(), "gemodel", "gap", "in", "out", "9" * 5000, "-", "٣", "é"])))
def test_any_words_give_an_impairment_or_a_refusal(words: list[str]) -> None:
    refusal = None
    try:
        found, count = parse_impairments(words)
    except VirtError as error:
        refusal = error
    if refusal:
        assert refusal.errno in (errno.EINVAL, errno.ERANGE)
        assert refusal.strerror.isprintable()
    else:
        assert found
        assert 0 < count <= len(words)


@pytest.mark.parametrize("text", ["delay 1ms", "delay 0 1ms", "loss 1%", "loss gemodel 1%", "rate 1mbit", "corrupt 1%"])
def test_what_harms(text: str) -> None:
    assert not parsed(text).harmless
    assert Impairment().harmless
    assert replace(Impairment(), limit=1, seed=3, loss=Share(0, 50)).harmless
