"""Split the writes to one descriptor of the file ctl into lines.

Most programs write whole lines. But cat(1) and programs that use stdio cut a script wherever a buffer is full. So the
last line of a write of 4096 bytes or more may be unfinished, and the next write continues this line. The last line of a
shorter write is complete even without a newline.

A line has at most LINE_MAX bytes, and a write may consist of a million blank lines. So lines are split off one by one,
and blank lines are skipped in steps of at most BLANKS bytes. This bounds the work between two lines.
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
BLANKS = 1 << 16  # maximum bytes of blank lines that are skipped in one step; this takes 0.3 ms

_NOT_BLANK = re.compile(rb"[^ \t\n\r\v\f]")


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
        self._lines = _Lines(b"", 0)
        self._before = b""  # the unfinished line before the last write
        self._size = 0  # length of the last write in bytes
        self._long = False  # whether the last line of the last write may be unfinished
        self._left = 0  # number of bytes that the program will write again after a write that was cut short; 0 if none

    def feed(self, data: bytes) -> Iterator[Line]:
        """Store the data, and return an iterator over the lines that this data completes, except blank lines.

        Within a long series of blank lines, the iterator yields some of them, so that the caller can let other tasks
        run.
        The caller runs the lines in order. A line counts as run when the next one is requested. If a line fails, the
        caller calls forget() and does not run the lines after it.
        Errors: E2BIG for a write of more than 1 MiB, and for an unfinished line of more than LINE_MAX bytes. In both
        cases the whole write and the unfinished line are dropped. The grammar refuses a complete line that is too long.
        """
        if len(data) > WRITE_MAX:
            self.forget()
            raise VirtError(E2BIG, f"a write of {len(data)} bytes is too large: the maximum is {WRITE_MAX} bytes")
        # The rest of a long write that was cut short belongs to that write, however short the rest is.
        self._long = long = len(data) >= WHOLE_BELOW or len(data) == self._left
        text = self._kept + data
        self._before, self._size, self._left = self._kept, len(data), 0
        self._kept = b""
        end = text.rfind(b"\n") + 1
        if not long:
            end = len(text)
        elif len(text) - end > LINE_MAX:
            raise VirtError(E2BIG, f"the unfinished line is longer than {LINE_MAX} bytes")
        self._kept = text[end:]
        self._lines = _Lines(text, end)
        return self._lines.each()

    def give_back(self) -> int:
        """Drop the lines of the last write that have not run. Return how many bytes of that write have run.

        Call this when a write(2) ends before all of its lines have run. The system call returns this number, or fails
        with EINTR if the number is 0. The program then writes the remaining bytes again.
        """
        run = self._lines.at - len(self._before)
        if run <= 0:
            self._kept = self._before
            run = 0
        else:
            self._kept = b""
        self._left = self._size - run if self._long else 0
        return run

    @property
    def begun(self) -> bool:
        """Whether any of the lines that the last write completed has run."""
        return self._lines.at > len(self._before)

    @property
    def line(self) -> int:
        """The number of the first line that has not run. The lines of the last write are counted from 1."""
        return self._lines.number

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


class _Lines:
    """The lines of text[:end]. The last line may lack its newline.

    at, number: the offset and the number of the first line that has not run.
    """

    def __init__(self, text: bytes, end: int) -> None:
        self._text = text
        self._end = end
        self.at, self.number = 0, 1

    def each(self) -> Iterator[Line]:
        """Yield the lines. Pass over blank lines in steps of at most BLANKS bytes."""
        text, end = self._text, self._end
        total = text.count(b"\n", 0, end) + (end > 0 and text[end - 1 : end] != b"\n")
        while self.at < end:
            until = min(end, self.at + BLANKS)
            first = _NOT_BLANK.search(text, self.at, until)
            if (start := text.rfind(b"\n", self.at, first.start() if first else until) + 1) > self.at:
                self.number += text.count(b"\n", self.at, start)
                self.at = start
                if start == end:
                    return
                if not first:
                    yield Line("", self.number, total)
                    continue
            newline = text.find(b"\n", self.at, end)
            line_end = newline if newline >= 0 else end
            yield Line(_decode(text[self.at : line_end]), self.number, total)
            self.number, self.at = self.number + 1, min(line_end + 1, end)


def _decode(line: bytes) -> str:
    return to_text(line)
