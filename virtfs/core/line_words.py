"""Split a line of ctl into words, one at a time."""

import re
from collections.abc import Iterator
from errno import E2BIG, EINVAL
from itertools import islice

from virtfs.core.errors import VirtError
from virtfs.core.quoting import is_stray_byte, quoted

BLANKS = " \t"
LINE_MAX = 65536  # bytes in a line
# Maximum number of words that one argument can take. An impairment of both directions, with every keyword and every
# optional number, has 60 words.
WORDS_MAX = 64
# What to do about a line that ends with a carriage return.
AS_IN_WINDOWS = "remove the line ends of Windows with sed -i 's/\\r$//' FILE"
_WORD = re.compile(r"[^ \t]+")


class Words:
    """The words of a line that have not been taken yet.

    A word that begins with "#" starts a comment. All methods except take_rest() skip comments.
    Errors: the constructor raises E2BIG if the line has more than LINE_MAX bytes, and EINVAL if it contains a character
    that is neither printable nor a tab.
    """

    def __init__(self, line: str) -> None:
        if too_long(line):
            size = len(line.encode("utf-8", "surrogateescape"))
            raise VirtError(E2BIG, f"the line has {size} bytes; at most {LINE_MAX} are allowed")
        _check_characters(line)
        self._line = line
        self._found: Iterator[re.Match[str]] = _WORD.finditer(line)
        self._words: list[str] = []  # the words found so far; the line is split lazily
        self._ends: list[int] = []  # for each word in _words, the offset of its end in the line
        self._next = 0  # the index in _words of the next word

    def peek(self) -> str | None:
        """Return the next word without taking it; None at the end."""
        self._find(self._next + 1)
        return self._words[self._next] if self._next < len(self._words) else None

    def take(self) -> str | None:
        """Take and return the next word; None at the end."""
        word = self.peek()
        if word is not None:
            self._next += 1
        return word

    def before(self) -> str:
        """Return the word before the one that was taken last; "" if there is none."""
        return self._words[self._next - 2] if self._next > 1 else ""

    def rest(self) -> list[str]:
        """Return at most WORDS_MAX of the remaining words, without taking them.

        A line may have many verbs, and this is called for each. The limit keeps the total work proportional to the
        length of the line.
        """
        self._find(self._next + WORDS_MAX)
        return self._words[self._next : self._next + WORDS_MAX]

    def take_rest(self) -> str:
        """Take and return the rest of the line as one text, in which "#" and inner blanks have no special meaning."""
        at = self._ends[self._next - 1] if self._next else 0
        self._words, self._found = self._words[: self._next], iter(())
        return self._line[at:].strip(BLANKS)

    def _find(self, count: int) -> None:
        """Find words until `count` are known, or until a comment or the end of the line."""
        for match in islice(self._found, max(count - len(self._words), 0)):
            word = match[0]
            if word[0] == "#":
                self._found = iter(())
                return
            self._words.append(word)
            self._ends.append(match.end())

    def expect_end(self, why: str) -> None:
        """Raise EINVAL if a word is left. why: the end of the error message, after the colon."""
        word = self.take()
        if word is not None:
            raise VirtError(EINVAL, f"{quoted(word)} is one word too many: {why}")


def too_long(text: str) -> bool:
    """Return whether a text has more than LINE_MAX bytes in UTF-8."""
    # A character has at most 4 bytes, so most texts need not be encoded.
    return 4 * len(text) > LINE_MAX and len(text.encode("utf-8", "surrogateescape")) > LINE_MAX


def _check_characters(line: str) -> None:
    if line.replace("\t", "").isprintable():
        return
    for at, char in enumerate(line):
        if not char.isprintable() and char != "\t":
            what = "not UTF-8" if is_stray_byte(char) else "not a printable character"
            advice = f": {AS_IN_WINDOWS}" if line[at:] == "\r" else ""
            raise VirtError(EINVAL, f"{quoted(char)} is {what}, in {quoted(line[max(0, at - 20) : at + 20])}{advice}")
