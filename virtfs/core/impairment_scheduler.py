"""What happens to a frame on an impaired wire, and when: netem's rules (net/sched/sch_netem.c) without a clock.

Whoever drives it says what time it is, in nanoseconds of any clock that does not go back. A frame goes through
these, in this order:

1. duplicate: it is sent twice. Both go through what follows, each with a fate of its own.
2. loss: it is gone. Likewise if `limit` frames wait already.
3. corrupt: one bit of it is another.
4. reorder: it is sent at once, past all that wait, also past the rate.
5. delay and jitter: it is sent later. Frames leave by their times, so jitter lets one overtake another, as in
   netem; with a rate it does not, for a link carries one frame after the other.
6. rate: it starts when the link is free and its delay over, and has arrived when its last bit has.

A change concerns frames that come after it: what waits keeps its time, and is overtaken if the delay got shorter.

Correlation is not as netem does it. There the number drawn is a mean of a new one and the last, which makes rare
events rarer still ("loss 1% 25%" loses far less than 1 %; tc-netem(8) calls it deprecated for that). Here the last
draw counts again with that probability: the share stays exact, and the correlation of neighbours is what was asked.
"""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random
from statistics import NormalDist

from virtfs.core.impairment import Bursts, Distribution, Impairment, Share

_SECOND = 10**9
_TABLE = 4096  # entries of a distribution's table, as tc's files have
_REACH = 4.0  # jitters from the middle at most: netem keeps 16 bits, 8192 of them for one jitter


@dataclass(slots=True)
class Counts:
    """Frames that met a fate, since the beginning."""

    lost: int = 0
    over_limit: int = 0
    duplicated: int = 0
    corrupted: int = 0
    reordered: int = 0


class Scheduler:
    """The frames of one direction that wait for their time.

    The same settings, seed and stream give the same fate to the same frames at the same times. `stream` tells
    schedulers apart that share a seed: with equal luck in both directions a ping's answer would get through
    whenever its question did. Settings that name a seed prevail over `seed`.

    Each frame pushed is lost, over the limit, waiting or popped; one duplicated is so twice.
    """

    def __init__(self, settings: Impairment, seed: int, stream: str = "") -> None:
        self.counts = Counts()
        self._stream = stream
        self._random = self._seeded(seed)
        self._heap: list[tuple[int, int, bytes]] = []  # when, which came first, the frame
        self._sequence = 0
        self._link_free = 0  # when the last bit of the last frame has left
        self._owed = 0  # bits times nanoseconds a second, of a nanosecond begun
        self.change(settings)

    def __len__(self) -> int:
        """Frames that wait."""
        return len(self._heap)

    def change(self, settings: Impairment) -> None:
        """Other settings for what comes from now on; what waits stays. If they name a seed, chance starts anew."""
        self.settings = settings
        if settings.seed is not None:
            self._random = self._seeded(settings.seed)
        self._duplicate = _chance(settings.duplicate, self._random)
        self._loss = _chance(settings.loss, self._random)
        self._corrupt = _chance(settings.corrupt, self._random)
        self._reorder = _chance(settings.reorder, self._random)
        self._jitter = _Jitter(settings, self._random) if settings.jitter else None
        self._since_reordered = 0

    def push(self, now: int, frame: bytes) -> None:
        """A frame comes; it has at least one byte."""
        if self._duplicate is not None and self._duplicate():
            self.counts.duplicated += 1
            self._take(now, frame)
        self._take(now, frame)

    def pop(self, now: int) -> list[bytes]:
        """The frames whose time has come, in the order they are to be sent; those of the same time as they came."""
        heap = self._heap
        due = []
        while heap and heap[0][0] <= now:
            due.append(heapq.heappop(heap)[2])
        return due

    def next_due(self) -> int | None:
        """When the next frame is to be popped; None if none waits."""
        return self._heap[0][0] if self._heap else None

    def clear(self) -> int:
        """Forget all that waits: how many frames that were."""
        count = len(self._heap)
        self._heap.clear()
        self._link_free = 0
        return count

    def _take(self, now: int, frame: bytes) -> None:
        if self._loss is not None and self._loss():
            self.counts.lost += 1
        elif len(self._heap) >= self.settings.limit:
            self.counts.over_limit += 1
        else:
            if self._corrupt is not None and self._corrupt():
                self.counts.corrupted += 1
                frame = self._with_a_wrong_bit(frame)
            self._sequence += 1
            heapq.heappush(self._heap, (self._due(now, len(frame)), self._sequence, frame))

    def _due(self, now: int, length: int) -> int:
        settings = self.settings
        if self._reorder is not None:
            self._since_reordered += 1
            if self._since_reordered >= settings.gap and self._reorder():
                self._since_reordered = 0
                self.counts.reordered += 1
                return now
        due = now + settings.delay
        if self._jitter is not None:
            due = max(now, due + self._jitter())
        if settings.rate:
            # The remainder is carried on, or a fast link would be faster by all that was rounded off.
            taken, self._owed = divmod(length * 8 * _SECOND + self._owed, settings.rate)
            due = self._link_free = max(due, self._link_free) + taken
        return due

    def _with_a_wrong_bit(self, frame: bytes) -> bytes:
        bit = self._random.randrange(len(frame) * 8)
        wrong = bytearray(frame)
        wrong[bit // 8] ^= 1 << bit % 8
        return bytes(wrong)

    def _seeded(self, seed: int) -> Random:
        return Random(f"{seed} {self._stream}")


class _Chance:
    """Says yes to a share of its questions."""

    __slots__ = ("_correlation", "_last", "_probability", "_random")

    def __init__(self, share: Share, random: Callable[[], float]) -> None:
        self._probability = share.percent / 100
        self._correlation = share.correlation / 100
        self._random = random
        self._last = random() < self._probability

    def __call__(self) -> bool:
        if not self._correlation or self._random() >= self._correlation:
            self._last = self._random() < self._probability
        return self._last


class _Bursts:
    """Says yes in bursts: the Gilbert-Elliott model, beginning with a good wire."""

    __slots__ = ("_bad", "_chances", "_random")

    def __init__(self, model: Bursts, random: Callable[[], float]) -> None:
        self._chances = ((model.loss_good / 100, model.p / 100), (model.loss_bad / 100, model.r / 100))
        self._random = random
        self._bad = False

    def __call__(self) -> bool:
        loss, turn = self._chances[self._bad]
        if self._random() < turn:
            self._bad = not self._bad
        return self._random() < loss


def _chance(share: Share | Bursts, random: Random) -> _Chance | _Bursts | None:
    """What asks for it; None if it never happens."""
    if isinstance(share, Bursts):
        return _Bursts(share, random.random)
    return _Chance(share, random.random) if share.percent else None


class _Jitter:
    """What is added to the delay, in nanoseconds."""

    __slots__ = ("_correlation", "_jitter", "_last", "_random", "_table")

    def __init__(self, settings: Impairment, random: Random) -> None:
        self._jitter = settings.jitter
        self._correlation = settings.delay_correlation / 100
        self._table = None if settings.distribution == "uniform" else table(settings.distribution)
        self._random = random.random
        self._last = self._draw()

    def __call__(self) -> int:
        if not self._correlation or self._random() >= self._correlation:
            self._last = self._draw()
        return self._last

    def _draw(self) -> int:
        if self._table is None:
            return int((2 * self._random() - 1) * self._jitter)
        return int(self._table[int(self._random() * _TABLE)] * self._jitter)


@cache
def table(distribution: Distribution) -> tuple[float, ...]:
    """Equally probable values of a distribution, ascending, in units of the jitter; the middle is 0, the ends ±4.

    As iproute2's netem/normal.c, pareto.c and paretonormal.c make their files: the standard normal distribution;
    Pareto's with exponent 3, its mean 1.5 moved to 0, times 4/3; a quarter of the one and three quarters of the other.
    """
    return tuple(_value(distribution, (index + 0.5) / _TABLE) for index in range(_TABLE))


def _value(distribution: Distribution, quantile: float) -> float:
    if distribution == "uniform":
        return 2 * quantile - 1
    normal = NormalDist().inv_cdf(quantile)
    pareto = min(_REACH, (math.pow(1 - quantile, -1 / 3) - 1.5) * 4 / 3)
    return {"normal": normal, "pareto": pareto, "paretonormal": normal / 4 + pareto * 3 / 4}[distribution]
