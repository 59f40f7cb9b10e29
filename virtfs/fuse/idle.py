"""Sleep in the channel, instead of in trio, while no other task has anything to do.

When trio sleeps, an event first wakes trio's loop, which then runs the channel. On an idle server this takes 70 µs,
because the code of the loop is no longer in the processor's caches. So the channel itself sleeps in epoll_wait(2). It
waits for its own descriptors and for trio's epoll descriptor, which is readable as soon as another task can continue.
While the channel sleeps, trio's thread is in a step of the channel's task, and all other tasks are blocked.

trio runs its tasks in batches, and a task cannot see whether others of its batch have yet to run. So an instrument
counts the tasks of a batch before trio runs it.
"""

import math
import select
from time import monotonic_ns

import trio

from virtfs.host.epolls import watcher_of

TRIES = 3  # number of batches with other tasks after which wait() gives up
BUSY = 1_000_000  # ns; if another task ends a sleep sooner than this, the next sleep is left to trio
LONGEST = 3600.0  # maximum duration of one sleep in seconds


class Idle(trio.abc.Instrument):
    """Lets one channel sleep.

    slept: the total sleep time in ns.
    """

    def __init__(self) -> None:
        self.slept = 0
        self._epoll: select.epoll | None = None  # watches the channel's descriptor and trio's epoll descriptor
        self._calls = 0
        self._asked = False  # whether to count the tasks of the next batch
        self._alone_until = -math.inf  # until this time (trio.current_time), other tasks run only after an event
        self._busy = False

    async def wait(self, fd: int) -> bool:
        """Let other tasks run. Then sleep until `fd` is readable or another task can continue, and return True.

        fd: the same descriptor at every call.
        Return False without sleeping if other tasks are busy, if this is the first call, or if trio's epoll descriptor
        has not been found. The caller then waits for the descriptor in trio.
        """
        self._calls += 1
        if self._calls == 2:
            self._begin(fd)
        if self._epoll is None or self._busy:
            self._busy = False
            return False
        for _ in range(TRIES):
            self._asked = True
            await trio.lowlevel.checkpoint()
            seconds = self._alone_until - trio.current_time()
            if seconds > 0:
                self._sleep(self._epoll, fd, seconds)
                return True
        return False

    def _begin(self, fd: int) -> None:
        """Find trio's epoll descriptor: it has watched `fd` since the caller waited in trio."""
        if (trios := watcher_of(fd)) is None:
            return
        try:
            epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        except OSError:
            return
        try:
            for one in (fd, trios):
                epoll.register(one, select.EPOLLIN)
        except OSError:
            epoll.close()
            return
        self._epoll = epoll
        trio.lowlevel.add_instrument(self)

    def _sleep(self, epoll: select.epoll, mine: int, seconds: float) -> None:
        began = monotonic_ns()
        ready = epoll.poll(min(seconds, LONGEST), 2)
        length = monotonic_ns() - began
        self.slept += length
        self._busy = length < BUSY and [fd for fd, _events in ready] != [mine]

    def after_io_wait(self, timeout: float) -> None:
        """Count the tasks of the batch that trio is about to run. trio calls this (trio.abc.Instrument).

        Only tasks whose deadline has passed can still join the batch.
        """
        if self._asked:
            self._asked = False
            now = trio.lowlevel.current_statistics()
            alone = now.tasks_runnable == 1
            self._alone_until = trio.current_time() + now.seconds_to_next_deadline if alone else -math.inf

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
