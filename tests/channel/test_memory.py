"""Waiting requests are charged to their user, refused beyond a limit, and given back however they end."""

import errno

from harness.channels import Answer, Bench, Talk, channel
from harness.in_trio import in_trio

from virtfs.core.ids import Uid
from virtfs.core.memory import OPEN, REQUEST, Kind, Memory
from virtfs.fuse import protocol as p

USER = Uid(1000)  # the user of the requests of a Bench


def charged(bench: Bench, kind: Kind) -> int:
    return bench.handles.memory.all.kinds[kind].now


@in_trio
async def test_the_first_read_that_waits_is_part_of_the_open() -> None:
    async with channel() as bench:
        talk = Talk()
        fh = await bench.open(talk)
        assert charged(bench, Kind.OPENS) == OPEN
        first, second, third = (bench.read(fh) for _ in range(3))
        assert await bench.answers() == []
        assert charged(bench, Kind.REQUESTS) == 2 * REQUEST
        bench.request(p.FUSE_INTERRUPT, 0, p.fuse_interrupt_in.pack(first))
        assert await bench.answers() == [Answer(-errno.EINTR, first, b"")]
        assert charged(bench, Kind.REQUESTS) == REQUEST
        talk.say(b"x")
        assert await bench.answers() == [Answer(0, second, b"x")]
        assert charged(bench, Kind.REQUESTS) == 0
        bench.channel.end()
        assert Answer(-errno.ENXIO, third, b"") in await bench.answers()
        await bench.ask(p.FUSE_RELEASE, 2, p.fuse_fh.pack(fh) + bytes(16))
        assert bench.handles.memory.users == {}


@in_trio
async def test_reads_beyond_the_limit_are_refused() -> None:
    async with channel(memory=Memory(1 << 20, OPEN + 3 * REQUEST)) as bench:
        talk = Talk()
        fh = await bench.open(talk)
        uniques = [bench.read(fh) for _ in range(5)]
        assert await bench.answers() == [Answer(-errno.ENOBUFS, uniques[4], b"")]
        talk.say(b"1", b"2", b"3", b"4")
        assert [answer.unique for answer in await bench.answers()] == uniques[:4]
        assert charged(bench, Kind.REQUESTS) == 0


@in_trio
async def test_an_open_that_is_refused_leaves_nothing() -> None:
    async with channel(memory=Memory(1 << 20, OPEN + REQUEST)) as bench:
        talk = Talk()
        fh = await bench.open(talk)
        answer = await bench.ask(p.FUSE_OPEN, bench.place(talk), p.fuse_open_in.pack(0, 0))
        assert answer.error == -errno.ENOBUFS
        assert len(talk.opened) == 1
        await bench.ask(p.FUSE_RELEASE, 2, p.fuse_fh.pack(fh) + bytes(16))
        assert not bench.handles
        await bench.open(talk)


@in_trio
async def test_requests_that_libfuse_does_not_take() -> None:
    """They are refused beyond the limit."""
    async with channel(memory=Memory(1 << 20, 4 * REQUEST)) as bench:
        taken = [bench.request(p.FUSE_STATFS) for _ in range(3)]
        assert await bench.answers() == []
        assert len(await bench.forwarded()) == len(taken)
        assert charged(bench, Kind.REQUESTS) == 0
        message = memoryview(bytearray(p.fuse_in_header.pack(p.BODY + 3000, 1, 8, 1, USER, 0, 0, 0, 0) + bytes(3000)))
        bench.channel.pair.forward(1, message)
        assert charged(bench, Kind.REQUESTS) == REQUEST + len(message)
        bench.handles.memory.add(Kind.REQUESTS, USER, 4 * REQUEST)
        unique = bench.request(p.FUSE_STATFS)
        assert Answer(-errno.ENOBUFS, unique, b"") in await bench.answers()
