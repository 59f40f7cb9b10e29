"""The frame file through the channel, on a fake tap."""

import errno
import os
import select
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from harness.channels import Answer, Bench, Talk, channel, notification
from harness.in_trio import in_trio
from harness.recorded import FRAME_SESSION
from harness.wires import frame_file, plain_wire

from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit
from virtfs.core.virt import HostEnd, Virt
from virtfs.files.device import DeviceFile
from virtfs.files.frame import TAPGIFNAME, Frame
from virtfs.files.tunioctl import TUNGETFEATURES, TUNGETIFF, TUNSETIFF
from virtfs.forward.wire import Wire
from virtfs.fuse import protocol as p
from virtfs.host.fakes import FakeTap

pytestmark = pytest.mark.usefixtures("loop")

GONE = select.POLLIN | select.POLLOUT | select.POLLERR | select.POLLHUP
FRAME = bytes.fromhex("020000000001 020000000002 88b5") + bytes(range(46))


def up(mtu: int = 1500) -> Virt:
    """Return virt3, which is up."""
    return Virt(Unit(3), bytes(6), HostEnd("tap3", 7, True, mtu, bytes(6), True, queue=256))


@asynccontextmanager
async def frame(mtu: int = 1500) -> AsyncIterator[tuple[Bench, Frame, FakeTap]]:
    """The frame file of virt3, which is up, with its wire's task running."""
    with FakeTap("tap3") as tap:
        virt = up(mtu)
        wire = plain_wire(virt, tap, virt.lose)
        file = frame_file(wire)
        async with channel() as bench:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wire.watch.run)
                yield bench, file, tap
                nursery.cancel_scope.cancel()
            virt.destroy()  # wakes pollers, through the channel's descriptor
        wire.close()


@in_trio
async def test_recorded_session() -> None:
    async with frame() as (bench, file, tap):
        bench.open_text(lambda user: "")
        before: list[tuple[DeviceFile, str]] = [(Talk(), "ctl"), (Talk(), "virt3"), (file, "frame")]
        assert [bench.place(node, name) for node, name in before] == [2, 3, 4]
        for message, reply in FRAME_SESSION:
            bench.send(message)
            answers = await bench.answers()
            if reply is None:
                assert answers == []
            else:
                error, unique = p.fuse_out_header.unpack_from(reply)[1:]
                assert answers == [Answer(error, unique, reply[p.REPLY :])]
        assert tap.host_receive() == bytes(range(20))


@pytest.mark.parametrize("size", [14, 60, 1514, 9018, 65535])
def test_every_size_both_ways(size: int) -> None:
    @in_trio
    async def run() -> None:
        data = os.urandom(size)
        async with frame(mtu=65521) as (bench, file, tap):
            fh = await bench.open(file)
            unique = bench.write(fh, data)
            assert await bench.answers() == [Answer(0, unique, p.fuse_write_out.pack(size, 0))]
            assert tap.host_receive() == data
            tap.host_send(data)
            unique = bench.read(fh, size=1 << 17)
            assert await bench.answers() == [Answer(0, unique, data)]
            unique = bench.read(fh, size=1 << 17)  # this read has to wait
            assert await bench.answers() == []
            tap.host_send(data)
            assert await bench.answers() == [Answer(0, unique, data)]

    run()


@in_trio
async def test_short_read_takes_the_head_and_the_rest_is_lost() -> None:
    async with frame() as (bench, file, tap):
        fh = await bench.open(file)
        tap.host_send(FRAME)
        tap.host_send(FRAME[::-1])
        uniques = [bench.read(fh, size=20), bench.read(fh)]
        assert await bench.answers() == [Answer(0, uniques[0], FRAME[:20]), Answer(0, uniques[1], FRAME[::-1])]


@in_trio
async def test_two_waiting_readers_get_a_frame_each_in_order() -> None:
    async with frame() as (bench, file, tap):
        file.wire.virt.set(exclusive="none")
        handles = [await bench.open(file, os.O_RDONLY) for _ in range(2)]
        uniques = [bench.read(fh) for fh in handles]
        assert await bench.answers() == []
        tap.host_send(FRAME)
        assert await bench.answers() == [Answer(0, uniques[0], FRAME)]
        tap.host_send(FRAME[::-1])
        assert await bench.answers() == [Answer(0, uniques[1], FRAME[::-1])]


@in_trio
async def test_a_stat_in_between_takes_nothing_from_a_waiting_reader() -> None:
    """A frame has arrived, and a stat(2), which peeks at its length, runs before the wire's task."""
    async with frame() as (bench, file, tap):
        fh = await bench.open(file)
        unique = bench.read(fh)
        assert await bench.answers() == []
        tap.host_send(FRAME)
        assert file.size(None) in (1, len(FRAME))
        assert await bench.answers() == [Answer(0, unique, FRAME)]


@in_trio
async def test_a_stat_in_between_takes_nothing_from_a_poll() -> None:
    async with frame() as (bench, file, tap):
        fh = await bench.open(file)
        assert await bench.poll(fh, kh=1, schedule=True) == select.POLLOUT
        tap.host_send(FRAME)
        assert file.size(None) == len(FRAME)
        assert await bench.answers() == [notification(1)]


@in_trio
async def test_down_wakes_readers() -> None:
    async with frame() as (bench, file, tap):
        fh = await bench.open(file)
        unique = bench.read(fh)
        assert await bench.answers() == []
        filled = set_down(file.wire, tap)
        assert await bench.answers() == [Answer(-errno.EHOSTDOWN, unique, b"")]
        unique = bench.read(fh)
        assert await bench.answers() == [Answer(-errno.EHOSTDOWN, unique, b"")]
        unique = bench.write(fh, FRAME)
        assert await bench.answers() == [Answer(0, unique, p.fuse_write_out.pack(len(FRAME), 0))]
        set_up(file.wire, tap, filled)
        tap.host_send(FRAME)
        unique = bench.read(fh)
        assert await bench.answers() == [Answer(0, unique, FRAME)]


def set_down(wire: Wire, tap: FakeTap) -> int:
    """Set the tap down. Returns the number of frames with which the fake tap was filled.

    A tap that is down is not writable (drivers/net/tun.c does not set EPOLLOUT). A fake tap is not writable when full.
    """
    filled = 0
    try:
        while True:
            filled += os.write(tap.fd, bytes(4096)) > 0
    except BlockingIOError:
        wire.virt.set_host(replace(wire.virt.host, up=False))
        return filled


def set_up(wire: Wire, tap: FakeTap, filled: int) -> None:
    for _ in range(filled):
        tap.host_receive()
    wire.virt.set_host(replace(wire.virt.host, up=True))


@in_trio
async def test_gone_is_enxio_for_all_that_is_open() -> None:
    async with frame() as (bench, file, tap):
        fh = await bench.open(file)
        reading = bench.read(fh)
        assert await bench.poll(fh, kh=1, schedule=True) == select.POLLOUT
        tap.vanish()
        answers = await bench.answers()
        assert Answer(-errno.ENXIO, reading, b"") in answers
        assert notification(1) in answers
        unique = bench.read(fh)
        assert await bench.answers() == [Answer(-errno.ENXIO, unique, b"")]
        unique = bench.write(fh, FRAME)
        assert await bench.answers() == [Answer(-errno.ENXIO, unique, b"")]
        assert await bench.poll(fh, kh=1, schedule=False) == GONE
        body = p.fuse_ioctl_in.pack(fh, 0, TAPGIFNAME, 0, 0, 40)
        assert (await bench.ask(p.FUSE_IOCTL, 2, body)).error == -errno.ENXIO
        assert (await bench.ask(p.FUSE_OPEN, bench.place(file), p.fuse_open_in.pack(0, 0))).error == -errno.ENXIO
        assert (await bench.ask(p.FUSE_RELEASE, 2, p.fuse_fh.pack(fh) + bytes(16))).error == 0


@in_trio
async def test_exclusive_counts_readers_and_writers() -> None:
    async with frame() as (bench, file, _tap):
        inode, virt = bench.place(file), file.wire.virt

        async def opens(flags: int) -> int:
            answer = await bench.ask(p.FUSE_OPEN, inode, p.fuse_open_in.pack(flags, 0))
            return -answer.error or -p.fuse_open_out.unpack(answer.body)[0]

        reader = -await opens(os.O_RDONLY)
        assert await opens(os.O_RDWR) == errno.EBUSY
        writer = -await opens(os.O_WRONLY)
        assert writer > 0
        virt.set(exclusive="both")
        assert await opens(os.O_WRONLY) == errno.EBUSY
        for fh in (reader, writer):
            await bench.ask(p.FUSE_RELEASE, 2, p.fuse_fh.pack(fh) + bytes(16))
        assert await opens(os.O_RDWR) < 0
        assert await opens(os.O_RDONLY) == errno.EBUSY
        virt.set(exclusive="none")
        assert await opens(os.O_RDWR) < 0


@in_trio
async def test_ioctls_of_a_tap_program() -> None:
    async with frame() as (bench, file, _tap):
        fh = await bench.open(file)

        async def ioctl(command: int, argument: bytes = b"", out_size: int = 0) -> bytes:
            body = p.fuse_ioctl_in.pack(fh, 0, command, 0, len(argument), out_size) + argument
            answer = await bench.ask(p.FUSE_IOCTL, 2, body)
            if answer.error:
                raise VirtError(-answer.error, "refused")
            assert answer.body[: p.fuse_ioctl_out.size] == bytes(p.fuse_ioctl_out.size)
            return answer.body[p.fuse_ioctl_out.size :]

        assert (await ioctl(TAPGIFNAME, out_size=40)).rstrip(b"\0") == b"tap3"
        (features,) = struct.unpack("<I", await ioctl(TUNGETFEATURES, out_size=4))
        assert features & 0x0002, "IFF_TAP"
        assert await ioctl(TUNGETIFF, out_size=4) == b"tap3"
        for name in (b"tap3", b"tap%", b"vnet", bytes(4)):
            assert await ioctl(TUNSETIFF, name) == b""
        with pytest.raises(VirtError) as caught:
            await ioctl(TUNSETIFF, b"tap4")
        assert caught.value.errno == errno.EBUSY
        with pytest.raises(VirtError) as caught:
            await ioctl(0x5413, bytes(8), 8)
        assert caught.value.errno == errno.ENOTTY
