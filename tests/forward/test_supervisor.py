"""A task that fails is logged by its name, and all other tasks go on."""

import errno
import logging
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from weakref import WeakSet

import pytest
import trio
import trio.testing
from harness.in_trio import in_trio, until

from virtfs.forward.supervisor import AT_ONCE, supervised, together
from virtfs.forward.tasks import lasting


async def fail(failure: BaseException) -> None:
    raise failure


@in_trio
async def test_a_failed_task_ends_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with supervised() as tasks:
        goes_on, ended = trio.Event(), trio.Event()

        async def other() -> None:
            await goes_on.wait()
            ended.set()

        tasks.start(other, name="working")
        tasks.start(partial(fail, ZeroDivisionError("by nothing")), name="virt3: dividing")
        tasks.start(partial(fail, MemoryError()), name="storing")
        tasks.start(partial(fail, OSError(errno.EMFILE, "Too many open files")), name="opening")
        await until(lambda: len(caplog.records) == 3)
        goes_on.set()
        await ended.wait()
    assert {record.message for record in caplog.records} == {
        "virt3: dividing: failed",
        "storing: failed",
        "opening: failed",
    }
    assert "Traceback" in caplog.text
    assert "by nothing" in caplog.text


@in_trio
async def test_a_failure_during_cancellation_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def two() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ZeroDivisionError

    async with supervised() as tasks:
        tasks.start(two, name="ending badly")
        await trio.testing.wait_all_tasks_blocked()
        tasks.cancel()
    assert [record.message for record in caplog.records] == ["ending badly: failed"]


def test_a_kept_task_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")

    async def main() -> None:
        async with supervised() as tasks:
            tasks.keep(work, name="listening")

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert tries == 4
    assert [record.message for record in caplog.records] == ["listening: [Errno 12] Cannot allocate memory; retrying"]


@in_trio
async def test_a_failure_that_ends_the_work_is_raised() -> None:
    with pytest.raises(LookupError):
        await lasting("work", partial(fail, LookupError("gone")), ends=LookupError)


@in_trio
async def test_one_failure_does_not_cancel_the_functions_beside_it(caplog: pytest.LogCaptureFixture) -> None:
    done = []

    async def slow() -> None:
        await trio.testing.wait_all_tasks_blocked()
        done.append("slow")

    caplog.set_level(logging.ERROR)
    with pytest.raises(ZeroDivisionError):
        await together(partial(fail, ZeroDivisionError()), slow)
    assert done == ["slow"]
    await together()
    with pytest.raises(OSError, match="first"):
        await together(partial(fail, OSError(1, "first")), partial(fail, OSError(1, "first")))
    assert [record.message for record in caplog.records] == ["another task failed too"]


@in_trio
async def test_other_tasks_run_while_many_functions_are_started() -> None:
    running, most = 0, 0

    async def work() -> None:
        nonlocal running
        running += 1
        await trio.lowlevel.checkpoint()
        running -= 1

    async def beside() -> None:
        nonlocal most
        while True:
            most = max(most, running)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(beside)
        await together(*[work] * (20 * AT_ONCE))
        nursery.cancel_scope.cancel()
    assert 0 < most < 10 * AT_ONCE


@in_trio
async def test_what_functions_refer_to_is_freed_before_the_last_has_ended() -> None:
    class Big:
        """An object that takes long to free."""

    gate, left = trio.Event(), WeakSet[Big]()

    async def work(big: Big) -> None:
        pass

    async def last() -> None:
        await gate.wait()

    def works() -> Iterator[Callable[[], Awaitable[None]]]:
        for _ in range(3):
            left.add(big := Big())
            yield partial(work, big)
        yield last

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(together, *works()))
        await trio.testing.wait_all_tasks_blocked()
        assert not left
        gate.set()
