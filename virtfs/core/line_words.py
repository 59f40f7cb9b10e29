"""Split a line of ctl into words, one at a time."""

import re
from errno import E2BIG, EINVAL
from itertools import islice

from virtfs.core.errors import VirtError
from virtfs.core.quoting import is_stray_byte, quoted

BLANKS = " \t"
LINE_MAX = 65536  # bytes in a line
# Maximum number of words that one argument can take. An impairment of both directions, with every keyword and every
# optional number, has 60 words.
WORDS_MAX = 64
_WORD = re.compile(r"[^ \t]+")


class Words:
    """The words of a line that have not been taken yet.

    A word that begins with "#" starts a comment, which all methods skip except take_rest().
    Errors: the constructor raises E2BIG if the line has more than LINE_MAX bytes, and EINVAL if it contains a character
    that is neither printable nor a tab.
    """

    def __init__(self, line: str) -> None:
        if too_long(line):
            size = len(line.encode("utf-8", "surrogateescape"))
            raise VirtError(E2BIG, f"the line has {size} bytes; at most {LINE_MAX} are allowed")
        _check_characters(line)
        self._line = line
        self._at = 0

    def peek(self) -> str | None:
        """Return the next word without taking it; None at the end."""
        match = _WORD.search(self._line, self._at)
        return None if match is None or match[0].startswith("#") else match[0]

    def take(self) -> str | None:
        """Take and return the next word; None at the end."""
        word = self.peek()
        if word is not None:
            self._at = self._line.index(word, self._at) + len(word)
        return word

    def rest(self) -> list[str]:
        """Return the remaining words without taking them, at most WORDS_MAX.

        The limit keeps the work for a line proportional to its length, since a line may have many verbs that look at
        the words after them.
        """
        words = [match[0] for match in islice(_WORD.finditer(self._line, self._at), WORDS_MAX)]
        comment = next((at for at, word in enumerate(words) if word.startswith("#")), len(words))
        return words[:comment]

    def take_rest(self) -> str:
        """Take and return the rest of the line as one text, in which "#" and inner blanks have no special meaning."""
        rest = self._line[self._at :].strip(BLANKS)
        self._at = len(self._line)
        return rest

    def expect_end(self, why: str) -> None:
        """Raise EINVAL if a word is left. why: the part of the error sentence after the colon."""
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
            raise VirtError(EINVAL, f"{quoted(char)} is {what}, in {quoted(line[max(0, at - 20) : at + 20])}")
