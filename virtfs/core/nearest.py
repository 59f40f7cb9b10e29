"""The known word that a user probably meant by an unknown one."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from virtfs.core.quoting import quoted

_SIMILAR: Final = 0.7  # from 0 to 1; a letter that is missing or wrong in a word of five gives 0.8 or more


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that is most like a word, or "" if none is like it.

    >>> nearest("dealy", ["delay", "loss"])
    'delay'
    """
    return next(iter(get_close_matches(word.lower(), known, n=1, cutoff=_SIMILAR)), "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the question about the nearest known word, as the end of an error message, or "" if there is none."""
    near = nearest(word, known)
    return f": did you mean {quoted(near)}?" if near else ""
