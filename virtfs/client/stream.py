"""Stream: a file object over `stream`, which moves many frames with each system call."""

import os
import select
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from virtfs.client import waiting
from virtfs.client.folder import explained
from virtfs.client.port import FLAGS, Mode, Opened
from virtfs.core.framestream import PREFIX

_ROOM = 1 << 18  # bytes; four of the longest records, or 170 of 1518 bytes


class Stream(Opened):
    """An open `stream`: the same frames as those of `frame`, many for each call.

    One thread may send while another receives.

    >>> with v.stream() as stream:
    ...     stream.send([frame, frame])
    >>> v.stats["tx_frames"]
    2
    """

    __slots__ = ("_begun", "_top")

    def __init__(self, path: "str | os.PathLike[str]", top: Path, mode: Mode = "rw") -> None:
        """Open the file. top: the mount point. OSError: as for Port."""
        super().__init__(path, FLAGS[mode])
        self._top = top
        self._begun = b""  # the beginning of a record whose rest has not been read

    def send(self, frames: Iterable[bytes]) -> None:
        """Send frames with one system call, or more if they have over 1 MiB.

        OSError: a frame is refused, as by Port.send(). The frames before it have been sent, the others have not.

        >>> with v.stream() as stream:
        ...     stream.send(frame for _ in range(3))
        """
        left = memoryview(b"".join(part for frame in frames for part in (PREFIX.pack(len(frame)), frame)))
        try:
            while left:
                write = partial(os.write, self.fileno(), left)
                left = left[waiting.repeat(write, self.fileno(), select.POLLOUT, self.path, None) :]
        except OSError as error:
            raise explained(error, self.path, self._top) from None

    def recv(self, timeout: float | None = None) -> list[bytes]:
        """Wait for frames, and return all that fit in one read: at least one.

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
        """Yield frames for ever, one at a time. It ends with the OSError of recv().

        >>> with v.stream() as stream:
        ...     ping(v)
        ...     next(iter(stream))[12:14].hex()
        '0806'
        """
        while True:
            yield from self.recv()
