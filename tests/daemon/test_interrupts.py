"""A signal to a writer: it ends the wait, and a line has run whole or not at all."""

import os
from collections.abc import Awaitable, Callable

import pytest
import trio
from harness.in_trio import in_trio

from virtfs.core.grammar import Action
from virtfs.core.ids import Unit
from virtfs.core.script import Script
from virtfs.files.device import DeviceHandle

from .bench import ALICE, SUPER, Bench, daemon


async def _open_clone(bench: Bench) -> None:
    await bench.daemon.commands.make_clone(ALICE)


async def _open_frame(bench: Bench) -> None:
    opening = bench.registry.get(Unit(3)).ports.frame.open(os.O_RDWR, ALICE)
    assert not isinstance(opening, DeviceHandle), "upopen makes the open wait"
    await opening


CALLS: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "ctl": lambda bench: bench.say("virt3 mtu 1400 strict"),
    "an interface's ctl": lambda bench: bench.say("mtu 1400 strict", ALICE, unit=3),
    "create": lambda bench: bench.say("create 4 mtu 1400 up"),
    "destroy": lambda bench: bench.say("destroy 3"),
    "cable": lambda bench: bench.say("cable 3 5"),
    "a value": lambda bench: bench.daemon.commands.set_value(bench.virt(3), "mtu", b"1400\n", ALICE),
    "chmod": lambda bench: bench.daemon.commands.change(bench.virt(3), (Action("mode", (0o640,)),), ALICE),
    "clone": _open_clone,
    "frame with upopen": _open_frame,
}


async def prepared(bench: Bench) -> None:
    await bench.say("create 3 owner 1000 upopen\ncreate 5")


@pytest.mark.parametrize("call", CALLS)
@in_trio
async def test_the_wait_for_other_commands(call: str) -> None:
    async with daemon() as bench:
        await prepared(bench)
        before = bench.ctl(), bench.names()
        async with bench.daemon.commands.lines.lock:
            with trio.CancelScope() as signal:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(CALLS[call], bench)
                    await trio.testing.wait_all_tasks_blocked()
                    signal.cancel()
            assert signal.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert (bench.ctl(), bench.names()) == before
        await bench.say("strict", ALICE, unit=3)  # nothing still counts as waiting
        assert not bench.daemon.commands._waiting


@pytest.mark.parametrize("call", CALLS)
@in_trio
async def test_at_every_point_of_a_line(call: str) -> None:
    outcomes = []
    for steps in range(40):
        async with daemon() as bench:
            await prepared(bench)
            before, outcome = bench.ctl().replace("upopen", ""), ""
            with trio.CancelScope() as signal:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(CALLS[call], bench)
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    signal.cancel()
            await trio.testing.wait_all_tasks_blocked()
            outcome = "nothing" if bench.ctl().replace("upopen", "") == before else _without_macs(bench.ctl())
            outcomes.append(outcome)
    assert outcomes[0] == "nothing"
    assert len(set(outcomes)) <= 2, "a line has run whole or not at all"


def _without_macs(text: str) -> str:
    words = text.split(" ")
    return " ".join(word for word, before in zip(words, ["", *words], strict=False) if not before.endswith("link"))


@in_trio
async def test_a_script_ends_between_two_lines() -> None:
    async with daemon() as bench:
        await prepared(bench)
        script = Script()
        text = "".join(f"mtu {1000 + n}\n" for n in range(100)) + "#" * 4096 + "\nunfin"
        with trio.CancelScope() as signal:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: bench.say(text, ALICE, unit=3, script=script))
                while bench.virt(3).host.mtu != 1020:
                    await trio.lowlevel.checkpoint()
                signal.cancel()
        taken = script.give_back()
        assert text.encode()[:taken].splitlines()[-1] == f"mtu {bench.virt(3).host.mtu}".encode()
        assert script.rest() == ""
        await bench.say(text[taken:], SUPER, unit=3, script=script)
        assert bench.virt(3).host.mtu == 1099
        assert script.rest() == "unfin"
