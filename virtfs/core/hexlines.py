"""The file `hex`: frames as text, one a line, for shells.

Written, blanks, colons and the 0x before digits mean nothing, and "#" begins a comment. So what xxd -p,
od -An -tx1 and Wireshark's "as a Hex Stream" print is understood, if a frame is on one line: xxd and od wrap
longer ones unless told not to, by xxd -p -c0 and od -v -w65539.
"""

import re
from binascii import Error, hexlify, unhexlify
from collections.abc import Iterator
from errno import E2BIG, EINVAL

from virtfs.core.errors import VirtError
from virtfs.core.ethernet import MTU_MAX, frame_bounds
from virtfs.core.quoting import quoted

LINE_MAX = frame_bounds(MTU_MAX)[1] * len("0xff ")  # bytes; the longest frame with everything that is ignored

_IGNORED = b" \t\r\n\v\f:"
_PREFIX = re.compile(rb"(?<![0-9A-Fa-fxX])0[xX](?=[0-9A-Fa-f])")
_NO_DIGIT = re.compile(rb"[^0-9A-Fa-f\s:]\S*")
_LAST_DIGIT = re.compile(rb"[0-9A-Fa-f](?=[\s:]*\Z)")


def format_frame(frame: bytes | memoryview) -> bytes:
    """The frame as a line: two digits a byte, and the newline."""
    return hexlify(frame) + b"\n"


def parse_line(line: bytes) -> bytes | None:
    """The frame of a line, with or without its newline; None for a line that is blank or a comment.

    The frame may have any length, also one that no interface takes. Errors: EINVAL for a character that is
    no hex digit and for half a byte, quoted with its column; E2BIG for a line over LINE_MAX.
    """
    if len(line) > LINE_MAX:
        raise VirtError(E2BIG, f"a line of more than {LINE_MAX} bytes is longer than any frame")
    text = line.partition(b"#")[0]
    if b"x" in text or b"X" in text:
        text = _PREFIX.sub(b"  ", text)  # as wide, for the column
    try:
        return unhexlify(text.translate(None, _IGNORED)) or None
    except Error:
        raise VirtError(EINVAL, _complaint(text)) from None


class Lines:
    """What one descriptor of hex has been given, cut into lines: a line ends at its newline only."""

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """The frames of the lines that this write completes, in order. The write is taken at once.

        An unfinished line is kept for the next write. Errors, raised by the iterator after the last good frame: those
        of parse_line(), with the line's number where the write had several, also for an unfinished line of more than
        LINE_MAX bytes. What follows the bad line is forgotten.
        """
        *lines, self._kept = (self._kept + data).split(b"\n")
        if len(self._kept) > LINE_MAX:
            lines.append(self._kept)
        return self._frames(lines)

    def forget(self) -> None:
        """Drop the unfinished line: a write failed, what follows does not continue it."""
        self._kept = b""

    def rest(self) -> bytes:
        """Return the unfinished line, which a close would drop; empty if it is blank or a comment."""
        return self._kept if self._kept.partition(b"#")[0].translate(None, _IGNORED) else b""

    def _frames(self, lines: list[bytes]) -> Iterator[bytes]:
        for number, line in enumerate(lines, start=1):
            try:
                frame = parse_line(line)
            except VirtError as error:
                self.forget()
                where = f"line {number}: " if len(lines) > 1 else ""
                raise VirtError(error.errno, where + error.strerror) from None
            if frame is not None:
                yield frame


def _complaint(text: bytes) -> str:
    """What is wrong with a line that gives no frame."""
    if wrong := _NO_DIGIT.search(text):
        what = quoted(wrong.group().decode("utf-8", "surrogateescape"))
        return f"{what} at column {wrong.start() + 1} is no hex digit"
    odd = _LAST_DIGIT.search(text)
    assert odd is not None  # or there is no digit, which is no frame and no error
    return f"{quoted(odd.group().decode())} at column {odd.start() + 1} is half a byte"
