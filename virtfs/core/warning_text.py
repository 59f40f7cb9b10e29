"""The warnings about a line that has taken effect, as the one line of the file last_error."""

from collections.abc import Iterable

_WARNING = "warning: "


def join_warnings(sentences: Iterable[str]) -> str:
    """Return the sentences in one line. Each begins with "warning: ", and "; " separates them."""
    return "; ".join(f"{_WARNING}{sentence}" for sentence in sentences)


def split_warnings(text: str) -> list[str]:
    """Return the parts of a text of last_error that join_warnings() has joined, each with its "warning: "."""
    first, *others = text.split(f"; {_WARNING}")
    return [first, *(f"{_WARNING}{other}" for other in others)]


def is_warning(text: str) -> bool:
    """Return whether a text of last_error is about a line that has taken effect."""
    return text.startswith(_WARNING)
