"""Decide what happens to a frame on an impaired wire, and when: netem's rules (net/sched/sch_netem.c) without a clock.

The caller passes the time, in nanoseconds of any monotonic clock. A frame goes through these steps, in this order:

1. duplicate: the frame is sent twice. Each copy goes through the steps below on its own.
2. loss: the frame is dropped. It is also dropped if `limit` frames are already waiting.
3. corrupt: one bit is flipped.
4. reorder: the frame is sent at once, ahead of all waiting frames and regardless of the rate.
5. delay and jitter: the frame is sent later. Frames are sent in the order of their due times. So jitter can reorder
   frames, as in netem, but not if a rate is set, because a link carries one frame after the other.
6. rate: transmission starts when the delay is over and the link is free. The frame arrives when its last bit has been
   sent.

A change of settings applies to later frames. Waiting frames keep their due times, so a later frame with a shorter delay
overtakes them.

Correlation differs from netem. netem mixes each new random number with the previous one, which makes rare events rarer:
"loss 1% 25%" loses far less than 1 %, and tc-netem(8) deprecates correlated loss for that reason. Here a correlation of
25 % means that the previous result is reused with a probability of 25 %. The share of affected frames stays exact,
and consecutive frames correlate as requested.
"""

import heapq
import math
from collections.abc import Callable
from functools import cache
from random import Random
from statistics import NormalDist

from virtfs.core.counters import Counts
from virtfs.core.impairment import Bursts, Distribution, Impairment, Share
from virtfs.core.memory import Hold, Kind, Memory

_SECOND = 10**9
_EACH = 256  # bytes of overhead for each waiting frame
_TABLE = 4096  # entries in a distribution table, as in tc's files
# Maximum deviation from the delay, in units of the jitter. netem has the same limit: the entries of its tables are
# signed 16-bit numbers in units of 1/8192 of the jitter (NETEM_DIST_SCALE), and 2**15 / 8192 is 4.
_REACH = 4.0


class Scheduler:
    """The waiting frames of one direction.

    seed, stream: the random numbers depend on both. Runs with the same settings, seed, stream and frame times give the
    same result. Two directions that share a seed need different streams; otherwise the reply to a ping would pass
    whenever the request did. If settings.seed is not None, it is used instead of `seed`.
    hold: the Hold that is charged for the waiting frames; None for a separate one with a mount's default limits.

    Every pushed frame, and every duplicate, meets exactly one of these conditions: it is counted in counts.lost; it is
    counted in counts.overlimit; it still waits; or pop() or clear() has removed it.
    """

    def __init__(self, settings: Impairment, seed: int, stream: str = "", hold: Hold | None = None) -> None:
        self.counts = Counts()
        self._stream = stream
        self._random = self._seeded(seed)
        self._heap: list[tuple[int, int, bytes]] = []  # due time, sequence number, frame
        self._size = 0  # bytes of the waiting frames, plus _EACH for each frame
        self._hold = hold or Memory().hold(Kind.DELAYED)
        self._sequence = 0
        self._link_free = 0  # time at which the last bit of the last frame will have been sent
        # The remainder of the last division by the rate in _due(), in bits * nanoseconds / second.
        self._remainder = 0
        self.change(settings)

    def __len__(self) -> int:
        """Return the number of waiting frames."""
        return len(self._heap)

    def change(self, settings: Impairment) -> None:
        """Apply new settings to later frames. If the settings have a seed, the random numbers restart from it."""
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
        """Accept a frame at the time `now`. The frame must not be empty."""
        if self._duplicate is not None and self._duplicate():
            self.counts.duplicated += 1
            self._take(now, frame)
        self._take(now, frame)

    def pop(self, now: int) -> list[bytes]:
        """Return the frames that are due, in sending order; frames due at the same time keep their order of arrival."""
        heap = self._heap
        due = []
        while heap and heap[0][0] <= now:
            frame = heapq.heappop(heap)[2]
            self._size -= len(frame) + _EACH
            due.append(frame)
        if due:
            self._hold.relax(self._size)
        return due

    def next_due(self) -> int | None:
        """Return the time at which the next frame is due; None if no frame waits."""
        return self._heap[0][0] if self._heap else None

    def take_counts(self) -> Counts | None:
        """Return the counts since the last call, and reset them to 0. Return None if all of them are 0."""
        counts = self.counts
        if counts.lost or counts.overlimit or counts.duplicated or counts.reordered or counts.corrupted:
            self.counts = Counts()
            return counts
        return None

    def clear(self) -> int:
        """Drop all waiting frames; return the number dropped."""
        count = len(self._heap)
        self._heap.clear()
        self._size = self._link_free = 0
        self._hold.release()
        return count

    def _take(self, now: int, frame: bytes) -> None:
        if self._loss is not None and self._loss():
            self.counts.lost += 1
        elif len(self._heap) >= self.settings.limit or not self._room(len(frame)):
            self.counts.overlimit += 1
        else:
            if self._corrupt is not None and self._corrupt():
                self.counts.corrupted += 1
                frame = self._flip_a_bit(frame)
            self._sequence += 1
            heapq.heappush(self._heap, (self._due(now, len(frame)), self._sequence, frame))
            self._size += len(frame) + _EACH

    def _room(self, length: int) -> bool:
        """Return whether there is memory for one more frame of this length."""
        size = self._size + length + _EACH
        return size <= self._hold.size or self._hold.cover(size)

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
            # The remainder is carried over to the next frame. Rounding every frame down to whole nanoseconds would make
            # a fast link exceed its rate.
            taken, self._remainder = divmod(length * 8 * _SECOND + self._remainder, settings.rate)
            due = self._link_free = max(due, self._link_free) + taken
        return due

    def _flip_a_bit(self, frame: bytes) -> bytes:
        bit = self._random.randrange(len(frame) * 8)
        corrupted = bytearray(frame)
        corrupted[bit // 8] ^= 1 << bit % 8
        return bytes(corrupted)

    def _seeded(self, seed: int) -> Random:
        return Random(f"{seed} {self._stream}")


class _Chance:
    """A random source. Each call decides about one frame. The result is True for the given share of the calls."""

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
    """A random source that returns True in bursts (Gilbert-Elliott model). The model starts in the good state."""

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
    """Return the random source for a share, or None if the share is zero."""
    if isinstance(share, Bursts):
        return _Bursts(share, random.random)
    return _Chance(share, random.random) if share.percent else None


class _Jitter:
    """A random source. Each call returns a deviation from the delay, in nanoseconds."""

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
    """Return the table of a distribution: equally probable values, in ascending order.

    The values are in units of the jitter, from -4 to 4 around 0. They are those of iproute2's netem/normal.c, pareto.c
    and paretonormal.c:

    normal: the standard normal distribution.
    pareto: the Pareto distribution with exponent 3, minus its mean of 1.5, times 4/3.
    paretonormal: normal / 4 + pareto * 3 / 4.
    """
    return tuple(_value(distribution, (index + 0.5) / _TABLE) for index in range(_TABLE))


def _value(distribution: Distribution, quantile: float) -> float:
    if distribution == "uniform":
        return 2 * quantile - 1
    normal = NormalDist().inv_cdf(quantile)
    pareto = min(_REACH, (math.pow(1 - quantile, -1 / 3) - 1.5) * 4 / 3)
    return {"normal": normal, "pareto": pareto, "paretonormal": normal / 4 + pareto * 3 / 4}[distribution]
