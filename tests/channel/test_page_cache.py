"""Reads that the kernel makes for its page cache, and files that can be read at any offset."""

import errno
import os
from collections.abc import Awaitable

import trio
from harness.channels import Answer, Bench, Talk, channel
from harness.in_trio import in_trio
from harness.waiting import PATIENCE

from virtfs.core.ids import Gid, Uid, User
from virtfs.core.memory import Memory
from virtfs.files.device import DeviceFile, FixedHandle, Opens, Waiters, WalkHandle
from virtfs.files.node import ROOT
from virtfs.files.text import Text
from virtfs.fuse import protocol as p

USER = User(Uid(0), Gid(0), 1)
CONTENT = bytes(range(256)) * 40


class Book(DeviceFile):
    """A file whose content does not change."""

    __slots__ = ()

    live = False

    def open(self, flags: int, user: User) -> "Pages | Awaitable[Pages]":
        return Pages(self, user, Waiters())


class Pages(FixedHandle):
    """One open of a Book."""

    __slots__ = ()

    def length(self) -> int:
        return len(CONTENT)

    def read_at(self, offset: int, size: int) -> list[memoryview]:
        whole = memoryview(CONTENT)[offset : offset + size]
        return [whole[:5], whole[5:]]


def text(bench: Bench, *texts: str) -> tuple[Text, int]:
    """Return a text file that has the next of `texts` each time its text is made, and the fh of an open."""
    said = iter(texts)
    node = Text(ROOT, lambda user: next(said))
    return node, bench.handles.add_text(node.open(USER, Memory()))


@in_trio
async def test_a_stream_is_not_for_the_page_cache() -> None:
    async with channel() as bench:
        talk = Talk(b"first")
        fh = await bench.open(talk)
        unique = bench.read_cached(fh)
        assert await bench.answers() == [Answer(-errno.EINVAL, unique, b"")]
        unique = bench.read(fh)
        assert await bench.answers() == [Answer(0, unique, b"first")]


@in_trio
async def test_a_text_is_as_it_was_measured() -> None:
    """The page cache gets the text whose size was reported, however long, even if it has changed since."""
    async with channel() as bench:
        long = "x" * 200_000
        node, fh = text(bench, "9\n", "10\n", long)
        assert node.size(USER) == 2
        for size, body in ((2, b"9\n"), (3, b"10\n"), (200_000, long.encode())):
            assert node.size(None) == size
            unique = bench.read_cached(fh, 1 << 20)
            assert await bench.answers() == [Answer(0, unique, body)]
            if size < 200_000:
                node.size(USER)
        unique = bench.read_cached(fh, 4096, 199_999)
        assert await bench.answers() == [Answer(0, unique, b"x")]
        assert await bench.forwarded() == []


@in_trio
async def test_a_text_that_differs_by_user_is_not_for_the_page_cache() -> None:
    async with channel() as bench:
        node = Text(ROOT, lambda user: f"{user.uid}\n", personal=True)
        fh = bench.handles.add_text(node.open(USER, Memory()))
        assert node.opened(await node.fresh(USER)) == 2
        unique = bench.read_cached(fh)
        assert await bench.answers() == [Answer(-errno.EINVAL, unique, b"")]


@in_trio
async def test_a_fixed_file() -> None:
    async with channel() as bench:
        book = Book(ROOT, "book", Opens())
        inode = bench.place(book)
        unique = bench.request(p.FUSE_OPEN, inode, p.fuse_open_in.pack(os.O_RDONLY | os.O_NOFOLLOW, 0))
        answers: list[Answer] = []
        with trio.fail_after(PATIENCE):  # a thread sends the size
            while len(answers) < 2:
                answers += await bench.answers()
                await trio.lowlevel.checkpoint()
        grown, opened = answers
        stored = p.fuse_notify_store_out.pack(inode, len(CONTENT) - 1, 1, 0) + CONTENT[-1:]
        assert grown == Answer(p.FUSE_NOTIFY_STORE, 0, stored)
        assert opened.unique == unique
        fh, flags, _ = p.fuse_open_out.unpack(opened.body)
        assert flags == p.FOPEN_DIRECT_IO | p.FOPEN_NOFLUSH
        for offset, size in ((0, 100), (1000, 3), (10_000, 1 << 20), (len(CONTENT), 10), (1 << 40, 10)):
            unique = bench.read(fh, size, offset=offset)
            assert await bench.answers() == [Answer(0, unique, CONTENT[offset : offset + size])]
        unique = bench.read_cached(fh)
        assert await bench.answers() == [Answer(-errno.EINVAL, unique, b"")]
        for whence, offset, found in ((os.SEEK_DATA, 7, 7), (os.SEEK_HOLE, 7, len(CONTENT))):
            answer = await bench.ask(p.FUSE_LSEEK, inode, p.fuse_lseek_in.pack(fh, offset, whence, 0))
            assert answer.body == p.fuse_lseek_out.pack(found)
        beyond = p.fuse_lseek_in.pack(fh, len(CONTENT), os.SEEK_DATA, 0)
        assert (await bench.ask(p.FUSE_LSEEK, inode, beyond)).error == -errno.ENXIO
        assert await bench.poll(fh, kh=3, schedule=True) == 1
        assert (await bench.ask(p.FUSE_RELEASE, inode, p.fuse_fh.pack(fh) + bytes(16))).error == 0
        assert not bench.handles.fixed
        assert await bench.forwarded() == []


@in_trio
async def test_a_look_opens_nothing() -> None:
    async with channel() as bench:
        talk = Talk(b"first")
        fh = await bench.open(talk, os.O_RDONLY | os.O_NOFOLLOW)
        assert [type(handle) for handle in bench.handles.devices.values()] == [WalkHandle]
        assert not talk.opened
        assert not list(talk.opens)
        for body in (b"\0", b"", b""):
            unique = bench.read(fh)
            assert await bench.answers() == [Answer(0, unique, body)]
        assert (await bench.ask(p.FUSE_RELEASE, 2, p.fuse_fh.pack(fh) + bytes(16))).error == 0
        assert talk.to_say[0] == b"first"
