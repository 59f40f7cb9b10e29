"""The sleep of the channel: any event ends it, and no other task of the loop is delayed."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from harness.in_trio import in_trio, until

from virtfs.fuse import idle as module
from virtfs.fuse.idle import Idle
from virtfs.host.epolls import watcher_of


class Sleeper:
    """A task that waits as the channel does. asleep: how often it has slept itself. told: the bytes it has read."""

    def __init__(self, idle: Idle) -> None:
        self.idle = idle
        self.fd, self.writer = os.pipe()
        os.set_blocking(self.fd, False)
        self.asleep = 0
        self.told = b""

    async def run(self) -> None:
        while True:
            if await self.idle.wait(self.fd):
                self.asleep += 1
            else:
                await trio.lowlevel.wait_readable(self.fd)
            try:
                self.told += os.read(self.fd, 100)
            except BlockingIOError:
                continue

    def tell(self) -> None:
        os.write(self.writer, b"x")


@asynccontextmanager
async def sleeper() -> AsyncIterator[Sleeper]:
    """Run a Sleeper that has found trio's epoll descriptor."""
    one = Sleeper(Idle())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        await until(lambda: watcher_of(one.fd) is not None)
        one.tell()
        await until(lambda: one.told)
        yield one
        nursery.cancel_scope.cancel()
    one.idle.close()
    os.close(one.fd)
    os.close(one.writer)


async def soon(true: Callable[[], object]) -> None:
    """Sleep, so that the Sleeper may sleep too, until a condition is true."""
    while not true():
        await trio.sleep(0.002)


async def asleep_again(one: Sleeper) -> None:
    """Wait until the Sleeper has slept once more. While it waits in trio instead, only its descriptor wakes it."""
    before = one.asleep
    while one.asleep == before:
        one.tell()
        await trio.sleep(0.002)


@in_trio
async def test_its_descriptor_ends_the_sleep() -> None:
    async with sleeper() as one:
        await asleep_again(one)
        told = len(one.told)
        await trio.to_thread.run_sync(one.tell)
        await soon(lambda: len(one.told) > told)


@in_trio
async def test_a_deadline_a_thread_and_another_descriptor_end_the_sleep() -> None:
    """If the Sleeper overslept any of them, the test would time out, because nothing else would wake it."""
    async with sleeper() as one:
        reader, writer = os.pipe()
        for _ in range(3):
            await asleep_again(one)
            await trio.to_thread.run_sync(partial(os.write, writer, b"x"))
            await trio.lowlevel.wait_readable(reader)
            os.read(reader, 1)
        os.close(reader)
        os.close(writer)


@in_trio
async def test_tasks_of_the_same_batch_run_before_the_sleep() -> None:
    """trio runs a batch in random order, so some of these tasks come after the Sleeper."""
    async with sleeper() as one:
        for _ in range(50):
            await asleep_again(one)
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(trio.lowlevel.checkpoint)


@in_trio
async def test_a_busy_task_is_not_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Idle, "_sleep", lambda *args: pytest.fail("it sleeps beside a task that can run"))
    one, turns = Idle(), 0
    reader, writer = os.pipe()
    os.write(writer, b"x")

    async def work() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        for _ in range(20):
            assert not await one.wait(reader)
            await trio.lowlevel.wait_readable(reader)
        nursery.cancel_scope.cancel()
    assert turns >= 20
    one.close()
    os.close(reader)
    os.close(writer)


@in_trio
async def test_without_trios_descriptor_the_caller_waits_in_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "watcher_of", lambda fd: None)
    reader, writer = os.pipe()
    assert not any([await Idle().wait(reader) for _ in range(5)])
    os.close(reader)
    os.close(writer)
