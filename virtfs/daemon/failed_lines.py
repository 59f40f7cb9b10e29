"""Lines of the state file that could not be replayed, and the lines of members that have vanished from a bridge.

They stay in the text of ctl, and so in the state file if there is one, as comments. The command `retry` and the next
mount retry them.
"""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from virtfs.core.grammar import Action, Command
from virtfs.core.quoting import one_line, quoted
from virtfs.daemon.earlier import NOTHING

log = logging.getLogger(__name__)

PREFIX = "# not replayed: "

_NAMES = {"create": 1, "ensure": 1, "cable": 2}  # the number of names that follow the first word of a line
_UNIT = re.compile("(?:virt)?([0-9]{1,9})")


class FailedLine(NamedTuple):
    """One line, its command (None if this version cannot parse it), and the reason for its failure."""

    line: str
    command: Command | None
    reason: str

    @property
    def member(self) -> str:
        """The interface that the line adds to an existing bridge, because it was a member until it vanished, or ""."""
        return "" if self.command is None else member_of(self.command) or ""


class FailedLines:
    """The failed lines of one mount, in the order of the state file."""

    def __init__(self) -> None:
        self.earlier = NOTHING  # the taps and bridges that the state file listed
        self._all: list[FailedLine] = []

    def __iter__(self) -> Iterator[FailedLine]:
        return iter(list(self._all))

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, one: object) -> bool:
        return any(one is kept for kept in self._all)

    def add(self, failed: FailedLine) -> None:
        """Keep a failed line. A line with unprintable characters is dropped, because virtfs never writes one."""
        if failed.line.isprintable():
            self._all.append(failed)

    def replace(self, before: FailedLine, after: FailedLine | None) -> None:
        """Replace a failed line with `after`, which has a newer reason. If `after` is None, the line has run: drop it.

        If the line was superseded in the meantime, do nothing.
        """
        for at, one in enumerate(self._all):
            if one is before:
                self._all[at : at + 1] = [] if after is None else [after]
                return

    def supersede(self, target: object, actions: Sequence[Action] | None = None) -> None:
        """Drop the failed lines about an interface or a bridge, because a user has given a newer command for it.

        target: the unit of the interface or the name of the bridge. actions: the verbs of the command, or None if the
        command has created or destroyed the target. A line that adds a vanished member to a bridge stays, unless one of
        the verbs adds or deletes this member.
        """
        changed = {str(action.args[0]) for action in actions or () if action.verb in ("add", "delete")}

        def superseded(one: FailedLine) -> bool:
            return target in _targets(one) and (actions is None or not one.member or one.member in changed)

        self._drop(superseded)

    def of_members(self, bridge: str) -> dict[str, FailedLine]:
        """Return the lines that add vanished members to a bridge, by member name."""
        return {one.member: one for one in self._all if one.member and one.command and one.command.target == bridge}

    def clear(self) -> None:
        """Drop all failed lines."""
        self._drop(lambda one: True)

    def _drop(self, chosen: Callable[[FailedLine], bool]) -> None:
        for one in filter(chosen, self._all):
            log.info("a newer command replaces the line that was not replayed, %s", quoted(one.line))
        self._all = [one for one in self._all if not chosen(one)]

    def about(self, target: object) -> bool:
        """Return whether a failed line is about an interface or a bridge. target: as for supersede()."""
        return any(target in _targets(one) for one in self._all)

    def still_made(self) -> list[str]:
        """Return those names in `earlier.made` that failed lines are about, as a sorted list."""
        return sorted(self.earlier.made & self._names())

    def still_found(self) -> list[str]:
        """Return those names in `earlier.found` that failed lines are about, as a sorted list."""
        return sorted(self.earlier.found & self._names())

    def _names(self) -> set[str]:
        targets = {target for one in self._all for target in _targets(one)}
        return {f"tap{target}" if isinstance(target, int) else str(target) for target in targets}

    def comments(self) -> Iterator[str]:
        """Yield the comments for the state file: each failed line, and then the reason for its failure."""
        for one in self._all:
            yield PREFIX + one.line
            yield f"#     {one_line(one.reason)}"


def _targets(failed: FailedLine) -> tuple[object, ...]:
    """Return the target and the peer of a line, without those that are None.

    If this version cannot parse the line, use the words at the places of the target and the peer.
    """
    command = failed.command
    if command is None:
        words = failed.line.split()
        # The first word is a name, as in "virt3 frobnicate", or a command, which may be misspelled.
        names = words[:2] if not words or words[0] not in _NAMES else words[1 : _NAMES[words[0]] + 1]
        return tuple(int(unit[1]) if (unit := _UNIT.fullmatch(name)) else name for name in names)
    return tuple(target for target in (command.target, command.peer) if target is not None)


def member_of(command: Command) -> str | None:
    """Return the interface that a line adds to an existing bridge before it does anything else, or None."""
    if command.kind != "change" or not isinstance(command.target, str) or not command.actions:
        return None
    first = command.actions[0]
    return str(first.args[0]) if first.verb == "add" else None


def replayable(line: str) -> str:
    """Return a line of the state file without PREFIX, so that a line that failed earlier is retried."""
    return line.removeprefix(PREFIX)
