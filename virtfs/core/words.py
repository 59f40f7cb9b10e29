"""A line of ctl, taken word by word."""

import re
from errno import EINVAL

from virtfs.core.errors import VirtError
from virtfs.core.quoting import is_stray_byte, quoted

BLANKS = " \t"
_WORD = re.compile(r"[^ \t]+")


class Words:
    """What is left of a line. A word that begins with "#" ends it, unless the rest is taken as it is.

    Errors: EINVAL when the line holds a character that is neither printable nor a tab.
    """

    def __init__(self, line: str) -> None:
        _check_characters(line)
        self._line = line
        self._at = 0

    def peek(self) -> str | None:
        """The next word, which stays; None at the end."""
        match = _WORD.search(self._line, self._at)
        return None if match is None or match[0].startswith("#") else match[0]

    def take(self) -> str | None:
        """The next word; None at the end."""
        word = self.peek()
        if word is not None:
            self._at = self._line.index(word, self._at) + len(word)
        return word

    def rest(self) -> list[str]:
        """All words that are left, which stay."""
        words = _WORD.findall(self._line, self._at)
        comment = next((at for at, word in enumerate(words) if word.startswith("#")), len(words))
        return words[:comment]

    def take_rest(self) -> str:
        """All that is left, comments and blanks within it included."""
        rest = self._line[self._at :].strip(BLANKS)
        self._at = len(self._line)
        return rest

    def expect_end(self, why: str) -> None:
        """EINVAL if a word is left."""
        word = self.take()
        if word is not None:
            raise VirtError(EINVAL, f"{quoted(word)} is too much: {why}")


def _check_characters(line: str) -> None:
    if line.replace("\t", "").isprintable():
        return
    for at, char in enumerate(line):
        if not char.isprintable() and char != "\t":
            what = "not UTF-8" if is_stray_byte(char) else "not a printable character"
            raise VirtError(EINVAL, f"{quoted(char)} is {what}, in {quoted(line[max(0, at - 20) : at + 20])}")
