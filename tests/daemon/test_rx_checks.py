"""Which FIFOs behind rx the server looks at: their number does not grow with the number of interfaces."""

import pytest
from harness.in_trio import in_trio

from virtfs.core.ids import Unit
from virtfs.daemon.fifos import IN_TURN
from virtfs.forward.feed import Feed
from virtfs.forward.tasks import Start

from .bench import daemon

MANY = 3 * IN_TURN


@in_trio
async def test_a_check_looks_at_few(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def look(feed: Feed, start: Start) -> None:
        looked.append(feed.fifo.path.stem)

    monkeypatch.setattr(Feed, "look", look)
    async with daemon() as bench:
        await bench.say("".join(f"create {unit}\n" for unit in range(MANY)))

        def check(times: int) -> list[str]:
            looked.clear()
            for _ in range(times):
                bench.daemon.fifos.check()
            return sorted(looked)

        assert check(3) == sorted(f"virt{unit}" for unit in range(MANY)), "each has its turn"
        bench.registry.get(Unit(5)).ports.rx.follow()
        assert check(3).count("virt5") == 3, "a program may be about to open this one"
        assert len(looked) <= MANY + 3
        await bench.say("destroy 5\ncreate 5")
        assert check(3).count("virt5") == 1, "a new interface is not sought"
