"""The measurement of steps, with a clock that the test moves."""

from collections.abc import Callable
from functools import partial

import trio
from harness.in_trio import in_trio

from virtfs.daemon.steps import MOST, Steps


class Clock:
    """Both clocks of Steps, in ns."""

    def __init__(self) -> None:
        self.now = 1

    def read(self) -> int:
        return self.now

    async def work(self, *lengths: int) -> None:
        """Make steps of these lengths."""
        for length in lengths:
            self.now += length
            await trio.lowlevel.checkpoint()


async def in_task(work: Callable[[], object], name: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, name=name)  # type: ignore[arg-type]


@in_trio
async def test_the_longest_steps_are_kept() -> None:
    clock = Clock()
    steps = Steps(clock.read, clock.read)
    assert "not measured" in steps.lines()[0]
    steps.begin()
    await in_task(partial(clock.work, *range(1, 3 * MOST)), "short")
    await in_task(partial(clock.work, 5_000_000), "long")
    kept = [(step.length, step.task) for step in steps.longest()]
    assert kept == [(5_000_000, "long"), *((length, "short") for length in range(3 * MOST - 1, 2 * MOST, -1))]
    assert steps.lines()[1] == "step: 5.0 ms, 5.0 ms of processor time, 0.0 s ago: long"


@in_trio
async def test_a_new_beginning_forgets_the_steps() -> None:
    clock = Clock()
    steps = Steps(clock.read, clock.read)
    steps.begin()
    await in_task(partial(clock.work, 7), "before")
    steps.begin()
    await in_task(partial(clock.work, 5), "after")
    longest, *_ = steps.longest()
    assert (longest.length, longest.task) == (5, "after")


@in_trio
async def test_the_sleep_of_a_step_does_not_count() -> None:
    clock, slept = Clock(), 0
    steps = Steps(clock.read, clock.read, lambda: slept)

    async def sleep() -> None:
        nonlocal slept
        clock.now += 5_000_000
        slept += 4_000_000
        await trio.lowlevel.checkpoint()

    steps.begin()
    await in_task(sleep, "sleeping")
    longest, *_ = steps.longest()
    assert (longest.length, longest.task) == (1_000_000, "sleeping")
