"""Removes taps and bridges that a killed server left behind, unless the state file mentions them.

The state file reflects each command completely or not at all. A server that is killed during a command may have made a
persistent tap or a bridge that is not recorded yet. It may also have moved a persistent tap to a namespace other than
the one that the state file names. Marks (host.marks) distinguish such taps and bridges from those of the host.
"""

import logging
import os
import re
from collections.abc import Callable
from functools import partial

from virtfs.core.errors import VirtError
from virtfs.core.grammar import Command, parse
from virtfs.core.ids import BridgeName, Unit
from virtfs.daemon.failed_lines import replayable
from virtfs.daemon.netns_verb import destination
from virtfs.host import marks, netns
from virtfs.host.bridge import HostBridge
from virtfs.host.bridgeports import ports_of
from virtfs.host.links import Links
from virtfs.host.netnames import open_netns
from virtfs.host.rtnl import Rtnl
from virtfs.host.tap import Tap

log = logging.getLogger(__name__)

_TAP, _BRIDGE = re.compile(r"tap(?:0|[1-9][0-9]*)"), re.compile(r"bridge(?:0|[1-9][0-9]*)")
_LIKE_A_LINE = re.compile(r"(?:create|ensure) (bridge\d+|\d+)\b")

# Maps the name of each tap and bridge in a state file to its network namespace: the name of the namespace, "" for
# that of the mount, or None if it cannot be known.
Wanted = dict[str, str | None]


def wanted_by(text: str) -> Wanted:
    """Return the taps and bridges that a state file mentions, including those in failed lines."""
    wanted: Wanted = {}
    for line in map(replayable, text.splitlines()):
        try:
            command = parse(line)
        except VirtError:
            if (like := _LIKE_A_LINE.match(line)) is not None:
                wanted[like[1] if like[1].startswith("bridge") else f"tap{like[1]}"] = None
            continue
        if command is not None and command.target is not None:
            _note(command, wanted)
    return wanted


def _note(command: Command, wanted: Wanted) -> None:
    name = f"tap{command.target}" if isinstance(command.target, int) else str(command.target)
    where = destination(command.actions)
    if command.kind in ("create", "ensure") or where:
        wanted[name] = None if where.isdecimal() else where


def sweep(links: Links, mark: str, wanted: Wanted | None, open_tap: Callable[[Unit], Tap]) -> frozenset[str]:
    """Remove marked taps and bridges that `wanted` does not list in the same namespace. Return the names of the others.

    Blocks. Failures are logged. In these cases a tap or bridge only loses its mark, and then belongs to the host:

    - `wanted` is None, because the state file did not exist. A user who has removed that file may still need the
      persistent taps and bridges.
    - A bridge may have adopted addresses of a member. Deleting it could cut the machine off from the network.
    - Another program has renamed it.
    """
    kept = set()
    for found in marks.find_marked(mark):
        if wanted is not None and found.name in wanted and _is_at(found.netns, wanted[found.name]):
            kept.add(found.name)
            continue
        try:
            if wanted is None or _has_adopted(found) or not _removable(found):
                marks.inside(found, partial(_unmark, found.index))
            else:
                _remove(links, found, open_tap)
                log.info("removed %s, which an earlier server had left behind", found.name)
        except OSError as refusal:
            log.warning("cannot remove %s, which an earlier server had left behind: %s", found.name, refusal.strerror)
    return frozenset(kept)


def _has_adopted(found: marks.Marked) -> bool:
    """Return whether a bridge may hold adopted addresses. Assume so for an adopting bridge in another namespace."""
    if not found.adopting or found.netns != netns.own_identity():
        return bool(found.adopting)
    with Rtnl() as rtnl:
        return any(port.index in found.adopting for port in ports_of(rtnl, found.index))


def _removable(found: marks.Marked) -> bool:
    """Return whether no other program has renamed the interface. A renamed interface is presumably in use."""
    return (_BRIDGE if found.kind == "bridge" else _TAP).fullmatch(found.name) is not None


def _unmark(index: int) -> None:
    with Rtnl() as rtnl:
        marks.set_mark(rtnl, "", index)


def _is_at(place: tuple[int, int], name: str | None) -> bool:
    """Return whether a namespace has this name. Return True if the name is unknown or cannot be resolved now.

    place: the identity of the namespace (netns.identity).
    """
    if name is None:
        return True
    try:
        fd = open_netns(name)
    except VirtError:
        return True
    try:
        return netns.identity(fd) == place
    finally:
        os.close(fd)


def _remove(links: Links, found: marks.Marked, open_tap: Callable[[Unit], Tap]) -> None:
    if found.kind == "bridge":
        with Rtnl() as rtnl:
            HostBridge(rtnl, links, BridgeName(found.name), found.index).delete()
        return

    def end() -> None:
        # Attaching fails with EBUSY if a server still uses the tap.
        with open_tap(Unit(int(found.name.removeprefix("tap")))) as tap:
            tap.set_persist(False)

    marks.inside(found, end)
