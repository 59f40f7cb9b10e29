"""Impairments as text, in the words and units of tc-netem(8).

    delay TIME [JITTER [CORRELATION]]       delay frames; JITTER spreads the delay around TIME
    distribution uniform|normal|pareto|paretonormal         distribution of JITTER, uniform by default
    loss [random] PERCENT [CORRELATION]     lose PERCENT of the frames
    loss gemodel P [R [1-H [1-K]]]          lose frames in bursts (Gilbert-Elliott)
    duplicate PERCENT [CORRELATION]         send PERCENT of the frames twice
    reorder PERCENT [CORRELATION]           send PERCENT of the frames at once, ahead of waiting frames
    gap N                                   with reorder: send at most every Nth frame at once
    corrupt PERCENT [CORRELATION]           flip one bit in PERCENT of the frames
    rate RATE                               send at most RATE bits a second
    limit N                                 drop a frame if N frames are already waiting
    seed N                                  seed of the random numbers, to make a test repeatable

A TIME without a unit is in microseconds, and a RATE without a unit is in bits a second. The percent sign is optional.
The lines above may come in any order, each at most once. Optional numbers belong to the word before them. Parsing stops
at the first word that is neither a keyword of this list nor such a number.
"""

from collections.abc import Callable, Iterator, Sequence
from errno import EINVAL
from typing import Final

from virtfs.core import quantities
from virtfs.core.errors import VirtError
from virtfs.core.impairment import BOTH, LIMIT_DEFAULT, NEVER, Bursts, Direction, Distribution, Impairment, Share
from virtfs.core.nearest import did_you_mean
from virtfs.core.quoting import quoted

LIMIT_MAX = 524288  # frames, as for the queue of a tap
GAP_MAX = 2**32 - 1
SEED_MAX = 2**64 - 1

EXAMPLE: Final = "an impairment such as delay 20ms or loss 1%"  # in error messages

_DISTRIBUTIONS: Final[tuple[Distribution, ...]] = ("uniform", "normal", "pareto", "paretonormal")


def parse_impairment(words: Sequence[str]) -> tuple[Impairment, int]:
    """Parse the impairment at the beginning of `words`.

    Return the impairment and the number of words taken, which is 0 if the first word does not begin an impairment.
    Errors: VirtError with EINVAL or ERANGE, whose message quotes the word.
    """
    reader = _Reader(words)
    found: dict[str, object] = {}
    seen: set[str] = set()
    while (word := reader.peek()) in _PARSERS:
        reader.take(word)
        if word in seen:
            raise VirtError(EINVAL, f"{quoted(word)} is given twice")
        seen.add(word)
        found.update(_PARSERS[word](reader))
    impairment = Impairment(**found)  # type: ignore[arg-type]  # the parsers return fields of Impairment
    _check(impairment, seen)
    return impairment, reader.at


def parse_impairment_verb(words: Sequence[str]) -> tuple[tuple[Direction, ...], Impairment, int]:
    """Parse an impairment with an optional direction: `in delay 20ms`, `out loss 1%` or `delay 20ms`.

    An impairment without a direction applies to both directions. Return the directions, the impairment and the number
    of words taken. Errors: those of parse_impairment(), and EINVAL if there is no impairment.
    """
    directions = tuple(direction for direction in BOTH if words and words[0] == direction) or BOTH
    first = 2 - len(directions)
    impairment, count = parse_impairment(words[first:])
    if not count:
        if len(words) > first:
            raise VirtError(EINVAL, unknown(words[first]))
        raise VirtError(EINVAL, f"{quoted(words[0] if words else 'impair')} needs {EXAMPLE}")
    return directions, impairment, first + count


def unknown(word: str) -> str:
    """Return the error message about a word that begins no part of an impairment."""
    return f"{quoted(word)} is not {EXAMPLE}{did_you_mean(word, WORDS)}"


def parse_impairments(words: Sequence[str]) -> tuple[dict[Direction, Impairment], int]:
    """Parse the arguments of the verb `impair`: `in …`, `out …`, `in … out …`, or an impairment without a direction.

    An impairment without a direction applies to both directions. Return the impairments by direction, and the number
    of words taken. Errors: those of parse_impairment_verb(), and EINVAL if a direction is given twice, or after an
    impairment of both directions.
    """
    found: dict[Direction, Impairment] = {}
    at = 0
    while not found or (at < len(words) and words[at] in BOTH):
        directions, impairment, count = parse_impairment_verb(words[at:])
        if again := [direction for direction in directions if direction in found]:
            raise VirtError(EINVAL, f"{quoted(again[0])} is given twice")
        found |= dict.fromkeys(directions, impairment)
        at += count
        if directions == BOTH:
            if at < len(words) and words[at] in BOTH:
                problem = f"{quoted(words[at])} follows an impairment of both directions"
                raise VirtError(EINVAL, f'{problem}: name both, as in "in delay 20ms out loss 1%"')
            break
    return found, at


def format_impairment(impairment: Impairment) -> str:
    """Return the text that parse_impairment() turns into this impairment; "" for the default."""
    return " ".join(_words(impairment))


def format_impairments(towards: Impairment, away: Impairment) -> str:
    """Return the text that parse_impairments() turns into these impairments; "" if both are the default.

    towards: the impairment of direction `in`. away: the impairment of direction `out`.
    """
    if towards == away:
        return format_impairment(towards)
    both: tuple[tuple[Direction, Impairment], ...] = (("in", towards), ("out", away))
    return " ".join(f"{word} {format_impairment(one)}" for word, one in both if one != Impairment())


class _Reader:
    """A list of words, which are taken one by one."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self.at = 0

    def peek(self) -> str:
        """Return the next word without taking it; "" at the end."""
        return self._words[self.at] if self.at < len(self._words) else ""

    def take(self, after: str) -> str:
        """Take and return the next word, which is the value of the word `after`. EINVAL: there is no next word."""
        word = self.peek()
        if not word:
            raise VirtError(EINVAL, f"{quoted(after)} is missing its value")
        self.at += 1
        return word

    def number_follows(self) -> bool:
        """Return whether the next word begins with a digit. As in tc, such a word is an optional number."""
        return self.peek()[:1] in tuple("0123456789")

    def percents(self, after: str, most: int) -> list[float]:
        """Take and return 1 to `most` percentages. All except the first are optional."""
        found = [quantities.parse_percent(self.take(after))]
        while len(found) < most and self.number_follows():
            found.append(quantities.parse_percent(self.take(after)))
        return found


# Parses the words that follow a keyword; returns fields of Impairment by name.
_Parser = Callable[[_Reader], dict[str, object]]


def _parse_delay(reader: _Reader) -> dict[str, object]:
    found: dict[str, object] = {"delay": quantities.parse_time(reader.take("delay"))}
    if reader.number_follows():
        found["jitter"] = quantities.parse_time(reader.take("delay"))
        if reader.number_follows():
            (found["delay_correlation"],) = reader.percents("delay", 1)
    return found


def _parse_distribution(reader: _Reader) -> dict[str, object]:
    word = reader.take("distribution")
    if word not in _DISTRIBUTIONS:
        raise VirtError(EINVAL, f"{quoted(word)} is not one of {', '.join(_DISTRIBUTIONS)}")
    return {"distribution": word}


def _parse_loss(reader: _Reader) -> dict[str, object]:
    if reader.peek() == "gemodel":
        reader.take("loss")
        p, *others = reader.percents("gemodel", 4)
        # P alone means independent losses: R is then 100 - P (tc/q_netem.c).
        return {"loss": Bursts(p, *(others or [100.0 - p]))}
    if reader.peek() == "random":
        reader.take("loss")
    return {"loss": Share(*reader.percents("loss", 2))}


def _share(word: str) -> _Parser:
    return lambda reader: {word: Share(*reader.percents(word, 2))}


def _whole(word: str, low: int, high: int) -> _Parser:
    return lambda reader: {word: quantities.parse_int(reader.take(word), low, high)}


def _parse_rate(reader: _Reader) -> dict[str, object]:
    return {"rate": quantities.parse_rate(reader.take("rate"))}


_PARSERS: Final[dict[str, _Parser]] = {
    "delay": _parse_delay,
    "distribution": _parse_distribution,
    "loss": _parse_loss,
    "duplicate": _share("duplicate"),
    "reorder": _share("reorder"),
    "gap": _whole("gap", 1, GAP_MAX),
    "corrupt": _share("corrupt"),
    "rate": _parse_rate,
    "limit": _whole("limit", 1, LIMIT_MAX),
    "seed": _whole("seed", 0, SEED_MAX),
}
WORDS: Final = tuple(_PARSERS)  # the words that may begin a part of an impairment


def _check(impairment: Impairment, seen: set[str]) -> None:
    """Raise EINVAL if a word is given without another word that it needs, as tc does."""
    if "distribution" in seen and not impairment.jitter:
        raise VirtError(EINVAL, '"distribution" needs a delay with jitter, as in delay 20ms 5ms')
    if "gap" in seen and "reorder" not in seen:
        raise VirtError(EINVAL, '"gap" needs reorder, as in reorder 25% gap 5')
    if "reorder" in seen and not (impairment.delay or impairment.jitter):
        raise VirtError(EINVAL, '"reorder" needs a delay, because it sends some frames at once and delays the others')


def _words(impairment: Impairment) -> Iterator[str]:
    """Yield the parts of the text that format_impairment() returns."""
    if impairment.delay or impairment.jitter or impairment.delay_correlation:
        yield f"delay {quantities.format_time(impairment.delay)}"
        if impairment.jitter or impairment.delay_correlation:
            yield quantities.format_time(impairment.jitter)
        if impairment.delay_correlation:
            yield quantities.format_percent(impairment.delay_correlation)
    if impairment.distribution != "uniform":
        yield f"distribution {impairment.distribution}"
    if isinstance(impairment.loss, Bursts):
        yield f"loss gemodel {_bursts(impairment.loss)}"
    for word in ("loss", "duplicate", "reorder", "corrupt"):
        share = getattr(impairment, word)
        if isinstance(share, Share) and share != NEVER:
            correlation = f" {quantities.format_percent(share.correlation)}" if share.correlation else ""
            yield f"{word} {quantities.format_percent(share.percent)}{correlation}"
    if impairment.gap != 1:
        yield f"gap {impairment.gap}"
    if impairment.rate:
        yield f"rate {quantities.format_rate(impairment.rate)}"
    if impairment.limit != LIMIT_DEFAULT:
        yield f"limit {impairment.limit}"
    if impairment.seed is not None:
        yield f"seed {impairment.seed}"


def _bursts(loss: Bursts) -> str:
    """Return the numbers that follow gemodel. Trailing defaults are left out."""
    numbers = [loss.p, loss.r, loss.loss_bad, loss.loss_good]
    while len(numbers) > 2 and numbers[-1] == (100.0, 0.0)[len(numbers) - 3]:
        numbers.pop()
    return " ".join(map(quantities.format_percent, numbers))
