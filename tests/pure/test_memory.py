"""The accountant: what it refuses, and that what is charged is given back."""

import errno
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfs.core.errors import VirtError
from virtfs.core.ids import Uid
from virtfs.core.memory import PARTED, SHARES, Hold, Kind, Memory

ROOT, ALICE, BOB = Uid(0), Uid(1000), Uid(1001)
MAN = Path(__file__).parents[2] / "man/virtfs.5"


def fills(hold: Hold, step: int = 1000) -> int:
    """Grow a Hold until it is refused, and return its size."""
    with pytest.raises(VirtError) as refused:
        while True:
            hold.grow(step)
    assert refused.value.errno == errno.ENOBUFS
    return hold.size


def test_each_level_has_its_share() -> None:
    memory = Memory(1_200_000, 120_000)
    assert fills(memory.hold(Kind.HISTORY, ALICE)) == 40_000
    assert fills(memory.hold(Kind.CAPTURES, ALICE)) == 0, "kinds of one level share it"
    assert fills(memory.hold(Kind.FRAMES, ALICE)) == 20_000
    assert fills(memory.hold(Kind.CONTENTS, ALICE)) == 45_000
    assert fills(memory.hold(Kind.OPENS, ALICE)) == 15_000
    assert fills(memory.hold(Kind.HISTORY, BOB)) == 40_000


def test_a_lower_level_cannot_exceed_the_limit() -> None:
    memory = Memory(1_000_000, 100_000)
    assert fills(memory.hold(Kind.OPENS, ALICE)) == 100_000
    assert fills(memory.hold(Kind.FRAMES, ALICE)) == 0


def test_the_last_eighth_is_for_root() -> None:
    memory = Memory(80_000, 60_000)
    assert fills(memory.hold(Kind.OPENS, ALICE)) == 60_000
    assert fills(memory.hold(Kind.OPENS, BOB)) == 10_000
    assert fills(memory.hold(Kind.OPENS, ROOT)) == 10_000
    with pytest.raises(VirtError, match=r"this mount holds 80000 of 80000 bytes \(mount option max_memory\)"):
        memory.hold(Kind.OPENS, ROOT).resize(1)


def test_the_sentence_names_the_option() -> None:
    hold = Memory(80_000, 1000).hold(Kind.INPUT, ALICE)
    hold.resize(800)
    with pytest.raises(VirtError, match=r"user 1000 holds 800 of 1000 bytes \(mount option max_user_memory\)"):
        hold.resize(900)
    assert hold.size == 800, "a refused change changes nothing"


def test_a_hold_follows_its_payer() -> None:
    """A buffer that grows after its interface got another owner is charged to the new owner."""
    memory, owner = Memory(), [ALICE]
    hold = memory.hold(Kind.FRAMES, lambda: owner[0])
    hold.resize(1000)
    owner[0] = BOB
    hold.resize(500)
    assert (memory.users[ALICE].used, BOB in memory.users) == (500, False)
    hold.resize(600)
    assert (ALICE in memory.users, memory.users[BOB].used) == (False, 600)
    hold.release()
    assert memory.users == {}


def test_who_was_refused_is_still_named_when_all_is_given_back() -> None:
    """An alert about refusals comes minutes later, when the program at the limit may have ended."""
    memory = Memory(80_000, 1000)
    hold, other = memory.hold(Kind.OPENS, ALICE), memory.hold(Kind.OPENS, BOB)
    other.resize(500)
    other.release()
    for _ in range(2):
        assert fills(hold, 400) == 800
        hold.release()
    assert memory.text().splitlines()[2:] == ["1000 opens 0 800 2"], "and nobody else"
    with pytest.raises(VirtError):
        memory.hold(Kind.INPUT, BOB).resize(2000)
    assert memory.text().splitlines()[3:] == ["1000 opens 0 800 2", "1001 input 0 0 1"]
    for uid in range(2000, 2000 + PARTED):
        with pytest.raises(VirtError):
            memory.hold(Kind.INPUT, Uid(uid)).resize(2000)
    named = {int(line.split()[0]) for line in memory.text().splitlines() if line[0].isdigit()}
    assert named == set(range(2000, 2000 + PARTED)), "their number is bounded"


@pytest.mark.parametrize("size", [1, 100, 10_000, 1_000_000])
def test_a_growing_buffer_needs_few_calls(size: int) -> None:
    memory, calls, now = Memory(), 0, 0
    hold = memory.hold(Kind.FRAMES)
    while now < size:
        now += 60
        if now > hold.size:
            assert hold.cover(now)
            calls += 1
    assert calls <= 1 + size / 2000
    assert calls <= 60
    assert now <= hold.size <= 2 * now + 4096


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5), st.sampled_from(["resize", "cover", "relax", "force", "release"]), st.integers(0, 3000)
        )
    )
)
def test_the_books_balance(steps: list[tuple[int, str, int]]) -> None:
    memory = Memory(12_000, 6000)
    users = [ROOT, ALICE, BOB]
    holds = [memory.hold(kind, uid) for kind in (Kind.FRAMES, Kind.OPENS) for uid in users]
    for number, step, size in steps:
        hold = holds[number]
        before = hold.size
        try:
            getattr(hold, step)(*([] if step == "release" else [size]))
        except VirtError:
            assert hold.size == before
        assert memory.all.used == sum(hold.size for hold in holds)
        for position, uid in enumerate(users):
            used = memory.users[uid].used if uid in memory.users else 0
            assert used == sum(hold.size for hold in holds[position::3])
    for hold in holds:
        hold.release()
    assert (memory.users, memory.left(Kind)) == ({}, {})
    assert all(usage.now == 0 for usage in memory.all.kinds.values())


def test_the_manual_has_each_kind_and_its_share() -> None:
    section = MAN.read_text().partition(".Sh MEMORY\n")[2].partition(".Sh ")[0]
    rows = re.findall(r"^\.It Li (\w+) Ta ([\d/]+) Ta ", section, re.MULTILINE)
    assert rows == [(kind.label, str(SHARES[kind.level])) for kind in Kind]
