"""Two wires on fake taps, and a running cable between them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio
import trio.testing
from harness.in_trio import start_in
from harness.wires import Bench, wire
from harness.wires import received as what_came

from virtfs.forward.cable import Cable
from virtfs.host.relay import Room


@contextmanager
def two_wires() -> Iterator[tuple[Bench, Bench]]:
    """Yield two wires that are up."""
    with wire() as first, wire() as second:
        yield first, second


@asynccontextmanager
async def running(first: Bench, second: Bench) -> AsyncIterator[Cable]:
    """Run a cable until the end of the block, then stop it. Its task must end."""
    async with trio.open_nursery() as nursery:
        cable = Cable(first.wire, second.wire, Room(), start_in(nursery))
        nursery.start_soon(cable.run)
        yield cable
        await cable.stop()


async def received(bench: Bench) -> list[bytes]:
    """Wait until all tasks are idle, and return the frames that a host has received."""
    await trio.testing.wait_all_tasks_blocked()
    return what_came(bench)
