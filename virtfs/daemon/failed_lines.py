"""Lines of the state file that could not be replayed. They stay in it, as comments, and the next mount tries again."""

from collections.abc import Iterator
from typing import NamedTuple

from virtfs.core.grammar import Command

PREFIX = "# not replayed: "


class FailedLine(NamedTuple):
    """One line, its command (None if this version cannot parse it), and the reason for its failure."""

    line: str
    command: Command | None
    reason: str


class FailedLines:
    """Those of one mount, in their order."""

    def __init__(self) -> None:
        self._all: list[FailedLine] = []

    def add(self, line: str, command: Command | None, reason: str) -> None:
        """Keep a line. A line with bytes that no line of ctl has is garbage, and is dropped."""
        if line.isprintable():
            self._all.append(FailedLine(line, command, reason))

    def supersede(self, target: object) -> None:
        """Drop the lines about an interface or a bridge: a user has given a newer command about it."""
        self._all = [one for one in self._all if one.command is None or target not in _targets(one.command)]

    def comments(self) -> Iterator[str]:
        """Yield the comments that keep the lines: each line, and its reason."""
        for one in self._all:
            yield PREFIX + one.line
            yield f"#     {one.reason}"


def _targets(command: Command) -> tuple[object, ...]:
    return command.target, command.peer


def replayable(line: str) -> str:
    """Return a line of the state file as it is to be replayed: one that failed before is no comment."""
    return line.removeprefix(PREFIX)
