"""Impairments as values. impairment_text parses and formats them; impairment_scheduler applies them to frames."""

from dataclasses import dataclass
from typing import Final, Literal

Direction = Literal["in", "out"]  # "in" is towards virt, "out" is towards the tap
Distribution = Literal["uniform", "normal", "pareto", "paretonormal"]

LIMIT_DEFAULT = 1000  # frames; the default of tc-netem(8)

BOTH: Final[tuple[Direction, ...]] = ("in", "out")


@dataclass(frozen=True, slots=True)
class Share:
    """The share of frames that an impairment applies to, in percent.

    correlation: the probability, in percent, that a frame gets the previous frame's result instead of a new draw.
    """

    percent: float = 0.0
    correlation: float = 0.0


NEVER: Final = Share()


@dataclass(frozen=True, slots=True)
class Bursts:
    """The Gilbert-Elliott loss model. Probabilities are in percent; the names are those of tc-netem(8).

    The wire is in one of two states, good and bad. A frame is lost with probability loss_good (1-k) in the good state
    and loss_bad (1-h) in the bad state. After each frame, the wire turns from good to bad with probability p, or from
    bad to good with probability r. A burst lasts 100/r frames on average. The wire is in the bad state for p/(p+r) of
    all frames.
    """

    p: float
    r: float
    loss_bad: float = 100.0
    loss_good: float = 0.0


@dataclass(frozen=True, slots=True)
class Impairment:
    """The impairment of one direction. With the default values, frames pass unchanged and without delay.

    delay, jitter: nanoseconds. delay_correlation: percent. gap: at least 1; at most every gap-th frame is reordered.
    rate: bits a second, 0 for no limit. limit: maximum number of waiting frames, at least 1. seed: seed of the random
    numbers, None for a random seed.
    """

    delay: int = 0
    jitter: int = 0
    delay_correlation: float = 0.0
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
        """Whether all frames pass, unchanged and without delay."""
        harms = (self.delay, self.jitter, self.rate, self.duplicate.percent, self.corrupt.percent)
        return not any(harms) and isinstance(self.loss, Share) and not self.loss.percent


UNIMPAIRED: Final = Impairment()
