"""The queue of frames that wait for a reader."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfs.core import framequeue
from virtfs.core.framequeue import FrameQueue
from virtfs.core.memory import Kind, Memory


def test_first_in_first_out() -> None:
    queue = FrameQueue(Memory().hold(Kind.FRAMES))
    assert [queue.add(frame, 2) for frame in (b"one", b"two", b"three")] == [0, 0, 1]
    assert (queue.next_length(), queue.take(), queue.take(), queue.next_length()) == (3, b"one", b"two", 0)


def test_the_last_are_kept() -> None:
    queue = FrameQueue(Memory().hold(Kind.FRAMES))
    assert [queue.keep(frame, 2) for frame in (b"1", b"2", b"3")] == [0, 0, 1]
    assert queue.trim(1) == 1
    assert (queue.take(), len(queue)) == (b"3", 0)


def test_bytes_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framequeue, "BYTES", 2 * (4 + framequeue.EACH))
    queue = FrameQueue(Memory().hold(Kind.FRAMES))
    assert [queue.add(bytes(4), 100) for _ in range(3)] == [0, 0, 1]
    assert queue.keep(bytes(9), 100) == 2
    assert queue.next_length() == 9


@given(st.lists(st.tuples(st.sampled_from(["add", "keep", "take", "trim"]), st.integers(0, 5))))
def test_nothing_is_lost_uncounted(steps: list[tuple[str, int]]) -> None:
    queue, put, taken, dropped = FrameQueue(Memory().hold(Kind.FRAMES)), 0, 0, 0
    for step, most in steps:
        if step == "take":
            if queue:
                queue.take()
                taken += 1
        elif step == "trim":
            dropped += queue.trim(most)
            assert len(queue) <= most
        else:
            put += 1
            dropped += (queue.add if step == "add" else queue.keep)(b"x", most)
    assert put == taken + dropped + len(queue)
