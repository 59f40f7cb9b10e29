"""Lines of the state file that could not be replayed.

They stay in the file as comments, and the next mount tries them again.
"""

from collections.abc import Iterator
from typing import NamedTuple

from virtfs.core.grammar import Command
from virtfs.core.quoting import one_line

PREFIX = "# not replayed: "


class FailedLine(NamedTuple):
    """One line, its command (None if this version cannot parse it), and the reason for its failure."""

    line: str
    command: Command | None
    reason: str


class FailedLines:
    """The failed lines of one mount, in the order of the state file."""

    def __init__(self) -> None:
        self._all: list[FailedLine] = []

    def add(self, line: str, command: Command | None, reason: str) -> None:
        """Keep a failed line. A line with unprintable characters is dropped, because virtfs never writes one."""
        if line.isprintable():
            self._all.append(FailedLine(line, command, reason))

    def supersede(self, target: object) -> None:
        """Drop the failed lines about an interface or a bridge for which a user has given a newer command.

        target: the unit of the interface or the name of the bridge.
        """
        self._all = [one for one in self._all if one.command is None or target not in _targets(one.command)]

    def comments(self) -> Iterator[str]:
        """Yield the comments for the state file: each failed line, and then the reason for its failure."""
        for one in self._all:
            yield PREFIX + one.line
            yield f"#     {one_line(one.reason)}"


def _targets(command: Command) -> tuple[object, ...]:
    return command.target, command.peer


def replayable(line: str) -> str:
    """Return a line of the state file without PREFIX, so that a line that failed before is replayed again."""
    return line.removeprefix(PREFIX)
