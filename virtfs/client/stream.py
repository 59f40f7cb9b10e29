"""Stream: a file object over `stream`, which moves many frames with each system call."""

import os
import select
from collections.abc import Iterable, Iterator
from functools import partial

from virtfs.client import waiting
from virtfs.client.folder import about
from virtfs.client.port import Mode, Opened, flags_of
from virtfs.core.framestream import FRAME_MAX, PREFIX

_ROOM = 1 << 18  # bytes: room for four of the longest records, or for 170 records of 1518 bytes


class Stream(Opened):
    """An open file `stream`. It carries the same frames as `frame`, but many per call.

    One thread may send while another receives.

    >>> with v.stream() as stream:
    ...     stream.send([frame, frame])
    >>> v.stats["tx_frames"]
    2
    """

    __slots__ = ("_begun",)

    def __init__(self, path: "str | os.PathLike[str]", mode: Mode = "rw") -> None:
        """Open the file. Errors: as for Port."""
        super().__init__(path, flags_of(mode))
        self._begun = b""  # the first part of a record that has not been read completely

    def send(self, frames: Iterable[bytes]) -> None:
        """Send frames with one system call, or with several if they exceed 1 MiB together.

        OSError: a frame is refused, as by Port.send(). The frames before it have been sent, those after it have not.
        ValueError: a frame is empty or longer than any frame; nothing has been sent. TypeError: the argument is one
        frame.

        >>> with v.stream() as stream:
        ...     stream.send(frame for _ in range(3))
        """
        if isinstance(frames, bytes | bytearray | memoryview):  # iterables of int, which some type checkers let pass
            raise TypeError("send() takes an iterable of frames: use send([frame])")
        left = memoryview(b"".join(part for frame in frames for part in (_prefix(frame), frame)))
        try:
            while left:
                write = partial(os.write, self.fileno(), left)
                left = left[waiting.repeat(write, self.fileno(), select.POLLOUT, self.path, None) :]
        except OSError as error:
            raise about(error, self.path) from None

    def recv(self, timeout: float | None = None) -> list[bytes]:
        """Wait for frames, and return those that one read(2) delivers: at least one.

        timeout and OSError: as for Port.recv().

        >>> with v.stream() as stream:
        ...     ping(v)
        ...     [frame[12:14].hex() for frame in stream.recv(timeout=5)]
        ['0806']
        """
        data = self._begun + waiting.read(self.fileno(), _ROOM, self.path, timeout)
        frames = []
        at = 0
        while len(data) - at >= PREFIX.size:
            (length,) = PREFIX.unpack_from(data, at)
            if len(data) - at - PREFIX.size < length:
                break
            frames.append(data[at + PREFIX.size : at + PREFIX.size + length])
            at += PREFIX.size + length
        self._begun = data[at:]
        return frames or self.recv(timeout)

    def __iter__(self) -> Iterator[bytes]:
        """Yield frames, one at a time, until recv() raises OSError.

        >>> with v.stream() as stream:
        ...     ping(v)
        ...     next(iter(stream))[12:14].hex()
        '0806'
        """
        while True:
            yield from self.recv()


def _prefix(frame: bytes) -> bytes:
    """Return the length of a frame, as the first part of its record."""
    if not 0 < len(frame) <= FRAME_MAX:
        raise ValueError(f"a frame has 1 to {FRAME_MAX} bytes, not {len(frame)}")
    return PREFIX.pack(len(frame))
