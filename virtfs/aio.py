"""Ports, streams and events for asyncio and trio, through anyio.

    async with virtfs.aio.open(v) as port:
        await port.send(frame)
        async for frame in port:
            ...

This module has only the calls that wait for frames, events or conditions. For everything else, use virtfs itself, as
in `v.mtu = 1400`. A call that changes something blocks for a few milliseconds while the kernel works. To keep the event
loop running, make such a call in a thread, as in `anyio.to_thread.run_sync(net.create, 3)`.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from virtfs.client import events as sync_events
from virtfs.client.events import Event
from virtfs.client.folder import about, named, told
from virtfs.client.mount import Mount
from virtfs.client.port import ROOM, Mode, Opened, check_not_empty, flags_of
from virtfs.client.stream import ROOM as STREAM_ROOM
from virtfs.client.stream import Records, records
from virtfs.client.virt import Condition, Virt

__all__ = ["Events", "Port", "Stream", "events", "open", "stream", "wait"]

A = TypeVar("A", bound="_Async")


class _Async:
    """A file of a mount, which `async with` opens and closes. Reads wait in the event loop."""

    def __init__(self, path: Path, flags: int) -> None:
        self._path = path
        self._flags = flags
        self._file: Opened | None = None
        self._turn = anyio.Lock()

    async def __aenter__(self: A) -> A:
        # Opening `frame` blocks until the server has brought the interface up (verb upopen), so it runs in a thread.
        self._file = await anyio.to_thread.run_sync(Opened, self._path, self._flags | os.O_NONBLOCK)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor. O_NONBLOCK is set on it. ValueError: the file is not open.

        >>> async def main():
        ...     async with virtfs.aio.open(v) as port:
        ...         return os.get_blocking(port.fileno())
        >>> trio.run(main)
        False
        """
        if self._file is None:
            raise ValueError(f"{self._path} is not open: use `async with`")
        return self._file.fileno()

    def close(self) -> None:
        """Close the file; idempotent. A task that waits on the file gets anyio.ClosedResourceError.

        >>> async def main():
        ...     async with virtfs.aio.open(v) as port:
        ...         port.close()
        >>> trio.run(main)
        """
        if self._file is not None and not self._file.closed:
            anyio.notify_closing(self._file.fileno())
            self._file.close()

    async def _read(self, size: int, keep: Callable[[bytes], None] | None = None) -> bytes:
        """Wait for data and return them. Cancellation loses no frame.

        keep: called with the data before another task can run.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        while True:
            try:
                data = os.read(self.fileno(), size)
            except BlockingIOError:
                pass  # an error during the wait would have this one as its context
            except OSError as error:
                raise named(error, self._path) from None
            else:
                if keep is not None:
                    keep(data)
                await anyio.lowlevel.cancel_shielded_checkpoint()
                return data
            await self._wait()

    async def _wait(self) -> None:
        """Wait until a read may succeed. anyio lets only one task wait for a descriptor, so the others wait for it."""
        async with self._turn:
            await self._ready(anyio.wait_readable)

    async def _ready(self, wait: Callable[[int], Awaitable[None]]) -> None:
        """Call a function that waits for the descriptor. ClosedResourceError: another task closes the file."""
        if self._file is not None and not self._file.closed:
            try:
                return await wait(self._file.fileno())
            except anyio.ClosedResourceError:  # that of notify_closing() has no text
                pass
        raise anyio.ClosedResourceError(f"{self._path} was closed by another task")


class Port(_Async):
    """The asynchronous form of virtfs.Port. Several tasks may share one.

    >>> async def main():
    ...     async with virtfs.aio.open(v) as port:
    ...         await port.send(frame)
    ...         ping(v)
    ...         with anyio.fail_after(5):
    ...             async for received in port:
    ...                 return received[12:14].hex()
    >>> trio.run(main)
    '0806'
    """

    async def send(self, frame: "bytes | bytearray | memoryview") -> None:
        """Send a frame. Never waits, but is a checkpoint. Errors: as for virtfs.Port.send().

        >>> async def main():
        ...     async with virtfs.aio.open(v, "w") as port:
        ...         await port.send(frame)
        >>> asyncio.run(main())
        """
        check_not_empty(frame)
        await anyio.lowlevel.checkpoint_if_cancelled()
        try:
            os.write(self.fileno(), frame)
        except OSError as error:
            raise told(error, self._path) from None
        await anyio.lowlevel.cancel_shielded_checkpoint()

    async def recv(self) -> bytes:
        """Wait for a frame and return it. Cancellation loses no frame. OSError: as for virtfs.Port.recv().

        Use anyio.fail_after() for a time-out.

        >>> async def main():
        ...     async with virtfs.aio.open(v) as port:
        ...         ping(v)
        ...         with anyio.fail_after(5):
        ...             return (await port.recv())[12:14].hex()
        >>> trio.run(main)
        '0806'
        """
        return await self._read(ROOM)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield frames until recv() raises OSError, such as EHOSTDOWN or ENXIO.

        >>> async def main():
        ...     async with virtfs.aio.open(v) as port:
        ...         ping(v)
        ...         with anyio.fail_after(5):
        ...             async for received in port:
        ...                 return received[12:14].hex()
        >>> asyncio.run(main())
        '0806'
        """
        while True:
            yield await self.recv()


class Stream(_Async):
    """The asynchronous form of virtfs.Stream, which moves many frames per call. Several tasks may share one.

    >>> async def main():
    ...     async with virtfs.aio.stream(v) as stream:
    ...         await stream.send([frame, frame])
    >>> trio.run(main)
    >>> v.stats["tx_frames"]
    2
    """

    def __init__(self, path: Path, flags: int) -> None:
        super().__init__(path, flags)
        self._records = Records()
        self._sending = anyio.Lock()

    async def send(self, frames: Iterable[bytes]) -> None:
        """Send frames. Cancellation prevents the call or lets it send all of them.

        OSError, ValueError and TypeError: as for virtfs.Stream.send().

        >>> async def main():
        ...     async with virtfs.aio.stream(v, "w") as stream:
        ...         await stream.send(frame for _ in range(3))
        >>> asyncio.run(main())
        """
        left = records(frames)
        async with self._sending:  # a write(2) may end within a record, and no other frame may follow there
            with anyio.CancelScope(shield=True):
                while left:
                    try:
                        left = left[os.write(self.fileno(), left) :]
                    except BlockingIOError:
                        pass
                    except OSError as error:
                        raise about(error, self._path) from None
                    else:
                        await anyio.lowlevel.checkpoint()
                        continue
                    await self._ready(anyio.wait_writable)

    async def recv(self) -> list[bytes]:
        """Wait for frames, and return those that have arrived: at least one. Cancellation loses no frame.

        Use anyio.fail_after() for a time-out. OSError: as for virtfs.Port.recv().

        >>> async def main():
        ...     async with virtfs.aio.stream(v) as stream:
        ...         ping(v)
        ...         with anyio.fail_after(5):
        ...             return [received[12:14].hex() for received in await stream.recv()]
        >>> trio.run(main)
        ['0806']
        """
        if self._records:
            await anyio.lowlevel.checkpoint()
        await self._fill()
        return self._records.take()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield frames, one at a time, until recv() raises OSError. A loop that ends early loses no frame.

        >>> async def main():
        ...     async with virtfs.aio.stream(v) as stream:
        ...         ping(v)
        ...         with anyio.fail_after(5):
        ...             async for received in stream:
        ...                 return received[12:14].hex()
        >>> asyncio.run(main())
        '0806'
        """
        while True:
            await self._fill()
            yield self._records.next()

    async def _fill(self) -> None:
        """Wait until there is a frame in self._records."""
        while not self._records:
            await self._read(STREAM_ROOM, self._records.feed)


class Events(_Async):
    """The asynchronous form of virtfs.Events. Do not share one between tasks.

    >>> async def main():
    ...     async with virtfs.aio.events(net) as events:
    ...         v.mark("begin")
    ...         return (await events.get()).values
    >>> trio.run(main)
    {'text': 'begin'}
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, os.O_RDONLY)
        self._lines = sync_events.Lines()

    async def get(self) -> Event:
        """Wait for an event and return it. OSError: ENXIO, the mount has ended.

        >>> async def main():
        ...     async with virtfs.aio.events(net) as events:
        ...         net.mark("step 2")
        ...         return (await events.get()).kind
        >>> asyncio.run(main())
        'mark'
        """
        while (event := self._lines.next()) is None:
            self._lines.feed(await self._read(ROOM))
        return event

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield events until get() raises OSError.

        >>> async def main():
        ...     async with virtfs.aio.events(net) as events:
        ...         net.mark("step 2")
        ...         async for event in events:
        ...             return event.kind
        >>> trio.run(main)
        'mark'
        """
        while True:
            yield await self.get()


def open(virt: "Virt | str | os.PathLike[str]", mode: Mode = "rw") -> Port:
    """Return a port, which `async with` opens. virt: an interface, or the path of a frame file.

    `async with` raises OSError: EBUSY, another program receives frames; EACCES, permission denied.

    >>> async def main():
    ...     async with virtfs.aio.open(v.path / "frame", "w") as port:
    ...         await port.send(frame)
    >>> trio.run(main)
    """
    return Port(virt.path / "frame" if isinstance(virt, Virt) else Path(virt), flags_of(mode))


def stream(virt: "Virt | str | os.PathLike[str]", mode: Mode = "rw") -> Stream:
    """Return a stream, which `async with` opens. virt: an interface, or the path of a file `stream`.

    `async with` raises OSError: as for open().

    >>> async def main():
    ...     async with virtfs.aio.stream(v.path / "stream", "w") as stream:
    ...         await stream.send([frame])
    >>> trio.run(main)
    """
    return Stream(virt.path / "stream" if isinstance(virt, Virt) else Path(virt), flags_of(mode))


def events(net: Mount) -> Events:
    """Return the event stream of a mount, which `async with` opens.

    >>> async def main():
    ...     async with virtfs.aio.events(net) as events:
    ...         v.mark("step 2")
    ...         return (await events.get()).name
    >>> trio.run(main)
    'virt3'
    """
    return Events(net.path / "events")


async def wait(virt: Virt, condition: Condition) -> None:
    """Wait until a condition of an interface is true. OSError: as for Virt.wait().

    >>> trio.run(virtfs.aio.wait, v, "carrier")
    """
    async with _Async(virt.path / "wait" / condition, os.O_RDONLY) as file:
        await file._read(16)
