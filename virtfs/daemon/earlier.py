"""Taps and bridges that existed before a line used them: those that an earlier run made, and those of the host.

The lines of ctl do not tell the two apart, so the state file lists both in comments. An earlier run's own come again
if they are gone. Those of the host are never made by a replay: virtfs would make them as its own, with settings and
addresses that somebody else gave to something else.
"""

import errno
from typing import NamedTuple

from virtfs.core.errors import VirtError
from virtfs.core.quoting import quoted

# The starts of comment lines, which list taps and bridges.
MADE = "# made: "  # virtfs made them, and they outlive the daemon
FOUND = "# found: "  # they existed before virtfs used them

NAMED = 4  # maximum number of names in a sentence


class Earlier(NamedTuple):
    """The names of the taps and bridges that an earlier run of virtfs made, and of those that it found on the host."""

    made: frozenset[str] = frozenset()
    found: frozenset[str] = frozenset()


NOTHING = Earlier()


def earlier(text: str) -> Earlier:
    """Return what the comments in a text of ctl list."""
    return Earlier(_listed(text, MADE), _listed(text, FOUND))


def _listed(text: str, start: str) -> frozenset[str]:
    lines = (line.removeprefix(start) for line in text.splitlines() if line.startswith(start))
    return frozenset(name for line in lines for name in line.split())


def existed(*names: str) -> str:
    """Return the sentence that taps or bridges existed before the lines that use them. It names at most NAMED."""
    if len(names) == 1:
        return f"{quoted(names[0])} existed before: virtfs uses it with its settings, and destroy leaves it as it was"
    shown, others = names[:NAMED], len(names) - NAMED
    listed = [*map(quoted, shown), *([f"{others} more"] if others > 0 else [])]
    which = f"{', '.join(listed[:-1])} and {listed[-1]}"
    return f"{which} existed before: virtfs uses them with their settings, and destroy leaves them as they were"


def vanished_from_host(name: str, target: object) -> VirtError:
    """Return the error of a replayed line whose tap or bridge belonged to the host and is gone.

    target: what the line creates, a unit or the name of a bridge.
    """
    sentence = f"there is no {quoted(name)} now, which existed before virtfs used it"
    remedy = f'make it and write "retry", or let virtfs make its own with "create {target}"'
    return VirtError(errno.ENXIO, f"{sentence}: {remedy}")
