"""The fenced blocks of a Markdown file."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    line: number of the line that it begins at
    output: contents of the `text` block directly after it, "" if there is none
    """

    language: str
    text: str
    line: int
    output: str


def blocks(text: str) -> list[Block]:
    """Return all blocks, in order."""
    found = list(_FENCED.finditer(text))
    result = []
    for at, match in enumerate(found):
        after = found[at + 1] if at + 1 < len(found) else None
        told = after is not None and after[1] == "text" and not text[match.end() : after.start()].strip()
        output = after[2] if after is not None and told else ""
        result.append(Block(match[1], match[2], text.count("\n", 0, match.start()) + 2, output))
    return result


def section(text: str, heading: str) -> str:
    """Return the text under a second-level heading."""
    _, _, rest = text.partition(f"\n## {heading}\n")
    assert rest, f"there is no section {heading}"
    return rest.partition("\n## ")[0]
