"""The file `hex`: frames as hexadecimal text, one frame per line, for shell scripts.

When a line is written to the file, blanks, colons and 0x prefixes between bytes are ignored, and "#" begins a comment.
The output of xxd -p, od -An -tx1 and Wireshark's "as a Hex Stream" is accepted if each frame is on one line. xxd and od
wrap long lines by default; xxd -p -c0 and od -v -w65539 do not.

Two mistakes would send a different frame if they were accepted, so both are refused: a separator inside a byte, as in
"6 4" for "06 04", and the offset at the beginning of a line of a dump, as xxd and tcpdump -xx print it.
"""

import re
from binascii import hexlify
from collections.abc import Iterator
from errno import E2BIG, EINVAL

from virtfs.core.bytestext import to_text
from virtfs.core.errors import VirtError, located
from virtfs.core.ethernet import MTU_MAX, frame_bounds
from virtfs.core.quoting import quoted

# Maximum number of bytes in a line. This is enough for the longest frame with every byte written as "0xff ".
LINE_MAX = frame_bounds(MTU_MAX)[1] * len("0xff ")

_NOT_BLANK = re.compile(rb"[^ \t\r\n\v\f:]")
_IGNORED = b" \t\r\n\v\f:"
_PREFIX = re.compile(rb"(?<![0-9A-Fa-fxX])0[xX](?=[0-9A-Fa-f])")
_TO_BLANKS = bytes.maketrans(b":", b" ")  # bytes.fromhex() accepts blanks between bytes only
_NO_DIGIT = re.compile(rb"[^0-9A-Fa-f\s:]\S*")
_ODD_WORD = re.compile(rb"\b\w(?:\w\w)*\b")
_OFFSET = re.compile(
    rb"""\s*(
        (?:0[xX])?(?:[0-9A-Fa-f]{4}){1,2}:  # xxd, tcpdump -xx
        |(?:[0-9A-Fa-f]{4})?[0-9A-Fa-f]{3}0(?=[ \t]{2,}[0-9A-Fa-f]{2}(?!\S))  # Wireshark, tshark -x, hexdump -C
        |[0-9A-Fa-f]{7}  # od, hexdump
    )(?!\S)""",
    re.VERBOSE,
)
_OFFSET_MAX = len("0x00000000:")


def format_frame(frame: bytes | memoryview) -> bytes:
    """Format a frame as a line: two hexadecimal digits for each byte, then a newline."""
    return hexlify(frame) + b"\n"


def parse_line(line: bytes) -> bytes | None:
    """Parse a line into a frame; return None for a blank line or a comment.

    The newline at the end of the line is optional. The frame may have any length, including lengths that no interface
    accepts.
    Errors: EINVAL for a character that is not a hexadecimal digit, for a word with an odd number of digits, or for an
    offset before the bytes; the message quotes the word and gives its column. E2BIG for a line of more than LINE_MAX
    bytes.
    """
    if len(line) > LINE_MAX:
        raise VirtError(E2BIG, f"the line is longer than {LINE_MAX} bytes, more than any frame needs")
    text = line.partition(b"#")[0]
    if not text[:_OFFSET_MAX].isalnum() and (offset := _OFFSET.match(text)):
        what = f"{quoted(offset[1].decode())} at column {offset.start(1) + 1} is the offset of a dump"
        raise VirtError(EINVAL, f"{what}: write the bytes alone, as xxd -p -c0 prints them")
    if b"x" in text or b"X" in text:
        # Two blanks have the width of the prefix, so the columns in error messages stay correct.
        text = _PREFIX.sub(b"  ", text)
    try:
        digits = text.translate(_TO_BLANKS) if b":" in text else text
        return bytes.fromhex(digits.decode("ascii")) or None
    except ValueError:
        raise VirtError(EINVAL, _complaint(text)) from None


class Lines:
    """Splits the writes to one descriptor of the file `hex` into lines. Only a newline ends a line.

    where: "line 2", for example, if that is the number of the last line within a write of several lines; otherwise "".
    """

    def __init__(self) -> None:
        self.where = ""
        self._kept = b""
        self._before = b""  # the unfinished line before the last write
        self._at = 0  # offset of the first unconsumed line in the text: _before, followed by the last write

    def feed(self, data: bytes | memoryview, first: int = 1, several: bool | None = None) -> Iterator[bytes | None]:
        """Store the data, and return an iterator over the lines that this data completes, in order.

        first, several: needed only if the data is a piece of a larger write. first: the number, within that write, of
        the first line of the piece. several: whether that write has several lines.

        An item is a frame, or None for a comment. Runs of blank lines are skipped in one step, so the work between
        two items is bounded by the length of a line. A line counts as consumed when the next one is requested. An
        unfinished line is kept for the next write.
        Errors: those of parse_line(), and E2BIG for an unfinished line of more than LINE_MAX bytes. The iterator raises
        the error after the last good frame. The error message contains the line number if the write has several lines.
        The data after the bad line is dropped.
        """
        self._before, self._at = self._kept, 0
        text = self._kept + data
        end = text.rfind(b"\n") + 1
        self._kept = text[end:]
        if len(self._kept) > LINE_MAX:
            end = len(text)
        if several is None:
            several = text.count(b"\n", 0, end) + (not text.endswith(b"\n", 0, end)) > 1
        return self._items(text, end, first, several)

    def give_back(self) -> int:
        """Drop the unconsumed lines of the last write. Return how many bytes of that write were consumed."""
        consumed = self._at - len(self._before)
        self._kept = self._before if consumed <= 0 else b""
        return max(consumed, 0)

    @property
    def size(self) -> int:
        """The length of the unfinished line in bytes."""
        return len(self._kept)

    def forget(self) -> None:
        """Drop the unfinished line, for example because its write failed."""
        self._kept = b""

    def rest(self) -> bytes:
        """Return the unfinished line, or b"" if it is blank or a comment. Closing the file would lose this line."""
        return self._kept if self._kept.partition(b"#")[0].translate(None, _IGNORED) else b""

    def _items(self, text: bytes, end: int, number: int, several: bool) -> Iterator[bytes | None]:
        while self._at < end:
            first = _NOT_BLANK.search(text, self._at, end)
            if (start := text.rfind(b"\n", self._at, first.start() if first else end) + 1) > self._at:
                number += text.count(b"\n", self._at, start)
                self._at = start
                continue
            newline = text.find(b"\n", self._at, end)
            line_end = newline if newline >= 0 else end
            self.where = f"line {number}" if several else ""
            try:
                frame = parse_line(text[self._at : line_end])
            except VirtError as error:
                self.forget()
                raise located(error, self.where) from None
            yield frame
            number, self._at = number + 1, min(line_end + 1, end)


def _complaint(text: bytes) -> str:
    """Return the error message for a line that does not parse."""
    if wrong := _NO_DIGIT.search(text):
        what = quoted(to_text(wrong.group()))
        return f"{what} at column {wrong.start() + 1} is not hexadecimal"
    odd = next(_ODD_WORD.finditer(text))  # bytes.fromhex() has no other reason to refuse digits and blanks
    count = len(odd.group())
    why = "is half a byte" if count == 1 else f"has {count} digits"
    return f"{quoted(odd.group().decode())} at column {odd.start() + 1} {why}: write two digits for each byte"
