"""Sending many frames at once: they are sent, dropped and counted as if sent one by one, also in runs."""

import errno
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from harness.wires import Bench, frame, received, refusal, wire

from virtfs.core.savefile import Group, Run, Spans
from virtfs.forward import tapframes
from virtfs.forward.frame_runs import ROOM, RUN, Rows

ALL = 1 << 20
GAP = 16  # bytes between frames, such as the record headers of a pcap file; none of them may become part of a frame


def run(numbers: range, size: int = 60) -> Run:
    """Return a run of frames, laid out as in a file."""
    data = b"".join(os.urandom(GAP) + frame(number, size) for number in numbers)
    return Run(data, GAP, size, GAP + size, len(numbers))


def sent(bench: Bench) -> tuple[int, int, int]:
    counters = bench.counters
    return counters.tx_frames, counters.tx_bytes, counters.tx_dropped


def test_a_run_between_single_frames() -> None:
    with wire() as bench:
        groups: list[Group]
        groups = [
            iter([frame(0, 61)]),
            run(range(1, 50)),
            iter([frame(50, 14)]),
            run(range(51, 60), 15),
            run(range(60, 70), 15),
        ]
        assert bench.wire.out.put_all(groups, Rows(), ALL) == 70
        sizes = [61] + [60] * 49 + [14] + [15] * 19
        assert received(bench) == [frame(number, size) for number, size in enumerate(sizes)]
        assert sent(bench) == (70, sum(sizes), 0)


def test_what_is_written_has_an_empty_header_before_each_frame() -> None:
    with wire() as bench:
        bench.wire.out.put_all([run(range(8))], Rows(), ALL)
        assert [bench.tap.peer.recv(100) for _ in range(8)] == [bytes(10) + frame(number) for number in range(8)]


def test_runs_of_other_shapes_in_the_same_room() -> None:
    """The runs differ in frame length, in the gap between frames, and in their number of frames."""
    with wire() as bench:
        rows = Rows()
        for number, (size, gap, many) in enumerate([(60, 16, RUN), (61, 16, 9), (60, 17, 9), (60, 16, 8), (60, 10, 9)]):
            data = b"".join(os.urandom(gap) + frame(number + index, size) for index in range(many))
            assert bench.wire.out.put_all([Run(data, gap, size, gap + size, many)], rows, ALL) == many
            assert received(bench) == [frame(number + index, size) for index in range(many)]


def test_it_ends_after_the_group_with_which_they_are_enough() -> None:
    with wire() as bench:
        groups: Iterator[Group] = iter([run(range(8)), iter([frame(8), frame(9)]), run(range(8, 16))])
        assert bench.wire.out.put_all(groups, Rows(), 9) == 10
        assert len(list(groups)) == 1


@pytest.mark.parametrize(("size", "counter"), [(13, "tx_short"), (1519, "tx_oversize")])
def test_a_run_that_does_not_fit_is_dropped(size: int, counter: str) -> None:
    with wire() as bench:
        assert bench.wire.out.put_all([run(range(8), size), iter([frame(1)])], Rows(), ALL) == 9
        assert received(bench) == [frame(1)]
        assert (getattr(bench.counters, counter), bench.counters.tx_dropped) == (8, 8)


def test_a_run_that_is_larger_than_the_room() -> None:
    """The fake tap takes as many frames as it has room for; the others are dropped."""
    with wire() as bench:
        bench.virt.set_host(replace(bench.virt.host, mtu=65521))
        bench.wire.update()
        size = ROOM // 8
        assert bench.wire.out.put_all([run(range(8), size)], Rows(), ALL) == 8
        frames = received(bench)
        assert frames == [frame(number, size) for number in range(len(frames))]
        assert 0 < len(frames) == bench.counters.tx_frames == 8 - bench.counters.tx_dropped


def test_of_a_run_only_its_own_address_passes() -> None:
    with wire() as bench:
        bench.virt.set(antispoof=True)
        bench.virt.set(address=frame(0)[6:12])
        bench.wire.update()
        bench.wire.out.put_all([run(range(8))], Rows(), ALL)
        assert len(received(bench)) == 8
        bench.virt.set(address=bytes(6))
        bench.wire.update()
        bench.wire.out.put_all([run(range(8))], Rows(), ALL)
        assert received(bench) == []
        assert (bench.counters.tx_frames, bench.counters.tx_spoofed) == (8, 8)


def test_what_the_tap_does_not_take_is_counted() -> None:
    with wire() as bench:
        bench.down()
        bench.wire.out.put_all([run(range(20))], Rows(), ALL)
        assert sent(bench) == (0, 0, 20)
        bench.up()
        bench.wire.out.put_all([run(range(20))], Rows(), ALL)
        assert sent(bench) == (20, 1200, 20)


def test_a_tap_that_vanishes() -> None:
    with wire() as bench:
        bench.gone = bench.lose
        bench.wire.out.put_all([run(range(8))], Rows(), ALL)
        bench.tap.vanish()
        assert refusal(bench.wire.out.put_all, [run(range(8))], Rows(), ALL) == errno.ENXIO
        assert bench.virt.lost
        assert sent(bench) == (8, 480, 0)


def test_strict_refuses_a_run_s_first() -> None:
    with wire() as bench:
        bench.virt.set(strict=True)
        assert refusal(bench.wire.out.put_all, [run(range(8), 13)], Rows(), ALL) == errno.EMSGSIZE
        assert bench.counters.tx_short == 1


def test_what_lies_before_a_frame_stays_in_the_file() -> None:
    """The bytes before each frame are overwritten only in a copy."""
    heads = [struct.pack("<IIII", number, number, 60, 60) for number in range(8)]
    data = b"".join(head + frame(number) for number, head in enumerate(heads))
    with wire() as bench:
        bench.wire.out.put_all([Run(data, 16, 60, 76, 8)], Rows(), ALL)
    assert [data[at : at + 16] for at in range(0, len(data), 76)] == heads


SIZES = [14, 60, 1514, 61, 15, 900] * 4


def mixed(number: int = 0) -> list[bytes]:
    """Return frames of different lengths, numbered from `number` on."""
    return [frame(number + index, size) for index, size in enumerate(SIZES)]


def spans(frames: Iterable[bytes]) -> Spans:
    """Return frames as the compiled module finds them in a file."""
    data, found = b"", b""
    for one in frames:
        found += struct.pack("=II", len(data) + GAP, len(one))
        data += os.urandom(GAP) + one
    return Spans(data, found)


def without_the_compiled_module(frames: Iterable[bytes]) -> Iterator[bytes]:
    return spans(frames).singly()


SINGLES = pytest.mark.parametrize("singles", [iter, spans, without_the_compiled_module])
Singles = Callable[[Iterable[bytes]], Group]


@SINGLES
def test_frames_of_mixed_lengths_keep_their_order(singles: Singles) -> None:
    with wire() as bench:
        frames = mixed()
        assert (
            bench.wire.out.put_all([singles(frames[:10]), run(range(90, 99)), singles(frames[10:])], Rows(), ALL) == 33
        )
        assert received(bench) == [*frames[:10], *(frame(number) for number in range(90, 99)), *frames[10:]]
        assert sent(bench) == (33, sum(SIZES) + 9 * 60, 0)


@pytest.mark.parametrize(
    ("size", "counter"), [(13, "tx_short"), (0, "tx_short"), (1519, "tx_oversize"), (70_000, "tx_oversize")]
)
@SINGLES
def test_among_mixed_lengths_only_frames_that_do_not_fit_are_dropped(singles: Singles, size: int, counter: str) -> None:
    with wire() as bench:
        frames = mixed()
        bench.wire.out.put_all([singles([*frames[:7], frame(99, size), *frames[7:]])], Rows(), ALL)
        assert received(bench) == frames
        assert sent(bench) == (len(frames), sum(SIZES), 1)
        assert getattr(bench.counters, counter) == 1


@SINGLES
def test_mixed_lengths_that_the_tap_does_not_take_are_counted(singles: Singles) -> None:
    """The fake tap takes some frames, then none."""
    with wire() as bench:
        frames = [frame(number, 1000 + number) for number in range(300)]
        bench.wire.out.put_all([singles(frames)], Rows(), ALL)
        came = received(bench)
        assert came == frames[: len(came)]
        assert 0 < len(came) < 300
        assert sent(bench) == (len(came), sum(map(len, came)), 300 - len(came))


def test_a_tap_that_vanishes_amid_mixed_lengths() -> None:
    with wire() as bench:
        bench.gone = bench.lose
        write, frames = bench.wire.out.tap_write, mixed()
        left = iter(range(5, -1, -1))

        def vanish_later(packet: Any) -> Any:
            if not next(left):
                bench.tap.vanish()
            return write(packet)

        bench.wire.out.tap_write = vanish_later
        assert refusal(bench.wire.out.put_all, [iter(frames)], Rows(), ALL) == errno.ENXIO
        assert sent(bench) == (5, sum(SIZES[:5]), 0)


@SINGLES
def test_a_tap_that_has_vanished_before_mixed_lengths(singles: Singles) -> None:
    with wire() as bench:
        bench.gone = bench.lose
        bench.tap.vanish()
        assert refusal(bench.wire.out.put_all, [singles(mixed())], Rows(), ALL) == errno.ENXIO
        assert sent(bench) == (0, 0, 0)


def test_the_compiled_module_is_used_if_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def write_frames(*_: Any) -> tuple[int, int, int]:
        calls.append(1)
        return len(SIZES), 0, 0

    monkeypatch.setattr(tapframes, "write_frames", write_frames)
    with wire() as bench:
        bench.wire.out.put_all([spans(mixed())], Rows(), ALL)
        assert (calls, received(bench)) == ([1], [])
        monkeypatch.setenv("VIRTFS_COMPILED", "no")
        bench.wire.out.put_all([spans(mixed())], Rows(), ALL)
        assert (calls, received(bench)) == ([1], mixed())


def test_the_compiled_module_stays_within_the_data() -> None:
    with wire() as bench, pytest.raises(ValueError, match="past the end"):
        bench.wire.out.put_all([Spans(bytes(70), struct.pack("=II", 16, 60))], Rows(), ALL)
