"""One impaired direction of a wire or a cable. It has a Scheduler (core.impairment_scheduler), a task and a timer."""

from collections.abc import Callable
from random import getrandbits
from time import monotonic_ns

import trio

from virtfs.core.impairment import UNIMPAIRED, Impairment
from virtfs.core.impairment_scheduler import Scheduler
from virtfs.core.memory import Hold
from virtfs.forward.tasks import lasting
from virtfs.host.timer import Timer


class ImpairedPath:
    """Takes frames through `push`, and calls `deliver` with each frame when it is due.

    One task, `run`, serves any number of frames. A frame that is due at once is delivered before `push` returns.
    stream: a name that is mixed into the seed, so that two directions with the same seed get different random numbers.
    deliver: called with each frame when it is due. It must not raise an exception.
    lost: called with the number of frames lost since its last call. duplicated: likewise for duplicates made.
    hold: charges the delayed frames.
    The constructor raises VirtError: EMFILE, ENFILE, ENOMEM.
    """

    def __init__(
        self,
        impairment: Impairment,
        stream: str,
        deliver: Callable[[bytes], None],
        lost: Callable[[int], None],
        duplicated: Callable[[int], None],
        hold: Hold,
    ) -> None:
        self._scheduler = Scheduler(impairment, getrandbits(64), stream, hold)
        self._deliver = deliver
        self._lost = lost
        self._duplicated = duplicated
        self._counted_lost = self._counted_duplicates = 0
        self._gone: Callable[[], None] | None = None
        self._timer = Timer()
        self._set_for = 0
        self._stopped = False
        self._scope = trio.CancelScope()

    def push(self, frame: bytes) -> None:
        """Take one more frame. After `stop`, count it as lost."""
        if self._stopped:
            self._lost(1)
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
        """Report lost frames and duplicates, deliver the frames that are due, and set the timer for the next frame."""
        scheduler = self._scheduler
        self._report()
        for frame in scheduler.pop(monotonic_ns()):
            self._deliver(frame)
        due = scheduler.next_due() or 0
        if due != self._set_for:
            self._timer.set(due)
            self._set_for = due
        if self._gone is not None and not len(scheduler):
            gone, self._gone = self._gone, None
            gone()

    def _report(self) -> None:
        counts = self._scheduler.counts
        if counts.duplicated != self._counted_duplicates:
            self._duplicated(counts.duplicated - self._counted_duplicates)
            self._counted_duplicates = counts.duplicated
        lost = counts.lost + counts.over_limit
        if lost != self._counted_lost:
            self._lost(lost - self._counted_lost)
            self._counted_lost = lost

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
        """End `run`. Frames that are still delayed are lost."""
        self._stopped = True
        self._lost(self.clear())
        self._scope.cancel()
