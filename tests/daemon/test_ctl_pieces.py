"""The text of ctl is a snapshot, but most of its work is done in steps before, between which other tasks run."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Interface

import pytest
from harness.in_trio import in_trio

from virtfs.core.bridge import Bridge, BridgeState, Member
from virtfs.core.ids import BridgeName
from virtfs.core.virt import Virt
from virtfs.daemon import bridge_lines
from virtfs.daemon.bridge_registry import BridgeRegistry, Managed
from virtfs.daemon.state import State
from virtfs.host.bridge_adopt import Adoptions

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


BRIDGES = 5


def bridged(bench: Bench) -> BridgeRegistry:
    """Return bridges of two taps each. Members 1, 3, 5 … do not learn."""
    bridges = bench.daemon.bridge_follower._bridges
    for number in range(BRIDGES):
        members = tuple(
            Member(f"tap{unit}", number=unit % 2 + 1, learn=unit % 2 == 0, index=bench.virt(unit).host.index)
            for unit in (2 * number, 2 * number + 1)
        )
        bridge = Bridge(BridgeName(f"bridge{number}"), BridgeState(members=members))
        bridges.add(Managed(bridge, 1000 + number, None, {}, Adoptions()))
    return bridges


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the bridges whose lines have been made, in order."""
    names: list[str] = []
    real = bridge_lines.before

    def before(name: BridgeName, state: BridgeState, taps: frozenset[str]) -> Iterator[str]:
        names.append(name)
        return real(name, state, taps)

    monkeypatch.setattr(bridge_lines, "before", before)
    return names


@in_trio
async def test_each_step_makes_the_lines_of_one_bridge(described: list[str]) -> None:
    async with daemon() as bench:
        await filled(bench)
        bridges = bridged(bench)
        pieces = bench.daemon.state.pieces()
        before_last(pieces)
        for number in range(BRIDGES):
            assert len(described) == number
            assert next(pieces) == ""
        text = next(pieces)
        assert described == [f"bridge{number}" for number in range(BRIDGES)]
        for number in range(BRIDGES):
            assert f"bridge{number} -learn tap{2 * number + 1}\n" in text
        for managed in bridges:
            bridges.store(managed, replace(managed.bridge.state))
        assert bench.ctl() == bench.daemon.state.text() == text
        assert len(described) == BRIDGES, "lines are kept until something changes"
        for managed in bridges:
            bridges.remove(managed)
        assert "bridge" not in bench.ctl()
        assert not bench.daemon.state._bridges._made


@in_trio
async def test_the_lines_of_bridges_are_those_of_the_moment_of_the_last_piece(described: list[str]) -> None:
    async with daemon() as bench:
        await filled(bench)
        bridges = bridged(bench)
        pieces = bench.daemon.state.pieces()
        for _ in range(COUNT + BRIDGES):
            assert next(pieces) == ""
        described.clear()
        one, _, three, *_ = bridges
        bridges.store(one, replace(one.bridge.state, mtu=1300))
        bench.registry.get(bench.virt(3).unit).lose()  # its line joins it to no bridge
        await bench.say("destroy 5")
        address = IPv4Interface("192.0.2.1/24")
        bridges.store(three, replace(three.bridge.state, addresses=(address,)))
        text = next(pieces)
        assert described == ["bridge0", "bridge1", "bridge2"]
        assert text == bench.daemon.state.text()
        assert "create bridge0 mtu 1300\n" in text
        assert "bridge1 -learn" not in text
        assert f"create bridge2 inet {address}\n" in text
        described.clear()
        three.adoptions.recalled["tap4"] = frozenset((address,))  # the state is the same
        assert f"# adopted: bridge2 tap4 {address}\n" in bench.ctl()
        assert described == ["bridge2"]
        for managed in bridges:
            bridges.remove(managed)
