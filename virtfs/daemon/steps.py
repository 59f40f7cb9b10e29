"""Measures the steps of trio's tasks.

A step is what a task does from one checkpoint to the next. During a step no other task runs, so a long step delays all
users.

Measuring costs several µs per step, so it starts only at the first SIGUSR2 (daemon/diagnosis.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic_ns, thread_time_ns

import trio

MOST = 10  # maximum number of steps that are kept


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a task. length: its duration. computed: its processor time. ended: when it ended. All are in ns."""

    length: int
    computed: int
    ended: int
    task: str


class Steps(trio.abc.Instrument):
    """Keeps the longest steps since `begin`, at most MOST of them. For use in trio's thread only.

    clock: returns the time in ns. processor: returns the processor time of the thread in ns. slept: returns the time in
    ns that tasks have slept within steps (fuse.idle). That time does not count towards the length of a step.
    """

    def __init__(
        self,
        clock: Callable[[], int] = monotonic_ns,
        processor: Callable[[], int] = thread_time_ns,
        slept: Callable[[], int] = lambda: 0,
    ) -> None:
        self._clock = clock
        self._processor = processor
        self._slept = slept
        self._begun = 0
        # The values of clock(), processor() and slept() when the current step began; 0 if there is none.
        self._step = 0, 0, 0
        self._longest: list[Step] = []
        self._enough = 0  # length in ns; only longer steps are kept
        self.running = False
        self.count = 0  # the number of steps since begin()

    def begin(self) -> None:
        """Discard the recorded steps, and start measuring afresh."""
        if not self.running:
            trio.lowlevel.add_instrument(self)
            self.running = True
        self._longest, self._enough, self.count, self._begun = [], 0, 0, self._clock()

    def longest(self) -> list[Step]:
        """Return the longest steps, longest first."""
        return sorted(self._longest, key=lambda step: -step.length)

    def lines(self) -> list[str]:
        """Return a line about the measurement, and one for each of the longest steps."""
        if not self.running:
            return ["steps: not measured before the first SIGUSR2"]
        now = self._clock()
        return [
            f"steps: {self.count} in {(now - self._begun) / 1e9:.1f} s; the longest:",
            *(
                f"step: {step.length / 1e6:.1f} ms, {step.computed / 1e6:.1f} ms of processor time, "
                f"{(now - step.ended) / 1e9:.1f} s ago: {step.task}"
                for step in self.longest()
            ),
        ]

    # Methods of trio.abc.Instrument

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._step = self._clock(), self._processor(), self._slept()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        began, used, slept = self._step
        if not began:
            return  # begin() was called in this step
        now = self._clock()
        self.count += 1
        length = now - began - (self._slept() - slept)
        if length > self._enough:
            longest = self.longest()[: MOST - 1]
            self._longest = [*longest, Step(length, self._processor() - used, now, task.name)]
            if len(self._longest) == MOST:
                self._enough = min(step.length for step in self._longest)
