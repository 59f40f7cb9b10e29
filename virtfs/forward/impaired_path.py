"""One impaired direction of a wire or a cable. It has a Scheduler (core.impairment_scheduler), a task and a timer."""

from collections.abc import Callable
from random import getrandbits
from time import monotonic_ns
from typing import Protocol

import trio

from virtfs.core.counters import Counts
from virtfs.core.impairment import UNIMPAIRED, Impairment
from virtfs.core.impairment_scheduler import Scheduler
from virtfs.core.memory import Hold
from virtfs.forward.tasks import lasting
from virtfs.host.timer import Timer


class End(Protocol):
    """The receiving end of an impaired path. It also counts the frames that the path drops or alters."""

    def arrive(self, frame: bytes) -> None:
        """Accept a frame that is due. Must not raise an exception."""

    def lose(self, frames: int) -> None:
        """Count frames that the path has dropped because it ended."""

    def count_impaired(self, counts: Counts) -> None:
        """Add what the path has counted since the last call to the receiver's counters."""


class ImpairedPath:
    """Accepts frames through `push`, and delivers each frame to `end` when it is due.

    One task, `run`, serves any number of frames. A frame that is due at once is delivered before `push` returns.
    stream: a name that is mixed into the seed, so that two directions with the same seed get different random numbers.
    end: receives the frames that are due, and counts the frames that are dropped or altered.
    hold: the Hold that is charged for the delayed frames.
    The constructor raises VirtError: EMFILE, ENFILE, ENOMEM.
    """

    def __init__(
        self,
        impairment: Impairment,
        stream: str,
        end: End,
        hold: Hold,
    ) -> None:
        self._scheduler = Scheduler(impairment, getrandbits(64), stream, hold)
        self._end = end
        self._gone: Callable[[], None] | None = None
        self._timer = Timer()
        self._set_for = 0
        self._stopped = False
        self._scope = trio.CancelScope()

    def push(self, frame: bytes) -> None:
        """Accept one more frame. After `stop`, drop it."""
        if self._stopped:
            self._end.lose(1)
            return
        self._scheduler.push(monotonic_ns(), frame)
        self._move_on()

    def change(self, impairment: Impairment) -> None:
        """Apply a new impairment to later frames. Frames that are already delayed keep their due times."""
        if not impairment.harmless:
            self._gone = None
        self._scheduler.change(impairment)
        self._move_on()

    def retire(self, gone: Callable[[], None]) -> None:
        """Let later frames pass unchanged, and call `gone` once the last delayed frame has been delivered."""
        self._gone = gone
        self.change(UNIMPAIRED)

    def clear(self) -> int:
        """Drop the delayed frames, and return their number."""
        return self._scheduler.clear()

    def _move_on(self) -> None:
        """Report the new counts, deliver the frames that are due, and set the timer for the next frame."""
        scheduler = self._scheduler
        if (counts := scheduler.take_counts()) is not None:
            self._end.count_impaired(counts)
        for frame in scheduler.pop(monotonic_ns()):
            self._end.arrive(frame)
        due = scheduler.next_due() or 0
        if due != self._set_for:
            self._timer.set(due)
            self._set_for = due
        if self._gone is not None and not len(scheduler):
            gone, self._gone = self._gone, None
            gone()

    async def run(self) -> None:
        """Deliver frames until `stop` is called."""
        try:
            with self._scope:
                await lasting("an impairment", self._follow_timer)
        finally:
            self._timer.close()

    async def _follow_timer(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._timer.fd)
            self._set_for = -1
            self._move_on()

    def close(self) -> None:
        """Release a path whose `run` has not been started."""
        self._timer.close()

    def stop(self) -> None:
        """End `run`. Frames that are still delayed are dropped."""
        self._stopped, self._gone = True, None
        self._end.lose(self.clear())
        self._scope.cancel()
