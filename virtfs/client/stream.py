"""Stream: a file object over `stream`, which moves many frames with each system call."""

import os
import select
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial

from virtfs.client import waiting
from virtfs.client.folder import about
from virtfs.client.port import Mode, Opened, flags_of, length_of
from virtfs.core.framestream import FRAME_MAX, PREFIX

ROOM = 1 << 18  # bytes: room for four of the longest records, or for 170 records of 1518 bytes


class Records:
    """The frames that have been read of a `stream`, but not yet returned."""

    __slots__ = ("_begun", "_frames")

    def __init__(self) -> None:
        self._begun = b""  # the first part of a record that has not been read completely
        self._frames: deque[bytes] = deque()

    def __len__(self) -> int:
        return len(self._frames)

    def feed(self, data: bytes) -> None:
        """Add the bytes that a read(2) has returned."""
        data = self._begun + data
        at = 0
        while len(data) - at >= PREFIX.size:
            (length,) = PREFIX.unpack_from(data, at)
            if len(data) - at - PREFIX.size < length:
                break
            self._frames.append(data[at + PREFIX.size : at + PREFIX.size + length])
            at += PREFIX.size + length
        self._begun = data[at:]

    def take(self) -> list[bytes]:
        """Remove all frames and return them."""
        frames = list(self._frames)
        self._frames.clear()
        return frames

    def next(self) -> bytes:
        """Remove the first frame and return it."""
        return self._frames.popleft()


def records(frames: Iterable[bytes]) -> memoryview:
    """Return frames as `stream` takes them. TypeError and ValueError: as for Stream.send()."""
    if isinstance(frames, bytes | bytearray | memoryview):  # iterables of int, which some type checkers let pass
        raise TypeError("send() takes an iterable of frames: use send([frame])")
    if not isinstance(frames, Iterable):
        raise TypeError(f"send() takes an iterable of frames, not {type(frames).__name__}")
    return memoryview(b"".join(part for frame in frames for part in (_prefix(frame), frame)))


class Stream(Opened):
    """An open file `stream`. It carries the same frames as `frame`, but many per call.

    One thread may send while another receives.

    >>> with v.stream() as stream:
    ...     stream.send([frame, frame])
    >>> v.stats["tx_frames"]
    2
    """

    __slots__ = ("_records",)

    def __init__(self, path: "str | os.PathLike[str]", mode: Mode = "rw") -> None:
        """Open the file. Errors: as for Port."""
        super().__init__(path, flags_of(mode))
        self._records = Records()

    def send(self, frames: Iterable[bytes]) -> None:
        """Send frames with one system call, or with several if they exceed 1 MiB together.

        OSError: a frame is refused, as by Port.send(). The frames before it have been sent, those after it have not.
        `strerror` gives the offset of its record in the stream; each record has 4 bytes before the frame.
        ValueError: a frame is empty or longer than any frame; nothing has been sent. TypeError: the argument is one
        frame, or has something that is not bytes.

        >>> with v.stream() as stream:
        ...     stream.send(frame for _ in range(3))
        """
        left = records(frames)
        try:
            while left:
                write = partial(os.write, self.fileno(), left)
                left = left[waiting.repeat(write, self.fileno(), select.POLLOUT, self.path, None) :]
        except OSError as error:
            raise about(error, self.path) from None

    def recv(self, timeout: float | None = None) -> list[bytes]:
        """Wait for frames, and return those that one read(2) delivers, or that an iteration has left: at least one.

        timeout and OSError: as for Port.recv().

        >>> with v.stream() as stream:
        ...     ping(v)
        ...     [frame[12:14].hex() for frame in stream.recv(timeout=5)]
        ['0806']
        """
        while not self._records:
            self._records.feed(waiting.read(self.fileno(), ROOM, self.path, timeout))
        return self._records.take()

    def __iter__(self) -> Iterator[bytes]:
        """Yield frames, one at a time, until recv() raises OSError. A loop that ends early loses no frame.

        >>> with v.stream() as stream:
        ...     ping(v)
        ...     next(iter(stream))[12:14].hex()
        '0806'
        """
        while True:
            while not self._records:
                self._records.feed(waiting.read(self.fileno(), ROOM, self.path, None))
            yield self._records.next()


def _prefix(frame: bytes) -> bytes:
    """Return the length of a frame, as the first part of its record."""
    length = length_of(frame)
    if not 0 < length <= FRAME_MAX:
        raise ValueError(f"a frame has 1 to {FRAME_MAX} bytes, not {length}")
    return PREFIX.pack(length)
