"""A queue of frames waiting for a reader, with a limit on frames and a limit on bytes."""

from collections import deque

BYTES = 32 << 20  # maximum total length of the frames in one queue


class Copy(bytes):
    """A copy of a frame that a cable has carried. The cable has counted the frame, so its copies are not counted."""

    __slots__ = ()


class FrameQueue:
    """A first-in, first-out queue of frames.

    The maximum number of frames may change between calls, so it is a parameter of the methods: `most`.
    The methods that drop frames return the number of frames to count as dropped. This number excludes each Copy.
    """

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
        """Add a frame to a queue that has a reader. If the queue is full, drop this frame.

        Return the number of frames to count as dropped, 0 or 1.
        """
        if len(self._frames) >= most or self._size + len(frame) > BYTES:
            return _counted(frame)
        self._frames.append(frame)
        self._size += len(frame)
        return 0

    def keep(self, frame: bytes, most: int) -> int:
        """Add a frame to a queue without a reader. If the queue is full, drop the oldest frames.

        Return the number of frames to count as dropped.
        """
        self._frames.append(frame)
        self._size += len(frame)
        return self.trim(most)

    def trim(self, most: int) -> int:
        """Drop the oldest frames until at most `most` frames and BYTES bytes are left.

        Return the number of frames to count as dropped.
        """
        dropped = 0
        while len(self._frames) > most or self._size > BYTES:
            dropped += _counted(self.take())
        return dropped


def _counted(frame: bytes) -> int:
    return type(frame) is not Copy
