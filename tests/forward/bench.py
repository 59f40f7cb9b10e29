"""Two wires on fake taps, and a running cable between them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio
import trio.testing
from harness.wires import Bench, wire
from harness.wires import received as what_came

from virtfs.forward.cable import Cable


@contextmanager
def two_wires() -> Iterator[tuple[Bench, Bench]]:
    """Both up."""
    with wire() as first, wire() as second:
        yield first, second


@asynccontextmanager
async def running(first: Bench, second: Bench) -> AsyncIterator[Cable]:
    """Lay a cable that carries frames until the end of the block; then it ends by itself."""
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            cable = Cable(first.wire, second.wire, nursery.start_soon)
            nursery.start_soon(cable.run)
            yield cable
            await cable.stop()


async def received(bench: Bench) -> list[bytes]:
    """Return what a host has received, once all tasks are idle."""
    await trio.testing.wait_all_tasks_blocked()
    return what_came(bench)
