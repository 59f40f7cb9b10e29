"""The writes to one open ctl, cut into lines.

A program writes whole lines, but cat(1) and a shell's stdio cut a script wherever a buffer is full. So a
write of 4096 bytes or more may stop within a line, and the next one goes on in it; a shorter write is a whole
message, and ends its last line also without a newline.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from errno import E2BIG

from virtfs.core.errors import VirtError

WHOLE_BELOW = 4096  # bytes; a shorter write ends its last line
WRITE_MAX = 1 << 20  # bytes of one write, and of a line that is still unfinished


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its newline. number counts from 1 within the write that ended it, `of` lines in all.

    A byte that is not UTF-8 is a surrogate escape in text; the grammar refuses it when the line's turn comes.
    """

    text: str
    number: int
    of: int

    def locate(self, error: VirtError) -> VirtError:
        """The error as last_error tells it: by the line's number where the write had several lines."""
        if self.of == 1:
            return error
        return VirtError(error.errno, f"line {self.number}: {error.strerror}")


class Script:
    """What one descriptor of ctl has been given."""

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, data: bytes) -> Iterator[Line]:
        """The lines that this write completes, blank ones too, in order. The write is taken at once.

        The caller runs them up to the first that fails, and then calls forget().
        Errors: E2BIG for a write over 1 MiB or an unfinished line that grows over it; no line of the write is
        to run, and what was kept is forgotten.
        """
        if len(data) > WRITE_MAX:
            self.forget()
            raise VirtError(E2BIG, f"a write of {len(data)} bytes is larger than {WRITE_MAX}")
        *lines, last = (self._kept + data).split(b"\n")
        self._kept = b""
        if len(data) >= WHOLE_BELOW:
            self._keep(last)
        elif last:
            lines.append(last)
        # One by one: a write may have a million lines, and the caller others to serve between them.
        return (Line(_decode(line), number, len(lines)) for number, line in enumerate(lines, start=1))

    def forget(self) -> None:
        """Drop the unfinished line: a write failed, what follows does not continue it."""
        self._kept = b""

    def rest(self) -> str:
        """The unfinished line, which a close would drop; "" if there is none."""
        return _decode(self._kept)

    def _keep(self, last: bytes) -> None:
        if len(last) > WRITE_MAX:
            raise VirtError(E2BIG, f"a line of more than {WRITE_MAX} bytes has no end yet")
        self._kept = last


def _decode(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")
