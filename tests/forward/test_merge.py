"""Frames of several taps are merged in order of time, however far each recorder lags."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import time_ns

import trio
import trio.testing
from harness.in_trio import in_trio, until
from harness.rings import Bench, FakeRing, bench

from virtfs.core.pcapng import enhanced_packet, interface_statistics, split_packets
from virtfs.forward.merge import Merge
from virtfs.forward.recorder import Passed, Recorder

SECOND = 10**9


class Stream:
    """The output of a merge. frames: the count that the merge reported. times: the timestamps of its blocks."""

    def __init__(self, recorders: list[Recorder]) -> None:
        self.data = b""
        self.frames = 0
        self.merge = Merge(lambda: recorders, self._deliver)

    def _deliver(self, blocks: bytes, frames: int) -> None:
        self.data += blocks
        self.frames += frames

    def see(self, passed: Passed) -> None:
        self.merge.add(passed.pcapng(0))

    @property
    def times(self) -> list[int]:
        return [time for time, _ in split_packets(self.data)]


@asynccontextmanager
async def merging(b: Bench, count: int) -> AsyncIterator[tuple[Stream, list[FakeRing]]]:
    """Yield the output of a merge of several recorders, and their rings."""
    recorders = [b.recorder(unit) for unit in range(count)]
    stream = Stream(recorders)
    b.start(stream.merge.run, name="merging")
    for recorder in recorders:
        await recorder.watch(stream.see)
    yield stream, list(b.made)
    stream.merge.stop()
    for recorder in recorders:
        await recorder.end()


@in_trio
async def test_what_is_shown_first_waits_for_what_passed_before() -> None:
    async with bench() as b, merging(b, 2) as (stream, (one, other)):
        begun = time_ns()
        one.passes(b"1", time=begun)
        other.shows(b"2", time=begun + 1)
        await trio.testing.wait_all_tasks_blocked()
        assert stream.data == b""
        assert stream.merge, "something waits"
        one.passes(b"3", time=begun + 2)
        one.hand_over()
        await until(lambda: stream.frames == 3)
        assert stream.times == [begun, begun + 1, begun + 2]
        assert not stream.merge


@in_trio
async def test_many_over_many() -> None:
    async with bench() as b, merging(b, 5) as (stream, rings):
        times = []
        for number in range(500):
            time = time_ns()
            times.append(time)
            rings[number % 5].passes(b"%14d" % number, time=time)
            if number % 7 == 0:
                rings[number % 3].hand_over()
                await trio.lowlevel.checkpoint()
        for ring in rings:
            ring.hand_over()
        await until(lambda: stream.frames == 500)
        assert stream.times == sorted(times)


@in_trio
async def test_frames_of_one_moment_stay_as_they_were_shown() -> None:
    async with bench() as b, merging(b, 1) as (stream, (ring,)):
        begun = time_ns()
        for number in range(50):
            ring.shows(b"%14d" % number, time=begun)
        await until(lambda: stream.frames == 50)
        frames = [int(block[28:42]) for _, block in split_packets(stream.data)]
        assert frames == list(range(50))


@in_trio
async def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    """Frames from before the change have times in the future. They and the later frames are delivered."""
    async with bench() as b, merging(b, 2) as (stream, (one, other)):
        ahead = time_ns() + 3600 * SECOND
        one.shows(b"1", time=ahead)
        other.shows(b"2", time=ahead + 1)
        await until(lambda: stream.frames == 2)
        assert stream.times == [ahead, ahead + 1]
        assert not stream.merge
        one.shows(b"3")
        await until(lambda: stream.frames == 3)


@in_trio
async def test_a_block_of_another_kind_takes_its_place() -> None:
    async with bench() as b, merging(b, 2) as (stream, (one, other)):
        one.passes(b"1")
        statistics = interface_statistics(0, time_ns(), 1, 0)
        stream.merge.add(enhanced_packet(1, time_ns(), b"2", 1, 1))
        stream.merge.add_block(statistics)
        other.passes(b"3")
        one.hand_over()
        other.hand_over()
        await until(lambda: stream.frames == 3)
        assert [block[28:29] for _, block in list(split_packets(stream.data))[:2]] == [b"1", b"2"]
        assert stream.data.count(statistics) == 1
        assert stream.data.index(statistics) > stream.data.index(enhanced_packet(1, stream.times[1], b"2", 1, 1))


@in_trio
async def test_once_stopped_it_shows_nothing() -> None:
    """The same holds for a merge that is stopped before it starts."""
    async with bench() as b:
        stream = Stream([])
        stream.merge.stop()
        await stream.merge.run()
        async with merging(b, 1) as (stream, (ring,)):
            stream.merge.stop()
            ring.shows(b"1")
            await trio.testing.wait_all_tasks_blocked()
            assert stream.data == b""
