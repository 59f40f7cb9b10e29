"""The lines of ctl that recreate a bridge.

The ctl of a mount has two lines for each bridge. One precedes the lines of the mount's interfaces, and creates the
bridge with the members that are not taps of the mount. The other comes after the lines of the interfaces, and
configures the taps as ports.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import ip_interface

from virtfs.core.bridge import NEW, BridgeState, renamed, steps, steps_after, without
from virtfs.core.grammar import Command
from virtfs.core.ids import BridgeName
from virtfs.core.ip import IpInterface
from virtfs.core.line_text import format_actions, format_command, unwritable_comment, writable
from virtfs.core.verbs import BRIDGE
from virtfs.host.bridge_adopt import Adoptions
from virtfs.host.marks import is_marked

ADOPTED = "# adopted: "  # begins a comment that lists a bridge, an adopted member and that member's addresses

Recalled = dict[tuple[BridgeName, str], frozenset[IpInterface]]


def adopted_before(text: str) -> Recalled:
    """Return the addresses of adopted members, keyed by bridge and member. text: has the comment lines of adopted()."""
    recalled: Recalled = {}
    for line in text.splitlines():
        if line.startswith(ADOPTED):
            with suppress(ValueError):  # somebody has edited the file
                name, member, *words = line.removeprefix(ADOPTED).split()
                recalled[BridgeName(name), member] = frozenset(map(ip_interface, words))
    return recalled


def adopted(name: BridgeName, state: BridgeState, adoptions: Adoptions) -> Iterator[str]:
    """Yield a comment line for each adopted member, with the addresses that it brought.

    state: the whole state of the bridge, with all members and addresses.
    """
    members = {member.index: member.name for member in state.members}
    for member, its in adoptions.shares(members, state.addresses).items():
        if its:
            yield ADOPTED + " ".join((name, member, *sorted(map(str, its))))


def divided(state: BridgeState, name_of: Callable[[int], str | None], mark: str) -> tuple[BridgeState, frozenset[str]]:
    """Split the state of a bridge for ctl.

    Return the part that the bridge's own lines describe, and the names of the members that have a line `create N`.
    In the result, a tap with such a line appears as tapN, even if it has been renamed. Any other tap of virtfs is left
    out, because a line that names such a tap could not be replayed once the tap has vanished.
    name_of: returns the name in ctl of the tap with an interface index, as BridgeTexts does. mark: the mark of the
    mount (host.marks).
    """
    ours = [(member, name_of(member.index)) for member in state.members]
    names = {member.name: name or "" for member, name in ours if name is not None or is_marked(member.alias, mark)}
    described = without(state, frozenset(name for name, tap in names.items() if not tap))
    names = {name: tap for name, tap in names.items() if tap}
    return renamed(described, names), frozenset(names.values())


def verbs(name: BridgeName, state: BridgeState) -> str:
    """Return lines of verbs that give a new bridge this state."""
    actions, unwritable = writable(steps(NEW, state), BRIDGE)
    lines = [format_actions(actions, BRIDGE), *(unwritable_comment(name, action) for action in unwritable)]
    return "".join(f"{line}\n" for line in lines)


def before(name: BridgeName, state: BridgeState, taps: frozenset[str]) -> Iterator[str]:
    """Yield the line that creates a bridge without the members in `taps`, and comments for what it cannot express."""
    actions, unwritable = writable(steps(NEW, without(state, taps)), BRIDGE)
    yield format_command(Command("create", name, actions))
    for action in unwritable:
        yield unwritable_comment(name, action)


def after(name: BridgeName, state: BridgeState, taps: frozenset[str]) -> Iterator[str]:
    """Yield the line that configures the members in `taps`, if one is needed."""
    if actions := writable(steps_after(state, taps), BRIDGE)[0]:
        yield format_command(Command("change", name, actions))
