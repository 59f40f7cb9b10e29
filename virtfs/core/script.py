"""Split the writes to one descriptor of the file ctl into lines.

Most programs write whole lines. But cat(1) and programs that use stdio cut a script wherever a buffer is full. So the
last line of a write of 4096 bytes or more may be unfinished, and the next write continues this line. The last line of a
shorter write is complete even without a newline.

A line has at most LINE_MAX bytes, and a write may consist of a million blank lines. So lines are split off one by one,
and the work between two lines is bounded.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from errno import E2BIG

from virtfs.core.bytestext import to_text
from virtfs.core.errors import VirtError
from virtfs.core.line_words import LINE_MAX

WHOLE_BELOW = 4096  # bytes; the last line of a shorter write is complete even without a newline
WRITE_MAX = 1 << 20  # maximum bytes of one write

_BLANK = re.compile(rb"[ \t\n\r\v\f]*")


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
        """Store the data, and return an iterator of the lines that this data completes, except blank ones.

        The caller runs the lines in order. If one fails, the caller calls forget() and does not run the others.
        Errors: E2BIG for a write of more than 1 MiB, and for an unfinished line of more than LINE_MAX bytes. In both
        cases the whole write and the unfinished line are dropped. The grammar refuses a complete line that is too long.
        """
        if len(data) > WRITE_MAX:
            self.forget()
            raise VirtError(E2BIG, f"a write of {len(data)} bytes is too large: the maximum is {WRITE_MAX} bytes")
        text = self._kept + data
        self._kept = b""
        end = text.rfind(b"\n") + 1
        if len(data) < WHOLE_BELOW:
            end = len(text)
        elif len(text) - end > LINE_MAX:
            raise VirtError(E2BIG, f"the unfinished line is longer than {LINE_MAX} bytes")
        self._kept = text[end:]
        return _lines(text, end)

    def forget(self) -> None:
        """Drop the unfinished line, for example because its write failed."""
        self._kept = b""

    def rest(self) -> str:
        """Return the unfinished line, or "" if there is none. Closing the file would lose this line."""
        return _decode(self._kept)


def _lines(text: bytes, end: int) -> Iterator[Line]:
    """Yield the lines of text[:end], of which the last may lack its newline. Pass over blank lines in one step."""
    total = text.count(b"\n", 0, end) + (end > 0 and text[end - 1 : end] != b"\n")
    number, at = 1, 0
    while at < end:
        blank = _BLANK.match(text, at, end)
        assert blank is not None  # it matches the empty text
        if (start := text.rfind(b"\n", at, blank.end()) + 1) > at:
            number, at = number + text.count(b"\n", at, start), start
            if at == end:
                return
        newline = text.find(b"\n", at, end)
        line_end = newline if newline >= 0 else end
        yield Line(_decode(text[at:line_end]), number, total)
        number, at = number + 1, line_end + 1


def _decode(line: bytes) -> str:
    return to_text(line)
