"""Format interfaces as columns of text: their states, numbers, and cells of a fixed width.

A terminal shows some characters in two cells and some in none, so widths are counted in cells, not in characters.
"""

import unicodedata
from collections.abc import Iterator, Sequence

from virtfs.cli.rates import Object

_UNITS = " kMGT"


def state_of(virt: Object) -> str:
    """Return the state of an interface in one word."""
    tap = virt["tap"]
    return "lost" if virt["lost"] else "down" if not virt["up"] else "up" if tap["carrier"] else "nolink"


def owner_of(virt: Object, width: int) -> str:
    """Return the owner of an interface, and its group if that is not root's, as in "root:netlab".

    width: the maximum length of each name.
    """
    owner = cut(virt["owner_name"] or str(virt["owner"]), width)
    return f"{owner}:{cut(virt['group_name'] or str(virt['group']), width)}" if virt["group"] else owner


def host_of(virt: Object) -> str:
    """Describe the host's end of an interface: IP addresses, bridge, namespace, and the interface's description.

    If the tap is not named tapN, its name comes first.
    """
    tap = virt["tap"]
    parts = [] if tap["name"] == f"tap{virt['unit']}" else [tap["name"]]
    parts += tap["addresses"]
    parts += [f"bridge {tap['bridge']}"] if tap["bridge"] else []
    parts += [f"netns {tap['netns']}"] if tap["netns"] else []
    parts += [f"# {virt['description']}"] if virt["description"] else []
    return " ".join(parts)


def short(number: float) -> str:
    """Format a number in at most five characters: 999, 12.3k, 4.56M."""
    if number and number < 10 and number != int(number):
        return f"{number:.1f}"
    for unit in _UNITS:
        if round(number) < 1000:
            return f"{number:.{0 if unit == ' ' else max(0, 3 - len(str(int(number))))}f}{unit.strip()}"
        number /= 1000
    return f"{number:.0f}P"


def cells(text: str) -> int:
    """Return the number of cells that a terminal needs for a text of printable characters."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, width: int) -> str:
    """Shorten a text to at most `width` cells. "…" replaces the part that is cut off."""
    if cells(text) <= width:
        return text
    kept = ""
    for char in text:
        if cells(kept + char) >= width:
            break
        kept += char
    return f"{kept}…"[: max(0, width)]


def padded(text: str, width: int, side: str) -> str:
    """Pad a text to `width` cells. A longer text is returned unchanged. side: "<" aligns it left, ">" right."""
    blanks = " " * (width - cells(text))
    return text + blanks if side == "<" else blanks + text


def table(rows: Sequence[Sequence[str]], alignment: str, width: int) -> Iterator[str]:
    """Yield the lines of a table, each cut at `width` cells. alignment: "<" or ">" for each column."""
    widths = [max(cells(row[column]) for row in rows) for column in range(len(alignment))]
    for row in rows:
        yield cut(" ".join(map(padded, row, widths, alignment)).rstrip(), width)
