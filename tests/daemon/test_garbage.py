"""When the garbage collector runs."""

import gc

import pytest
import trio
from harness.in_trio import in_trio
from harness.waiting import PATIENCE

from virtfs.daemon import garbage
from virtfs.daemon.garbage import MANY, Garbage


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda: calls.append("collect"))
    return calls


def test_many_destroyed_interfaces_are_collected_when_others_are_made(collected: list[str]) -> None:
    one = Garbage()
    for _ in range(MANY - 1):
        one.destroyed()
    one.made(1)
    assert collected == []
    one.destroyed()
    assert collected == []
    one.made(2)
    one.made(3)
    assert collected == ["collect"]


def test_the_more_exist_the_more_must_be_destroyed(collected: list[str]) -> None:
    one = Garbage()
    for _ in range(MANY):
        one.destroyed()
    one.made(5 * MANY)
    assert collected == []
    one.made(4 * MANY)
    assert collected == ["collect"]


@in_trio
async def test_the_rest_is_collected_once_in_a_while(collected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "WHILE", 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Garbage().run)
        with trio.fail_after(PATIENCE):
            while not collected:
                await trio.sleep(0)
        nursery.cancel_scope.cancel()


def test_growth_is_exempted_from_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda generation: calls.append(f"collect {generation}"))
    monkeypatch.setattr(gc, "freeze", lambda: calls.append("freeze"))
    one = Garbage()
    for number in range(1, 2 * MANY):
        one.made(number)
    assert calls == ["collect 1", "freeze"]
    one.destroyed()
    one.made(2 * MANY)
    assert calls == ["collect 1", "freeze"], "garbage of destroyed interfaces must not be exempted"
