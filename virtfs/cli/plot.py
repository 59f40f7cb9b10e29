"""Plots as text: a bar for each number, with the most recent at the right."""

from collections.abc import Sequence
from typing import Final

BLOCKS: Final = "▁▂▃▄▅▆▇█"  # block elements of Unicode
ASCII: Final = "._-=+*#"  # for terminals that cannot show block elements


def plot(numbers: Sequence[float], width: int, height: int = 1, marks: str = BLOCKS) -> list[str]:
    """Return `height` lines of `width` characters, the top line first.

    numbers: the oldest first; only the last `width` are shown. The largest number shown fills its column, and 0 leaves
    its column empty. Every number above 0 gets a mark. marks: characters for a cell, from the least to the most filled.
    """
    shown = list(numbers)[-width:] if width > 0 else []
    most = max(shown, default=0) or 1
    steps = [0 if number <= 0 else max(1, round(number / most * height * len(marks))) for number in shown]
    lines = []
    for line in reversed(range(height)):
        below = line * len(marks)
        bars = "".join(" " if step <= below else marks[min(step - below, len(marks)) - 1] for step in steps)
        lines.append(bars.rjust(width))
    return lines
