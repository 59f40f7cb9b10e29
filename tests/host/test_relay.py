"""Both kinds of relay fulfil the same contract, on real and on fake taps."""

import errno
from array import array
from collections.abc import Iterator

import pytest
from harness.nets import descriptors, fresh, need_taps

from virtfs.host import relay as carrier_module
from virtfs.host.relay import BATCH, BatchRelay, CallRelay, Load, Relay, Room
from virtfs.host.tap_protocol import VNET_HEADER
from virtfs.host.uring import READ, Ring

from .pairs import MakePair, Pair, fakes, taps

HEAD = bytes.fromhex("020000000001 020000000002 88b5")
MANY = 2 * BATCH + 8  # BATCH packets by single calls, one full batch, and one that is not full


def frame(number: int, size: int = 60) -> bytes:
    return (HEAD + number.to_bytes(4, "big") * (size // 4 + 1))[:size]


@pytest.fixture(params=["fake", "taps"])
def make(request: pytest.FixtureRequest) -> Iterator[MakePair]:
    if request.param == "fake":
        yield fakes
        return
    need_taps()
    with fresh():
        yield taps


@pytest.fixture(params=[CallRelay, BatchRelay])
def kind(request: pytest.FixtureRequest) -> type[CallRelay] | type[BatchRelay]:
    chosen: type[CallRelay] | type[BatchRelay] = request.param
    return chosen


def carry_all(relay: Relay) -> Load:
    """Carry until no frame waits. Returns the sum of all loads."""
    loads = [relay.carry()]
    while loads[-1].packets:
        loads.append(relay.carry())
    refused = tuple(one for load in loads for one in load.refused)
    return Load(sum(load.packets for load in loads), sum(load.size for load in loads), refused, loads[-1].gone)


def size_of(frames: list[bytes]) -> int:
    return sum(VNET_HEADER + len(one) for one in frames)


@pytest.mark.parametrize("sizes", [(60,), (60, 61), (60, 66, 1514), (14,)])
def test_packets_arrive_in_order_and_are_counted(
    make: MakePair, kind: type[CallRelay | BatchRelay], sizes: tuple[int, ...]
) -> None:
    with make() as pair:
        relay = kind(pair.source.fd, pair.sink.fd, Room())
        for begin in 0, 1000, 2000:  # later rounds reuse the state that the first one created
            frames = [
                frame(begin + number, sizes[number % len(sizes)]) for number in range(60 if 1514 in sizes else MANY)
            ]
            for one in frames:
                pair.send(one)
            assert carry_all(relay) == Load(len(frames), size_of(frames))
            assert pair.receive(len(frames)) == frames
        relay.close()


def test_nothing_there(make: MakePair, kind: type[CallRelay | BatchRelay]) -> None:
    with make() as pair:
        relay = kind(pair.source.fd, pair.sink.fd, Room())
        assert relay.carry() == Load(0, 0)
        relay.close()


def test_no_more_than_it_may_at_once(make: MakePair, kind: type[CallRelay | BatchRelay]) -> None:
    with make() as pair:
        relay = kind(pair.source.fd, pair.sink.fd, Room())
        for number in range(MANY):
            pair.send(frame(number))
        assert [relay.carry().packets for _ in range(4)] == [BATCH, BATCH, 8, 0]
        relay.close()


def test_large_packets_among_many_small_ones(make: MakePair, kind: type[CallRelay | BatchRelay]) -> None:
    with make() as pair:
        relay = kind(pair.source.fd, pair.sink.fd, Room())
        small = [frame(number) for number in range(BATCH)]
        large = [frame(number, 30_000 if number < 2 else 60) for number in range(BATCH)]
        for part in small, large, large:
            for one in part:
                pair.send(one)
            assert carry_all(relay) == Load(len(part), size_of(part))
            assert pair.receive(len(part)) == part
        relay.close()


def test_what_the_sink_does_not_take_is_told(make: MakePair, kind: type[CallRelay | BatchRelay]) -> None:
    with make() as pair:
        relay = kind(pair.source.fd, pair.sink.fd, Room())
        number = pair.refuse()
        for index in range(MANY):
            pair.send(frame(index))
        refused = ((VNET_HEADER + 60, number),) * MANY
        assert carry_all(relay) == Load(MANY, MANY * (VNET_HEADER + 60), refused)
        relay.close()


@pytest.mark.parametrize("before", [0, BATCH], ids=["when idle", "when busy"])
def test_a_source_that_vanishes(make: MakePair, kind: type[CallRelay | BatchRelay], before: int) -> None:
    with make() as pair:
        relay = kind(pair.source.fd, pair.sink.fd, Room())
        for number in range(before):
            pair.send(frame(number))
        assert relay.carry() == Load(before, before * (VNET_HEADER + 60))
        pair.vanish()
        assert carry_all(relay) == Load(0, 0, (), gone=True)
        relay.close()


def test_two_share_a_room(make: MakePair, kind: type[CallRelay | BatchRelay]) -> None:
    with make() as pair, fakes() as other:
        room = Room()
        carriers = [kind(one.source.fd, one.sink.fd, room) for one in (pair, other)]
        for index, one in enumerate((pair, other)):
            for number in range(MANY):
                one.send(frame(1000 * index + number))
        counts = [0, 0]
        while sum(counts) < 2 * MANY:
            for index, relay in enumerate(carriers):
                counts[index] += relay.carry().packets
        assert pair.receive(MANY) == [frame(number) for number in range(MANY)]
        assert other.receive(MANY) == [frame(1000 + number) for number in range(MANY)]
        for relay in carriers:
            relay.close()


def test_nothing_is_left_open(make: MakePair, kind: type[CallRelay | BatchRelay]) -> None:
    """The names of the taps are also free once the taps are closed."""
    for _ in range(3):
        with make() as pair:
            before = descriptors()
            relay = kind(pair.source.fd, pair.sink.fd, Room())
            for number in range(MANY):
                pair.send(frame(number))
            carry_all(relay)
            relay.close()
            relay.close()
            assert descriptors() == before


# Tests of BatchRelay alone


@pytest.fixture
def pair() -> Iterator[Pair]:
    with fakes() as pair:
        yield pair


def fill(pair: Pair, count: int, begin: int = 0) -> list[bytes]:
    frames = [frame(begin + number) for number in range(count)]
    for one in frames:
        pair.send(one)
    return frames


def test_batches_begin_with_many_small_packets_and_end_with_few_or_large_ones(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier_module, "SMALL", 100)
    relay = BatchRelay(pair.source.fd, pair.sink.fd, Room())

    def batches_after(count: int, size: int = 60) -> bool:
        for number in range(count):
            pair.send(frame(number, size))
        relay.carry()
        pair.receive(MANY)
        return relay.batches

    assert not batches_after(BATCH - 1)
    assert not batches_after(BATCH, 100)
    assert batches_after(BATCH)
    assert batches_after(BATCH)
    assert not batches_after(BATCH - 1)
    assert batches_after(BATCH)
    assert not batches_after(BATCH, 100)
    relay.close()


def without_io_uring(*arguments: object) -> Ring:
    raise OSError(errno.EPERM, "not allowed")


class _Waiting:
    """A ring on a descriptor that does not support non-blocking operations (EOPNOTSUPP)."""

    closed = 0

    def __init__(self, *arguments: object) -> None:
        self.lengths = memoryview(array("I", range(BATCH)))

    def submit(self) -> bytes:
        return array("i", [-errno.EOPNOTSUPP] * BATCH).tobytes()

    def close(self) -> None:
        _Waiting.closed += 1


class _Broken(_Waiting):
    def submit(self) -> bytes:
        raise OSError(errno.ENOMEM, "no memory")


@pytest.mark.parametrize("ring", [without_io_uring, _Waiting, _Broken])
def test_without_io_uring_it_goes_on(pair: Pair, monkeypatch: pytest.MonkeyPatch, ring: object) -> None:
    monkeypatch.setattr(carrier_module, "Ring", ring)
    _Waiting.closed = 0
    relay = BatchRelay(pair.source.fd, pair.sink.fd, Room())
    for begin in 0, MANY:
        frames = fill(pair, MANY, begin)
        assert carry_all(relay) == Load(MANY, size_of(frames))
        assert pair.receive(MANY) == frames
    assert not relay.batches
    assert _Waiting.closed == (0 if ring is without_io_uring else 2)
    relay.close()


def test_writes_that_fail_altogether_are_refused(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def ring(operation: int, *arguments: int) -> Ring | _Broken:
        return Ring(operation, *arguments) if operation == READ else _Broken()

    monkeypatch.setattr(carrier_module, "Ring", ring)
    relay = BatchRelay(pair.source.fd, pair.sink.fd, Room())
    frames = fill(pair, MANY)
    refused = ((VNET_HEADER + 60, errno.ENOMEM),) * BATCH
    assert carry_all(relay) == Load(MANY, size_of(frames), refused)
    assert pair.receive(MANY) == frames[:BATCH] + frames[2 * BATCH :]
    relay.close()
