"""An impaired path on a real clock: when frames leave it, and that every frame is accounted for."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from time import monotonic

import trio
from harness.in_trio import in_trio, until

from virtfs.core.counters import Counts
from virtfs.core.impairment import Impairment, Share
from virtfs.core.memory import Kind, Memory
from virtfs.forward.impaired_path import ImpairedPath

MS = 10**6


class Way:
    """An impaired path and its far end.

    out: the frames that left it, each with its time in seconds since the path was created
    """

    def __init__(self, impairment: Impairment) -> None:
        self.begun = monotonic()
        self.out: list[tuple[float, bytes]] = []
        self.lost = 0
        self.counts = Counts()
        hold = Memory().hold(Kind.DELAYED)
        self.way = ImpairedPath(impairment, "test", self, hold)

    def arrive(self, frame: bytes) -> None:
        self.out.append((monotonic() - self.begun, frame))

    def lose(self, frames: int) -> None:
        self.lost += frames

    def count_impaired(self, counts: Counts) -> None:
        for name, count in asdict(counts).items():
            setattr(self.counts, name, getattr(self.counts, name) + count)

    @property
    def frames(self) -> list[bytes]:
        return [frame for _, frame in self.out]


@asynccontextmanager
async def impaired(impairment: Impairment) -> AsyncIterator[Way]:
    """Run an impaired path. At the end it is stopped, and its task must end."""
    way = Way(impairment)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(way.way.run)
        yield way
        way.way.stop()


@in_trio
async def test_a_frame_comes_out_when_its_time_has_come() -> None:
    """Every frame leaves, and none before its time. The benchmark measures how late frames are."""
    async with impaired(Impairment(delay=30 * MS)) as way:
        way.way.push(b"1")
        assert way.out == []
        await until(lambda: monotonic() - way.begun > 0.01)
        pushed = monotonic() - way.begun
        way.way.push(b"2")
        await until(lambda: len(way.out) == 2)
        assert way.frames == [b"1", b"2"]
        first, second = (at for at, _ in way.out)
        assert first >= 0.03
        assert second >= pushed + 0.03
        assert way.lost == 0


@in_trio
async def test_what_is_due_at_once_goes_on_within_push() -> None:
    async with impaired(Impairment(duplicate=Share(100))) as way:
        way.way.push(b"1")
        assert way.frames == [b"1", b"1"]
        assert way.counts == Counts(duplicated=1)


def timers() -> int:
    """Return the number of open timerfds. Other descriptors of this process come and go."""
    count = 0
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            count += "timerfd" in os.readlink(f"/proc/self/fd/{number}")
    return count


@in_trio
async def test_many_frames_one_timer() -> None:
    before = timers()
    async with impaired(Impairment(delay=20 * MS, jitter=10 * MS, seed=1)) as way:
        for number in range(500):
            way.way.push(bytes((number % 256,)))
        assert timers() == before + 1
        await until(lambda: len(way.out) == 500)
        assert way.out[0][0] < way.out[-1][0]
        assert way.frames != [bytes((number % 256,)) for number in range(500)]
    await until(lambda: timers() == before)


@in_trio
async def test_an_earlier_frame_moves_the_timer() -> None:
    """A frame that is pushed later may be due before one that already waits."""
    async with impaired(Impairment(delay=1000_000 * MS)) as way:
        way.way.push(b"late")
        way.way.change(Impairment(delay=10 * MS))
        way.way.push(b"early")
        await until(lambda: way.out)
        assert way.frames == [b"early"]


@in_trio
async def test_a_change_leaves_what_waits() -> None:
    async with impaired(Impairment(delay=50 * MS)) as way:
        way.way.push(b"1")
        way.way.change(Impairment())
        way.way.push(b"2")
        assert way.frames == [b"2"]
        await until(lambda: len(way.out) == 2)
        assert way.out[1][0] >= 0.05
        assert way.lost == 0


@in_trio
async def test_what_is_lost_is_told() -> None:
    async with impaired(Impairment(loss=Share(50), seed=3, limit=10, delay=20_000 * MS)) as way:
        for _ in range(100):
            way.way.push(b"frame")
        lost = way.counts.lost
        assert 30 < lost < 70
        assert way.counts == Counts(lost=lost, overlimit=90 - lost)
        await until(lambda: len(way.out) == 10)
        assert way.counts == Counts(lost=lost, overlimit=90 - lost)
        assert way.lost == 0


@in_trio
async def test_what_is_changed_is_told() -> None:
    async with impaired(Impairment(delay=20 * MS, reorder=Share(100), corrupt=Share(100))) as way:
        way.way.push(b"frame")
        assert way.counts == Counts(reordered=1, corrupted=1)


@in_trio
async def test_clear_and_stop_account_for_what_waits() -> None:
    async with impaired(Impairment(delay=50 * MS)) as way:
        for _ in range(3):
            way.way.push(b"frame")
        assert way.way.clear() == 3
        assert way.lost == 0, "who clears counts"
        way.way.push(b"frame")
    assert way.lost == 1
    assert way.out == []
