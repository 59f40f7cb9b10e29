"""pcap and history on fake rings: the frames that a reader gets, the losses that it sees, and what is released."""

import errno
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import time_ns

import pytest
import trio
import trio.testing
from harness.captured import Captured
from harness.in_trio import in_trio, until
from harness.rings import Bench, bench

from virtfs.core.errors import VirtError
from virtfs.core.ids import Gid, Uid, User
from virtfs.core.memory import Kind, Memory
from virtfs.files.capture import Budget, Capture, CaptureHandle
from virtfs.files.device import DeviceHandle, FixedHandle, Opens
from virtfs.files.history import History, HistoryFile
from virtfs.files.node import ROOT
from virtfs.forward.recorder import Recorder
from virtfs.forward.wire import HEADROOM

USER = User(Uid(0), Gid(0), 1)
EACH = 64 << 10


class Files:
    """Capture files of a mount: pcap and history of the first interface, and pcap of the root directory."""

    def __init__(self, b: Bench, count: int = 1, each: int = EACH) -> None:
        self.bench = b
        self.memory = b.rings.memory
        self.budget = Budget(each, self.memory)
        self.recorders = [b.recorder(unit) for unit in range(count)]
        self.pcap = self._capture(lambda: self.recorders[:1], True)
        self.root = self._capture(lambda: [each for each in self.recorders if not each.virt.lost], False)

    def _capture(self, recorders: Callable[[], list[Recorder]], alone: bool) -> Capture:
        return Capture(ROOT, "pcap", Opens(), recorders, self.budget, "virtfs test", self.bench.start, alone)

    @property
    def held(self) -> int:
        """The number of bytes charged for captures."""
        return self.memory.all.kinds[Kind.CAPTURES].now

    async def vanish(self, recorder: Recorder) -> None:
        """Remove an interface."""
        recorder.virt.lose()
        await recorder.flush()
        for capture in (self.pcap, self.root):
            capture.vanish(recorder)
        await recorder.end()

    def given_back(self) -> None:
        """Assert that no memory is held and no file is open."""
        assert self.held == 0
        assert list(self.pcap.opens) == list(self.root.opens) == []


@asynccontextmanager
async def files(count: int = 1, each: int = EACH, memory: Memory | None = None) -> AsyncIterator[tuple[Files, Bench]]:
    """Yield capture files. The test closes its readers; at the end everything must have been released."""
    async with bench(memory) as b:
        made = Files(b, count, each)
        yield made, b
        made.given_back()
        await until(lambda: not b.open)


class Reader:
    """A reader of an open pcap or history file."""

    def __init__(self, handle: DeviceHandle) -> None:
        self.handle = handle
        self.data = b""
        self.ended = False
        self._room = memoryview(bytearray(HEADROOM + (1 << 20)))

    def read(self, size: int = 1 << 20) -> bytes | None:
        """Read once. Returns None if no data is available."""
        if isinstance(self.handle, FixedHandle):
            piece = b"".join(self.handle.read_at(len(self.data), size))
        else:
            taken = self.handle.read(self._room, size)
            if taken is None:
                return None
            piece = bytes(self._room[HEADROOM : HEADROOM + taken])
        self.data += piece
        self.ended = not piece
        return piece

    def look(self) -> Captured:
        """Read all available data. Returns everything that has been read so far."""
        while self.read():
            pass
        return Captured(self.data)

    def frames(self) -> int:
        """Read all available data. Returns the number of enhanced packet blocks (frames) read so far."""
        while self.read():
            pass
        frames = at = 0
        while at < len(self.data):
            kind, length = struct.unpack_from("<II", self.data, at)
            frames += kind == 6
            at += length
        return frames

    async def until(self, frames: int) -> Captured:
        """Read until there are at least `frames` frames."""
        while len((seen := self.look()).frames) < frames:
            await trio.lowlevel.checkpoint()
        return seen

    def waiting(self) -> int:
        """Return the number of bytes that are held for this reader."""
        assert isinstance(self.handle, CaptureHandle)
        return self.handle._size

    def close(self) -> None:
        self.handle.release()


async def opened(capture: Capture | HistoryFile) -> Reader:
    """Open a file, as open(2) does."""
    handle = capture.admit(0, USER)
    return Reader(handle if isinstance(handle, DeviceHandle) else await handle)


def numbers(count: int, begin: int = 0) -> list[bytes]:
    return [b"%14d" % number for number in range(begin, begin + count)]


@in_trio
async def test_frames_that_the_ring_lost_are_counted_everywhere() -> None:
    async with files() as (f, b):
        own, root = await opened(f.pcap), await opened(f.root)
        b.ring.passes(*numbers(2))
        b.ring.loses(5)
        b.ring.hand_over()
        b.ring.shows(*numbers(2, 2))
        for reader in (own, root):
            seen = await reader.until(4)
            assert seen.frames == numbers(4)
            assert [packet.lost for packet in seen.packets] == [5, 0, 0, 0]
            assert reader.handle.dropped == 5
            assert reader.handle.taken() == 4
        await f.vanish(f.recorders[0])
        assert own.look().statistics == [(9, 5)]
        await until(lambda: root.look().statistics == [(9, 5)])
        own.read()
        assert own.ended
        own.close()
        root.close()


@in_trio
async def test_losses_with_nothing_behind_them_are_summed_up() -> None:
    async with files() as (f, b):
        own = await opened(f.pcap)
        own.look()
        b.ring.loses(5)
        await until(lambda: own.handle.dropped)
        assert own.look().statistics == [(5, 5)]
        b.ring.shows(*numbers(1))
        seen = await own.until(1)
        assert seen.packets[0].lost == 0, "it was told"
        own.close()


@in_trio
async def test_what_waits_is_bounded_and_given_back() -> None:
    """The limit holds for each reader. For the root's pcap it includes frames that wait to be merged."""
    async with files(2) as (f, b):
        own, root = await opened(f.pcap), await opened(f.root)
        for turn in range(50):
            for ring in b.open:
                ring.shows(*(b"%1400d" % (100 * turn + number) for number in range(50)))
            for recorder in f.recorders:
                await recorder.flush()
            assert own.waiting() <= EACH + 100
            assert root.waiting() <= EACH + 100
            assert f.held >= own.waiting() + root.waiting()
        await trio.testing.wait_all_tasks_blocked()
        for reader in (own, root):
            seen = reader.look()
            assert len(seen.frames) + reader.handle.dropped == 2500 * (1 + (reader is root))
            assert sum(dropped for _, dropped in seen.statistics) == reader.handle.dropped > 0
            assert reader.handle.pending() == 0
            assert reader.waiting() == 0
        assert f.held < 32768
        before = f.held
        b.ring_of(f.recorders[0]).shows(*(b"%1400d" % number for number in range(40)))
        await f.recorders[0].flush()
        assert f.held > before
        own.close()
        root.close()


@in_trio
async def test_all_readers_together_are_bounded() -> None:
    async with files(memory=Memory(total=10 << 20)) as (f, b):
        most = f.memory.all.most[Kind.CAPTURES.level]
        readers = [await opened(f.pcap) for _ in range(3 * most // EACH)]
        for turn in range(100):
            b.ring.shows(*(b"%1400d" % (100 * turn + number) for number in range(10)))
        await f.recorders[0].flush()
        assert most // 2 < f.held <= most
        late = await opened(f.pcap)
        assert late.look().interfaces == ["virt0"], "a file can be opened while the budget is used up"
        for reader in [*readers, late]:
            reader.close()


@in_trio
async def test_once_read_a_full_one_takes_frames_again() -> None:
    async with files(each=5000) as (f, b):
        own = await opened(f.pcap)
        for turn in range(30):
            b.ring.shows(*(b"%100d" % number for number in range(100)))
            await f.recorders[0].flush()
            assert own.frames() > 10 * (turn + 1)
        assert len(own.look().frames) + own.handle.dropped == 3000
        own.close()


# --- pcap of the root directory


@in_trio
async def test_order_of_time_over_all_with_statistics_behind_their_frames() -> None:
    async with files(3) as (f, b):
        root = await opened(f.root)
        rings = [b.ring_of(recorder) for recorder in f.recorders]
        for number, frame in enumerate(numbers(300)):
            rings[number % 3].passes(frame)
            if number % 20 == 19:
                rings[number // 20 % 3].hand_over()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(f.vanish, f.recorders[1])
            await trio.testing.wait_all_tasks_blocked()
            for ring in rings:
                ring.hand_over()
        rings[0].shows(*numbers(3, 300))
        seen = await root.until(303)
        await until(lambda: root.look().statistics)
        seen = root.look()
        assert seen.frames == numbers(303)
        assert seen.statistics == [(100, 0)]
        kinds = [block.interface.options["if_name"] for block in seen.blocks[4:]]
        last = max(at for at, packet in enumerate(seen.packets) if packet.interface == "virt1")
        statistics = [type(block).__name__ for block in seen.blocks[4:]].index("InterfaceStatistics")
        assert last < statistics
        assert kinds[statistics] == "virt1"
        root.close()


@in_trio
async def test_interfaces_that_come_and_go() -> None:
    """Each interface has its own number in the stream, and nothing is kept of removed interfaces."""
    async with files(1) as (f, b):
        root = await opened(f.root)
        for number in range(50):
            recorder = b.recorder(100 + number)
            f.recorders.append(recorder)
            await f.root.appear(recorder)
            b.made[-1].shows(b"%14d" % number)
            await f.vanish(recorder)
            f.recorders.remove(recorder)
        seen = await root.until(50)
        assert [packet.interface for packet in seen.packets] == [f"virt{100 + number}" for number in range(50)]
        assert len(b.open) == 1
        assert isinstance(root.handle, CaptureHandle)
        assert list(root.handle._watched) == f.recorders
        root.close()


@in_trio
async def test_a_stopped_reader_of_interfaces_that_come_and_go() -> None:
    """Its capture ends when the blocks that describe the interfaces fill the buffer twice."""
    async with files(1, each=2000) as (f, b):
        root = await opened(f.root)
        for unit in range(100, 160):
            recorder = b.recorder(unit)
            f.recorders.append(recorder)
            await f.root.appear(recorder)
            await f.vanish(recorder)
            f.recorders.remove(recorder)
        await trio.testing.wait_all_tasks_blocked()
        assert root.waiting() < 3 * 2000
        assert root.look().interfaces[0] == "virt0"
        assert root.ended
        root.close()


@in_trio
async def test_a_reader_that_closes_while_an_interface_appears() -> None:
    """Another reader of the file closes at the same time."""
    async with files(0) as (f, b):
        readers = [await opened(f.root), await opened(f.root)]
        recorder = b.recorder(5)
        f.recorders.append(recorder)
        b.gate.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(f.root.appear, recorder)
            await until(lambda: b.waiting)
            for reader in readers:
                reader.close()
            b.gate.set()
        f.given_back()
        await until(lambda: not b.open)


@in_trio
async def test_an_interface_that_goes_while_it_appears() -> None:
    async with files(1) as (f, b):
        b.gate.clear()
        async with trio.open_nursery() as nursery:
            opening: list[Reader] = []

            async def open_root() -> None:
                opening.append(await opened(f.root))

            nursery.start_soon(open_root)
            await until(lambda: b.waiting)
            nursery.start_soon(f.vanish, f.recorders[0])
            await trio.testing.wait_all_tasks_blocked()
            b.gate.set()
        (root,) = opening
        await until(lambda: root.look().statistics == [(0, 0)])
        assert b.open == []
        assert not root.handle.poll()
        root.close()


# --- non-blocking reads


@in_trio
async def test_an_open_is_listed_when_it_captures() -> None:
    """A capture is listed among the open files only when every later frame will be captured."""
    async with files(1) as (f, b):
        own = await opened(f.pcap)
        b.ring.passes(*numbers(1))
        async with trio.open_nursery() as nursery:
            opening: list[Reader] = []

            async def open_root() -> None:
                opening.append(await opened(f.root))

            nursery.start_soon(open_root)
            await trio.testing.wait_all_tasks_blocked()
            assert own.handle.soon()
            assert list(f.root.opens) == []
            b.ring.hand_over()
        assert [handle.node for handle in f.root.opens] == [f.root]
        own.look()
        assert own.look().frames == numbers(1)
        assert not own.handle.soon()
        own.close()
        opening[0].close()


@in_trio
async def test_soon_is_soon() -> None:
    async with files(2) as (f, b):
        root = await opened(f.root)
        root.look()
        one, other = b.open
        assert not root.handle.soon()
        one.passes(*numbers(1), time=time_ns())
        assert root.handle.soon()
        assert root.handle.poll()
        other.passes(*numbers(1))
        one.hand_over()
        await trio.testing.wait_all_tasks_blocked()
        assert root.look().frames == []
        assert root.handle.soon(), "the merge waits for frames of the other interface"
        other.hand_over()
        await root.until(2)
        assert not root.handle.soon()
        assert not root.handle.poll()
        root.close()


# --- without permission


@in_trio
async def test_a_refusal_leaves_nothing() -> None:
    async with files() as (f, b):
        b.refusal = VirtError(errno.EPERM, "not here")
        with pytest.raises(VirtError, match="not here"):
            await opened(f.pcap)
        f.given_back()
        b.refusal = None
        own = await opened(f.pcap)
        b.ring.shows(*numbers(1))
        assert (await own.until(1)).frames == numbers(1)
        own.close()


@in_trio
async def test_the_root_s_is_refused_where_none_may_be_seen() -> None:
    """It captures the interfaces that may be captured."""
    async with files(2) as (f, b):
        b.refusal = VirtError(errno.EPERM, "not here")
        with pytest.raises(VirtError, match="pcap: not here") as caught:
            await opened(f.root)
        assert caught.value.errno == errno.EPERM
        f.given_back()
        b.refusal = None
        own = await opened(f.pcap)
        b.refusal = VirtError(errno.EPERM, "not here")
        root = await opened(f.root)
        b.ring.shows(*numbers(1))
        assert (await root.until(1)).frames == numbers(1)
        root.close()
        own.close()


# --- history


@in_trio
async def test_history_is_bounded_and_toggled() -> None:
    async with files() as (f, b):
        (recorder,) = f.recorders
        history = History(recorder)
        file = HistoryFile(recorder.virt, Opens(), history, "virtfs test")
        for size in (2000, 500, 4000):
            recorder.virt.set(history_size=size)
            await history.update()
            for turn in range(100):
                b.ring.shows(*numbers(7, 7 * turn))
                await recorder.flush()
                assert sum(map(len, history._pieces)) < size + 7 * 64
            b.ring.loses(3)
            reader = await opened(file)
            frames = reader.look().frames
            assert frames == numbers(len(frames), 700 - len(frames))
            assert size - 64 < len(frames) * 60 <= size
            reader.close()
            recorder.virt.set(history_size=0)
            await history.update()
            assert not history._pieces
            await until(lambda: not b.open)


@in_trio
async def test_history_that_is_refused_is_asked_for_again() -> None:
    async with files() as (f, b):
        (recorder,) = f.recorders
        history = History(recorder)
        recorder.virt.set(history_size=1000)
        b.refusal = VirtError(errno.EPERM, "not here")
        for _ in range(2):
            with pytest.raises(VirtError):
                await history.update()
        b.refusal = None
        await history.update()
        b.ring.shows(*numbers(1))
        assert len(await history.blocks()) == 1
        recorder.virt.set(history_size=0)
        await history.update()


@in_trio
async def test_history_and_captures_share_a_ring() -> None:
    async with files() as (f, b):
        (recorder,) = f.recorders
        history = History(recorder)
        recorder.virt.set(history_size=1 << 20)
        await history.update()
        own, root = await opened(f.pcap), await opened(f.root)
        b.ring.shows(*numbers(5))
        for reader in (own, root):
            assert (await reader.until(5)).frames == numbers(5)
            reader.close()
        assert len(b.made) == 1
        assert b"".join(map(bytes, await history.blocks()))[28:42] == numbers(1)[0]
        recorder.virt.set(history_size=0)
        await history.update()
