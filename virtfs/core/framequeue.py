"""A queue of frames waiting for a reader, bounded in frames and bytes."""

from collections import deque

BYTES = 32 << 20  # maximum of one queue, however many frames it may hold


class FrameQueue:
    """A first-in, first-out queue. Its methods take the maximum number of frames, which may change between calls."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._size = 0

    def __len__(self) -> int:
        return len(self._frames)

    def next_length(self) -> int:
        """Return the length of the next frame in bytes, 0 if the queue is empty."""
        return len(self._frames[0]) if self._frames else 0

    def take(self) -> bytes:
        """Remove and return the next frame. IndexError: the queue is empty."""
        frame = self._frames.popleft()
        self._size -= len(frame)
        return frame

    def add(self, frame: bytes, most: int) -> int:
        """Add a frame unless `most` frames wait; return the number of frames dropped, 0 or 1.

        For a queue with a reader: the newest frame is dropped.
        """
        if len(self._frames) >= most or self._size + len(frame) > BYTES:
            return 1
        self._frames.append(frame)
        self._size += len(frame)
        return 0

    def keep(self, frame: bytes, most: int) -> int:
        """Add a frame and keep the last `most`; return the number of frames dropped.

        For a queue without a reader: the oldest frames are dropped.
        """
        self._frames.append(frame)
        self._size += len(frame)
        return self.trim(most)

    def trim(self, most: int) -> int:
        """Drop all frames but the last `most`; return how many were dropped."""
        dropped = 0
        while len(self._frames) > most or self._size > BYTES:
            self.take()
            dropped += 1
        return dropped
