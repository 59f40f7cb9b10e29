"""Access to the kernel. Tasks run blocking calls in a thread, one at a time."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TypeVar, TypeVarTuple

import trio

from virtfs.forward.supervisor import together
from virtfs.forward.tapwatch import TapWatch
from virtfs.forward.tasks import in_thread, surely_in_thread
from virtfs.host.links import Links
from virtfs.host.monitor import Monitor
from virtfs.host.tap import Tap
from virtfs.host.tap_protocol import TapDevice

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Kernel:
    """The netlink sockets of a daemon, and the object that watches its taps for frames.

    open_tap: a blocking function that makes tap<unit> or attaches to it.
    """

    open_tap = staticmethod(Tap.open)

    def __init__(self, mark: str = "") -> None:
        """mark: the mark for taps and bridges that outlive a killed server (host.marks), or "" for none."""
        self.mark = mark
        with ExitStack() as undo:
            self.links = Links()
            undo.callback(self.links.close)
            self.monitor = Monitor()
            undo.callback(self.monitor.close)
            self.watch = TapWatch()
            undo.pop_all()
        # One call at a time, because Links has one socket. rtnl_mutex serializes rtnetlink requests anyway.
        self._one = trio.CapacityLimiter(1)
        self._closing = trio.CapacityLimiter(32)

    async def call(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call a blocking function in a thread. Cancellation waits for the function. Errors: as for in_thread()."""
        return await in_thread(function, *args, limiter=self._one)

    async def close_taps(self, taps: Iterable[TapDevice]) -> None:
        """Close taps, concurrently, because each only waits for RCU in the kernel.

        First wait until no thread runs a call. A system call that uses a tap keeps its open file (fs/file.c fdget), so
        the tap would outlive close(2) until that call returns. It could also use the descriptor's number after another
        file has got it.
        """
        async with self._one:
            await together(*(partial(surely_in_thread, tap.close, self._closing) for tap in taps))

    async def delete_taps(self, taps: Sequence[TapDevice]) -> None:
        """Delete and close taps of the daemon's network namespace. A tap that cannot be deleted is not closed."""
        await self.call(_delete, self.links, taps)

    def close(self) -> None:
        """Close the descriptors."""
        self.links.close()
        self.monitor.close()
        self.watch.close()


def _delete(links: Links, taps: Sequence[TapDevice]) -> None:
    try:
        links.delete(taps)
    finally:
        for tap in taps:
            if not tap.alive():
                tap.close()
