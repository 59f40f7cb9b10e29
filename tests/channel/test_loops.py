"""The compiled loop does what the Python loop does, and does it without Python."""

import errno
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import monotonic_ns
from typing import TYPE_CHECKING, NoReturn

import pytest
from harness.channels import CALLER, Answer
from harness.in_trio import in_trio
from harness.waiting import until
from harness.wires import frame as numbered
from harness.wires import frame_file, plain_wire
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtfs.core.ids import Gid, Uid, User
from virtfs.files.frame import Frame, FrameHandle
from virtfs.forward.tapwatch import TapWatch
from virtfs.fuse import channel, loops
from virtfs.fuse import protocol as p
from virtfs.fuse.channel import LONG, REST
from virtfs.fuse.inodes_handles import HandleId
from virtfs.host.fakes import FakeTap

from .conftest import LOOPS
from .test_frame import FRAME, frame, set_down, set_up, up

if TYPE_CHECKING:
    from virtfs.fuse.plainloop import PlainLoop

SIZE = 1 << 17
USER = User(Uid(1000), Gid(1001), 1)


def test_the_compiled_loop_has_been_built() -> None:
    """tools/setup installs a compiler, so that the other tests with this loop test it."""
    assert loops.name() == "compiled loop"


def test_a_debugged_mount_uses_python(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="virtfs.fuse.trace")
    assert loops.name() == "Python loop"


def test_without_the_module_python_does_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "virtfs.fuse.plainloop", None)
    assert loops.name() == "Python loop"


# The same history with both loops


@dataclass(frozen=True)
class Write:
    """A WRITE whose head announces `claimed` bytes more than follow."""

    size: int
    claimed: int
    offset: int
    flags: int
    thread: int


@dataclass(frozen=True)
class Read:
    """A READ with `extra` bytes after it."""

    size: int
    offset: int
    how: int
    flags: int
    extra: int


@dataclass(frozen=True)
class Cut:
    """The first bytes of a valid WRITE or READ."""

    opcode: int
    length: int


@dataclass(frozen=True)
class Arrival:
    """A frame from the host."""

    size: int


@dataclass(frozen=True)
class Change:
    """A change of the interface, or a stat(2) that reads ahead ("peek")."""

    what: str


SIZES = st.sampled_from([0, 1, 13, 14, 60, 60, 60, 255, 256, 257, 1024, 1514, 1518, 1519, 40000])
LIKELY_0 = st.sampled_from([0] * 8 + [1, 60, 256, 2**32, 2**64 - 1])
FLAGS = st.sampled_from([os.O_RDWR, os.O_RDWR | os.O_NONBLOCK, os.O_RDWR | os.O_APPEND])
STEPS = st.one_of(
    st.builds(Write, SIZES, st.sampled_from([0] * 8 + [1, -1, 5000]), LIKELY_0, FLAGS, st.sampled_from([1, 1, 2])),
    st.builds(Read, SIZES.map(lambda size: size or 2**20), LIKELY_0, st.sampled_from([2, 2, 2, 0]), FLAGS,
              st.sampled_from([0, 0, 0, 8])),
    st.builds(Cut, st.sampled_from([p.FUSE_READ, p.FUSE_WRITE]), st.integers(1, p.DATA)),
    st.builds(Arrival, SIZES.filter(lambda size: 14 <= size <= 1518)),
    st.builds(Arrival, SIZES.filter(lambda size: 14 <= size <= 1518)),
    st.builds(Change, st.sampled_from(["down", "peek", "antispoof", "strict", "plug"])),
)  # fmt: skip
TARGETS = st.tuples(st.sampled_from([0, 0, 0, 1, 2]), st.sampled_from([1000] * 9 + [1001]))
HISTORIES = st.lists(st.tuples(STEPS, TARGETS), max_size=30)


def message(step: Write | Read | Cut, unique: int, fh: int, uid: int) -> bytes:
    """Return a request. `unique` is even, as with the kernel."""
    match step:
        case Write(size, claimed, offset, flags, thread):
            body = p.fuse_write_in.pack(fh, offset, max(size + claimed, 0), 0, 0, flags, 0) + numbered(unique, size)
            opcode, thread = p.FUSE_WRITE, CALLER + thread
        case Read(size, offset, how, flags, extra):
            body = p.fuse_read_in.pack(fh, offset, size, how, 7, flags, 0) + bytes(extra)
            opcode, thread = p.FUSE_READ, CALLER
        case Cut(opcode, _):
            body, thread = p.fuse_read_in.pack(fh, 0, 60, 2, 7, os.O_RDWR, 0), CALLER
    head = p.fuse_in_header.pack(p.BODY + len(body), opcode, unique, 2, uid, 1001, thread, 0, 0)
    return (head + body)[: step.length if isinstance(step, Cut) else None]


def change(what: str, file: Frame, tap: FakeTap) -> None:
    virt = file.wire.virt
    match what:
        case "down" if virt.host.up:
            set_up(file.wire, tap, set_down(file.wire, tap))
        case "peek":
            file.wire.peek()
        case "antispoof":
            virt.set(antispoof=not virt.antispoof)
        case "strict":
            virt.set(strict=not virt.strict)
        case "plug":
            virt.set(carrier="off" if virt.carrier == "always" else "always")


def arrived(tap: FakeTap) -> list[bytes]:
    frames = []
    try:
        while True:
            frames.append(tap.host_receive())
    except BlockingIOError:
        return frames


def carried_out(history: list[tuple[Write | Read | Cut | Arrival | Change, tuple[int, int]]]) -> list[object]:
    """Return all that the kernel and the host see of a history, and the counters after each step."""
    seen: list[object] = []

    @in_trio
    async def run() -> None:
        async with frame() as (bench, file, tap):
            file.wire.virt.set(exclusive="none")
            handles = [await bench.open(file), await bench.open(file), 99]
            for unique, (step, (handle, uid)) in enumerate(history, 1000):
                if isinstance(step, Arrival):
                    tap.host_send(numbered(unique, step.size))
                elif isinstance(step, Change):
                    change(step.what, file, tap)
                else:
                    bench.send(message(step, 2 * unique, handles[handle], uid))
                answers = await bench.answers()
                counters = file.wire.virt.counters
                taken = [one.taken() for one in bench.handles.devices.values()]
                seen.append((step, answers, arrived(tap), {name: getattr(counters, name) for name in COUNTERS}, taken))

    run()
    return seen


COUNTERS = [f"{way}_{what}" for way in ("rx", "tx") for what in ("frames", "bytes", "dropped")]
COUNTERS += ["tx_short", "tx_oversize", "tx_down", "tx_spoofed"]


@given(HISTORIES)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_both_loops_do_the_same(
    history: list[tuple[Write | Read | Cut | Arrival | Change, tuple[int, int]]],
) -> None:
    seen = []
    for loop in LOOPS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VIRTFS_COMPILED", "no" if loop == "python" else "yes")
            seen.append(carried_out(history))
    assert seen[0] == seen[1]


# What the compiled loop alone does


def never(*_: object) -> NoReturn:
    raise AssertionError("Python was asked")


@in_trio
async def test_plain_frames_pass_without_python() -> None:
    async with frame() as (bench, file, tap):
        fh = await bench.open(file)
        (handle,) = bench.handles.devices.values()
        assert isinstance(handle, FrameHandle)
        bench.write(fh, FRAME)  # the first one of a thread is looked at in Python
        await bench.answers()
        handle.read = handle.write = never  # type: ignore[method-assign,assignment]
        for number in range(5):
            tap.host_send(numbered(number))
            unique = bench.read(fh)
            assert await bench.answers() == [Answer(0, unique, numbered(number))]
            unique = bench.write(fh, FRAME)
            assert await bench.answers() == [Answer(0, unique, p.fuse_write_out.pack(len(FRAME), 0))]
        assert arrived(tap) == [FRAME] * 6
        assert handle.taken() == 5


@pytest.mark.usefixtures("loop")
def test_counters_are_right_whenever_they_are_read() -> None:
    """The requests of a burst are answered in one go, with a text in between that shows the counters."""

    @in_trio
    async def run() -> None:
        async with frame() as (bench, file, tap):
            fh, counters = await bench.open(file), file.wire.virt.counters
            text = bench.open_text(lambda user: f"{counters.tx_frames} {counters.rx_frames} {file.times(None)[0]}\n")
            for number in range(10):
                tap.host_send(numbered(number))
            for _ in range(10):
                bench.write(fh, FRAME)
                bench.read(fh)
            unique = bench.read(text)
            for _ in range(10):
                bench.write(fh, FRAME)
            answers = {answer.unique: answer for answer in await bench.answers()}
            assert len(answers) == 31
            sent, taken, at = answers[unique].body.split()
            assert (sent, taken) == (b"10", b"10")
            assert int(at) == file.wire.taken_at
            assert (counters.tx_frames, counters.tx_bytes) == (20, 20 * len(FRAME))

    run()


@pytest.mark.usefixtures("loop")
def test_many_interfaces_at_once() -> None:
    """More open files than the compiled loop remembers, in turn."""

    @in_trio
    async def run() -> None:
        async with frame() as (bench, file, tap):
            file.wire.virt.set(exclusive="none")
            handles = [await bench.open(file) for _ in range(20)]
            for _ in range(3):
                for number, fh in enumerate(handles):
                    tap.host_send(numbered(number))
                    bench.read(fh)
                    bench.write(fh, numbered(number))
                bodies = [answer.body for answer in await bench.answers()]
                assert bodies[::2] == [numbered(number) for number in range(20)]
                assert arrived(tap) == [numbered(number) for number in range(20)]
            assert [handle.taken() for handle in bench.handles.devices.values()] == [3] * 20

    run()


@contextmanager
def compiled_loop(
    fail: Callable[[int, int], None], due: Callable[[], bool], each: int
) -> Iterator[tuple[socket.socket, "PlainLoop", FakeTap]]:
    """Yield the kernel's end of /dev/fuse, a compiled loop with one open `frame`, and its tap."""
    plain_loop = loops.plain_loop()
    assert plain_loop is not None
    kernel, fuse = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with FakeTap("tap3") as tap, kernel, fuse:
        fuse.setblocking(False)
        handle = FrameHandle(frame_file(plain_wire(up(), tap)), USER, os.O_RDWR)
        handle.whole[CALLER] = SIZE
        room, reply, devices = bytearray(SIZE), bytearray(SIZE), {HandleId(1): handle}
        yield kernel, plain_loop(fuse.fileno(), room, reply, devices, fail, SIZE, LONG, REST, due, each), tap
        with pytest.raises(ValueError, match="too small"):
            plain_loop(fuse.fileno(), room, bytearray(16), devices, fail, SIZE, LONG, REST, due, each)


def test_an_answer_that_the_kernel_refuses_is_reported() -> None:
    failed: list[tuple[int, int]] = []
    with compiled_loop(lambda *it: failed.append(it), never, 32) as (kernel, loop, tap):
        kernel.send(message(Write(60, 0, 0, 0, 0), 8, 1, 1000))
        kernel.shutdown(socket.SHUT_RD)
        assert loop.answer(1000, 0, 0, 32, 1 << 62) == (None, 0, 31)
        assert failed == [(8, errno.EPIPE)]
        assert arrived(tap) == [numbered(8)]


def test_a_call_tells_how_long_its_requests_took() -> None:
    """The time between requests does not count; see Turns.next()."""
    with compiled_loop(never, never, 32) as (kernel, loop, _):
        began = monotonic_ns()
        for number in range(3):
            kernel.send(message(Write(60, 0, 0, 0, 0), number, 1, 1000))
        assert loop.answer(1000, 0, 5000, 32, 1 << 62) == (None, 0, 29)
        ended = monotonic_ns()
        assert loop.requests == 3
        assert began < loop.ended < ended
        assert 0 < loop.spent < (ended - began) / 2, "most of the time it has polled"
        assert loop.answer(1000, 0, 0, 32, 1 << 62) == (None, 0, 32)
        assert (loop.requests, loop.spent) == (0, 0)


def test_it_stops_polling_while_other_programs_compute() -> None:
    """Otherwise each poll would cost a time slice of every such program."""
    cpu = {min(os.sched_getaffinity(0))}
    hog = [sys.executable, "-c", "while True: pass"]
    with ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        os.sched_setaffinity(0, cpu)
        for _ in range(3):
            program = stack.enter_context(subprocess.Popen(hog))
            stack.callback(program.kill)
        _, loop, _ = stack.enter_context(compiled_loop(never, never, 32))
        until(lambda: loop.answer(1000, 1000, 0, 32, 1 << 62) == (None, 0, 32) and loop.contended, "a long yield")
        rest = loop.contended - monotonic_ns()
        assert rest > 0
        assert loop.answer(1000, 1 << 30, 0, 32, 1 << 62) == (None, 0, 32), "it returns at once"


@in_trio
async def test_python_stops_polling_while_other_programs_compute() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIRTFS_COMPILED", "no")
        yields = []
        patch.setattr(os, "sched_yield", lambda: yields.append(monotonic_ns()))
        async with frame() as (bench, file, _):
            fh = await bench.open(file)
            yields.clear()
            bench.write(fh, FRAME)
            await bench.answers()
            assert len(yields) > 10
            patch.setattr(channel, "LONG", -1)
            patch.setattr(channel, "REST", 1 << 40)
            yields.clear()
            for _ in range(3):
                bench.write(fh, FRAME)
                await bench.answers()
            assert len(yields) == 1


def test_a_call_ends_if_a_tap_must_be_looked_at() -> None:
    due = iter([False, True])
    with compiled_loop(never, lambda: next(due), 4) as (kernel, loop, tap):
        for number in range(10):
            kernel.send(message(Write(60, 0, 0, 0, 0), number, 1, 1000))
        assert loop.answer(1000, 0, 0, 2, 1 << 62) == (None, 0, 0)
        assert arrived(tap) == [numbered(number) for number in range(2 + 4)]


def test_a_watch_is_due_while_a_tap_is_ready_or_may_hold_more() -> None:
    watch, (tap, host) = TapWatch(), os.pipe()
    more = iter([True, False])
    watch.add(tap, lambda events: next(more))
    watch.watch(tap)
    assert not watch.due()
    os.write(host, b"x")
    assert watch.due()
    assert watch.look()
    assert watch.due()
    assert watch.look()
    assert not watch.due()
    watch.close()
    os.close(tap)
    os.close(host)
