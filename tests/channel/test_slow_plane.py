"""Requests that the channel passes to libfuse, and their answers."""

import errno
import os

import pytest
import trio
from harness.channels import Answer, channel, request
from harness.in_trio import in_trio
from harness.recorded import INIT, INIT_REPLY

from virtfs.fuse import protocol as p
from virtfs.fuse.libfuse_pair import SLOW_REPLY, ProtocolTooOld


@in_trio
async def test_requests_and_replies_pass_byte_for_byte() -> None:
    async with channel() as bench:
        others = [
            request(17, 4, 1),  # STATFS
            request(4, 10, 1, bytes(88)),  # SETATTR
            request(22, 12, 2, bytes(8) + b"security.capability\0"),  # GETXATTR
            request(20, 16, 2, p.fuse_fh.pack(77) + bytes(8)),  # FSYNC of a text
            request(38, 18, 0),
            request(4711, 20, 2, os.urandom(300)),  # an opcode of a future kernel
        ]
        bodies = {10: b"x" * 16, 12: b"", 4: os.urandom(SLOW_REPLY)}
        for message in others:
            bench.send(message)
            assert await bench.forwarded() == [message]
            assert await bench.answers() == []
            unique = p.fuse_in_header.unpack_from(message)[2]
            body = bodies.get(unique, b"")
            bench.reply(p.fuse_out_header.pack(p.REPLY + len(body), 0, unique) + body)
            assert await bench.answers() == [Answer(0, unique, body)]
        bench.reply(p.fuse_out_header.pack(p.REPLY, -errno.ENOENT, 6))
        assert await bench.answers() == [Answer(-errno.ENOENT, 6, b"")]


@in_trio
async def test_forget_has_no_answer_and_goes_nowhere() -> None:
    async with channel() as bench:
        bench.request(p.FUSE_FORGET, 2, (1).to_bytes(8, "little"))
        bench.request(p.FUSE_BATCH_FORGET, 0, (1).to_bytes(4, "little") + bytes(4) + bytes(16))
        assert await bench.answers() == []
        assert await bench.forwarded() == []


STAT = 17  # FUSE_STATFS, linux/fuse.h


@in_trio
async def test_init_offers_no_splicing_and_gets_large_writes() -> None:
    async with channel() as bench:
        bench.send(INIT)
        (passed,) = await bench.forwarded()
        assert len(passed) == len(INIT)
        major, minor, readahead, flags = p.fuse_init_in.unpack_from(passed, p.BODY)
        before = p.fuse_init_in.unpack_from(INIT, p.BODY)
        splice = 1 << 7 | 1 << 8 | 1 << 9  # linux/fuse.h: FUSE_SPLICE_WRITE, _MOVE, _READ
        assert before[3] & splice == splice
        assert (major, minor, readahead, flags) == (*before[:3], before[3] & ~splice)
        assert passed[: p.BODY] == INIT[: p.BODY]
        assert passed[p.BODY + p.fuse_init_in.size :] == INIT[p.BODY + p.fuse_init_in.size :]

        assert not bench.channel.pair.negotiated.is_set()
        small = bytearray(INIT_REPLY)
        fields = list(p.fuse_init_out.unpack_from(small, p.REPLY))
        fields[3] &= ~p.FUSE_MAX_PAGES
        fields[6], fields[8] = 131072, 0
        p.fuse_init_out.pack_into(small, p.REPLY, *fields)
        bench.reply(bytes(small))
        await bench.channel.pair.negotiated.wait()
        assert await bench.answers() == [], "the kernel waits until admit()"
        bench.channel.pair.admit()
        (answer,) = await bench.answers()
        assert answer == Answer(0, 2, INIT_REPLY[p.REPLY :]), "the recorded answer, which the kernel accepted"
        bench.channel.pair.admit()
        assert await bench.answers() == [], "INIT is answered only once"


@in_trio
async def test_only_the_answer_to_init_is_rewritten() -> None:
    async with channel() as bench:
        bench.send(INIT)
        await bench.forwarded()
        other = p.fuse_out_header.pack(len(INIT_REPLY), 0, 4) + bytes(len(INIT_REPLY) - p.REPLY)
        bench.reply(other)
        assert await bench.answers() == [Answer(0, 4, other[p.REPLY :])]
        bench.reply(INIT_REPLY)
        await bench.channel.pair.negotiated.wait()
        bench.channel.pair.admit()
        bench.reply(INIT_REPLY[: p.REPLY] + bytes(len(INIT_REPLY) - p.REPLY))
        _, again = await bench.answers()
        assert again.body == bytes(len(INIT_REPLY) - p.REPLY)


@pytest.mark.parametrize(("major", "minor"), [(7, 33), (7, 0), (6, 99)])
def test_old_kernel_is_refused_in_words(major: int, minor: int) -> None:
    answers: list[Answer] = []

    @in_trio
    async def run() -> None:
        async with channel() as bench:
            bench.request(p.FUSE_INIT, 0, p.fuse_init_in.pack(major, minor, 0, 0))
            with trio.CancelScope(shield=True):
                answers.extend(await bench.answers())
                assert await bench.forwarded() == []

    with pytest.raises(ProtocolTooOld, match=rf"{major}\.{minor}.*7\.34.*5\.15") as caught:
        run()
    assert caught.value.errno == errno.EPROTO
    assert answers == [Answer(-errno.EPROTO, 2, b"")]


@in_trio
async def test_what_the_pair_cannot_take_is_too_big() -> None:
    async with channel(longest=10_000) as bench:
        unique = bench.request(38, 2, bytes(10_000 - p.BODY))
        assert [len(message) for message in await bench.forwarded()] == [10_000]
        assert await bench.answers() == []
        unique = bench.request(38, 2, bytes(10_001 - p.BODY))
        assert await bench.answers() == [Answer(-errno.E2BIG, unique, b"")]
        assert await bench.forwarded() == []


@in_trio
async def test_order_is_kept_while_the_pair_is_full() -> None:
    async with channel() as bench:
        sent = [request(38, 2 * n, 2, bytes(60_000)) for n in range(1, 200)]
        for message in sent:
            bench.send(message)
            assert await bench.answers() == []
        got = await bench.forwarded()
        assert 0 < len(got) < len(sent), "the test must send more than the pair holds"
        while len(got) < len(sent):
            more = await bench.forwarded()
            assert more
            got += more
        assert got == sent


@in_trio
async def test_requests_that_libfuse_has_not_answered_fail_with_it() -> None:
    """Their callers could not be killed, since the kernel waits for an answer to each request that was read."""
    async with channel() as bench:
        answered, left = (bench.request(STAT, 1, bytes(16)) for _ in range(2))
        assert len(await bench.forwarded()) == 2
        bench.reply(p.fuse_out_header.pack(p.REPLY, 0, answered))
        assert await bench.answers() == [Answer(0, answered, b"")]
        bench.channel.pair.give_up()
        assert await bench.answers() == [Answer(-errno.EIO, left, b"")]
        bench.channel.pair.give_up()
        assert await bench.answers() == []


@in_trio
async def test_a_request_that_cannot_be_forwarded_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with channel() as bench:

        async def send(data: bytes) -> int:
            raise OSError(errno.ENOBUFS, "No buffer space available")

        with monkeypatch.context() as without:
            without.setattr(bench.channel.pair._ours, "send", send)
            unique = bench.request(STAT, 1, bytes(16))
            assert await bench.answers() == [Answer(-errno.ENOMEM, unique, b"")]
        bench.request(STAT, 1, bytes(16))
        assert len(await bench.forwarded()) == 1
