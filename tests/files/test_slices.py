"""Long texts are made in slices: other tasks run between them. Time passes only where a test lets it pass."""

from collections.abc import Iterator

import pytest
import trio
from harness.in_trio import in_trio

from virtfs.core.grammar import VERBS_MAX, Action, Parsing, parse_verbs, parsing_verbs
from virtfs.core.ids import Gid, Uid, User
from virtfs.core.memory import Memory
from virtfs.files import text as texts
from virtfs.files.node import ROOT
from virtfs.files.text import LONG, Text, TextHandle
from virtfs.forward.slices import SLICE, Slices, give_way, in_steps

USER = User(Uid(4001), Gid(4001), 1)
PIECES = 20


class Clock:
    """The clock of Slices, in ns. `turns` counts how often another task ran."""

    def __init__(self) -> None:
        self.now = 1
        self.turns = 0

    def read(self) -> int:
        return self.now

    async def beside(self) -> None:
        while True:
            self.turns += 1
            await trio.lowlevel.checkpoint()


@in_trio
async def test_a_slice_ends_when_its_time_is_over() -> None:
    clock = Clock()
    sliced = Slices(clock.read)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.beside)
        await sliced.pause()
        assert clock.turns == 0
        for _ in range(2):  # trio runs tasks in random order, so the other may miss one turn
            clock.now += SLICE
            await sliced.pause()
        assert clock.turns > 0
        clock.now += SLICE // 2
        turns = clock.turns
        await sliced.pause()
        assert clock.turns == turns
        nursery.cancel_scope.cancel()


@in_trio
async def test_a_slice_of_a_request_ends_with_the_turn_of_its_user() -> None:
    turns = []

    async def turn() -> None:
        turns.append(clock.now)
        await trio.lowlevel.checkpoint()

    clock = Clock()
    sliced = Slices(clock.read)
    give_way.set(turn)
    for _ in range(4):
        clock.now += SLICE // 2
        await sliced.pause()
    assert turns == [1 + SLICE, 1 + 2 * SLICE]


@in_trio
async def test_all_work_of_a_task_shares_one_slice() -> None:
    """A task that refreshes a state and then makes a text does not work for two slices at a time."""
    clock = Clock()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.beside)
        for _ in range(8):
            sliced = Slices(clock.read)
            clock.now += SLICE // 2
            await sliced.pause()
        nursery.cancel_scope.cancel()
    assert clock.turns >= 2


@in_trio
async def test_other_tasks_run_while_a_line_is_parsed() -> None:
    """A line may have 256 verbs with long arguments."""
    clock = Clock()
    line = "impair loss 1% " * VERBS_MAX

    def parsing() -> Parsing[tuple[Action, ...]]:
        work = parsing_verbs(line)
        while True:
            try:
                next(work)
            except StopIteration as end:
                result: tuple[Action, ...] = end.value
                return result
            clock.now += SLICE // 8
            yield

    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.beside)
        actions = await in_steps(parsing(), Slices(clock.read))
        nursery.cancel_scope.cancel()
    assert actions == parse_verbs(line)
    assert clock.turns >= VERBS_MAX // 16


class Long:
    """A long text in pieces, each of which takes the time of a slice. version: the number of changes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.version = 0
        self.made = 0
        self.seconds = 0.0
        monkeypatch.setattr(texts, "monotonic", lambda: self.seconds)
        monkeypatch.setattr(texts, "Slices", lambda: Slices(self.clock.read))
        self.node = Text(ROOT, self.pieces, changes=lambda: self.version)

    def pieces(self, user: User) -> Iterator[str]:
        self.made += 1
        for _ in range(PIECES):
            self.clock.now += SLICE
            yield f"{self.version}" * LONG

    def handle(self) -> TextHandle:
        return self.node.open(USER, Memory())


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> Long:
    return Long(monkeypatch)


@in_trio
async def test_other_tasks_run_while_a_text_is_made(long: Long) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(long.clock.beside)
        text = await long.node.fresh(USER)
        nursery.cancel_scope.cancel()
    assert text == b"0" * (PIECES * LONG)
    assert long.clock.turns >= PIECES // 2


@in_trio
async def test_a_long_text_is_encoded_in_parts(long: Long, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []

    def encode(text: str) -> bytes:
        lengths.append(len(text))
        return text.encode()

    monkeypatch.setattr(texts, "encode", encode)
    await long.node.fresh(USER)
    assert sum(lengths) == PIECES * LONG
    assert max(lengths) <= 2 * LONG


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (b"1 end 5", b"1 end 6", True),
        (b"1 end 5", b"2 end 5", False),
        (b"1 end 5", b"12 end 5", False),
        (b"1", b"1 end", False),
        (b"12", b"13", False),
        (b"12", b"12", True),
    ],
)
def test_the_unsteady_part_of_a_text_does_not_count(one: bytes, other: bytes, alike: bool) -> None:
    text = Text(ROOT, lambda user: other.decode(), unsteady=b" end")
    assert text.differs(one, USER) == (not alike)


@in_trio
async def test_a_stat_and_a_poll_do_not_make_a_long_text(long: Long) -> None:
    handle = long.handle()
    assert LONG <= long.node.size(USER) <= 2 * LONG, "the beginning of a text that was never made"
    assert long.clock.now <= 3 * SLICE
    handle.take(await long.node.fresh(USER))
    made, length = long.made, len(handle.snapshot or b"")
    long.version += 10
    long.seconds += 1000
    assert long.node.size(USER) == length
    assert not handle.poll() & 2
    assert long.made == made
    assert long.node.claim()
    assert not long.node.claim(), "one task is enough"
    await long.node.renew(USER)
    assert handle.poll() & 2, "POLLPRI after the text has been made"
    assert long.made == made + 1
    assert long.node.size(USER) == 2 * length


@in_trio
async def test_pollers_share_the_text_that_is_being_made(long: Long) -> None:
    await long.node.fresh(USER)
    long.version += 1
    long.seconds += 1000
    made = long.made
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(long.node.renew, USER)
    assert long.made == made + 1
    assert not long.node.claim()
