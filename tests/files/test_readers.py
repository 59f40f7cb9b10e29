"""Texts about the whole mount: each read shows all that happened before it, and many readers cost little."""

from collections.abc import Awaitable, Callable
from functools import partial, wraps

import pytest
import trio
import trio.testing

from virtfs.core.ids import Gid, Uid, User
from virtfs.core.memory import Memory
from virtfs.files import readers, text
from virtfs.files.node import ROOT
from virtfs.files.readers import PAUSE
from virtfs.files.text import Text, TextHandle
from virtfs.forward import slices

ALICE, BOB = (User(Uid(uid), Gid(uid), 1) for uid in (4001, 4002))
WORK = 0.05  # seconds of processor time that a long text takes


class Counting:
    """A text that shows how many events there were. A query lasts WORK, and then takes `work` of processor time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events = self.made = self._counted = 0
        self.work = WORK
        self._spent = 0.0
        monkeypatch.setattr(slices, "thread_time", lambda: self._spent)
        for module in (readers, text):
            monkeypatch.setattr(module, "monotonic", trio.current_time)
        self.node = Text(ROOT, self._text, refresh=self._query, changes=lambda: 0)

    async def _query(self) -> None:
        self._counted = self.events
        await trio.sleep(WORK)

    def _text(self, user: User) -> str:
        self.made += 1
        self._spent += self.work
        return f"{self._counted}\n"

    async def shown(self, user: User = ALICE) -> int:
        """Return the number of events that a read shows."""
        return int(await self.node.fresh(user))

    async def opened(self) -> TextHandle:
        """Return a new handle, as after an open."""
        made = await self.node.fresh(ALICE)
        handle = self.node.open(ALICE, Memory())
        handle.offer(made)
        return handle


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


def in_jumps(test: Callable[[Counting], Awaitable[None]]) -> Callable[[Counting], None]:
    """Run a test with a clock that jumps whenever all tasks wait."""

    @wraps(test)
    def run(counting: Counting) -> None:
        trio.run(partial(test, counting), clock=trio.testing.MockClock(autojump_threshold=0))

    return run


@in_jumps
async def test_a_read_shows_all_that_happened_before_it(counting: Counting) -> None:
    for events in range(5):
        counting.events = events
        assert await counting.shown() == events


@in_jumps
async def test_a_read_that_begins_during_another_shows_more(counting: Counting) -> None:
    async def read(events: int) -> None:
        assert await counting.shown() >= events

    async with trio.open_nursery() as nursery:
        for events in range(20):
            counting.events = events
            nursery.start_soon(read, events)
            await trio.sleep(WORK / 3)


@in_jumps
async def test_waiting_readers_of_a_user_get_one_text(counting: Counting) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(counting.shown)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(100):
            nursery.start_soon(counting.shown)
    assert counting.made == 2


@in_jumps
async def test_long_texts_take_at_most_a_third_of_the_time(counting: Counting) -> None:
    began = trio.current_time()
    for _ in range(10):
        await counting.shown()
    assert trio.current_time() - began >= 9 * PAUSE * WORK


@in_jumps
async def test_a_text_that_takes_little_work_is_made_at_once_however_long_it_waits(counting: Counting) -> None:
    """A query of the kernel takes long on a busy machine."""
    counting.work = WORK / 100
    began = trio.current_time()
    for _ in range(10):
        await counting.shown()
    assert trio.current_time() - began == pytest.approx(10 * WORK)


@in_jumps
async def test_a_user_does_not_wait_for_the_texts_of_another(counting: Counting) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(counting.shown, BOB)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(1.5 * WORK):
            await counting.shown(ALICE)


@in_jumps
async def test_the_next_reader_makes_the_text_if_a_signal_ends_the_first(counting: Counting) -> None:
    async def interrupted() -> None:
        with first:
            await counting.shown()

    first = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(interrupted)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(counting.shown)
        await trio.testing.wait_all_tasks_blocked()
        first.cancel()
    assert first.cancelled_caught
    assert counting.made == 1


@in_jumps
async def test_an_open_and_the_read_after_it_make_a_long_text_once(counting: Counting) -> None:
    handle = await counting.opened()
    assert handle.offered() == b"0\n"
    assert handle.offered() is None, "the next read shows what has happened since"
    assert counting.made == 1


@in_jumps
async def test_a_read_long_after_the_open_shows_what_has_happened_since(counting: Counting) -> None:
    handle = await counting.opened()
    await trio.sleep(2 * WORK)
    assert handle.offered() is None


@in_jumps
async def test_a_read_after_an_open_makes_a_short_text_again(counting: Counting) -> None:
    counting.work = WORK / 100
    assert (await counting.opened()).offered() is None
