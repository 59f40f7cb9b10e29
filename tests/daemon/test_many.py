"""A script that destroys many interfaces removes their taps together, before its write returns."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import cast

import pytest
import trio
from harness.in_trio import in_trio

from virtfs.core.errors import VirtError
from virtfs.daemon.removals import EARLY
from virtfs.host.fakes import FakeTap

from .bench import Bench, FakeKernel, daemon

MANY = 4 * EARLY
STEPS = 4  # about as many checkpoints as the destruction of an interface


@in_trio
async def test_taps_go_with_the_write_that_destroys_them() -> None:
    async with daemon() as bench:
        await bench.say("".join(f"create {unit}\n" for unit in range(8)))
        await bench.say("".join(f"destroy {unit}\n" for unit in range(4)))
        assert bench.host.taps() == {f"tap{unit}" for unit in range(4, 8)}
        with pytest.raises(VirtError, match=r'line 3: .*there is no interface "virt9"'):
            await bench.say("destroy 4\ndestroy 5\ndestroy 9\ndestroy 6")
        assert bench.host.taps() == {"tap6", "tap7"}, "the lines before the one that fails have taken effect"
        await bench.say("destroy 6\ncreate 6 mtu 1300\ndestroy 7\ncreate 7 mtu 1300")
        assert bench.host.links["tap6"].mtu == 1300, "a line finds the names free that an earlier line has freed"
        assert bench.host.taps() == bench.names() - {"virt6", "virt7"} == {"tap6", "tap7"}


class SlowRemovals:
    """Makes a daemon's removal of taps wait while the daemon goes on, as the real one does.

    groups: for each removal, the number of taps, and the number of interfaces that still existed when it began.
    """

    def __init__(self, bench: Bench) -> None:
        self.groups: list[tuple[int, int]] = []
        self._registry = bench.registry
        kernel = cast(FakeKernel, bench.daemon.kernel)
        self._delete, kernel.delete_taps = kernel.delete_taps, self._slowly  # type: ignore[method-assign]

    async def _slowly(self, taps: Sequence[FakeTap]) -> None:
        self.groups.append((len(taps), len(self._registry)))
        for _ in range(STEPS * len(taps)):
            await trio.lowlevel.checkpoint()
        await self._delete(taps)

    def check(self, interfaces: int) -> None:
        """Check that each tap was removed once, in few groups, and that this began while interfaces still existed."""
        assert sum(taps for taps, _left in self.groups) == interfaces
        assert len(self.groups) <= interfaces // EARLY
        assert self.groups[0][1] > interfaces // 2
        assert all(later <= earlier for (_, earlier), (_, later) in pairwise(self.groups))


@asynccontextmanager
async def many_interfaces() -> AsyncIterator[tuple[Bench, SlowRemovals]]:
    async with daemon() as bench:
        await bench.say("".join(f"create {unit}\n" for unit in range(MANY)))
        bench.daemon.events.lines.clear()
        yield bench, SlowRemovals(bench)


def destroyed(bench: Bench) -> list[str]:
    """Return the names of the interfaces with an event `destroy`, in the order of these events."""
    return [line.split()[2].decode() for line in bench.daemon.events.lines if b" destroy " in line]


@in_trio
async def test_taps_are_removed_while_the_script_goes_on() -> None:
    async with many_interfaces() as (bench, removals):
        await bench.say("".join(f"destroy {unit}\n" for unit in range(MANY)))
        removals.check(MANY)
        assert bench.host.taps() == set()
        assert destroyed(bench) == [f"virt{unit}" for unit in range(MANY)]


@in_trio
async def test_taps_are_removed_in_groups_at_the_end_of_the_mount() -> None:
    async with many_interfaces() as (bench, removals):
        await bench.daemon.commands.end()
        removals.check(MANY)
        assert bench.host.taps() == set()
        assert sorted(destroyed(bench)) == sorted(f"virt{unit}" for unit in range(MANY))


@in_trio
async def test_a_line_waits_for_a_removal_that_has_begun() -> None:
    """Another user's line finds the names of all destroyed interfaces free, although their script still runs."""
    async with many_interfaces() as (bench, _removals), trio.open_nursery() as nursery:
        script = "".join(f"destroy {unit}\n" for unit in range(MANY))
        nursery.start_soon(bench.say, script)
        while len(bench.registry) > MANY - EARLY:
            await trio.lowlevel.checkpoint()
        await bench.say("create 0 mtu 1300")
        assert bench.host.links["tap0"].mtu == 1300
