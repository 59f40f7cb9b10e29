"""A queue of frames waiting for a reader, with limits on frames and bytes."""

from collections import deque

from virtfs.core.memory import Hold

EACH = 64  # bytes of overhead for each frame
_IDLE = 8192  # bytes that may stay charged for an empty queue, so that queueing a lone frame needs no call to the Hold
BYTES = 32 << 20  # maximum size of one queue, including EACH for each frame


class Copy(bytes):
    """A copy of a frame that a cable has carried. It is never counted as dropped, because the cable counts it."""

    __slots__ = ()


class FrameQueue:
    """A first-in, first-out queue of frames.

    The maximum number of frames may change between calls, so the methods take it as the parameter `most`.
    Methods that drop frames return how many of them the caller must count as dropped: all except those of type Copy.
    hold: the Hold that is charged for the queue. The queue is also full if the Hold refuses more bytes.
    """

    def __init__(self, hold: Hold) -> None:
        self._frames: deque[bytes] = deque()
        self._size = 0  # bytes of the frames, plus EACH for each frame
        self._hold = hold
        self._granted = 0  # if _size would exceed this, _grow() must be called first

    def __len__(self) -> int:
        return len(self._frames)

    def next_length(self) -> int:
        """Return the length of the next frame in bytes, 0 if the queue is empty."""
        return len(self._frames[0]) if self._frames else 0

    def take(self) -> bytes:
        """Remove and return the next frame. IndexError: the queue is empty."""
        frame = self._frames.popleft()
        self._size -= len(frame) + EACH
        if not self._frames and self._granted > _IDLE:
            self._shrink()
        return frame

    def add(self, frame: bytes, most: int) -> int:
        """Add a frame to a queue that has a reader. If the queue is full, drop this frame.

        Return the number of frames to count as dropped, 0 or 1.
        """
        size = self._size + len(frame) + EACH
        if len(self._frames) >= most or (size > self._granted and not self._grow(size)):
            return _counted(frame)
        self._frames.append(frame)
        self._size = size
        return 0

    def keep(self, frame: bytes, most: int) -> int:
        """Add a frame to a queue without a reader. If the queue is full, drop the oldest frames.

        Return the number of frames to count as dropped.
        """
        self._frames.append(frame)
        self._size += len(frame) + EACH
        dropped = self._drop(most)
        while self._size > self._granted and not self._grow(self._size):
            dropped += self._drop(len(self._frames) - 1)
        return dropped

    def trim(self, most: int) -> int:
        """Drop the oldest frames until at most `most` frames and BYTES bytes are left, and reduce the charge.

        Return the number of frames to count as dropped.
        """
        dropped = self._drop(most)
        self._shrink()
        return dropped

    def _grow(self, size: int) -> bool:
        """Raise the charge so that it covers `size` bytes. Return False if a limit would be exceeded."""
        if size > BYTES or not self._hold.cover(size):
            return False
        self._granted = min(self._hold.size, BYTES)
        return True

    def _shrink(self) -> None:
        """Reduce the charge to the current size of the queue."""
        self._hold.resize(min(self._size, self._hold.size))
        self._granted = min(self._hold.size, BYTES)

    def _drop(self, most: int) -> int:
        dropped = 0
        while len(self._frames) > most or self._size > BYTES:
            dropped += _counted(self.take())
        return dropped


def _counted(frame: bytes) -> int:
    return type(frame) is not Copy
