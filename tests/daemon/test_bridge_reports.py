"""A report of the kernel about a bridge is processed before the state is saved."""

from ipaddress import IPv4Interface

import pytest
import trio
import trio.testing
from harness.in_trio import forget, in_trio

from virtfs.core.bridge import Bridge, BridgeState, Member
from virtfs.core.ids import BridgeName
from virtfs.daemon.bridge_follow import BridgeFollower
from virtfs.daemon.bridge_registry import BridgeRegistry, Managed
from virtfs.daemon.changes import Changes
from virtfs.daemon.failed_lines import FailedLines
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.registry import Registry
from virtfs.files.device import Opens
from virtfs.files.events import Events
from virtfs.host.bridge_adopt import Adoptions
from virtfs.host.monitor import AddressChanged, Event, LinkChanged, LinkGone, Overflow


class Slow(BridgeFollower):
    """Bridges whose refresh waits until the test lets it continue."""

    def __init__(self, kernel: Kernel) -> None:
        changes = Changes()
        events = Events(Opens(), changes.publish, forget)
        super().__init__(kernel, Registry(), BridgeRegistry(), FailedLines(), events, changes)
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


class Long(Slow):
    """Bridges whose refresh takes a time."""

    seconds = 0.0

    async def refresh(self, bridge: Bridge | None) -> None:
        self.begun += 1
        await trio.sleep(self.seconds)
        self.done += 1


@pytest.mark.parametrize(("seconds", "period"), [(0.25, 0.75), (30.0, 31.0)])
def test_refreshes_in_the_background_leave_time_to_others(seconds: float, period: float) -> None:
    """Each line that adds a port causes events, so lines would take longer with each port.

    But a bridge is refreshed in time, also if the query had to wait for others.
    """

    async def hear_always(bridges: Long) -> None:
        while True:
            bridges.hear(Overflow())
            await trio.sleep(0.1)

    async def main() -> None:
        kernel = Kernel()
        bridges = Long(kernel)
        bridges.seconds = seconds
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bridges.follow)
            nursery.start_soon(hear_always, bridges)
            await trio.sleep(10 * period - 0.1)
            assert (bridges.begun, bridges.done) == (10, 10)
            nursery.start_soon(bridges.catch_up)
            await trio.sleep(0.05)
            assert bridges.begun == 11, "a reader does not wait for its turn"
            nursery.cancel_scope.cancel()
        kernel.close()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def reports(follower: BridgeFollower, *events: Event) -> list[bool]:
    """Return which of these events schedule a refresh of the bridges."""
    scheduled = []
    for event in events:
        before = follower._doubts
        follower.hear(event)
        scheduled.append(follower._doubts > before)
    return scheduled


@in_trio
async def test_reports_about_bridges_and_members_schedule_a_refresh() -> None:
    kernel, bridges, address = Kernel(), BridgeRegistry(), IPv4Interface("192.0.2.1/24")
    changes = Changes()
    events = Events(Opens(), changes.publish, forget)
    follower = BridgeFollower(kernel, Registry(), bridges, FailedLines(), events, changes)
    about_bridge = LinkChanged(None, 5, b""), LinkGone(None, 5, "bridge0"), AddressChanged(None, 5, address, True)
    about_member = LinkChanged(None, 7, b""), LinkGone(None, 7, "renamed")
    assert not any(reports(follower, *about_bridge, *about_member))
    managed = Managed(Bridge(BridgeName("bridge0"), BridgeState()), 5, None, {}, Adoptions())
    bridges.add(managed)
    assert all(reports(follower, *about_bridge))
    assert reports(follower, about_member[1]) == [False]
    bridges.store(managed, BridgeState(members=(Member("tap1", index=7),)))
    assert all(reports(follower, *about_bridge, *about_member))
    assert reports(follower, AddressChanged(None, 7, address, True), LinkGone(5, 7, "tap1")) == [False, False]
    bridges.store(managed, BridgeState())
    assert reports(follower, about_member[1]) == [False]
    bridges.remove(managed)
    assert not any(reports(follower, *about_bridge))
    kernel.close()
