"""A script that destroys many interfaces removes their taps together, before its write returns."""

from collections.abc import Sequence
from typing import cast

import pytest
from harness.in_trio import in_trio

from virtfs.core.errors import VirtError
from virtfs.host.fakes import FakeTap

from .bench import Bench, FakeKernel, daemon


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


def count_groups(bench: Bench) -> list[int]:
    """Return a list to which each removal of taps appends their number."""
    groups: list[int] = []
    kernel = cast(FakeKernel, bench.daemon.kernel)
    delete = kernel.delete_taps

    async def counted(taps: Sequence[FakeTap]) -> None:
        groups.append(len(taps))
        await delete(taps)

    kernel.delete_taps = counted  # type: ignore[method-assign]
    return groups


@in_trio
async def test_a_script_and_the_end_of_a_mount_remove_one_group() -> None:
    async with daemon() as bench:
        await bench.say("".join(f"create {unit}\n" for unit in range(200)))
        groups = count_groups(bench)
        bench.daemon.events.lines.clear()
        await bench.say("".join(f"destroy {unit}\n" for unit in range(100)))
        assert groups == [100]
        assert bench.host.taps() == {f"tap{unit}" for unit in range(100, 200)}
        destroyed = [line.split()[2].decode() for line in bench.daemon.events.lines if b" destroy " in line]
        assert destroyed == [f"virt{unit}" for unit in range(100)]
        await bench.daemon.commands.end()
        assert groups == [100, 100]
        assert bench.host.taps() == set()
