"""Access to the kernel. Tasks run blocking calls in a thread, one at a time."""

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

from virtfs.forward.tasks import in_thread, surely_in_thread
from virtfs.host.links import Links
from virtfs.host.monitor import Monitor
from virtfs.host.tap import Tap
from virtfs.host.tap_protocol import TapDevice

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Kernel:
    """The netlink sockets of a daemon. open_tap: a blocking function that makes tap<unit> or attaches to it."""

    open_tap = staticmethod(Tap.open)

    def __init__(self, mark: str = "") -> None:
        """mark: the mark of what virtfs makes and what outlives a killed server (host.marks), or "" for none."""
        self.mark = mark
        self.links = Links()
        try:
            self.monitor = Monitor()
        except BaseException:
            self.links.close()
            raise
        # One call at a time, because Links has one socket. rtnl_mutex serializes rtnetlink requests anyway.
        self._one = trio.CapacityLimiter(1)
        self._closing = trio.CapacityLimiter(32)

    async def call(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call a blocking function in a thread. Cancellation waits for the function. Errors: as for in_thread()."""
        return await in_thread(function, *args, limiter=self._one)

    async def close_tap(self, tap: TapDevice) -> None:
        """Close a tap. Closing only waits for RCU in the kernel, so several taps can be closed at the same time."""
        await surely_in_thread(tap.close, self._closing)

    def close(self) -> None:
        """Close the sockets."""
        self.links.close()
        self.monitor.close()
