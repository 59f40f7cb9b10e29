"""The writes to one open ctl, cut into lines.

A program writes whole lines, but cat(1) and a shell's stdio cut a script wherever a buffer is full. So the last line of
a write of 4096 bytes or more may be unfinished, and the next write continues it. A shorter write is complete and ends
its last line even without a newline.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from errno import E2BIG

from virtfs.core.errors import VirtError

WHOLE_BELOW = 4096  # bytes; the last line of a shorter write is complete even without a newline
WRITE_MAX = 1 << 20  # bytes of one write, and of an unfinished line


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its newline.

    number: its position, from 1, in the write that ended it. total: the number of lines in that write.

    A byte that is not UTF-8 becomes a surrogate escape in `text`; the grammar refuses it when the line runs.
    """

    text: str
    number: int
    total: int

    def locate(self, error: VirtError) -> VirtError:
        """Return the error for last_error, with the line number if the write had several lines."""
        if self.total == 1:
            return error
        return VirtError(error.errno, f"line {self.number}: {error.strerror}")


class Script:
    """The unfinished line of one descriptor of ctl."""

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, data: bytes) -> Iterator[Line]:
        """Store the data, and return an iterator of the lines that it completes, including blank ones, in order.

        The caller runs them up to the first that fails, and then calls forget().
        Errors: E2BIG for a write over 1 MiB, or an unfinished line that grows beyond that. Then no line of the write
        may run, and the unfinished line is dropped.
        """
        if len(data) > WRITE_MAX:
            self.forget()
            raise VirtError(E2BIG, f"a write of {len(data)} bytes is larger than the limit of {WRITE_MAX}")
        *lines, last = (self._kept + data).split(b"\n")
        self._kept = b""
        if len(data) >= WHOLE_BELOW:
            self._keep(last)
        elif last:
            lines.append(last)
        # A generator, since a write may have a million lines and the caller serves others between them.
        return (Line(_decode(line), number, len(lines)) for number, line in enumerate(lines, start=1))

    def forget(self) -> None:
        """Drop the unfinished line, for example because its write failed."""
        self._kept = b""

    def rest(self) -> str:
        """Return the unfinished line, which closing the file would drop; "" if there is none."""
        return _decode(self._kept)

    def _keep(self, last: bytes) -> None:
        if len(last) > WRITE_MAX:
            raise VirtError(E2BIG, f"the unfinished line is longer than {WRITE_MAX} bytes")
        self._kept = last


def _decode(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")
