"""The text of ctl is a snapshot, but most of its work is done in steps before, between which other tasks run."""

from collections.abc import Iterator

import pytest
from harness.in_trio import in_trio

from virtfs.core.virt import Virt
from virtfs.daemon.state import State

from .bench import Bench, daemon

COUNT = 30


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the interfaces whose lines have been made, in order."""
    names: list[str] = []
    real = State._make_lines

    def make_lines(self: State, virt: Virt) -> list[str]:
        names.append(virt.name)
        return real(self, virt)

    monkeypatch.setattr(State, "_make_lines", make_lines)
    return names


async def filled(bench: Bench) -> None:
    await bench.say("".join(f"create {unit}\n" for unit in range(COUNT)))


def before_last(pieces: Iterator[str]) -> None:
    """Take all pieces except the last, which is the only one with text."""
    for _ in range(COUNT):
        assert next(pieces) == ""


@in_trio
async def test_each_step_makes_the_lines_of_one_interface(made: list[str]) -> None:
    async with daemon() as bench:
        await filled(bench)
        made.clear()
        for number, _piece in enumerate(bench.daemon.state.pieces(), start=1):
            assert len(made) == min(number, COUNT)
        assert made == [f"virt{unit}" for unit in range(COUNT)]
        made.clear()
        assert "".join(bench.daemon.state.pieces()) == bench.daemon.state.text() == bench.ctl()
        assert made == [], "lines are kept until the interface changes"


@in_trio
async def test_the_text_is_that_of_the_moment_of_its_last_piece(made: list[str]) -> None:
    async with daemon() as bench:
        await filled(bench)
        pieces = bench.daemon.state.pieces()
        before_last(pieces)
        made.clear()
        await bench.say("virt3 description new\ndestroy 4\ncreate 4 mtu 1300\ndestroy 5\ncreate 77")
        text = next(pieces)
        assert sorted(made) == ["virt3", "virt4", "virt77"]
        assert text == bench.daemon.state.text()
        assert "description new" in text
        assert "create 5 " not in text
        assert text.count("\n") == COUNT


@in_trio
async def test_lines_of_destroyed_interfaces_are_dropped() -> None:
    async with daemon() as bench:
        await filled(bench)
        bench.daemon.state.text()
        await bench.say("".join(f"destroy {unit}\n" for unit in range(COUNT)))
        assert bench.daemon.state.text() == ""
        assert not bench.daemon.state._made
