"""Attributes of files: how long the kernel may keep them, and what makes it forget them."""

import os

from harness.channels import Answer, Bench, channel
from harness.in_trio import in_trio

from virtfs.core.ids import Uid, Unit
from virtfs.core.virt import HostEnd, Virt
from virtfs.files.device import DeviceFile, Opens
from virtfs.files.node import ROOT, Directory, Node
from virtfs.files.text import Text
from virtfs.fuse import protocol as p
from virtfs.fuse.attributes import KEPT, MOMENT


def interface() -> Virt:
    return Virt(Unit(3), bytes(6), HostEnd("tap3", 7, True, 1500, bytes(6), True, queue=256))


def mtu_of(virt: Virt) -> Text:
    return Text(virt, lambda user: f"{virt.host.mtu}\n")


async def valid(bench: Bench, node: Node) -> int:
    """Ask for the attributes of a node. Return how long the kernel may keep them, in ns."""
    answer = await bench.ask(p.FUSE_GETATTR, bench.inodes.number(node), bytes(16))
    assert answer.error == 0
    kept: int = p.fuse_attr_out.unpack(answer.body)[1]
    return kept


async def listed(bench: Bench, directory: Directory) -> tuple[int, dict[int, int]]:
    """Open a directory and read it. Return the handle, and for each inode how long its attributes may be kept."""
    inode = bench.inodes.number(directory)
    fh = p.fuse_open_out.unpack((await bench.ask(p.FUSE_OPENDIR, inode, bytes(8))).body)[0]
    body = (await bench.ask(p.FUSE_READDIRPLUS, inode, reading(fh, 0))).body
    found, at = {}, 0
    while at < len(body):
        entry = p.fuse_entry_out.unpack_from(body, at)
        found[entry[0]] = entry[5]
        at += p.fuse_entry_out.size
        length = p.fuse_dirent.unpack_from(body, at)[2]
        at += p.fuse_dirent.size + -(-length // 8) * 8
    return fh, found


def reading(fh: int, offset: int) -> bytes:
    return p.fuse_read_in.pack(fh, offset, 4096, 0, 0, 0, 0)


def forget(bench: Bench, *nodes: Node) -> list[Answer]:
    """Return the notifications about these nodes."""
    bodies = [p.fuse_notify_inval_inode_out.pack(bench.inodes.number(node), -1, 0) for node in nodes]
    return [Answer(p.FUSE_NOTIFY_INVAL_INODE, 0, body) for body in bodies]


@in_trio
async def test_a_change_of_the_interface_makes_the_kernel_ask_again() -> None:
    async with channel() as bench:
        virt, other = interface(), interface()
        texts = [mtu_of(virt), mtu_of(virt), mtu_of(other)]
        assert [await valid(bench, text) for text in texts] == [KEPT] * 3
        virt.set(mode=0o640)
        assert sorted(await bench.answers(), key=lambda answer: answer.body) == forget(bench, *texts[:2])
        virt.set(mode=0o600)
        assert await bench.answers() == [], "the kernel has not asked since"
        assert await valid(bench, texts[0]) == KEPT
        virt.set(owner=Uid(5))
        assert await bench.answers() == forget(bench, texts[0])


@in_trio
async def test_what_the_kernel_may_not_keep() -> None:
    """Files of the mount, texts that differ by user, texts about the whole mount, and a lost interface."""
    async with channel() as bench:
        virt = interface()
        texts = [
            Text(ROOT, lambda user: "1\n"),
            Text(virt, lambda user: "1\n", personal=True),
            Text(virt, lambda user: "1\n", changes=lambda: 0),
        ]
        assert [await valid(bench, text) for text in texts] == [0, 0, 0]
        device, text = DeviceFile(virt, "hex", Opens()), mtu_of(virt)
        assert [await valid(bench, node) for node in (device, text)] == [KEPT, KEPT]
        virt.lose()
        await bench.answers()
        assert [await valid(bench, node) for node in (device, text)] == [0, 0]


@in_trio
async def test_an_open_that_finds_another_size() -> None:
    """The notification comes before the answer, so that fstat(2) after open(2) is true."""
    async with channel() as bench:
        virt, count = interface(), 10
        text = Text(virt, lambda user: f"{count}\n")
        inode = bench.inodes.number(text)
        assert await valid(bench, text) == KEPT
        opening = p.fuse_open_in.pack(os.O_RDONLY, 0)
        assert (await bench.ask(p.FUSE_OPEN, inode, opening)).error == 0
        count = 9
        bench.request(p.FUSE_OPEN, inode, opening)
        told, answer = await bench.answers()
        assert [told] == forget(bench, text)
        assert answer.unique


@in_trio
async def test_a_listing_while_the_interface_changes() -> None:
    """A notification may come before the kernel has made the inodes of a listing, so it is sent again."""
    async with channel() as bench:
        virt = interface()
        mtu, inner = mtu_of(virt), Directory(virt, {}, steady=True)
        directory = Directory(virt, {"mtu": mtu, "stats": inner}, steady=True)
        bench.root.add({"virt3": directory})
        fh, kept = await listed(bench, directory)
        assert kept[bench.inodes.number(mtu)] == KEPT
        assert kept[bench.inodes.number(inner)] == MOMENT
        virt.set(mode=0o640, owner=Uid(5))
        told = sorted(forget(bench, mtu, inner), key=lambda answer: answer.body)
        assert sorted(await bench.answers(), key=lambda answer: answer.body) == told
        inode = bench.inodes.number(directory)
        bench.request(p.FUSE_READDIRPLUS, inode, reading(fh, 4))
        assert sorted((await bench.answers())[:-1], key=lambda answer: answer.body) == told
        assert (await bench.ask(p.FUSE_RELEASEDIR, inode, p.fuse_release_in.pack(fh, 0, 0, 0))).error == 0
