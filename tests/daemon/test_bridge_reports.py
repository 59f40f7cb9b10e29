"""A report of the kernel about a bridge is processed before the state is saved."""

import trio
import trio.testing
from harness.in_trio import forget, in_trio

from virtfs.core.bridge import Bridge
from virtfs.daemon.bridge_follow import BridgeFollower
from virtfs.daemon.bridge_registry import BridgeRegistry
from virtfs.daemon.changes import Changes
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.registry import Registry
from virtfs.files.device import Opens
from virtfs.files.events import Events
from virtfs.host.monitor import Overflow


class Slow(BridgeFollower):
    """Bridges whose refresh waits until the test lets it continue."""

    def __init__(self, kernel: Kernel) -> None:
        changes = Changes()
        super().__init__(kernel, Registry(), BridgeRegistry(), Events(Opens(), changes.publish, forget), changes)
        self.gate = trio.Event()
        self.begun = self.done = 0

    async def refresh(self, bridge: Bridge | None) -> None:
        self.begun += 1
        await self.gate.wait()
        self.done += 1


@in_trio
async def test_a_refresh_that_has_begun_counts_only_when_it_is_done() -> None:
    """A destroyed interface must not stay in the saved state as a member of the bridge."""
    kernel = Kernel()
    bridges = Slow(kernel)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bridges.follow)
        bridges.hear(Overflow())
        await trio.testing.wait_all_tasks_blocked()
        assert bridges.begun == 1
        nursery.start_soon(bridges.catch_up)
        await trio.testing.wait_all_tasks_blocked()
        assert bridges.begun == 2, "catch_up waits, too"
        bridges.gate.set()
        await trio.testing.wait_all_tasks_blocked()
        await bridges.catch_up()
        assert bridges.done == 2, "nothing is left to do"
        nursery.cancel_scope.cancel()
    kernel.close()
