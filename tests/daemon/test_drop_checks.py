"""How often the server asks the kernel for dropped frames: only while a program could learn of them from `events`."""

import errno
from collections.abc import Callable, Coroutine

import pytest
import trio
import trio.testing

from virtfs.core.errors import VirtError
from virtfs.daemon.drop_checks import SHARE, DropChecks
from virtfs.daemon.interface import Interface
from virtfs.files.device import DeviceHandle

from .bench import SUPER, Bench, daemon

WHILE = 100  # seconds


def asked(prepare: Callable[[Bench], Coroutine[None, None, None]], lasts: float = 0) -> int:
    """Return how often the kernel is asked within WHILE seconds. lasts: how many seconds each answer takes."""
    times = 0

    async def main() -> None:
        async with daemon() as bench, trio.open_nursery() as nursery:
            await prepare(bench)
            made, follower = bench.daemon, bench.daemon.follower
            refresh_all = follower.refresh_all

            async def counting(only_up: bool = False) -> None:
                nonlocal times
                times += 1
                await trio.sleep(lasts)
                await refresh_all(only_up)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(follower, "refresh_all", counting)
                nursery.start_soon(DropChecks(made.registry, follower, made.events).run)
                await trio.sleep(WHILE - 0.5)
                nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return times


def follow(bench: Bench) -> DeviceHandle:
    """Open `events`."""
    handle = bench.daemon.events.admit(0, SUPER)
    assert isinstance(handle, DeviceHandle)
    return handle


async def followed(bench: Bench) -> None:
    await bench.say("create 3 up\ncreate 4 up")
    follow(bench)


def test_one_question_a_second() -> None:
    """It is about all interfaces."""
    assert asked(followed) == WHILE


def test_answers_that_take_long_are_asked_for_less_often() -> None:
    """Each tap in another network namespace needs a query of its own."""
    period = 1 + 1 / SHARE
    assert asked(followed, lasts=1) == WHILE // period + 1


def test_none_while_nobody_reads_events() -> None:
    async def closed(bench: Bench) -> None:
        await followed(bench)
        for handle in bench.daemon.events.opens:
            handle.release()

    assert asked(closed) == 0


def test_none_while_no_interface_is_up() -> None:
    async def down(bench: Bench) -> None:
        await followed(bench)
        await bench.say("virt3 down\nvirt4 down")

    assert asked(down) == 0


def test_one_that_cannot_be_asked_about_leaves_the_others_counted() -> None:
    """Otherwise the interfaces after it would have no event as long as the fault lasts."""

    async def main() -> list[str]:
        looked_at: list[str] = []
        async with daemon() as bench:
            await bench.say("create 3 up\ncreate 4 up\ncreate 5 up")
            follower = bench.daemon.follower

            async def refresh(interface: Interface) -> None:
                looked_at.append(interface.virt.name)
                if interface.virt.unit == 3:
                    raise VirtError(errno.ENOMEM, "no memory")

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(follower, "refresh", refresh)
                patch.setattr(bench.daemon.kernel.links, "dropped", dict)  # so each is asked about by itself
                with pytest.raises(VirtError, match="no memory"):
                    await follower.refresh_all()
        return looked_at

    assert trio.run(main) == ["virt3", "virt4", "virt5"]
