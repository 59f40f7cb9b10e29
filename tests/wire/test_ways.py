"""Impairments on the path of a wire, which hold frames, and cables, which take over the wire."""

import errno
import select

import pytest
import trio
from harness.wires import HEAD, Bench, frame, received, refusal, wire

from .test_wire import pumping

SOURCE = HEAD[6:12]


class Held:
    """A path that holds frames until the test takes them."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def push(self, frame: bytes) -> None:
        self.frames.append(frame)

    def clear(self) -> int:
        count = len(self.frames)
        self.frames.clear()
        return count


def look_for_frames(bench: Bench) -> None:
    """Run the wire's task until it has handled the frames in the tap."""
    trio.run(pumping, bench, lambda: None)


# --- impairments


def test_frames_in_wait_in_the_way_and_then_for_the_reader() -> None:
    with wire() as bench:
        way = Held()
        bench.wire.opened()
        bench.wire.set_path(way)
        bench.tap.host_send(frame(1))
        look_for_frames(bench)
        assert way.frames == [frame(1)]
        assert bench.take() is None
        assert not bench.wire.waiting()
        assert bench.wire.peek() == 0
        bench.wire.arrive(frame(1))
        assert bench.wire.waiting()
        assert bench.take_all() == [frame(1)]


def test_what_arrives_and_nobody_reads_is_dropped() -> None:
    with wire() as bench:
        bench.wire.set_path(Held())
        bench.wire.arrive(frame(1))
        bench.wire.lose(2)
        assert bench.counters.rx_dropped == 3
        bench.set_backlog(1)
        bench.wire.arrive(frame(2))
        bench.wire.arrive(frame(3))
        bench.wire.opened()
        assert bench.take_all() == [frame(3)]
        assert (bench.counters.rx_frames, bench.counters.rx_dropped) == (1, 4)


def test_frames_out_wait_in_the_way_and_are_then_sent() -> None:
    """The antispoof check follows the impairment, which may have corrupted the address."""
    with wire() as bench:
        way = Held()
        bench.virt.set(antispoof=True, address=SOURCE)
        bench.wire.out.set_path(way)
        assert bench.put(frame(1)) == 60
        assert (way.frames, received(bench)) == ([frame(1)], [])
        assert bench.counters.tx_frames == 0
        bench.wire.out.arrive(frame(1))
        bench.wire.out.arrive(HEAD[:6] + bytes(6) + frame(1)[12:])
        assert received(bench) == [frame(1)]
        assert (bench.counters.tx_frames, bench.counters.tx_spoofed) == (1, 1)
        bench.wire.out.lose(5)
        assert bench.counters.tx_dropped == 6


@pytest.mark.parametrize("strict", [False, True])
def test_what_cannot_be_sent_does_not_set_out(strict: bool) -> None:
    with wire() as bench:
        way = Held()
        bench.virt.set(strict=strict)
        bench.wire.out.set_path(way)
        assert refusal(bench.put, frame(1, 13)) == (errno.EMSGSIZE if strict else 0)
        assert refusal(bench.put, frame(1, 1519)) == (errno.EMSGSIZE if strict else 0)
        bench.down()
        assert refusal(bench.put, frame(1)) == (errno.ENETDOWN if strict else 0)
        assert way.frames == []
        counters = bench.counters
        assert (counters.tx_short, counters.tx_oversize, counters.tx_down, counters.tx_dropped) == (1, 1, 1, 3)


def test_down_empties_the_ways_and_counts_each_on_its_side() -> None:
    with wire() as bench:
        inlet, outlet = Held(), Held()
        bench.wire.opened()
        bench.wire.set_path(inlet)
        bench.wire.out.set_path(outlet)
        inlet.frames = [frame(1), frame(2)]
        outlet.frames = [frame(3)] * 3
        bench.wire.arrive(frame(4))
        bench.down()
        assert (inlet.frames, outlet.frames) == ([], [])
        assert bench.counters.rx_dropped == 3
        assert bench.counters.tx_dropped == 3


# --- cables


def test_a_cable_has_what_is_received_and_the_tap_is_left_to_it() -> None:
    with wire() as bench:
        carried: list[bytes] = []
        bench.wire.take_over(carried.append)
        bench.tap.host_send(frame(1))
        look_for_frames(bench)
        bench.wire.settle()
        assert bench.wire.peek() == 0
        assert (carried, bench.counters.rx_dropped) == ([], 0)
        assert select.select([bench.tap.fd], [], [], 0)[0], "the frame is left for the cable to read"
        bench.wire.count_in(1, 60)
        bench.wire.receive(frame(1))
        assert carried == [frame(1)]
        assert (bench.counters.rx_frames, bench.counters.rx_bytes) == (1, 60)


def test_a_reader_has_a_copy_that_counts_once() -> None:
    with wire(queue=2) as bench:
        carried: list[bytes] = []
        bench.wire.take_over(carried.append)
        bench.wire.opened()
        for number in range(3):
            bench.wire.count_in(1, 60)
            bench.wire.receive(frame(number))
        assert bench.wire.waiting()
        assert bench.take_all() == [frame(0), frame(1)]
        assert carried == [frame(0), frame(1), frame(2)]
        assert bench.counters.rx_frames == 3
        assert bench.wire.peek() == 0


def test_the_way_in_comes_before_the_cable() -> None:
    with wire() as bench:
        carried: list[bytes] = []
        way = Held()
        bench.wire.set_path(way)
        bench.wire.take_over(carried.append)
        bench.wire.receive(frame(1))
        assert (way.frames, carried) == ([frame(1)], [])
        bench.wire.arrive(frame(1))
        assert carried == [frame(1)]


def test_what_a_cable_passes_on_is_sent_as_any_frame() -> None:
    with wire() as bench:
        way = Held()
        bench.virt.set(strict=True)
        bench.wire.out.pass_on(frame(1))
        bench.wire.out.pass_on(frame(2, 1519))
        assert received(bench) == [frame(1)]
        assert bench.counters.tx_oversize == 1
        bench.wire.out.set_path(way)
        bench.wire.out.pass_on(frame(3))
        assert way.frames == [frame(3)]


def test_counts_of_what_a_cable_writes() -> None:
    with wire() as bench:
        bench.wire.out.count(3, 300)
        bench.wire.out.count_refused(2, 1)
        counters = bench.counters
        assert (counters.tx_frames, counters.tx_bytes) == (3, 300)
        assert (counters.tx_dropped, counters.tx_down) == (2, 1)


def test_given_back_it_is_as_before() -> None:
    with wire() as bench:
        bench.wire.take_over(lambda frame: None)
        bench.wire.opened()
        bench.wire.receive(frame(1))
        bench.wire.give_back()
        bench.tap.host_send(frame(2))
        assert bench.take_all() == [frame(1), frame(2)]
        bench.wire.closed()
        bench.tap.host_send(frame(3))
        bench.wire.settle()
        assert bench.counters.rx_dropped == 1
