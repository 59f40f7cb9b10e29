"""Every frame is in exactly one place, also with impairments, a cable, a shorter queue and a tap that vanishes."""

from contextlib import suppress

from harness.in_trio import forget
from harness.wires import frame, received, wire
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from virtfs.core.counters import CableCounters
from virtfs.core.errors import VirtError
from virtfs.core.impairment import UNIMPAIRED, Direction, Impairment, Share
from virtfs.core.memory import Kind
from virtfs.forward.cable import OneWay
from virtfs.forward.impaired_path import End, ImpairedPath
from virtfs.host.relay import Room

QUEUE = 64
impairments = st.sampled_from(
    [
        Impairment(delay=1000 * 10**9),  # longer than any test
        Impairment(delay=1000 * 10**9, limit=3),
        Impairment(loss=Share(50)),
        Impairment(duplicate=Share(50)),
        Impairment(delay=1000 * 10**9, duplicate=Share(50), loss=Share(20), reorder=Share(50)),
    ]
)
directions = st.sampled_from(["in", "out"])


class Promises(RuleBasedStateMachine):
    """One wire with random operations, and a cable from it to a second wire, which is up.

    taken: frames that readers got, without copies. cable: this direction of the cable, which can have an impairment.
    cables: the counters of this cable and of those that were removed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.context = wire(QUEUE)
        self.bench = self.context.__enter__()
        self.far_context = wire(QUEUE)
        self.far = self.far_context.__enter__()
        self.room = Room()
        self.cable: OneWay | None = None
        self.cables: list[CableCounters] = []
        self.in_cable: list[ImpairedPath] = []
        self.paths: dict[Direction, ImpairedPath] = {}
        self.sent = self.taken = self.written = self.readers = self.arrived = 0
        self.up = True

    @initialize(strict=st.booleans())
    def begin(self, strict: bool) -> None:
        self.bench.virt.set(strict=strict)
        self.bench.gone = self.bench.lose

    def teardown(self) -> None:
        try:
            if self.up:
                self._receive()
                self.bench.down()
            self._nothing_waits()
        finally:
            for path in (*self.paths.values(), *self.in_cable):
                path.stop()
                path.close()
            if self.cable is not None:
                self.cable.stop()
            self.context.__exit__(None, None, None)
            self.far_context.__exit__(None, None, None)

    def _nothing_waits(self) -> None:
        counters = self.bench.counters
        assert counters.rx_frames + counters.rx_dropped == self.sent + counters.rx_duplicated
        assert counters.tx_frames + counters.tx_dropped == self.written + counters.tx_duplicated

    @precondition(lambda self: self.up)
    @rule(count=st.integers(1, 20))
    def host_sends(self, count: int) -> None:
        counters = self.bench.counters
        with suppress(BlockingIOError):
            for _ in range(count):
                if self.sent + counters.rx_duplicated - counters.rx_frames - counters.rx_dropped >= QUEUE:
                    break  # a real tap has no room for more, but the fake has
                self.bench.tap.host_send(frame(self.sent))
                self.sent += 1
        if self.cable is None and "in" in self.paths:
            self.bench.wire.update()  # the pump would read the frames now

    @precondition(lambda self: self.readers)
    @rule(count=st.integers(1, 10), disown=st.booleans())
    def read(self, count: int, disown: bool) -> None:
        with suppress(VirtError):
            for _ in range(count):
                one = self.bench.take()
                if one is None:
                    return
                if self.bench.wire.counted and disown:
                    self.bench.wire.disown(len(one))
                elif self.bench.wire.counted:
                    self.taken += 1

    @precondition(lambda self: self.readers < 2)
    @rule()
    def open(self) -> None:
        self.bench.wire.opened()
        self.readers += 1

    @precondition(lambda self: self.readers)
    @rule()
    def close(self) -> None:
        self.readers -= 1
        self.bench.wire.closed()

    @rule(frames=st.sampled_from([0, 5, 50]))
    def backlog(self, frames: int) -> None:
        self.bench.set_backlog(frames)

    @rule()
    def look(self) -> None:
        self.bench.wire.peek()
        self.bench.wire.settle()

    @rule(frames=st.sampled_from([1, 5, 63]))
    def shorten(self, frames: int) -> None:
        self.bench.wire.shorten(frames)

    @rule(direction=directions, impairment=impairments)
    def impair(self, direction: Direction, impairment: Impairment) -> None:
        wire = self.bench.wire
        end: End = wire if direction == "in" else wire.out
        if direction in self.paths:
            self.paths[direction].change(impairment)
        else:
            path = ImpairedPath(impairment, direction, end, wire.memory.hold(Kind.DELAYED))
            self.paths[direction] = path
            (wire if direction == "in" else wire.out).set_path(path)

    @rule(direction=directions)
    def unimpair(self, direction: Direction) -> None:
        if direction in self.paths:
            self.paths[direction].retire(lambda: self._forget(direction))

    def _forget(self, direction: Direction) -> None:
        path = self.paths.pop(direction)
        (self.bench.wire if direction == "in" else self.bench.wire.out).set_path(None)
        path.stop()
        path.close()

    @precondition(lambda self: self.cable is None)
    @rule()
    def plug(self) -> None:
        self.cable = OneWay(self.bench.wire, self.far.wire, self.room, forget)
        self.cables.append(self.cable.counters)

    @rule(impairment=impairments | st.just(UNIMPAIRED))
    def impair_cable(self, impairment: Impairment) -> None:
        if self.cable is not None and (path := self.cable.impair(impairment, "1>2")) is not None:
            self.in_cable.append(path)

    @rule()
    def cable_carries(self) -> None:
        if self.cable is not None:
            self.cable.burst()
            received(self.far)

    @precondition(lambda self: self.cable is not None)
    @rule()
    def unplug(self) -> None:
        cable, self.cable = self.cable, None
        assert cable is not None
        cable.stop()
        received(self.far)

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

    @rule(count=st.integers(1, 5), size=st.sampled_from([13, 60, 1519]), from_cable=st.booleans())
    def write(self, count: int, size: int, from_cable: bool) -> None:
        for _ in range(count):
            self.written += 1
            if from_cable:
                self.bench.wire.out.pass_on(frame(0, size))
            else:
                with suppress(VirtError):
                    self.bench.put(frame(0, size))

    def _receive(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self.bench.tap.host_receive()
                self.arrived += 1

    @precondition(lambda self: self.up)
    @rule()
    def host_receives(self) -> None:
        self._receive()
        assert self.arrived == self.bench.counters.tx_frames

    @invariant()
    def each_frame_is_in_one_place(self) -> None:
        counters, far = self.bench.counters, self.far.counters
        entered = counters.rx_frames - self.taken
        ended = sum(one.frames + one.lost + one.dropped - one.duplicated for one in self.cables)
        assert ended <= entered
        if self.cable is None or self.cable.path is None:
            assert ended == entered
        assert far.tx_frames + far.tx_dropped == sum(one.frames for one in self.cables)
        assert far.tx_bytes <= sum(one.bytes for one in self.cables)
        assert counters.rx_frames + counters.rx_dropped <= self.sent + counters.rx_duplicated
        delayed = self.written + counters.tx_duplicated - counters.tx_frames - counters.tx_dropped
        assert delayed >= 0
        if "out" not in self.paths:
            assert delayed == 0


Promises.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPromises = Promises.TestCase


def test_a_delayed_frame_whose_tap_has_vanished_is_counted() -> None:
    with wire() as bench:
        bench.gone = bench.lose
        bench.tap.vanish()
        bench.wire.out.arrive(frame(1))
        bench.wire.out.pass_on(frame(2))
        assert bench.virt.lost
        assert (bench.counters.tx_frames, bench.counters.tx_dropped) == (0, 2)
