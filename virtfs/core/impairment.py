"""Impairments as values. `impairment_text` parses and formats them, `impairment_scheduler` applies them."""

from dataclasses import dataclass
from typing import Final, Literal

Direction = Literal["in", "out"]  # in is towards virt
Distribution = Literal["uniform", "normal", "pareto", "paretonormal"]

LIMIT_DEFAULT = 1000  # tc's

BOTH: Final[tuple[Direction, ...]] = ("in", "out")


@dataclass(frozen=True, slots=True)
class Share:
    """Which share of the frames something happens to; both in percent.

    correlation: how often what happened to the frame before decides again.
    """

    percent: float = 0.0
    correlation: float = 0.0


NEVER: Final = Share()


@dataclass(frozen=True, slots=True)
class Bursts:
    """The Gilbert-Elliott model, its probabilities in percent, with the names of tc-netem(8).

    The wire is good or bad. At each frame p is the chance that a good one turns bad, r that a bad one turns
    good again; the frame itself is lost with loss_bad (1-h) or loss_good (1-k), by how the wire was. A burst
    lasts 100/r frames in the mean, and p/(p+r) of all frames meet a bad wire.
    """

    p: float
    r: float
    loss_bad: float = 100.0
    loss_good: float = 0.0


@dataclass(frozen=True, slots=True)
class Impairment:
    """What happens in one direction; a new one does nothing.

    delay, jitter: nanoseconds. rate: bits a second, 0 for no limit. gap: from 1. limit: frames, from 1.
    seed: None for one that differs each time.
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
        """Whether frames pass as if it were not there."""
        harms = (self.delay, self.jitter, self.rate, self.duplicate.percent, self.corrupt.percent)
        return not any(harms) and isinstance(self.loss, Share) and not self.loss.percent


UNIMPAIRED: Final = Impairment()
