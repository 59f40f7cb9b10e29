"""Writes to text files, and signals to their writers and to callers of libfuse."""

import errno
from collections.abc import Awaitable, Callable

import pytest
import trio
from harness.channels import CALLER, Answer, Bench, channel, request
from harness.in_trio import in_trio

from virtfs.core.errors import VirtError
from virtfs.core.ids import Gid, Uid, User
from virtfs.files.node import ROOT
from virtfs.files.text import Text, TextHandle
from virtfs.fuse import protocol as p
from virtfs.fuse.later import TEXT_MAX

Write = Callable[[bytes, User], Awaitable[None]]


def opened(bench: Bench, write: Write | None, refused: Callable[[VirtError, User], None] = lambda e, u: None) -> int:
    """Open a text file. Returns its file handle (fh)."""
    text = Text(ROOT, lambda user: "", write, refused=refused)
    user = User(Uid(0), Gid(0), 1)
    bench.handles.begin(user)
    return bench.handles.add_text(TextHandle(text, user, bench.handles.memory))


def written(size: int, unique: int) -> Answer:
    return Answer(0, unique, p.fuse_write_out.pack(size, 0))


def interrupt(bench: Bench, unique: int) -> None:
    bench.send(request(p.FUSE_INTERRUPT, unique + 1, 0, p.fuse_interrupt_in.pack(unique)))


@in_trio
async def test_a_write_is_answered_when_it_has_taken_effect() -> None:
    async with channel() as bench:
        heard, go = [], trio.Event()

        async def write(data: bytes, user: User) -> None:
            await go.wait()
            heard.append(data)

        unique = bench.write(opened(bench, write), b"1500")
        assert await bench.answers() == []
        go.set()
        assert await bench.answers() == [written(4, unique)]
        assert heard == [b"1500"]
        assert await bench.forwarded() == []


@pytest.mark.parametrize("refusal", [VirtError(errno.ERANGE, "too large"), MemoryError(), ValueError("unexpected")])
@in_trio
async def test_errors(refusal: Exception) -> None:
    async with channel() as bench:

        async def write(data: bytes, user: User) -> None:
            raise refusal

        number = refusal.errno if isinstance(refusal, OSError) else None
        wanted = number or (errno.ENOMEM if isinstance(refusal, MemoryError) else errno.EIO)
        unique = bench.write(opened(bench, write), b"1500")
        assert await bench.answers() == [Answer(-wanted, unique, b"")]
        unique = bench.write(opened(bench, None), b"1500")
        assert await bench.answers() == [Answer(-errno.EACCES, unique, b"")]
        unique = bench.write(4711, b"1500")
        assert await bench.answers() == [Answer(-errno.EBADF, unique, b"")]


@in_trio
async def test_a_piece_of_a_longer_write_is_too_big() -> None:
    async with channel() as bench:
        said: list[VirtError] = []

        async def write(data: bytes, user: User) -> None:
            pass

        fh = opened(bench, write, lambda refusal, user: said.append(refusal))
        try:
            unique = bench.write(fh, bytes(p.MAX_WRITE))
        except OSError:
            pytest.skip("needs root: a socket buffer of more than a megabyte")
        assert await bench.answers() == [Answer(-errno.E2BIG, unique, b"")]
        assert [refusal.errno for refusal in said] == [errno.E2BIG]
        unique = bench.write(fh, bytes(TEXT_MAX))
        assert await bench.answers() == [written(TEXT_MAX, unique)]


@in_trio
async def test_a_signal_ends_a_write_that_waits() -> None:
    async with channel() as bench:

        async def waits(data: bytes, user: User) -> None:
            await trio.sleep_forever()

        fh = opened(bench, waits)
        unique, other = bench.write(fh, b"1400"), bench.write(fh, b"1500")
        assert await bench.answers() == []
        interrupt(bench, unique)
        assert await bench.answers() == [Answer(-errno.EINTR, unique, b"")]
        interrupt(bench, unique)
        assert await bench.answers() == []
        interrupt(bench, other)
        assert await bench.answers() == [Answer(-errno.EINTR, other, b"")]


@in_trio
async def test_what_has_begun_to_take_effect_completes() -> None:
    async with channel() as bench:
        go = trio.Event()

        async def whole(data: bytes, user: User) -> None:
            with trio.CancelScope(shield=True):
                await go.wait()

        unique = bench.write(opened(bench, whole), b"1400")
        await bench.answers()
        interrupt(bench, unique)
        assert await bench.answers() == []
        go.set()
        assert await bench.answers() == [written(4, unique)]


@in_trio
async def test_the_end_answers_writes() -> None:
    async with channel() as bench:

        async def waits(data: bytes, user: User) -> None:
            await trio.sleep_forever()

        unique = bench.write(opened(bench, waits), b"1400")
        await bench.answers()
        bench.channel.end()
        assert await bench.answers() == [Answer(-errno.ENXIO, unique, b"")]


@in_trio
async def test_a_signal_ends_a_forwarded_request_at_once() -> None:
    async with channel() as bench:
        unique = bench.request(p.FUSE_STATFS, 1)
        assert len(await bench.forwarded()) == 1
        interrupt(bench, unique)
        assert await bench.answers() == [Answer(-errno.EINTR, unique, b"")]
        bench.reply(p.fuse_out_header.pack(p.REPLY + 8, 0, unique) + bytes(8))
        assert await bench.answers() == [], "the late answer is dropped"
        assert await bench.forwarded() == []


@in_trio
async def test_a_change_of_attributes_is_cancelled_and_answered_by_libfuse() -> None:
    async with channel() as bench:
        interrupts = bench.channel.pair.interrupts
        unique = bench.request(p.FUSE_SETATTR, 1, bytes(88))
        await bench.forwarded()
        with interrupts.cancellable(CALLER) as scope:
            interrupt(bench, unique)
            await trio.testing.wait_all_tasks_blocked()
            assert scope.cancel_called
        bench.reply(p.fuse_out_header.pack(p.REPLY, -errno.EINTR, unique))
        assert await bench.answers() == [Answer(-errno.EINTR, unique, b"")]
        # A signal that arrives before the change begins.
        unique = bench.request(p.FUSE_SETATTR, 1, bytes(88))
        interrupt(bench, unique)
        await bench.forwarded()
        with interrupts.cancellable(CALLER) as scope:
            assert scope.cancel_called
        bench.reply(p.fuse_out_header.pack(p.REPLY, -errno.EINTR, unique))
        await bench.answers()
        with interrupts.cancellable(CALLER) as scope:
            assert not scope.cancel_called, "the next change of the thread"
