"""A wire: which frames it delivers, sends, keeps and counts."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace

import pytest
import trio
import trio.testing
from harness.wires import Bench, frame, refusal, wire


def test_take_gives_whole_frames_in_order_then_none() -> None:
    with wire() as bench:
        bench.wire.opened()
        frames = [frame(n, size) for n, size in enumerate((14, 60, 1514, 9018, 65535))]
        for one in frames:
            bench.tap.host_send(one)
        assert bench.wire.waiting()
        assert bench.take_all() == frames
        assert not bench.wire.waiting()
        assert bench.counters.rx_frames == 5
        assert bench.counters.rx_bytes == sum(map(len, frames))


@pytest.mark.parametrize("peeked", [False, True])
def test_take_cuts_to_the_size_asked_for(peeked: bool) -> None:
    with wire() as bench:
        bench.wire.opened()
        bench.tap.host_send(frame(1))
        bench.tap.host_send(frame(2))
        if peeked:
            assert bench.wire.peek() == 60
        assert bench.take(20) == frame(1)[:20]
        assert bench.take(60) == frame(2)
        assert bench.counters.rx_bytes == 120, "the length that the host sent, not the size of the read"


def test_peek_tells_the_next_length_and_takes_nothing() -> None:
    with wire() as bench:
        assert bench.wire.peek() == 0
        bench.wire.opened()
        assert bench.wire.peek() == 0
        bench.tap.host_send(frame(1, 100))
        bench.tap.host_send(frame(2, 200))
        for _ in range(3):
            assert bench.wire.peek() == 100
        assert bench.wire.waiting()
        assert bench.counters.rx_frames == 0
        assert bench.take() == frame(1, 100)
        assert bench.wire.peek() == 200
        assert bench.take_all() == [frame(2, 200)]


def test_what_comes_while_nobody_reads_is_dropped_and_counted() -> None:
    with wire() as bench:
        for n in range(3):
            bench.tap.host_send(frame(n))
        assert bench.counters.rx_dropped == 0, "the tap has not been read yet"
        bench.wire.settle()
        assert bench.counters.rx_dropped == 3
        bench.tap.host_send(frame(3))
        bench.wire.opened()
        assert bench.counters.rx_dropped == 4
        assert bench.take() is None
        bench.tap.host_send(frame(4))
        bench.wire.settle()
        assert bench.take() == frame(4), "with a reader, settle() drops nothing"
        bench.tap.host_send(frame(5))
        bench.wire.closed()
        assert bench.counters.rx_dropped == 5
        assert bench.counters.rx_frames == 1


def test_a_second_reader_takes_nothing_from_the_first() -> None:
    with wire() as bench:
        bench.wire.opened()
        bench.tap.host_send(frame(1))
        bench.wire.opened()
        bench.wire.closed()
        assert bench.take() == frame(1)


def test_backlog_keeps_the_last() -> None:
    with wire() as bench:
        bench.set_backlog(3)
        for n in range(5):
            bench.tap.host_send(frame(n))
        bench.wire.opened()
        assert bench.counters.rx_dropped == 2
        bench.tap.host_send(frame(5))
        assert bench.take_all() == [frame(n) for n in (2, 3, 4, 5)]
        bench.wire.closed()
        bench.tap.host_send(frame(6))
        bench.wire.opened()
        assert bench.take_all() == [frame(6)]


def test_a_smaller_backlog_drops_the_oldest_and_none_drops_all() -> None:
    with wire() as bench:
        bench.set_backlog(10)
        for n in range(6):
            bench.tap.host_send(frame(n))
        bench.set_backlog(2)
        assert bench.counters.rx_dropped == 4
        assert bench.wire.peek() == 60
        bench.set_backlog(0)
        assert bench.counters.rx_dropped == 6
        bench.wire.opened()
        assert bench.take() is None


def test_down_empties_counts_and_refuses() -> None:
    with wire() as bench:
        bench.wire.opened()
        bench.tap.host_send(frame(1))
        bench.tap.host_send(frame(2))
        assert bench.wire.peek() == 60
        woken: list[bool] = []

        def ready() -> bool:
            woken.append(True)
            return False

        bench.on_ready(ready)
        bench.down()
        assert woken
        assert bench.counters.rx_dropped == 2
        assert refusal(bench.take) == errno.EHOSTDOWN
        assert not bench.wire.waiting()
        assert bench.wire.peek() == 0
        bench.up()
        bench.tap.host_send(frame(3))
        assert bench.take_all() == [frame(3)]


@pytest.mark.parametrize("strict", [False, True])
def test_put_sends_what_fits_and_counts_the_rest(strict: bool) -> None:
    with wire() as bench:
        bench.virt.set(strict=strict)
        expected = errno.EMSGSIZE if strict else 0
        for size, refused in ((14, 0), (1518, 0), (13, expected), (0, expected), (1519, expected)):
            assert refusal(bench.put, frame(size, size)) == refused
        assert [bench.tap.host_receive() for _ in range(2)] == [frame(14, 14), frame(1518, 1518)]
        with pytest.raises(BlockingIOError):
            bench.tap.host_receive()
        counters = bench.counters
        assert (counters.tx_frames, counters.tx_bytes) == (2, 14 + 1518)
        assert (counters.tx_dropped, counters.tx_short, counters.tx_oversize) == (3, 2, 1)
        bench.virt.set_host(replace(bench.virt.host, mtu=9000))
        bench.wire.update()
        assert bench.put(frame(1, 9018)) == 9018
        assert bench.tap.host_receive() == frame(1, 9018)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("error", "refused", "down"),
    [(errno.EIO, errno.ENETDOWN, 1), (errno.ENOBUFS, 0, 0), (errno.ENOMEM, 0, 0), (errno.EAGAIN, 0, 0)],
)
def test_what_the_tap_does_not_take_is_dropped(
    monkeypatch: pytest.MonkeyPatch, error: int, refused: int, down: int, strict: bool
) -> None:
    def writev(fd: int, buffers: object) -> int:
        raise OSError(error, os.strerror(error))

    with wire() as bench:
        monkeypatch.setattr("virtfs.forward.wire_out.writev", writev)
        bench.virt.set(strict=strict)
        assert refusal(bench.put, frame(1)) == (refused if strict else 0)
        assert (bench.counters.tx_dropped, bench.counters.tx_down, bench.counters.tx_frames) == (1, down, 0)


def test_a_full_host_loses_frames_and_nobody_waits() -> None:
    with wire() as bench:
        for n in range(5000):
            assert bench.put(frame(n)) == 60
        assert bench.counters.tx_dropped > 0
        assert bench.counters.tx_frames + bench.counters.tx_dropped == 5000


@pytest.mark.parametrize("call", [lambda b: b.take(), lambda b: b.put(frame(1))], ids=["take", "put"])
def test_vanished_tap_is_told_once_it_is_touched(call: Callable[[Bench], object]) -> None:
    with wire() as bench:
        told: list[bool] = []
        bench.gone = lambda: told.append(True)
        bench.wire.opened()
        bench.tap.vanish()
        assert refusal(call, bench) == errno.ENXIO
        assert told == [True]
        bench.lose()
        for _ in range(2):
            assert refusal(bench.take) == errno.ENXIO
            assert refusal(bench.put, frame(1)) == errno.ENXIO
            assert refusal(bench.put, b"") == errno.ENXIO
        assert told == [True], "the owner is told only once"
        assert bench.counters.tx_dropped == 0


def test_vanished_tap_counts_nothing() -> None:
    with wire() as bench:
        bench.tap.vanish()
        for _ in range(3):
            bench.wire.settle()
            bench.wire.peek()
        bench.wire.opened()
        bench.wire.peek()
        bench.wire.closed()
        bench.lose()
        assert bench.counters.rx_dropped == 0
        assert bench.counters.rx_frames == 0


def test_closed_wire_can_still_be_asked() -> None:
    """Programs may keep descriptors of a destroyed interface open."""
    with wire() as bench:
        bench.wire.opened()
        bench.lose()
        bench.wire.close()
        with open("/dev/zero", "rb", buffering=0) as other:  # may well get the number of a closed descriptor
            assert other.fileno() >= 0
            assert refusal(bench.take) == errno.ENXIO
            assert refusal(bench.put, frame(1)) == errno.ENXIO
            assert not bench.wire.waiting()
            assert bench.wire.peek() == 0
            bench.wire.settle()
            bench.wire.closed()
        assert bench.counters.rx_dropped == 0


async def pumping(bench: Bench, then: Callable[[], object]) -> None:
    """Run the pump, call `then`, and return once all tasks are blocked again."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.wire.watch.run)
        await trio.testing.wait_all_tasks_blocked()
        then()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


def test_pump_wakes_once_for_what_comes_while_somebody_waits() -> None:
    with wire() as bench:
        woken: list[int] = []

        def ready() -> bool:
            woken.append(len(bench.take_all()))
            return False

        bench.wire.opened()
        bench.on_ready(ready)
        trio.run(pumping, bench, lambda: bench.tap.host_send(frame(1)))
        assert woken == [], "no reader waits"
        bench.take_all()
        bench.wire.want()

        def send() -> None:
            for n in range(3):
                bench.tap.host_send(frame(n))

        trio.run(pumping, bench, send)
        assert sum(woken) == 3
        rounds = len(woken)
        trio.run(pumping, bench, lambda: bench.tap.host_send(frame(4)))
        assert len(woken) == rounds, "a listener that no longer waits is not called"


def test_pump_wakes_for_a_new_frame_while_an_old_one_lies_there() -> None:
    """Edge-triggered epoll(7) on the frame file needs this."""
    with wire() as bench:
        woken: list[bool] = []

        def ready() -> bool:
            woken.append(True)
            return True

        bench.wire.opened()
        bench.on_ready(ready)
        bench.wire.want()

        async def run() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench.wire.watch.run)
                for n in range(3):
                    before = len(woken)
                    bench.tap.host_send(frame(n))
                    await trio.testing.wait_all_tasks_blocked()
                    assert len(woken) == before + 1
                nursery.cancel_scope.cancel()

        trio.run(run)
        assert len(bench.take_all()) == 3


def test_pump_keeps_the_backlog_while_nobody_reads() -> None:
    with wire() as bench:

        def send() -> None:
            for n in range(20):
                bench.tap.host_send(frame(n))

        bench.set_backlog(4)
        trio.run(pumping, bench, send)
        assert bench.counters.rx_dropped == 16, "dropped before a reader opened"
        bench.wire.opened()
        assert bench.take_all() == [frame(n) for n in range(16, 20)]


def test_pump_tells_of_a_tap_that_vanishes_under_a_waiting_reader() -> None:
    with wire() as bench:
        told: list[bool] = []

        def gone() -> None:
            told.append(True)
            bench.lose()

        bench.gone = gone
        bench.wire.opened()
        bench.wire.want()
        trio.run(pumping, bench, bench.tap.vanish)
        assert told == [True]
        assert refusal(bench.take) == errno.ENXIO
