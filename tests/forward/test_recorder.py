"""A recorder of a tap: all watchers see the frames in order, and no ring stays open without watchers."""

import errno
from functools import partial

import pytest
import trio
import trio.testing
from harness.in_trio import in_trio, until
from harness.rings import bench

from virtfs.core.errors import VirtError
from virtfs.core.pcapng import split_packets
from virtfs.forward.recorder import BLOCKS, LARGE, LARGE_ONES, SMALL, Passed, Recorder
from virtfs.host.bpf import Program

PROGRAM = Program("arp", bytes(8))


class Sink:
    """A watcher that collects frames."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.texts: list[bytes] = []
        self.lost = 0

    def see(self, passed: Passed) -> None:
        text = passed.pcapng(0)
        assert len(text) <= passed.size
        packets = list(split_packets(text))
        assert len(packets) == passed.frames
        self.texts.append(text)
        self.frames += [packet[28 : 28 + int.from_bytes(packet[20:24], "little")] for _, packet in packets]
        self.lost += passed.lost


def numbers(count: int, begin: int = 0) -> list[bytes]:
    return [b"%14d" % number for number in range(begin, begin + count)]


@in_trio
async def test_everybody_sees_all_that_passes() -> None:
    async with bench() as b:
        recorder, one, other = b.recorder(), Sink(), Sink()
        await recorder.watch(one.see)
        await recorder.watch(other.see)
        b.ring.shows(*numbers(3))
        b.ring.shows(*numbers(3, 3))
        await recorder.flush()
        assert one.frames == other.frames == numbers(6)
        assert one.texts[0] is other.texts[0], "the blocks are encoded once for all watchers"
        assert len(b.made) == 1
        await recorder.end()


@in_trio
async def test_a_flush_waits_for_what_has_passed() -> None:
    """It waits even for frames in a block that the kernel has not handed over."""
    async with bench() as b:
        recorder, sink = b.recorder(), Sink()
        await recorder.flush()
        await recorder.watch(sink.see)
        await recorder.flush()
        assert not recorder.pending()
        b.ring.passes(*numbers(2))
        assert recorder.pending()
        flushed = []

        async def flush() -> None:
            await recorder.flush()
            flushed.append(list(sink.frames))

        b.start(flush, name="flushing")
        await trio.testing.wait_all_tasks_blocked()
        assert flushed == []
        b.ring.hand_over()
        await until(lambda: flushed)
        assert flushed == [numbers(2)]
        assert not recorder.pending()
        await recorder.end()


@in_trio
async def test_a_flush_amid_a_burst_ends_with_it() -> None:
    """Other tasks run between blocks. Frames delivered by then are not delivered twice."""
    async with bench() as b:
        recorder, sink = b.recorder(), Sink()
        await recorder.watch(sink.see)
        amid: list[int] = []
        burst = 10 * BLOCKS

        async def flush() -> None:
            while len(sink.frames) < burst:
                if sink.frames:
                    amid.append(len(sink.frames))
                    await recorder.flush()
                await trio.lowlevel.checkpoint()

        for number in range(burst):
            b.ring.shows(b"%14d" % number)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush)
        assert 0 < amid[0] < burst
        assert sink.frames == numbers(burst)
        assert not recorder.pending()
        await recorder.end()


@in_trio
async def test_what_has_been_shown_is_pending_no_more() -> None:
    """Otherwise a non-blocking read would wait for the next frame, which may never come."""
    async with bench() as b:
        recorder, sink = b.recorder(), Sink()
        await recorder.watch(sink.see)
        pending: list[tuple[int, bool]] = []

        async def ask() -> None:
            while len(sink.frames) < BLOCKS:
                await trio.lowlevel.checkpoint()
                pending.append((len(sink.frames), recorder.pending()))

        for number in range(BLOCKS):
            b.ring.shows(b"%14d" % number)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
        assert pending[-1] == (BLOCKS, False)
        await recorder.end()


@in_trio
async def test_who_comes_later_sees_what_passes_from_then_on() -> None:
    async with bench() as b:
        recorder, one, other = b.recorder(), Sink(), Sink()
        await recorder.watch(one.see)
        b.ring.passes(*numbers(2))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(recorder.watch, other.see)
            await trio.testing.wait_all_tasks_blocked()
            b.ring.hand_over()
        b.ring.shows(*numbers(2, 2))
        await recorder.flush()
        assert one.frames == numbers(4)
        assert other.frames == numbers(2, 2)
        await recorder.end()


@in_trio
async def test_the_last_to_go_closes_the_ring() -> None:
    async with bench() as b:
        recorder, one, other = b.recorder(), Sink(), Sink()
        await recorder.watch(one.see)
        await recorder.watch(other.see)
        recorder.unwatch(one.see)
        await trio.testing.wait_all_tasks_blocked()
        b.ring.shows(b"%14d" % 1)
        await recorder.flush()
        assert (one.frames, other.frames) == ([], [b"%14d" % 1])
        recorder.unwatch(other.see)
        recorder.unwatch(other.see)
        await until(lambda: not b.open)
        await recorder.watch(one.see)
        b.ring.shows(b"%14d" % 2)
        await recorder.flush()
        assert one.frames == [b"%14d" % 2]
        await recorder.end()


@in_trio
async def test_coming_and_going_quickly() -> None:
    """The last request prevails."""
    async with bench() as b:
        recorder, sinks = b.recorder(), [Sink() for _ in range(20)]
        for sink in sinks:
            await recorder.watch(sink.see)
            recorder.unwatch(sink.see)
        last = Sink()
        await recorder.watch(last.see)
        await trio.testing.wait_all_tasks_blocked()
        b.ring.shows(b"%14d" % 1)
        await recorder.flush()
        assert last.frames == [b"%14d" % 1]
        assert not any(sink.frames for sink in sinks)
        recorder.unwatch(last.see)
        await until(lambda: not b.open)


@in_trio
async def test_one_that_fails_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async with bench() as b:
        recorder, sink = b.recorder(), Sink()

        def fail(passed: Passed) -> None:
            raise ZeroDivisionError

        await recorder.watch(fail)
        await recorder.watch(sink.see)
        for number in range(3):
            b.ring.shows(b"%14d" % number)
            await recorder.flush()
        assert sink.frames == numbers(3)
        assert "ZeroDivisionError" in caplog.text
        await recorder.end()


@in_trio
async def test_what_is_lost_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Losses are reported with the next frames, or alone."""
    async with bench() as b:
        recorder, sink = b.recorder(), Sink()
        await recorder.watch(sink.see)
        b.ring.loses(5)
        await until(lambda: sink.lost == 5)
        b.ring.passes(*numbers(2))
        b.ring.loses(7)
        b.ring.hand_over()
        await recorder.flush()
        assert (sink.frames, sink.lost) == (numbers(2), 12)
        await recorder.end()


@in_trio
async def test_a_ring_that_fails_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    async with bench() as b:
        recorder, sink = b.recorder(), Sink()
        await recorder.watch(sink.see)
        b.ring.broken = OSError(errno.EIO, "broken")
        b.ring.shows(*numbers(1))
        await recorder.flush()
        assert "capturing has stopped" in caplog.text
        await recorder.end()


@in_trio
async def test_a_filter_is_the_ring_s_and_the_next_one_s() -> None:
    async with bench() as b:
        recorder, programs = b.recorder(), []
        await recorder.refilter(PROGRAM)
        await recorder.watch(Sink().see)
        programs.append(b.ring.program)
        await recorder.refilter(None)
        programs.append(b.ring.program)
        await recorder.refilter(PROGRAM)
        await recorder.moved()
        programs.append(b.ring.program)
        assert programs == [PROGRAM, None, PROGRAM]
        await recorder.end()


# --- other network namespaces


@in_trio
async def test_after_a_move_it_looks_there() -> None:
    async with bench() as b:
        recorder, sink = b.recorder(), Sink()
        await recorder.moved()
        assert not b.made, "nobody watches"
        await recorder.watch(sink.see)
        b.ring.passes(*numbers(2))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(recorder.moved)
            await trio.testing.wait_all_tasks_blocked()
            b.ring.hand_over()
        b.ring.shows(*numbers(2, 2))
        await recorder.flush()
        assert sink.frames == numbers(4)
        assert len(b.made) == 2
        await recorder.end()


@in_trio
async def test_where_it_may_not_look_it_looks_again_after_the_next_move(caplog: pytest.LogCaptureFixture) -> None:
    async with bench() as b:
        recorder, sink = b.recorder(), Sink()
        await recorder.watch(sink.see)
        b.refusal = VirtError(errno.EPERM, "not there")
        await recorder.moved()
        assert "virt3: capturing has stopped: not there" in caplog.text
        assert not recorder.pending()
        await recorder.flush()
        b.refusal = None
        await recorder.moved()
        b.ring.shows(*numbers(2))
        await recorder.flush()
        assert sink.frames == numbers(2)
        await recorder.end()


# --- refused watchers and removed interfaces


@in_trio
async def test_a_refusal_is_who_asks_s_own() -> None:
    async with bench() as b:
        recorder, sink = b.recorder(), Sink()
        b.refusal = VirtError(errno.EPERM, "no")
        for _ in range(3):
            with pytest.raises(VirtError, match="no"):
                await recorder.watch(sink.see)
        b.refusal = None
        await recorder.watch(sink.see)
        assert b.ring.size == LARGE, "refused watchers do not count as rings"
        await recorder.end()


@in_trio
async def test_the_end_while_one_begins_to_watch() -> None:
    """Another watcher waits meanwhile, and gets ENXIO."""
    async with bench() as b:
        recorder, sinks = b.recorder(), [Sink(), Sink()]
        b.gate.clear()
        refused = []

        async def watch(sink: Sink) -> None:
            try:
                await recorder.watch(sink.see)
            except VirtError as refusal:
                refused.append(refusal.errno)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, sinks[0])
            await until(lambda: b.waiting)
            nursery.start_soon(recorder.end)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(watch, sinks[1])
            await trio.testing.wait_all_tasks_blocked()
            b.gate.set()
        assert refused == [errno.ENXIO]
        assert b.open == []
        for sink in sinks:
            recorder.unwatch(sink.see)
        await trio.testing.wait_all_tasks_blocked()


@in_trio
async def test_a_flush_ends_with_the_ring() -> None:
    async with bench() as b:
        recorder, sink = b.recorder(), Sink()
        await recorder.watch(sink.see)
        b.ring.passes(*numbers(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(recorder.flush)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(recorder.end)
        assert b.open == []


# --- the rings of a mount


@in_trio
async def test_beyond_some_rings_are_small_and_slower() -> None:
    async with bench() as b:
        recorders = [b.recorder(unit) for unit in range(LARGE_ONES + 10)]
        sinks = [Sink() for _ in recorders]
        for recorder, sink in zip(recorders, sinks, strict=True):
            await recorder.watch(sink.see)
        assert [ring.size for ring in b.made[:LARGE_ONES]] == [LARGE] * LARGE_ONES
        assert {ring.size.bytes for ring in b.made[LARGE_ONES:]} == {SMALL.bytes}
        assert {ring.size.wait for ring in b.made[LARGE_ONES:]} == {SMALL.wait + 1}
        await _end(recorders[:5])
        recorder = b.recorder(90)
        await recorder.watch(sinks[0].see)
        assert b.made[-1].size.block == LARGE.block
        await _end([*recorders[5:], recorder])
        await recorders[0].end()
        again = b.recorder(91)
        await again.watch(sinks[0].see)
        assert b.made[-1].size == LARGE
        await again.end()


async def _end(recorders: list[Recorder]) -> None:
    async with trio.open_nursery() as nursery:
        for recorder in recorders:
            nursery.start_soon(partial(recorder.end))
