"""Frames that wait for a reader, bounded in number and in bytes."""

from collections import deque

BYTES = 32 << 20  # at most, whatever the number of frames allowed


class FrameQueue:
    """First in, first out."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._size = 0

    def __len__(self) -> int:
        return len(self._frames)

    def next_length(self) -> int:
        """Of the frame that is next, in bytes; 0 when there is none."""
        return len(self._frames[0]) if self._frames else 0

    def take(self) -> bytes:
        """The next frame. IndexError when there is none."""
        frame = self._frames.popleft()
        self._size -= len(frame)
        return frame

    def add(self, frame: bytes, most: int) -> int:
        """A frame for somebody who reads: it does not fit when `most` wait. How many are dropped, this one or none."""
        if len(self._frames) >= most or self._size + len(frame) > BYTES:
            return 1
        self._frames.append(frame)
        self._size += len(frame)
        return 0

    def keep(self, frame: bytes, most: int) -> int:
        """A frame for somebody yet to come: the last `most` are kept. How many are dropped, the oldest."""
        self._frames.append(frame)
        self._size += len(frame)
        return self.trim(most)

    def trim(self, most: int) -> int:
        """Drop all but the last `most`; how many that were."""
        dropped = 0
        while len(self._frames) > most or self._size > BYTES:
            self.take()
            dropped += 1
        return dropped
