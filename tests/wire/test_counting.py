"""Every lost frame is counted, whatever happens in whatever order."""

from typing import Any

from harness.wires import frame, wire
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from virtfs.core.errors import VirtError

QUEUE = 64


class Counting(RuleBasedStateMachine):
    """A wire with random operations.

    The number of frames from the host is rx_frames + rx_dropped + the number waiting. The number of frames written is
    tx_frames + tx_dropped.
    """

    def __init__(self) -> None:
        super().__init__()
        self.context = wire(QUEUE)
        self.bench = self.context.__enter__()
        self.sent: list[bytes] = []
        self.taken: list[bytes] = []
        self.written = self.written_bytes = self.arrived = 0
        self.readers = 0
        self.up = True

    def teardown(self) -> None:
        try:
            if self.up:
                if not self.readers:
                    self.bench.wire.opened()
                waiting = self.bench.take_all()
                self.taken += waiting
            self._nothing_waits()
        finally:
            self.context.__exit__(None, None, None)

    def _nothing_waits(self) -> None:
        counters = self.bench.counters
        assert counters.rx_frames + counters.rx_dropped == len(self.sent)
        assert counters.rx_frames == len(self.taken)

    @initialize(strict=st.booleans())
    def begin(self, strict: bool) -> None:
        self.bench.virt.set(strict=strict)

    @precondition(lambda self: self.up)
    @rule(count=st.integers(1, 20), size=st.sampled_from([14, 60, 1514]))
    def host_sends(self, count: int, size: int) -> None:
        counters = self.bench.counters
        for _ in range(count):
            if len(self.sent) - counters.rx_frames - counters.rx_dropped >= QUEUE:
                break  # a real tap has no room for more, but the fake has
            one = frame(len(self.sent), size)
            try:
                self.bench.tap.host_send(one)
            except BlockingIOError:
                break  # the queue of the fake is full; the kernel would count such a frame itself
            self.sent.append(one)

    @precondition(lambda self: self.readers)
    @rule(size=st.sampled_from([10, 100, 2048]), count=st.integers(1, 10))
    def read(self, size: int, count: int) -> None:
        for _ in range(count):
            try:
                one = self.bench.take(size)
            except VirtError:
                assert not self.up
                return
            if one is None:
                return
            assert self.up
            assert len(one) <= size
            self.taken.append(one)

    @precondition(lambda self: self.readers < 3)
    @rule()
    def open(self) -> None:
        self.bench.wire.opened()
        self.readers += 1

    @precondition(lambda self: self.readers)
    @rule()
    def close(self) -> None:
        self.readers -= 1
        self.bench.wire.closed()

    @rule()
    def look(self) -> None:
        self.bench.wire.settle()

    @rule()
    def stat(self) -> None:
        length = self.bench.wire.peek()
        assert length == 0 or self.up
        assert length in (0, 14, 60, 1514)

    @rule(frames=st.sampled_from([0, 1, 5, 50]))
    def backlog(self, frames: int) -> None:
        self.bench.set_backlog(frames)

    @rule()
    def down(self) -> None:
        if self.up:
            self._receive()
            self.up = False
            self.bench.down()
        self._nothing_waits()

    @rule()
    def set_up(self) -> None:
        if not self.up:
            self.bench.up()
            self.up = True

    @rule(size=st.sampled_from([0, 13, 14, 60, 1518, 1519, 70_000]), count=st.integers(1, 5))
    def write(self, size: int, count: int) -> None:
        fits = 14 <= size <= 1518
        for _ in range(count):
            self.written += 1
            try:
                assert self.bench.put(frame(0, size)) == size
            except VirtError:
                assert self.bench.virt.strict
                assert not (fits and self.up)

    def _receive(self) -> None:
        """Receive all frames that have reached the host."""
        try:
            while True:
                self.bench.tap.host_receive()
                self.arrived += 1
        except BlockingIOError:
            pass

    @precondition(lambda self: self.up)
    @rule()
    def host_receives(self) -> None:
        self._receive()
        assert self.arrived == self.bench.counters.tx_frames

    @invariant()
    def all_is_counted(self) -> None:
        counters = self.bench.counters
        assert counters.tx_frames + counters.tx_dropped == self.written
        assert counters.tx_short + counters.tx_oversize + counters.tx_down <= counters.tx_dropped
        waiting = len(self.sent) - counters.rx_frames - counters.rx_dropped
        assert waiting >= 0
        assert counters.rx_frames == len(self.taken)
        if waiting == 0:
            assert self.bench.wire.waiting() is False
        elif self.up:
            assert self.bench.wire.waiting() is True

    @invariant()
    def order_is_kept(self) -> None:
        """The frames taken are frames that were sent, in the same order and each at most once."""
        sent: Any = iter(self.sent)
        for one in self.taken:
            assert any(other[: len(one)] == one for other in sent)


Counting.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestCounting = Counting.TestCase
