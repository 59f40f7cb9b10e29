"""Impairments as values; impairment_text parses and formats them, impairment_scheduler applies them."""

from dataclasses import dataclass
from typing import Final, Literal

Direction = Literal["in", "out"]  # "in" is towards virt
Distribution = Literal["uniform", "normal", "pareto", "paretonormal"]

LIMIT_DEFAULT = 1000  # frames; tc-netem(8)'s default

BOTH: Final[tuple[Direction, ...]] = ("in", "out")


@dataclass(frozen=True, slots=True)
class Share:
    """The share of frames to which an impairment applies, in percent.

    correlation: the probability, in percent, that the last frame's result is used again.
    """

    percent: float = 0.0
    correlation: float = 0.0


NEVER: Final = Share()


@dataclass(frozen=True, slots=True)
class Bursts:
    """The Gilbert-Elliott loss model; probabilities in percent, names as in tc-netem(8).

    The wire is good or bad. At each frame, p is the chance that a good wire turns bad, r that a bad wire turns good.
    The frame is lost with probability loss_bad (1-h) or loss_good (1-k), according to the state before that change. A
    burst lasts 100/r frames on average, and p/(p+r) of all frames meet a bad wire.
    """

    p: float
    r: float
    loss_bad: float = 100.0
    loss_good: float = 0.0


@dataclass(frozen=True, slots=True)
class Impairment:
    """The impairment of one direction; a default one does nothing.

    delay, jitter: nanoseconds. rate: bits a second, 0 for no limit. gap: frames, at least 1. limit: frames, at least 1.
    seed: None for a random one.
    """

    delay: int = 0
    jitter: int = 0
    delay_correlation: float = 0.0  # percent
    distribution: Distribution = "uniform"
    loss: Share | Bursts = NEVER
    duplicate: Share = NEVER
    reorder: Share = NEVER
    gap: int = 1
    corrupt: Share = NEVER
    rate: int = 0
    limit: int = LIMIT_DEFAULT
    seed: int | None = None

    @property
    def harmless(self) -> bool:
        """Whether frames pass unchanged and without delay."""
        harms = (self.delay, self.jitter, self.rate, self.duplicate.percent, self.corrupt.percent)
        return not any(harms) and isinstance(self.loss, Share) and not self.loss.percent


UNIMPAIRED: Final = Impairment()
