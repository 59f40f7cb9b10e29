"""Reports of the kernel are applied a few at a time. Time passes only where a test lets it pass."""

from ipaddress import IPv4Interface
from time import monotonic_ns

import pytest
import trio
from harness.in_trio import in_trio, until

from virtfs.core.ids import Unit
from virtfs.daemon import follow
from virtfs.daemon.follow import FEW, STORM
from virtfs.daemon.interface import Interface
from virtfs.forward.slices import SLICE, Slices
from virtfs.host.monitor import AddressChanged, Event, NamespaceGone

from .bench import Bench, daemon

COUNT = 20
NSID = 5


def addresses(bench: Bench, count: int) -> list[Event]:
    """Return reports about addresses of virt1, which the monitor then has."""
    index = bench.virt(1).host.index
    hosts = (IPv4Interface(f"10.0.{number // 250}.{number % 250}/16") for number in range(count))
    reports: list[Event] = [AddressChanged(None, index, host, True) for host in hosts]

    def drain() -> list[Event]:
        some = reports[:8]
        del reports[:8]
        return some

    bench.monitor.drain = drain
    return reports


@in_trio
async def test_a_request_applies_few_reports_and_then_waits_in_a_task() -> None:
    async with daemon() as d:
        await d.say("create 1")
        reports, follower = addresses(d, STORM // 2), d.daemon.follower
        assert not follower.up_to_date()
        assert len(d.virt(1).host.addresses) == FEW
        left = []

        async def beside() -> None:
            while reports:
                left.append(len(reports))
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(beside)
            await follower.caught_up()
        assert len(d.virt(1).host.addresses) == STORM // 2
        assert len(set(left)) > STORM // FEW // 8, "other tasks ran in between"
        assert follower.up_to_date()


@in_trio
async def test_the_interfaces_of_a_namespace_are_lost_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    now = 0
    lose = Interface.lose

    def slowly(interface: Interface) -> None:
        nonlocal now
        now += SLICE
        lose(interface)

    async with daemon() as d:
        await d.say("".join(f"create {unit}\n" for unit in range(COUNT)))
        for interface in d.registry:
            if interface.virt.unit:
                d.registry.move(interface, (NSID, interface.place[1]))
        now = monotonic_ns()  # not before the slices that this task has already had
        monkeypatch.setattr(Interface, "lose", slowly)
        monkeypatch.setattr(follow, "Slices", lambda: Slices(lambda: now))
        reports: list[list[Event]] = [[NamespaceGone(NSID)]]
        d.monitor.drain = lambda: reports.pop() if reports else []
        follower = d.daemon.follower

        def lost() -> int:
            seen.add(number := sum(interface.virt.lost for interface in d.registry))
            return number

        assert not follower.up_to_date(), "callers wait until all are lost"
        assert lost() == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follower.clear_doubts)
            await until(lambda: lost() == COUNT - 1)
            await follower.caught_up()
            nursery.cancel_scope.cancel()
        assert len(seen) > COUNT // 4, "other tasks ran in between"
        assert not d.registry.get(Unit(0)).virt.lost
