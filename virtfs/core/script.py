"""Split the writes to one descriptor of the file ctl into lines.

Most programs write whole lines. But cat(1) and programs that use stdio cut a script wherever a buffer is full. So the
last line of a write of 4096 bytes or more may be unfinished, and the next write continues this line. The last line of a
shorter write is complete even without a newline.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from errno import E2BIG

from virtfs.core.bytestext import to_text
from virtfs.core.errors import VirtError

WHOLE_BELOW = 4096  # bytes; the last line of a shorter write is complete even without a newline
WRITE_MAX = 1 << 20  # maximum bytes of one write, and of an unfinished line


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its newline.

    text: the line as a string. A byte that is not UTF-8 becomes a surrogate escape, which the grammar refuses when the
    line runs.
    number: position of the line, from 1, in the write that completed it. total: number of lines in that write.
    """

    text: str
    number: int
    total: int

    def locate(self, error: VirtError) -> VirtError:
        """Return the error as last_error shows it, with the line number if the write had several lines."""
        if self.total == 1:
            return error
        return VirtError(error.errno, f"line {self.number}: {error.strerror}")


class Script:
    """Splits the writes to one descriptor of the file ctl into lines, and keeps the unfinished line."""

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, data: bytes) -> Iterator[Line]:
        """Store the data, and return an iterator of the lines that this data completes, including blank ones.

        The caller runs the lines in order. If one fails, the caller calls forget() and does not run the others.
        Errors: E2BIG for a write of more than 1 MiB, and for an unfinished line of more than 1 MiB. In both cases the
        whole write and the unfinished line are dropped.
        """
        if len(data) > WRITE_MAX:
            self.forget()
            raise VirtError(E2BIG, f"a write of {len(data)} bytes is too large: the maximum is {WRITE_MAX} bytes")
        *lines, last = (self._kept + data).split(b"\n")
        self._kept = b""
        if len(data) >= WHOLE_BELOW:
            self._keep(last)
        elif last:
            lines.append(last)
        # A generator, because a write may have a million lines, and the caller serves other users between two lines.
        return (Line(_decode(line), number, len(lines)) for number, line in enumerate(lines, start=1))

    @property
    def size(self) -> int:
        """The length of the unfinished line in bytes."""
        return len(self._kept)

    def forget(self) -> None:
        """Drop the unfinished line, for example because its write failed."""
        self._kept = b""

    def rest(self) -> str:
        """Return the unfinished line, or "" if there is none. Closing the file would lose this line."""
        return _decode(self._kept)

    def _keep(self, last: bytes) -> None:
        if len(last) > WRITE_MAX:
            raise VirtError(E2BIG, f"the unfinished line is longer than {WRITE_MAX} bytes")
        self._kept = last


def _decode(line: bytes) -> str:
    return to_text(line)
