"""One rule for poll(2) on every stream, tested with random histories, through the channel and on fakes.

POLLIN (POLLOUT) is set exactly when a read (write) would not fail with EAGAIN. POLLERR is set, too, when a read would
fail with another error. A poller is woken when an event holds that poll has not reported to it.
"""

import errno
import os
import select
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace

import pytest
import trio
from harness.channels import Answer, Bench, channel
from harness.in_trio import forget, in_trio, start_in
from harness.rings import bench as ring_bench
from harness.wires import frame_file, plain_wire
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit, User
from virtfs.core.memory import Memory
from virtfs.core.virt import HostEnd, Virt
from virtfs.files.capture import Budget, Capture
from virtfs.files.clone import Clone
from virtfs.files.device import DeviceFile, Opens
from virtfs.files.events import Events
from virtfs.files.frame import Seats
from virtfs.files.hexlines import Hex
from virtfs.files.inject import Inject
from virtfs.files.node import ROOT
from virtfs.files.stream import Stream
from virtfs.files.wait import waits
from virtfs.forward.wire import Wire
from virtfs.fuse import protocol as p
from virtfs.host.fakes import FakeTap

from .test_frame import set_down, set_up

IN, OUT, ERR = select.POLLIN, select.POLLOUT, select.POLLERR
FRAME = bytes(12) + b"\x88\xb5" + bytes(46)
KH = 77

Step = Callable[[], object]


class Polled:
    """A stream under test. An edge-triggered poller waits on an open of the stream, which is also read and written.

    steps: what can happen to the stream, by name. settle: called after each step to let time pass.
    """

    def __init__(self, bench: Bench, stream: DeviceFile, flags: int, steps: dict[str, Step]) -> None:
        self.bench = bench
        self.stream = stream
        self.flags = flags | os.O_NONBLOCK
        self.fh = 0
        self.told = 0
        self.woken = False
        self.settle: Callable[[], None] = lambda: None
        self.steps: dict[str, Step] = {
            "read 1": lambda: self.read(1),
            "read 4096": lambda: self.read(4096),
            "write": self.write,
            **steps,
        }

    async def begin(self) -> None:
        self.bench.request(p.FUSE_OPEN, self.bench.place(self.stream), p.fuse_open_in.pack(self.flags, 0))
        while not (answers := await self.bench.answers()):  # a ring is opened in a thread
            await trio.lowlevel.checkpoint()
        self.fh = p.fuse_open_out.unpack(answers[0].body)[0]
        self.told = await self.bench.poll(self.fh, KH, schedule=True)

    async def do(self, step: str) -> None:
        """Do a step. Assert that the poller has been woken for each new event."""
        done = self.steps[step]()
        if isinstance(done, Awaitable):
            await done
        self.settle()
        await self.answers()
        now = await self.bench.poll(self.fh, KH, schedule=False)
        if self.woken:
            self.woken = False
            self.told = await self.bench.poll(self.fh, KH, schedule=True)
        else:
            assert not now & ~self.told, f"the poller was not woken for {now:#x}, having been told {self.told:#x}"
            self.told &= now

    async def answers(self) -> list[Answer]:
        """Return the answers to the kernel, and note whether there were wake-ups among its messages."""
        told = await self.bench.answers()
        self.woken = self.woken or any(answer.unique == 0 for answer in told)
        return [answer for answer in told if answer.unique]

    async def read(self, size: int) -> None:
        if self.flags & os.O_ACCMODE == os.O_WRONLY:
            assert not await self.events() & IN
            return
        events = await self.events()
        unique = self.bench.read(self.fh, size, self.flags)
        errors = [answer.error for answer in await self.answers() if answer.unique == unique]
        assert (errors != [-errno.EAGAIN]) == bool(events & IN), (errors, events)
        failed = errors not in ([], [0], [-errno.EAGAIN])
        told = events & (IN | ERR) == IN | ERR
        # After the interface is lost, POLLHUP is set although the rest of a line can still be read.
        assert failed == told or (told and events & select.POLLHUP), (errors, events)

    async def write(self) -> None:
        if self.flags & os.O_ACCMODE == os.O_RDONLY:
            assert not await self.events() & OUT
            return
        events = await self.events()
        error, _ = await self.send(b"x")
        assert (error != -errno.EAGAIN) == bool(events & OUT)

    async def send(self, data: bytes) -> tuple[int, int]:
        """Make a write(2). Returns its error (0: none) and the number of bytes written."""
        body = p.fuse_write_in.pack(self.fh, 0, len(data), 0, 0, self.flags, 0) + data
        unique = self.bench.request(p.FUSE_WRITE, 2, body)
        (answer,) = [answer for answer in await self.answers() if answer.unique == unique]
        return answer.error, 0 if answer.error else p.fuse_write_out.unpack(answer.body)[0]

    async def events(self) -> int:
        return await self.bench.poll(self.fh, KH, schedule=False)


class Held:
    """An impairment that holds every frame until let_go() is called."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.frames: list[bytes] = []

    def push(self, frame: bytes) -> None:
        self.frames.append(frame)

    def clear(self) -> int:
        count, self.frames = len(self.frames), []
        return count

    def set(self, on: bool) -> None:
        self.wire.set_path(self if on else None)

    def let_go(self) -> None:
        frames, self.frames = self.frames, []
        for frame in frames:
            self.wire.arrive(frame)


class Side:
    """An interface's wire, and what the host and an administrator can do to the interface."""

    def __init__(self, tap: FakeTap) -> None:
        self.tap = tap
        self.virt = Virt(Unit(3), bytes(6), HostEnd("tap3", 7, True, 1500, bytes(6), True, queue=5), exclusive="none")
        self.wire = plain_wire(self.virt, tap, self.lose)
        self.held = Held(self.wire)
        self._filled = -1

    def sends(self, frames: int) -> None:
        with suppress(BlockingIOError, OSError):
            for _ in range(frames):
                self.tap.host_send(FRAME)

    def down(self) -> None:
        if self._filled < 0 and self.tap.alive() and not self.virt.lost:
            self._filled = set_down(self.wire, self.tap)

    def up(self) -> None:
        if self._filled >= 0 and self.tap.alive() and not self.virt.lost:
            set_up(self.wire, self.tap, self._filled)
            self._filled = -1

    def lose(self) -> None:
        if not self.virt.lost:
            self.virt.lose()

    def vanish(self) -> None:
        if not self.virt.lost:
            self.tap.vanish()

    def change(self) -> None:
        self.virt.set(backlog=3 - self.virt.backlog)

    def carrier(self) -> None:
        if not self.virt.lost:
            self.virt.set_host(replace(self.virt.host, carrier=not self.virt.host.carrier))

    def steps(self) -> dict[str, Step]:
        return {
            "a frame comes": lambda: self.sends(1),
            "many frames come": lambda: self.sends(300),
            "down": self.down,
            "up": self.up,
            "carrier": self.carrier,
            "lost": self.lose,
            "vanished": self.vanish,
            "a setting changes": self.change,
            "an impairment is set": lambda: self.held.set(True),
            "an impairment is removed": lambda: self.held.set(False),
            "what it held arrives": self.held.let_go,
            "somebody looks at next": self.wire.peek,
        }


@asynccontextmanager
async def side() -> AsyncIterator[tuple[Bench, Side, trio.Nursery]]:
    with FakeTap("tap3") as tap:
        made = Side(tap)
        async with channel() as bench:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(made.wire.watch.run)
                yield bench, made, nursery
                nursery.cancel_scope.cancel()
            made.lose()  # wakes pollers, through the channel's descriptor
        made.wire.close()


def told(error: VirtError, user: User) -> None:
    """Ignore an error that virtfs would report in last_error."""


def on_frame(flags: int) -> Callable[[], AbstractAsyncContextManager[Polled]]:
    @asynccontextmanager
    async def make() -> AsyncIterator[Polled]:
        async with side() as (bench, it, _):
            yield Polled(bench, frame_file(it.wire), flags, it.steps())

    return make


def on_hex(flags: int) -> Callable[[], AbstractAsyncContextManager[Polled]]:
    @asynccontextmanager
    async def make() -> AsyncIterator[Polled]:
        async with side() as (bench, it, _):
            yield Polled(bench, Hex(frame_file(it.wire), Opens(), told), flags, it.steps())

    return make


def on_stream(flags: int) -> Callable[[], AbstractAsyncContextManager[Polled]]:
    @asynccontextmanager
    async def make() -> AsyncIterator[Polled]:
        async with side() as (bench, it, _):
            yield Polled(bench, Stream(frame_file(it.wire), Opens(), told), flags, it.steps())

    return make


def on_wait(name: str) -> Callable[[], AbstractAsyncContextManager[Polled]]:
    @asynccontextmanager
    async def make() -> AsyncIterator[Polled]:
        async with side() as (bench, it, _):
            steps = {**it.steps(), "a reader comes": it.wire.opened}
            yield Polled(bench, waits(it.wire, Opens(), Seats(), look=lambda: None)[name], os.O_RDONLY, steps)

    return make


@asynccontextmanager
async def on_inject() -> AsyncIterator[Polled]:
    """inject, with frames that are due at once or in a thousand seconds. Each write continues where the last ended."""
    async with side() as (bench, it, nursery):
        head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
        times = (1000 * (number // 2) for number in range(100_000))
        records = (struct.pack("<IIII", time, 0, len(FRAME), len(FRAME)) + FRAME for time in times)
        rest, cut = head, False

        async def write(size: int) -> None:
            nonlocal rest, cut
            while len(rest) < size:
                rest += next(records)
            events = await polled.events()
            error, taken = await polled.send(rest[:size])
            if not events & OUT and size > 100:  # a part of a record is always taken
                assert error == -errno.EAGAIN
            elif cut:  # this continues a write that was cut, so that poll knew the next frame
                assert error != -errno.EAGAIN
            rest, cut = rest[taken:], taken < size
            if not cut:
                polled.told |= OUT  # a complete write tells the writer that it can write more
            if cut and not it.virt.lost:
                # With `pace`, the next frame may be due by now.
                assert it.virt.pace or await polled.events() & OUT

        def pace(factor: float) -> None:
            it.virt.set(pace=factor)

        steps: dict[str, Step] = {
            **it.steps(),
            "write": lambda: write(200),
            "write much": lambda: write(1000),
            "write little": lambda: write(7),
            "pace 0": lambda: pace(0),
            "pace 1": lambda: pace(1),
        }
        polled = Polled(bench, Inject(it.wire, Opens(), start_in(nursery), told), os.O_WRONLY, steps)
        yield polled


@asynccontextmanager
async def on_events() -> AsyncIterator[Polled]:
    async with channel() as bench:
        events = Events(Opens(), lambda: None, forget)

        def emit(count: int) -> None:
            for _ in range(count):
                events.emit("up", "virt3")

        steps: dict[str, Step] = {"an event": lambda: emit(1), "too many": lambda: emit(5000)}
        yield Polled(bench, events, os.O_RDONLY, steps)


@asynccontextmanager
async def on_clone() -> AsyncIterator[Polled]:
    async def make(user: User) -> tuple[Unit, Callable[[], None]]:
        return Unit(3), lambda: None

    async with channel() as bench:
        yield Polled(bench, Clone(Opens(), make), os.O_RDWR, {})


def on_capture(alone: bool) -> Callable[[], AbstractAsyncContextManager[Polled]]:
    @asynccontextmanager
    async def make() -> AsyncIterator[Polled]:
        async with channel() as bench, ring_bench() as b:
            recorders = [b.recorder(unit) for unit in range(1 if alone else 2)]
            capture = Capture(ROOT, "pcap", Opens(), lambda: recorders, Budget(2000, Memory()), "test", b.start, alone)

            async def go(number: int) -> None:
                hand_over()
                recorder = recorders[number % len(recorders)]
                if not recorder.virt.lost:
                    recorder.virt.lose()
                await recorder.flush()
                capture.vanish(recorder)
                await recorder.end()

            def passes(number: int, frames: int) -> None:
                for ring in b.open[number : number + 1]:
                    ring.passes(*[FRAME] * frames)

            def lose() -> None:
                for ring in b.open:
                    ring.loses(3)

            def hand_over() -> None:
                for ring in b.open:
                    ring.hand_over()

            async def read_at_once() -> None:
                passes(0, 1)
                await polled.read(4096)

            steps: dict[str, Step] = {
                "a frame passes": lambda: passes(0, 1),
                "a frame is read before the kernel hands it over": read_at_once,
                "a frame passes elsewhere": lambda: passes(1, 1),
                "many frames pass": lambda: passes(0, 100),
                "some are lost": lose,
                "one goes": lambda: go(0),
                "another goes": lambda: go(1),
            }
            polled = Polled(bench, capture, os.O_RDONLY, steps)
            polled.settle = hand_over
            yield polled
            for handle in bench.handles.devices.values():
                handle.release()
            for number in range(len(recorders)):
                await go(number)

    return make


STREAMS: dict[str, Callable[[], AbstractAsyncContextManager[Polled]]] = {
    "frame": on_frame(os.O_RDWR),
    "frame, read": on_frame(os.O_RDONLY),
    "frame, written": on_frame(os.O_WRONLY),
    "hex": on_hex(os.O_RDWR),
    "hex, written": on_hex(os.O_WRONLY),
    "stream": on_stream(os.O_RDWR),
    "inject": on_inject,
    "pcap": on_capture(True),
    "pcap of all": on_capture(False),
    "events": on_events,
    "clone": on_clone,
    **{f"wait/{name}": on_wait(name) for name in ("up", "down", "carrier", "reader", "gone", "frame")},
}


@pytest.mark.timeout(300)  # the channel calls sched_yield(2) up to 50 times before it idles: slow beside busy programs
@pytest.mark.parametrize("stream", STREAMS)
def test_poll_tells_what_the_call_does(stream: str) -> None:
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.integers(0, 99), max_size=15))
    @example([3, 0, 80, 0])  # hex: the rest of a line is read while the interface is down
    def check(numbers: list[int]) -> None:
        @in_trio
        async def run() -> None:
            async with STREAMS[stream]() as polled:
                await polled.begin()
                names = list(polled.steps)
                done = [names[number % len(names)] for number in numbers]
                for step in done:
                    try:
                        await polled.do(step)
                    except AssertionError as failure:
                        raise AssertionError(f"{failure}: {step} in {done}") from failure

        run()

    check()
