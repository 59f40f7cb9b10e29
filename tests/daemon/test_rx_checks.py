"""Which FIFOs behind rx the server looks at: their number does not grow with the number of interfaces."""

from collections import Counter

import pytest
import trio
from harness.in_trio import in_trio, until

from virtfs.core.ids import Unit
from virtfs.daemon import fifos
from virtfs.daemon.fifos import IN_TURN, SOON
from virtfs.forward.feed import Feed
from virtfs.forward.tasks import Start

from .bench import daemon

MANY = 3 * IN_TURN


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The interfaces whose FIFOs the server has looked at."""
    looked: list[str] = []

    def look(feed: Feed, start: Start) -> None:
        looked.append(feed.fifo.path.stem)

    monkeypatch.setattr(Feed, "look", look)
    return looked


@in_trio
async def test_a_check_looks_at_few(looked: list[str]) -> None:
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


@in_trio
async def test_a_listing_that_follows_all_links(looked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`ls -lR` follows every link. Each has its own looks soon after, and none for the links of others."""
    monkeypatch.setattr(fifos, "PAUSE", 3600)
    monkeypatch.setattr(fifos, "SOUGHT_MOST", 4)
    async with daemon() as bench, trio.open_nursery() as nursery:
        await bench.say("".join(f"create {unit}\n" for unit in range(MANY)))
        nursery.start_soon(bench.daemon.fifos.run)
        await until(lambda: len(looked) == IN_TURN)
        looked.clear()
        for unit in range(MANY):
            bench.registry.get(Unit(unit)).ports.rx.follow()
            await trio.lowlevel.checkpoint()
        await until(lambda: len(looked) >= len(SOON) * MANY)
        assert Counter(looked) == {f"virt{unit}": len(SOON) for unit in range(MANY)}
        bench.registry.get(Unit(1)).ports.rx.follow()
        await bench.say("destroy 1")
        looked.clear()
        bench.daemon.fifos.check()
        last = {f"virt{unit}" for unit in range(MANY - 3, MANY)}
        assert last <= set(looked)
        assert len(looked) <= IN_TURN + len(last)
        nursery.cancel_scope.cancel()
