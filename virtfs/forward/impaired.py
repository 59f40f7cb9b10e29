"""One impaired direction of a wire or a cable: a scheduler of core, driven by one task and a timer."""

from collections.abc import Callable
from random import getrandbits
from time import monotonic_ns

import trio

from virtfs.core.impairment import UNIMPAIRED, Impairment
from virtfs.core.impairment_scheduler import Scheduler
from virtfs.forward.tasks import lasting
from virtfs.host.timer import Timer


class ImpairedPath:
    """Frames pushed come out at `deliver` when their time has come, unless they are lost, which `lost` is told of.

    One task (`run`) for any number of frames. What is due at once goes on within push. stream: tells apart two
    directions that share a seed. VirtError, at its making: EMFILE, ENFILE, ENOMEM.
    """

    def __init__(
        self, impairment: Impairment, stream: str, deliver: Callable[[bytes], None], lost: Callable[[int], None]
    ) -> None:
        self._scheduler = Scheduler(impairment, getrandbits(64), stream)
        self._deliver = deliver
        self._lost = lost
        self._counted = 0
        self._gone: Callable[[], None] | None = None
        self._timer = Timer()
        self._set_for = 0
        self._scope = trio.CancelScope()

    def push(self, frame: bytes) -> None:
        """One more frame sets out."""
        self._scheduler.push(monotonic_ns(), frame)
        self._move_on()

    def change(self, impairment: Impairment) -> None:
        """Frames that set out from now on are treated so; those on their way go on."""
        if not impairment.harmless:
            self._gone = None
        self._scheduler.change(impairment)
        self._move_on()

    def retire(self, gone: Callable[[], None]) -> None:
        """Impair nothing any more; once what is on its way has arrived, call `gone`."""
        self._gone = gone
        self.change(UNIMPAIRED)

    def clear(self) -> int:
        """Drop what is on its way; how many frames that was."""
        return self._scheduler.clear()

    def _move_on(self) -> None:
        """Deliver what is due, set the timer for what comes next, count what is lost."""
        scheduler = self._scheduler
        for frame in scheduler.pop(monotonic_ns()):
            self._deliver(frame)
        due = scheduler.next_due() or 0
        if due != self._set_for:
            self._timer.set(due)
            self._set_for = due
        counted = scheduler.counts.lost + scheduler.counts.over_limit
        if counted != self._counted:
            self._lost(counted - self._counted)
            self._counted = counted
        if self._gone is not None and not len(scheduler):
            gone, self._gone = self._gone, None
            gone()

    async def run(self) -> None:
        """Until `stop`."""
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
        """Give back one that has not been run."""
        self._timer.close()

    def stop(self) -> None:
        """No more; what is on its way is lost."""
        self._lost(self.clear())
        self._scope.cancel()
