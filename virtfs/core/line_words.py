"""Split a line of ctl into words, one at a time."""

import re
from errno import EINVAL

from virtfs.core.errors import VirtError
from virtfs.core.quoting import is_stray_byte, quoted

BLANKS = " \t"
_WORD = re.compile(r"[^ \t]+")


class Words:
    """The words of a line that have not been taken yet.

    A word that begins with "#" starts a comment, which all methods skip except take_rest().
    Errors: the constructor raises EINVAL if the line contains a character that is neither printable nor a tab.
    """

    def __init__(self, line: str) -> None:
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
        """Return all remaining words without taking them."""
        words = _WORD.findall(self._line, self._at)
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


def _check_characters(line: str) -> None:
    if line.replace("\t", "").isprintable():
        return
    for at, char in enumerate(line):
        if not char.isprintable() and char != "\t":
            what = "not UTF-8" if is_stray_byte(char) else "not a printable character"
            raise VirtError(EINVAL, f"{quoted(char)} is {what}, in {quoted(line[max(0, at - 20) : at + 20])}")
