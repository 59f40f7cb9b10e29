"""A script that destroys many interfaces removes their taps together, before its write returns."""

import pytest
from harness.in_trio import in_trio

from virtfs.core.errors import VirtError

from .bench import daemon


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
