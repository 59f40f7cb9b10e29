"""virtfs.aio: ports, events and waits for tasks, under trio and under asyncio."""

import errno
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import pytest
from harness import programs
from harness.serving import Mount, frame
from harness.waiting import PATIENCE

import virtfs

from .waiting import fails

T = TypeVar("T")
Host = Callable[..., None]


@pytest.fixture(params=["trio", "asyncio"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def host(mount: Mount, v: virtfs.Virt) -> Host:
    """Return a function that sends frames from the host through the tap of virt3."""
    wire = mount.root.call(programs.wire, "tap3")
    return lambda *frames: mount.root.call(programs.send, wire, frames)


def run(backend: str, main: Callable[[], Awaitable[T]]) -> T:
    """Run a task with a time limit."""

    async def limited() -> T:
        with anyio.fail_after(PATIENCE):
            return await main()

    return anyio.run(limited, backend=backend)


def test_frames_both_ways(backend: str, v: virtfs.Virt, host: Host) -> None:
    async def main() -> list[bytes]:
        async with virtfs.aio.open(v) as port, anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, host, *(frame(60, number) for number in range(3)))
            got = [await port.recv()]
            await port.send(frame(60))
            async for received in port:
                got.append(received)
                if len(got) == 3:
                    return got
        raise AssertionError("the iteration has ended")

    assert run(backend, main) == [frame(60, number) for number in range(3)]
    assert v.stats["tx_frames"] == 1


def test_the_end_of_an_interface(backend: str, net: virtfs.Mount, v: virtfs.Virt) -> None:
    async def main() -> None:
        async with virtfs.aio.open(v.path / "frame") as port, anyio.create_task_group() as tasks:
            tasks.start_soon(lower)
            with fails(errno.EHOSTDOWN, "virt3/frame"):
                await port.recv()
            tasks.start_soon(anyio.to_thread.run_sync, net.destroy, 3)
            with fails(errno.ENXIO, "virt3/frame"):
                while True:
                    try:
                        await port.recv()
                    except OSError as error:
                        if error.errno != errno.EHOSTDOWN:
                            raise
                        await anyio.lowlevel.checkpoint()

    async def lower() -> None:
        await anyio.wait_all_tasks_blocked()
        v.up = False

    run(backend, main)


def test_tasks_share_a_port(backend: str, v: virtfs.Virt, host: Host) -> None:
    """Each of them gets another frame, and those that still wait at the end get an error each."""
    got: list[bytes] = []
    ended: list[type[BaseException]] = []

    async def receive(port: virtfs.aio.Port) -> None:
        try:
            got.append(await port.recv())
        except (OSError, anyio.ClosedResourceError) as error:
            ended.append(type(error))

    async def main() -> None:
        frames = [frame(60, number) for number in range(3)]
        async with virtfs.aio.open(v) as port, anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(receive, port)
            await anyio.wait_all_tasks_blocked()
            await anyio.to_thread.run_sync(host, *frames)
            while len(got) < len(frames):
                await anyio.sleep(0.01)
            port.close()
        assert sorted(got) == sorted(frames)
        assert ended == [anyio.ClosedResourceError] * 2

    run(backend, main)


def test_cancellation_loses_no_frame(backend: str, v: virtfs.Virt, host: Host) -> None:
    async def main() -> None:
        async with virtfs.aio.open(v) as port:
            with anyio.move_on_after(0.01):
                await port.recv()
            host(frame(60, 1))
            with anyio.CancelScope() as scope:
                scope.cancel()
                await port.recv()
            assert await port.recv() == frame(60, 1)
            assert scope.cancelled_caught

    run(backend, main)


def test_a_stream_has_many_frames(backend: str, v: virtfs.Virt, host: Host) -> None:
    frames = [frame(60 + number, number) for number in range(40)]

    async def main() -> None:
        async with virtfs.aio.stream(v) as stream:
            await stream.send(iter(frames))
            assert v.stats["tx_frames"] == 40
            await anyio.to_thread.run_sync(host, *frames)
            async for received in stream:
                assert received == frames[0]
                break
            rest: list[bytes] = []
            while len(rest) < 39:
                rest += await stream.recv()
            assert rest == frames[1:]
            with pytest.raises(TypeError, match="an iterable of frames"):
                await stream.send(frames[0])  # type: ignore[arg-type]
            v.up = False
            with fails(errno.EHOSTDOWN, "virt3/stream"):
                await stream.recv()

    run(backend, main)


def test_a_quiet_stream_does_not_delay_a_time_out(backend: str, v: virtfs.Virt, host: Host) -> None:
    """Neither Ctrl-C nor another cancellation waits for a frame, and none loses one."""

    async def main() -> None:
        async with virtfs.aio.stream(v, "r") as stream:
            with anyio.move_on_after(0.01) as over:
                await stream.recv()
            assert over.cancelled_caught
            host(frame(60, 1), frame(60, 2))
            assert await anext(aiter(stream)) == frame(60, 1)
            for _ in range(2):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await stream.recv()
                assert scope.cancelled_caught
            assert await stream.recv() == [frame(60, 2)]

    run(backend, main)


def test_tasks_share_a_stream(backend: str, v: virtfs.Virt, host: Host) -> None:
    """Each frame goes to one of them. Frames that several tasks send are whole, and a started send ends."""
    got: list[bytes] = []

    async def receive(stream: virtfs.aio.Stream, all_received: anyio.Event) -> None:
        while True:
            got.extend(await stream.recv())
            if len(got) == 30:
                all_received.set()

    async def main() -> None:
        async with virtfs.aio.stream(v) as stream:
            async with anyio.create_task_group() as tasks:
                for number in range(3):
                    tasks.start_soon(stream.send, [frame(1514, number)] * 1500)  # more than one write(2) takes
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
            sent, rest = divmod(int(v.stats["tx_frames"]), 1500)
            assert (sent > 0, rest) == (True, 0)
            await stream.send([frame(60)])
            assert v.stats["tx_frames"] == 1500 * sent + 1
            assert v.stats["tx_dropped"] == 0
            async with anyio.create_task_group() as tasks:
                all_received = anyio.Event()
                for _ in range(3):
                    tasks.start_soon(receive, stream, all_received)
                for number in range(30):
                    await anyio.to_thread.run_sync(host, frame(60, number))
                await all_received.wait()
                tasks.cancel_scope.cancel()
        assert sorted(got) == sorted(frame(60, number) for number in range(30))

    run(backend, main)


def test_closing_wakes_a_task(backend: str, v: virtfs.Virt) -> None:
    async def main() -> None:
        port = virtfs.aio.open(v)
        with pytest.raises(ValueError, match="async with"):
            port.fileno()

        async def close() -> None:
            await anyio.wait_all_tasks_blocked()
            port.close()
            port.close()

        async with port, anyio.create_task_group() as tasks:
            tasks.start_soon(close)
            with pytest.raises(anyio.ClosedResourceError, match="virt3/frame was closed by another task") as caught:
                await port.recv()
        with pytest.raises(ValueError, match="virt3/frame is closed"):
            await port.recv()
        error: BaseException | None = caught.value
        while error is not None:
            assert not isinstance(error, BlockingIOError), "a traceback would show it"
            error = error.__context__

    run(backend, main)


def test_an_open_that_is_refused(backend: str, v: virtfs.Virt) -> None:
    async def main() -> None:
        async with virtfs.aio.open(v, "r"):
            with fails(errno.EBUSY, "virt3 is already open for reading"):
                async with virtfs.aio.open(v, "r"):
                    pass
        async with virtfs.aio.open(v, "w") as port:
            with pytest.raises(ValueError, match="a frame cannot be empty"):
                await port.send(b"")
        v.strict = True
        async with virtfs.aio.open(v, "w") as port:
            with fails(errno.EMSGSIZE, "virt3/frame: .*virt3/frame"):
                await port.send(b"short")

    run(backend, main)


def test_events_and_waits(backend: str, net: virtfs.Mount, v: virtfs.Virt) -> None:
    async def main() -> list[str]:
        async with virtfs.aio.events(net) as events, anyio.create_task_group() as tasks:
            tasks.start_soon(virtfs.aio.wait, v, "down")
            await anyio.wait_all_tasks_blocked()
            v.up = False
            v.mtu = 1400
            got = [(await events.get()).kind]
            async for event in events:
                got.append(event.kind)
                if event.kind == "mtu":
                    return [*got]
        raise AssertionError("the iteration has ended")

    told = run(backend, main)
    assert "down" in told
    with pytest.raises(OSError, match="virt3") as caught:
        run(backend, lambda: gone(net, v))
    assert caught.value.errno in (errno.ENXIO, errno.ENOENT), "the file was open, or had not been opened yet"


async def gone(net: virtfs.Mount, v: virtfs.Virt) -> None:
    """Wait for an interface that is destroyed meanwhile."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_destroy, net)
        try:
            await virtfs.aio.wait(v, "up")
        except OSError as error:
            caught = error
    raise caught


async def _destroy(net: virtfs.Mount) -> None:
    await anyio.wait_all_tasks_blocked()
    net.destroy(3)
