"""Port: a file object over `frame`. Each call receives or sends one frame."""

import os
from collections.abc import Iterator
from errno import ENXIO
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, TypeVar

from virtfs.client import waiting
from virtfs.client.folder import told
from virtfs.core.framestream import FRAME_MAX

ROOM: Final = FRAME_MAX  # bytes; a buffer of this size can hold any frame
Mode = Literal["r", "w", "rw"]
FLAGS: Final[dict[Mode, int]] = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}

O = TypeVar("O", bound="Opened")  # noqa: E741


def flags_of(mode: Mode) -> int:
    """Return the flags for open(2). ValueError: the mode is none of "r", "w" and "rw"."""
    if mode not in FLAGS:
        raise ValueError(f'mode {mode!r} is not "r", "w" or "rw"')
    return FLAGS[mode]


def length_of(frame: "bytes | bytearray | memoryview") -> int:
    """Return the length of a frame in bytes. TypeError: it is not bytes, but for example a text or a list of frames."""
    try:
        return memoryview(frame).nbytes
    except TypeError:
        raise TypeError(f"a frame is bytes, not {type(frame).__name__}") from None


def check_not_empty(frame: "bytes | bytearray | memoryview") -> None:
    """Raise ValueError for an empty frame: write(2) would succeed, and the server would not learn of it."""
    if not length_of(frame):
        raise ValueError("a frame cannot be empty")


class Opened:
    """An open file of a mount: a descriptor that is closed at the end of a `with` statement.

    path: the file. flags: the flags for open(2).
    """

    __slots__ = ("_fd", "path")

    def __new__(cls, *_: object, **__: object) -> Self:
        """Make a closed object. __del__ also runs if an __init__, perhaps of a subclass, fails."""
        self = super().__new__(cls)
        self._fd = -1
        return self

    def __init__(self, path: "str | os.PathLike[str]", flags: int) -> None:
        self.path = Path(path)
        try:
            self._fd = os.open(path, flags | os.O_CLOEXEC)
        except OSError as error:
            raise told(error, self.path) from None

    def fileno(self) -> int:
        """Return the descriptor, for select, poll and epoll. ValueError: the file is closed.

        >>> with v.open() as port:
        ...     select.select([port], [], [], 0)
        ([], [], [])
        """
        if self._fd < 0:
            raise ValueError(f"{self.path} is closed")
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether the file is closed.

        >>> port = v.open()
        >>> port.close()
        >>> port.closed
        True
        """
        return self._fd < 0

    def close(self) -> None:
        """Close the file; idempotent.

        A thread blocked in a call on this file is not woken, although its descriptor may soon refer to another file.
        To end such a wait, set the interface down or use time-outs.

        >>> port = v.open()
        >>> port.close()
        """
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self: O) -> O:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_fd"):  # false if __init__ of a subclass has refused its arguments
            self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {str(self.path)!r}{' closed' if self.closed else ''}>"


class Port(Opened):
    """An open `frame`, or another file whose reads and writes are single frames.

    Threads may share a port, in any number and in both directions. Each frame goes to one of the threads that receive.
    Do not call close() while another thread uses the port. Use daemon threads, or call recv() with a time-out: Python
    waits for all other threads before it exits, also after Ctrl-C.

    >>> with v.open() as port:
    ...     port.send(frame)
    ...     port.recv(timeout=0)
    Traceback (most recent call last):
    TimeoutError: [Errno 110] nothing arrived within 0 s: '/mnt/virt/virt3/frame'
    """

    __slots__ = ()

    def __init__(self, path: "str | os.PathLike[str]", mode: Mode = "rw") -> None:
        """Open a file of frames.

        OSError: EBUSY, another program has it open; EACCES, permission denied. ValueError: there is no such mode.
        """
        super().__init__(path, flags_of(mode))

    def send(self, frame: "bytes | bytearray | memoryview") -> None:
        """Send a frame, which begins with its Ethernet header and has no FCS at its end. Never waits.

        virtfs drops and counts a frame that cannot be sent. With `strict` the call fails instead.
        OSError: EMSGSIZE, too short or too long; ENETDOWN, the interface is down; EPERM, the source address is wrong
        under antispoof; ENXIO, the interface is destroyed. ValueError: the frame is empty, or the port is closed.
        TypeError: the frame is not bytes.

        >>> with v.open() as port:
        ...     port.send(frame)
        """
        check_not_empty(frame)
        try:
            os.write(self.fileno(), frame)
        except OSError as error:
            raise told(error, self.path) from None

    def recv(self, timeout: float | None = None) -> bytes:
        """Wait for a frame and return it.

        timeout: the longest time to wait, in seconds; 0 does not wait, None waits for ever. The first call with a
        time-out sets O_NONBLOCK on the descriptor. Only a program that reads the descriptor itself notices.
        OSError: TimeoutError, no frame in this time; EHOSTDOWN, the interface is down or was set down; ENXIO, it was
        destroyed. TypeError: the time-out is not a number.

        >>> with v.open() as port:
        ...     ping(v)
        ...     port.recv(timeout=5)[12:14].hex()
        '0806'
        """
        data = waiting.read(self.fileno(), ROOM, self.path, timeout)
        if not data:  # the server has closed its end of the FIFO `rx`
            raise OSError(ENXIO, os.strerror(ENXIO), str(self.path))
        return data

    def __iter__(self) -> Iterator[bytes]:
        """Yield frames until recv() raises OSError, such as EHOSTDOWN or ENXIO.

        >>> with v.open() as port:
        ...     ping(v)
        ...     next(iter(port))[12:14].hex()
        '0806'
        """
        while True:
            yield self.recv()
