"""What the garbage collector examines, and when."""

import gc

import pytest
import trio
from harness.in_trio import in_trio
from harness.waiting import PATIENCE

from virtfs.daemon import garbage
from virtfs.daemon.garbage import FILES, INTERFACE, MANY, Garbage
from virtfs.files.node import Directory

from .bench import daemon


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda generation=2: made.append(f"collect {generation}"))
    monkeypatch.setattr(gc, "freeze", lambda: made.append("freeze"))
    return made


def test_growth_is_exempted_but_not_young_garbage(calls: list[str]) -> None:
    one = Garbage()
    one.grown(MANY - 1)
    assert calls == []
    one.grown(1)
    assert calls == ["collect 1", "freeze"]
    one.grown(MANY - 1)
    assert calls == ["collect 1", "freeze"]


@in_trio
async def test_all_garbage_is_collected_once_in_a_while(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "WHILE", 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Garbage().run)
        with trio.fail_after(PATIENCE):
            while len(calls) < 2:
                await trio.sleep(0)
        nursery.cancel_scope.cancel()
    assert calls[:2] == ["collect 2", "freeze"]


@in_trio
async def test_interfaces_and_their_files_are_exempted(calls: list[str]) -> None:
    async with daemon() as bench:
        many = MANY // INTERFACE + 1
        await bench.say("".join(f"create {unit}\n" for unit in range(many)))
        assert calls.count("freeze") == 1
        for unit in range(MANY // FILES + 1):
            directory = bench.daemon.root.children[f"virt{unit}"]
            assert isinstance(directory, Directory)
            assert directory.children
        assert calls.count("freeze") == 2
        assert "collect 2" not in calls
