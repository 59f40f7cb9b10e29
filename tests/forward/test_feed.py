"""The feed of rx: frames that do not reach a reader are counted as dropped."""

import fcntl
import os
from typing import cast

import trio
import trio.testing
from harness.in_trio import in_trio, start_in
from harness.wires import Bench, frame, wire

from virtfs.forward.feed import Feed
from virtfs.host.fifo import Fifo

MINIMUM = 4096  # bytes; in packet mode, a pipe of this size holds one packet (pipe(7))


class OnePacket:
    """A FIFO that holds one packet and has a reader."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(self._writer, fcntl.F_SETPIPE_SZ, MINIMUM)

    def open(self) -> int:
        return self._writer

    def remove(self) -> None:
        pass


def counts(bench: Bench) -> tuple[int, int]:
    return bench.counters.rx_frames, bench.counters.rx_dropped


@in_trio
async def test_a_reader_stays_when_the_interface_goes_down() -> None:
    """The FIFO is full then. Its reader gets no end of the file, and gets frames when the interface is up again."""
    with wire() as bench:
        fifo = OnePacket()
        feed = Feed(bench.wire, cast(Fifo, fifo), busy=lambda: False)
        async with trio.open_nursery() as nursery:
            feed.look(start_in(nursery))

            async def host_sends(number: int) -> None:
                bench.tap.host_send(frame(number, 60))
                for listener in bench.wire.listeners:
                    listener()
                await trio.testing.wait_all_tasks_blocked()

            await trio.testing.wait_all_tasks_blocked()
            await host_sends(1)
            await host_sends(2)
            bench.down()
            for number in (1, 2):
                assert os.read(fifo.reader, MINIMUM) == frame(number, 60)
                await trio.testing.wait_all_tasks_blocked()
            assert feed.fed
            bench.up()
            await host_sends(3)
            assert os.read(fifo.reader, MINIMUM) == frame(3, 60)
            nursery.cancel_scope.cancel()
        os.close(fifo.reader)


@in_trio
async def test_a_frame_for_a_closed_fifo_is_dropped() -> None:
    """The first frame fills the FIFO. The second one is too long, and the third one waits for space."""
    with wire() as bench:
        fifo = OnePacket()
        feed = Feed(bench.wire, cast(Fifo, fifo), busy=lambda: False)
        async with trio.open_nursery() as nursery:
            feed.look(start_in(nursery))
            await trio.testing.wait_all_tasks_blocked()
            for number, size in enumerate((60, 5000, 60)):
                bench.tap.host_send(frame(number, size))
            for listener in bench.wire.listeners:
                listener()
            await trio.testing.wait_all_tasks_blocked()
            assert counts(bench) == (2, 1)
            os.close(fifo.reader)
        assert counts(bench) == (1, 2)
