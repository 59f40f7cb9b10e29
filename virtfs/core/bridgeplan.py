"""Check a line of bridge verbs against the current state, and keep the verbs that change something.

The whole line is checked before any verb takes effect.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from errno import EADDRNOTAVAIL, EBUSY, EEXIST, ENOENT, ENXIO
from typing import Any

from virtfs.core.bridge import BridgeState
from virtfs.core.errors import VirtError
from virtfs.core.ethernet import format_mac
from virtfs.core.grammar import Action

_SWITCHES = ("discover", "learn", "protect", "stp")
_OF_MEMBER = {"static", "ifpriority", "ifpathcost", "ifgroupfwd", *_SWITCHES, *(f"-{verb}" for verb in _SWITCHES)}


@dataclass(frozen=True, slots=True)
class Taps:
    """The taps of a mount, and its bridges.

    names: the current names of the taps in the daemon's network namespace, keyed by virtN and by tapN.
    elsewhere: the namespaces of the other taps, keyed in the same way.
    bridges: the names of the bridges of the mount that are not lost.
    """

    names: Mapping[str, str]
    elsewhere: Mapping[str, str]
    bridges: frozenset[str] = frozenset()


Masters = Mapping[str, str]  # maps each existing host interface to the name of its bridge, or to "" if it has none


def interfaces_of(actions: tuple[Action, ...]) -> set[str]:
    """Return the names of the interfaces that the verbs act on."""
    return {str(action.args[0]) for action in actions if action.verb in _OF_MEMBER | {"add", "delete"}}


def renamed(actions: tuple[Action, ...], names: Mapping[str, str]) -> tuple[Action, ...]:
    """Return the verbs with interface names replaced.

    names: maps a name to its replacement, for example virt3 to the current name of tap3.
    """
    return tuple(
        Action(action.verb, (names.get(str(action.args[0]), action.args[0]), *action.args[1:]))
        if action.verb in _OF_MEMBER | {"add", "delete"}
        else action
        for action in actions
    )


def plan(
    state: BridgeState, actions: tuple[Action, ...], masters: Masters, ensure: bool, taps: Taps
) -> tuple[Action, ...]:
    """Return the verbs that change something, in the same order.

    taps: for the error messages about a tap in another namespace, or in another bridge.
    ensure: whether to leave out a verb that is already in effect, rather than refuse it.
    Errors: ENXIO if an interface does not exist; EEXIST if an interface to add is already a member; EBUSY if an
    interface to add is in another bridge; ENOENT if a verb other than `add` names an interface that is not a member, or
    if a MAC address to remove is not in the table; EADDRNOTAVAIL if the bridge does not have the IP address to remove.
    """
    line = _Line(state, masters, ensure, taps)
    return tuple(action for action in actions if line.apply(action))


class _Line:
    """The bridge as it will be after the verbs that apply() has accepted."""

    def __init__(self, state: BridgeState, masters: Masters, ensure: bool, taps: Taps) -> None:
        self._members = {member.name: member.adopted for member in state.members}
        self._known = {known.address for known in state.known}
        self._addresses = set(state.addresses)
        self._masters = dict(masters)
        self._ensure = ensure
        self._taps = taps

    def apply(self, action: Action) -> bool:
        """Apply one verb; return whether it changes anything."""
        match action:
            case Action("add", (str(name), *option)):
                return self._add(name, bool(option))
            case Action("delete", (str(name),)):
                return self._delete(name)
            case Action("deladdr", (bytes(address),)):
                return self._forget(address)
            case Action("inet" | "inet6", (address,)):
                # Adding an address that the bridge already has is not an error, with or without `ensure`.
                there = address in self._addresses
                self._addresses.add(address)  # type: ignore[arg-type]
                return not there
            case Action("-inet" | "-inet6", (address,)):
                return self._remove_address(action.verb, address)
        if action.verb in _OF_MEMBER:
            self._member(action.verb, str(action.args[0]))
            self._known.update(arg for arg in action.args if isinstance(arg, bytes))
        return True

    def _exists(self, verb: str, name: str) -> None:
        if name in self._masters:
            return
        if (namespace := self._taps.elsewhere.get(name)) is not None:
            where = f'"{name}" is in network namespace "{namespace}", unlike the bridge'
            raise VirtError(ENXIO, f"{verb}: {where}: create a second interface for the bridge, and cable the two")
        hint = f": write virt{name}" if name.isdecimal() else ""
        raise VirtError(ENXIO, f'{verb}: there is no interface "{name}"{hint}')

    def _member(self, verb: str, name: str) -> None:
        self._exists(verb, name)
        if name not in self._members:
            raise VirtError(ENOENT, f'{verb}: "{name}" is not a member of the bridge')

    def _add(self, name: str, adopt: bool) -> bool:
        self._exists("add", name)
        if name in self._members:
            done = self._members[name] or not adopt
            if done and not self._ensure:
                raise VirtError(EEXIST, f'add: "{name}" is already a member')
            self._members[name] |= adopt
            return not done
        if bridge := self._masters[name]:
            out = f"{bridge} delete {name}" if bridge in self._taps.bridges else f"ip link set {name} nomaster"
            raise VirtError(EBUSY, f'add: "{name}" is in "{bridge}": take it out with "{out}" first')
        self._members[name] = adopt
        return True

    def _delete(self, name: str) -> bool:
        if self._ensure and name not in self._members:
            return False
        self._member("delete", name)
        del self._members[name]
        self._masters[name] = ""
        return True

    def _forget(self, address: bytes) -> bool:
        if address in self._known or self._ensure:
            return address in self._known
        raise VirtError(ENOENT, f'deladdr: "{format_mac(address)}" is not in the address table')

    def _remove_address(self, verb: str, address: Any) -> bool:
        matching = [one for one in self._addresses if address in (one, one.ip)]
        if not matching and not self._ensure:
            raise VirtError(EADDRNOTAVAIL, f'{verb}: the bridge has no address "{address}"')
        self._addresses -= set(matching[:1])
        return bool(matching)
