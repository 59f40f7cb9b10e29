"""A cable between two fake taps: the frames and TCP segments that it carries, and when each tap has offload."""

import os
import select
import struct

import pytest
import trio.testing
from harness.in_trio import forget, in_trio, until
from harness.wires import Bench, frame

from virtfs.core.counters import CableCounters
from virtfs.core.impairment import Impairment, Share
from virtfs.core.offload import GSO_TCPV4, NEEDS_CSUM, checksum, virtio_net_hdr
from virtfs.forward.cable import Cable
from virtfs.forward.tasks import Task
from virtfs.host.relay import Room
from virtfs.host.tap_protocol import NO_HEADER, OFFLOAD_ALL, OFFLOAD_NONE

from .bench import received, running, two_wires

MS = 10**6
GSO_UDP = 3  # linux/virtio_net.h; virtfs does not enable offload of this type
ON, OFF = [OFFLOAD_ALL] * 2, [OFFLOAD_NONE] * 2


def segment(payload: int, size: int, kind: int = GSO_TCPV4) -> tuple[bytes, bytes]:
    """Return a TCP segment that the host has left to offload: its virtio_net_hdr and the frame."""
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 40 + payload, 7, 0, 64, 6, 0, bytes(4), bytes((10, 0, 0, 1)))
    tcp = struct.pack(">HHIIBBHHH", 1, 2, 1000, 0, 5 << 4, 0x18, 500, 0, 0)
    data = bytes(12) + b"\x08\x00" + ip + tcp + bytes(index % 256 for index in range(payload))
    return virtio_net_hdr.pack(NEEDS_CSUM, kind, 54, size, 34, 16), data


def offloads(ends: tuple[Bench, Bench]) -> list[int]:
    return [end.tap.offload for end in ends]


def _has_something(bench: Bench) -> bool:
    """Return whether a frame waits for the host."""
    poll = select.poll()
    poll.register(bench.tap.peer, select.POLLIN)
    return bool(poll.poll(0))


@in_trio
async def test_frames_cross_both_ways_and_are_counted() -> None:
    with two_wires() as (first, second):
        async with running(first, second) as cable:
            first.tap.host_send(frame(1))
            first.tap.host_send(frame(2, 1514))
            second.tap.host_send(frame(3))
            assert await received(second) == [frame(1), frame(2, 1514)]
            assert await received(first) == [frame(3)]
        assert (first.counters.rx_frames, first.counters.rx_bytes, first.counters.tx_frames) == (2, 1574, 1)
        assert (second.counters.tx_frames, second.counters.tx_bytes, second.counters.rx_frames) == (2, 1574, 1)
        assert [one.counters for one in cable.directions] == [CableCounters(2, 1574), CableCounters(1, 60)]


@in_trio
async def test_more_frames_than_a_burst() -> None:
    with two_wires() as (first, second):
        for number in range(200):
            first.tap.host_send(frame(number))
        async with running(first, second):
            assert await received(second) == [frame(number) for number in range(200)]


@in_trio
async def test_segments_cross_as_they_are_while_nobody_looks_on() -> None:
    with two_wires() as ends:
        first, second = ends
        async with running(first, second) as cable:
            await until(lambda: offloads(ends) == ON)
            header, data = segment(30_000, 1448)
            first.tap.peer.send(header + data)
            await until(lambda: _has_something(second))
            assert second.tap.peer.recv(70_000) == header + data
            assert cable.directions[0].counters == CableCounters(1, len(data))
        await until(lambda: offloads(ends) == OFF)


@in_trio
async def test_a_reader_has_single_frames() -> None:
    """This also holds for a segment that entered the tap's queue before offload was disabled."""
    with two_wires() as ends:
        first, second = ends
        async with running(first, second):
            header, data = segment(3000, 1448)
            first.tap.peer.send(header + data)
            first.wire.opened()
            await until(lambda: offloads(ends) == [OFFLOAD_NONE, OFFLOAD_ALL])
            crossed = await received(second)
            assert [len(one) for one in crossed] == [54 + 1448, 54 + 1448, 54 + 104]
            assert b"".join(one[54:] for one in crossed) == data[54:]
            assert all(checksum(one[14:34]) == 0 for one in crossed)
            assert first.take_all() == crossed
            assert first.counters.rx_frames == second.counters.tx_frames == 3
            first.wire.closed()
            await until(lambda: offloads(ends) == ON)


@in_trio
async def test_a_checksum_left_undone_is_done_for_a_reader() -> None:
    with two_wires() as (first, second):
        async with running(first, second):
            first.wire.opened()
            header, data = segment(100, 0, kind=0)
            first.tap.peer.send(header + data)
            (crossed,) = await received(second)
            assert crossed != data
            assert crossed[:50] == data[:50]
            assert (crossed[:50], crossed[52:]) == (data[:50], data[52:])


@in_trio
async def test_a_segment_of_another_kind_ends_nothing() -> None:
    """A segment that virtfs cannot split is dropped, and the cable continues."""
    with two_wires() as (first, second):
        async with running(first, second):
            first.wire.opened()
            header, data = segment(3000, 1448, kind=GSO_UDP)
            first.tap.peer.send(header + data)
            first.tap.host_send(frame(1))
            assert await received(second) == [frame(1)]


def never(task: Task, /, *, name: str) -> None:
    raise AssertionError("a cable that is not running has started a task")


@in_trio
async def test_impairments_and_antispoof_want_single_frames() -> None:
    with two_wires() as ends:
        first, second = ends
        async with trio.open_nursery() as nursery, running(first, second) as cable:
            impaired = cable.directions[0].impair(Impairment(delay=MS), "1>2")
            assert impaired is not None
            nursery.start_soon(impaired.run)
            await until(lambda: offloads(ends) == [OFFLOAD_NONE, OFFLOAD_ALL])
            assert cable.directions[0].impair(Impairment(), "1>2") is None
            await until(lambda: offloads(ends) == ON)
            first.virt.set(antispoof=True)
            first.wire.update()
            await until(lambda: offloads(ends) == [OFFLOAD_ALL, OFFLOAD_NONE])
            first.virt.set(antispoof=False)
            first.wire.update()
            await until(lambda: offloads(ends) == ON)


@in_trio
async def test_an_impairment_of_one_direction() -> None:
    with two_wires() as (first, second):
        async with trio.open_nursery() as nursery, running(first, second) as cable:
            impaired = cable.directions[0].impair(Impairment(loss=Share(100)), "1>2")
            assert impaired is not None
            nursery.start_soon(impaired.run)
            first.tap.host_send(frame(1))
            second.tap.host_send(frame(2))
            assert await received(second) == []
            assert await received(first) == [frame(2)]
            assert (first.counters.rx_frames, first.counters.rx_dropped) == (1, 0)
            assert [one.counters for one in cable.directions] == [CableCounters(lost=1), CableCounters(1, 60)]


@in_trio
async def test_frames_delayed_in_a_removed_cable_are_counted() -> None:
    """This includes the frames that are still in the tap when the cable is removed."""
    with two_wires() as (first, second):
        cable = Cable(first.wire, second.wire, Room(), forget)
        impaired = cable.directions[0].impair(Impairment(delay=1000_000 * MS, duplicate=Share(100)), "1>2")
        assert impaired is not None
        first.wire.receive(frame(1))
        first.tap.host_send(frame(2))
        counters = cable.directions[0].counters
        assert counters == CableCounters(duplicated=1)
        cable.discard()
        impaired.push(frame(3))
        impaired.close()
        assert counters == CableCounters(dropped=5, duplicated=2)
        assert (first.counters.rx_frames, first.counters.rx_dropped) == (2, 0)
        assert await received(second) == []


@in_trio
async def test_frames_for_a_vanished_tap_are_counted() -> None:
    with two_wires() as (first, second):
        second.gone = second.lose
        second.tap.vanish()
        async with running(first, second) as cable:
            cable.directions[0].source.receive(frame(1))
            assert (first.counters.rx_frames, second.counters.tx_dropped) == (1, 1)


@in_trio
async def test_a_tap_that_vanishes_ends_its_direction() -> None:
    with two_wires() as (first, second):
        first.gone = first.lose
        async with running(first, second):
            first.tap.vanish()
            await until(lambda: first.virt.lost)
            second.tap.host_send(frame(1))
            await trio.testing.wait_all_tasks_blocked()
            assert second.counters.rx_frames == 1


@in_trio
async def test_taken_out_it_leaves_nothing_behind() -> None:
    with two_wires() as ends:
        first, second = ends
        listeners = [len(end.wire.changed) for end in ends]
        before = len(os.listdir("/proc/self/fd"))
        async with running(first, second):
            for number in range(250):
                first.tap.host_send(frame(number))
            assert len(await received(second)) == 250
        assert len(os.listdir("/proc/self/fd")) <= before  # fewer if threads of other tests have closed descriptors
        await until(lambda: offloads(ends) == OFF)
        assert [len(end.wire.changed) for end in ends] == listeners
        first.tap.host_send(frame(1))
        first.wire.settle()
        assert first.counters.rx_dropped == 1
        assert await received(second) == []


@pytest.mark.parametrize("tail", [0, 1])
def test_what_lies_in_the_tap_when_it_is_taken_out_still_crosses(tail: int) -> None:
    @in_trio
    async def run() -> None:
        with two_wires() as (first, second):
            cable = Cable(first.wire, second.wire, Room(), never)
            header, data = segment(3000 + tail, 1448)
            first.tap.peer.send(header + data)
            cable.discard()
            crossed = await received(second)
            assert b"".join(one[54:] for one in crossed) == data[54:]
            assert first.tap.fd >= 0
            assert NO_HEADER not in crossed

    run()
