"""The table of answerers: which part of the server answers which request."""

import errno
import os

import pytest
import trio
from harness.channels import Answer, Bench, Talk, channel, request
from harness.in_trio import in_trio

from virtfs.core.ids import User
from virtfs.files.node import ROOT, Directory, Symlink
from virtfs.files.text import Text
from virtfs.fuse import protocol as p
from virtfs.fuse.attributes import MOMENT

# Opcodes of linux/fuse.h that libfuse answers, whatever the file: those that change names or attributes, and rare ones.
RARE = (4, 6, 8, 9, 10, 11, 12, 13, 17, 21, 22, 23, 24, 30, 31, 32, 33, 34, 35, 37, 38, 41, 45, 48, 49, 50, 51, 52)


def body_of(opcode: int, fh: int) -> bytes:
    if opcode == p.FUSE_LOOKUP:
        return b"mtu\0"
    if opcode in (p.FUSE_READ, p.FUSE_READDIR, p.FUSE_READDIRPLUS):
        return p.fuse_read_in.pack(fh, 0, 4096, p.FUSE_READ_LOCKOWNER, 0, 0, 0)
    return p.fuse_fh.pack(fh) + bytes(40)


async def goes_to_libfuse(bench: Bench, opcode: int, inode: int, fh: int) -> bool:
    """Send a request and return whether libfuse gets it. If not, assert that the channel answers it."""
    unique = bench.request(opcode, inode, body_of(opcode, fh))
    answers, forwarded = await bench.answers(), await bench.forwarded()
    assert len(answers) + len(forwarded) == 1
    if forwarded:
        bench.reply(p.fuse_out_header.pack(p.REPLY, -errno.EIO, unique))
        await bench.answers()
    else:
        assert answers[0].unique == unique
        assert answers[0].error != -errno.ENOSYS
    return bool(forwarded)


@in_trio
async def test_each_opcode_is_answered_by_whom_the_table_says() -> None:
    async with channel() as bench:
        table = bench.channel._answerers
        text = Text(ROOT, lambda user: "1500\n")
        bench.root.add({"mtu": text, "talk": Talk(), "link": Symlink(ROOT, "mtu")})
        for opcode in table.by_name:
            for node in (bench.root, text, bench.root.children["link"], bench.root.children["talk"]):
                assert not await goes_to_libfuse(bench, opcode, bench.inodes.number(node), 77), opcode
        for opcode, on_file in table.by_file.items():
            fh = await bench.open(Talk(b"said"))
            assert not await goes_to_libfuse(bench, opcode, 2, fh), opcode
            fh = bench.open_text(lambda user: "text\n")
            bench.handles.begin(bench.handles.texts[next(reversed(bench.handles.texts))].user)
            assert await goes_to_libfuse(bench, opcode, 2, fh) == (on_file.text is None), opcode
        for opcode in RARE:
            assert await goes_to_libfuse(bench, opcode, 1, 0), opcode


def test_no_opcode_is_in_two_places() -> None:
    @in_trio
    async def run() -> None:
        async with channel() as bench:
            table = bench.channel._answerers
            own = {p.FUSE_FORGET, p.FUSE_BATCH_FORGET, p.FUSE_INTERRUPT, p.FUSE_INIT}
            places = [*table.by_name, *table.by_file, *RARE, *own]
            assert len(places) == len(set(places))
            named = {value for name, value in vars(p).items() if name in NAMED}
            assert named <= set(places), "an opcode of protocol.py is in no place"

    run()


NAMED = {
    name
    for name, value in vars(p).items()
    if name.startswith("FUSE_") and isinstance(value, int) and not name.startswith(("FUSE_NOTIFY", "FUSE_SPLICE"))
} - {"FUSE_ROOT_ID", "FUSE_MAX_PAGES", "FUSE_POLL_SCHEDULE_NOTIFY", "FUSE_READ_LOCKOWNER"}


@pytest.mark.parametrize("opcode", [p.FUSE_LOOKUP, p.FUSE_GETATTR, p.FUSE_READLINK, p.FUSE_OPEN, p.FUSE_OPENDIR])
@in_trio
async def test_a_file_that_is_gone(opcode: int) -> None:
    async with channel() as bench:
        for error, inode in ((errno.ENXIO, 4711), (errno.ENOTDIR, 0)):
            if error == errno.ENOTDIR:
                text = Text(ROOT, lambda user: "")
                inode = bench.inodes.number(text)
                if opcode not in (p.FUSE_LOOKUP, p.FUSE_OPENDIR):
                    continue
            answer = await bench.ask(opcode, inode, bytes(16))
            assert answer.error == -error


def the_body(answer: Answer) -> bytes:
    assert answer.error == 0
    return answer.body


@in_trio
async def test_the_kernel_may_keep_names_that_cannot_change() -> None:
    """It keeps names below an interface, that of an interface for a moment, and no attributes of a file."""
    async with channel() as bench:
        text = Text(ROOT, lambda user: "1500\n")
        virt = Directory(ROOT, {"mtu": text, "stats": Directory(ROOT, {}, steady=True)}, steady=True)
        bench.root.add({"virt3": virt})

        def valid(answer: Answer) -> tuple[int, ...]:
            return p.fuse_entry_out.unpack(the_body(answer))[:6]

        inode = bench.inodes.number(virt)
        found = valid(await bench.ask(p.FUSE_LOOKUP, 1, b"virt3\0"))
        assert found == (inode, 0, 0, 0, MOMENT, 0), "the name for a moment, and no attributes"
        entry = valid(await bench.ask(p.FUSE_LOOKUP, inode, b"mtu\0"))
        assert entry[2] > 1e6
        assert entry[3:] == (0, 0, 0)
        attributes = p.fuse_attr_out.unpack(
            the_body(await bench.ask(p.FUSE_GETATTR, bench.inodes.number(text), bytes(16)))
        )
        assert attributes[:2] == (0, 0)
        assert attributes[4] == 5, "st_size"
        with pytest.raises(ValueError, match="kernel"):
            virt.add({"new": text})
        bench.root.add({"ctl": text})
        assert valid(await bench.ask(p.FUSE_LOOKUP, 1, b"ctl\0"))[2:] == (0, 0, 0, 0)
        bench.root.fix()
        assert valid(await bench.ask(p.FUSE_LOOKUP, 1, b"ctl\0"))[2] > 1e6
        with pytest.raises(ValueError, match="kernel"):
            bench.root.remove("ctl")
        bench.root.add({"virt4": Directory(ROOT, {})})
        bench.root.remove("virt4")


@in_trio
async def test_a_change_of_a_directory_makes_the_kernel_ask_again() -> None:
    async with channel() as bench:
        forget = p.fuse_notify_inval_inode_out.pack(1, -1, 0)
        bench.root.add({"virt3": Directory(ROOT, {})})
        assert await bench.answers() == [], "the kernel has not asked yet"
        kept = p.fuse_attr_out.unpack(the_body(await bench.ask(p.FUSE_GETATTR, 1, bytes(16))))
        assert kept[:2] == (0, MOMENT)
        assert kept[13] == 3, "st_nlink"
        bench.root.add({"virt4": Directory(ROOT, {})})
        bench.root.add({"virt5": Directory(ROOT, {}), "tap5": Symlink(ROOT, "virt5/frame")})
        assert await bench.answers() == [Answer(p.FUSE_NOTIFY_INVAL_INODE, 0, forget)], "one is enough"
        assert p.fuse_attr_out.unpack(the_body(await bench.ask(p.FUSE_GETATTR, 1, bytes(16))))[13] == 5
        virt4 = bench.root.children["virt4"]
        number = bench.inodes.number(virt4)
        await bench.ask(p.FUSE_GETATTR, number, bytes(16))
        bench.root.remove("virt4")
        forget_virt4 = p.fuse_notify_inval_inode_out.pack(number, -1, 0)
        told = [answer.body for answer in await bench.answers()]
        assert told == [forget, forget_virt4]
        gone = p.fuse_attr_out.unpack(the_body(await bench.ask(p.FUSE_GETATTR, number, bytes(16))))
        assert gone[:2] == (0, 0)
        assert gone[13] == 0


def names_in(body: bytes, plus: bool = False) -> list[tuple[int, int, bytes, int]]:
    """Return inode number, next offset, name and type of each entry of a READDIR or READDIRPLUS."""
    found, at = [], 0
    while at < len(body):
        at += p.fuse_entry_out.size if plus else 0
        inode, following, length, kind = p.fuse_dirent.unpack_from(body, at)
        at += p.fuse_dirent.size
        found.append((inode, following, body[at : at + length], kind))
        at += -(-length // 8) * 8
    return found


@pytest.mark.parametrize("opcode", [p.FUSE_READDIR, p.FUSE_READDIRPLUS])
@in_trio
async def test_a_directory_is_read_in_pieces(opcode: int) -> None:
    """Names that vanish meanwhile are left out, new names are not shown, and all other names appear once."""
    async with channel() as bench:
        nodes = {f"file{number}": Text(ROOT, lambda user: "") for number in range(50)}
        bench.root.add(nodes)
        fh = p.fuse_open_out.unpack(the_body(await bench.ask(p.FUSE_OPENDIR, 1, bytes(8))))[0]
        seen, offset = [], 0
        while True:
            body = p.fuse_read_in.pack(fh, offset, 900, 0, 0, 0, 0)
            entries = names_in(the_body(await bench.ask(opcode, 1, body)), opcode == p.FUSE_READDIRPLUS)
            if not entries:
                break
            seen += entries
            offset = entries[-1][1]
            bench.root.remove("file49")
            bench.root.add({"late": Symlink(ROOT, "ctl")})
        wanted = [b".", b"..", *(name.encode() for name in nodes if name != "file49")]
        assert [name for _, _, name, _ in seen] == wanted
        assert {inode: kind for inode, _, _, kind in seen}[1] == 4  # DT_DIR
        assert seen[2][0] == bench.inodes.number(nodes["file0"])
        await bench.ask(p.FUSE_RELEASEDIR, 1, p.fuse_release_in.pack(fh, 0, 0, 0))
        assert bench.handles.memory.users == {}
        assert (await bench.ask(opcode, 1, body)).error == -errno.EBADF


@in_trio
async def test_opens_and_reads_of_a_text() -> None:
    async with channel() as bench:
        count = 0

        def text(user: User) -> str:
            nonlocal count
            count += 1
            return f"{count} {user.uid}\n"

        inode = bench.inodes.number(node := Text(ROOT, text, personal=True))
        body = the_body(await bench.ask(p.FUSE_OPEN, inode, p.fuse_open_in.pack(os.O_RDONLY, 0)))
        fh, flags, _ = p.fuse_open_out.unpack(body)
        assert flags == p.FOPEN_DIRECT_IO | p.FOPEN_NOFLUSH
        assert (await bench.answer_to(bench.read(fh))).body == b"2 1000\n"
        assert (await bench.answer_to(bench.read(fh, offset=4))).body == b"00\n", "it continues in the snapshot"
        assert (await bench.answer_to(bench.read(fh, size=2))).body == b"3 "
        assert (await bench.ask(p.FUSE_RELEASE, inode, p.fuse_release_in.pack(fh, 0, 0, 0))).error == 0
        assert bench.handles.memory.users == {}
        assert (await bench.answer_to(bench.read(fh))).error == -errno.EBADF
        assert (await bench.ask(p.FUSE_RELEASE, inode, p.fuse_release_in.pack(fh, 0, 0, 0))).error == -errno.EBADF
        assert node is bench.inodes.node(inode)


@in_trio
async def test_a_text_that_has_grown_is_announced_before_its_open_is_answered() -> None:
    async with channel() as bench:
        now = "9\n"
        node = Text(ROOT, lambda user: now)
        inode = bench.inodes.number(node)
        assert p.fuse_attr_out.unpack(the_body(await bench.ask(p.FUSE_GETATTR, inode, bytes(16))))[4] == 2
        now = "10\n"
        unique = bench.request(p.FUSE_OPEN, inode, p.fuse_open_in.pack(os.O_RDONLY, 0))
        messages: list[Answer] = []
        while len(messages) < 2:  # a thread sends the notification
            messages += await bench.answers()
        stored, opened = messages
        assert (stored.error, stored.unique) == (p.FUSE_NOTIFY_STORE, 0)
        assert stored.body == p.fuse_notify_store_out.pack(inode, 2, 1, 0) + b"\n"
        assert (opened.error, opened.unique) == (0, unique)


@pytest.mark.parametrize("which", ["open", "read"])
@in_trio
async def test_a_signal_ends_a_call_that_waits_for_a_refresh(which: str) -> None:
    """The call ends at once. Whatever the refresh brings later has no effect, and no handle is left."""
    async with channel() as bench:
        go = trio.Event()
        go.set()

        async def refresh() -> None:
            with trio.CancelScope(shield=True):
                await go.wait()

        node = Text(ROOT, lambda user: "text\n", refresh=refresh)
        node.reported = 5
        inode = bench.inodes.number(node)
        opening = p.fuse_open_in.pack(os.O_RDONLY, 0)
        fh = p.fuse_open_out.unpack(the_body(await bench.ask(p.FUSE_OPEN, inode, opening)))[0]
        go = trio.Event()
        unique = bench.request(p.FUSE_OPEN, inode, opening) if which == "open" else bench.read(fh)
        assert await bench.answers() == []
        bench.send(request(p.FUSE_INTERRUPT, unique + 1, 0, p.fuse_interrupt_in.pack(unique)))
        assert await bench.answers() == [Answer(-errno.EINTR, unique, b"")]
        go.set()
        assert await bench.answers() == []
        assert list(bench.handles.texts) == [fh]
        await bench.ask(p.FUSE_RELEASE, inode, p.fuse_release_in.pack(fh, 0, 0, 0))
        assert bench.handles.memory.users == {}
        assert not bench.channel._turns.elsewhere
