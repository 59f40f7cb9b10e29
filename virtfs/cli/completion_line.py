"""Candidates for the next word of a line of ctl. Pure: derived from the tables of core.verbs.

A candidate is a word and its meaning. This module does not check lines; the grammar does that. Unknown words are
skipped, so that a typing error early in a line does not stop completion.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from virtfs.core import arguments as arg
from virtfs.core.arguments import Argument
from virtfs.core.grammar import ALL
from virtfs.core.impairment import BOTH
from virtfs.core.impairment_text import WORDS
from virtfs.core.verbs import BRIDGE, FORMS, VERBS, VIRT, Noun, find

Candidate = tuple[str, str]
Candidates = Iterator[Candidate]

_CHOICE: Final = re.compile(r"[a-z]+(\|[a-z]+)+")


@dataclass(frozen=True, slots=True)
class Names:
    """The names that currently exist in the mount and on the host.

    virts: maps each interface to a note about it. members: maps each bridge to its members. addresses: maps each
    interface and bridge to its IP addresses. cables: the names of the two ends of each cable. interfaces: the
    interfaces that can become members of a bridge, virtN for a tap of the mount.
    """

    virts: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, Sequence[str]] = field(default_factory=dict)
    addresses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    cables: Sequence[tuple[str, str]] = ()
    interfaces: Sequence[str] = ()
    bridges: Sequence[str] = ()
    namespaces: Sequence[str] = ()
    users: Sequence[str] = ()
    groups: Sequence[str] = ()

    def targets(self) -> Candidates:
        """Yield the interfaces and bridges of the mount."""
        yield from self.virts.items()
        yield from ((bridge, f"a bridge: {', '.join(ports) or 'no members'}") for bridge, ports in self.members.items())


def of_line(before: Sequence[str], names: Names) -> Candidates:
    """Yield the candidates for the next word of a line of the mount's ctl. before: the words so far."""
    first, rest = (before[0], before[1:]) if before else ("", ())
    known = {form.kind: form for form in reversed(FORMS) if form.kind != "change"}
    if not before:
        yield from ((kind, form.meaning) for kind, form in reversed(known.items()))
        yield from names.targets()
    elif first == "check":
        yield from of_line(rest, names)
    elif first in ("cable", "uncable"):
        yield from _of_cable(first, rest, names)
    elif (form := known.get(first)) is None:  # type: ignore[call-overload]
        yield from of_verbs(_noun(first), first, rest, names)
    elif form.target != "none":
        yield from _of_target(first, form.verbs, form.target == "optional", rest, names)


def _of_target(kind: str, verbs: bool, optional: bool, rest: Sequence[str], names: Names) -> Candidates:
    if not rest:
        yield from names.targets() if kind != "create" else _new(names)
        if kind == "destroy":
            yield ALL, "every interface, bridge and cable"
        if optional:
            yield from of_verbs(VIRT, "", (), names)
    elif verbs:
        named = not optional or not find(VIRT, rest[0])
        yield from of_verbs(_noun(rest[0]) if named else VIRT, rest[0], rest[named:], names)


def _new(names: Names) -> Candidates:
    for noun, taken in ((VIRT, names.virts), (BRIDGE, {**names.members, **dict.fromkeys(names.bridges)})):
        yield next(f"{noun}{unit}" for unit in range(len(taken) + 1) if f"{noun}{unit}" not in taken), "the lowest free"


def _of_cable(kind: str, rest: Sequence[str], names: Names) -> Candidates:
    ends = [pair for cable in names.cables for pair in (cable, cable[::-1])]
    rest = [f"{VIRT}{word}" if word.isdecimal() else word for word in rest]
    cabled = {end for end, _ in ends}
    if kind == "uncable" and len(rest) < 2:
        yield from ((a, f"the cable to {b}") for a, b in ends if not rest)
        yield from ((b, f"the cable from {a}") for a, b in ends if rest and a == rest[0])
    elif len(rest) < 2:
        yield from ((name, note) for name, note in names.virts.items() if name not in rest and name not in cabled)
    elif kind == "cable":
        yield from _impairments()


def of_verbs(noun: Noun, target: str, before: Sequence[str], names: Names) -> Candidates:
    """Yield the candidates for the next word of a list of verbs.

    target: the interface or bridge that the verbs change, "" if the line does not name it. before: the words so far.
    """
    at = 0
    while at < len(before):
        verb = find(noun, before[at])
        at += 1
        if verb is None:
            continue
        if verb.rest_of_line:
            return
        for argument in verb.arguments:
            if argument.take:
                while at < len(before) and not find(noun, before[at]):
                    at += 1
                if at == len(before):
                    yield from _impairments()
            elif at == len(before):
                yield from ((value, "") for value in _values(argument, verb.name, target, names))
                return
            else:
                at += 1
        if at < len(before) and before[at] in verb.options:
            at += 1
        elif at == len(before):
            yield from ((option, verb.meaning) for option in verb.options)
    yield from ((verb.name, verb.meaning) for verb in VERBS if verb.noun == noun)


def _impairments() -> Candidates:
    yield from ((word, "an impairment") for word in WORDS)
    yield from ((word, "the direction of the impairment") for word in BOTH)


def _values(argument: Argument, verb: str, target: str, names: Names) -> Sequence[str]:
    if _CHOICE.fullmatch(argument.name):
        return argument.name.split("|")
    found: dict[int, Callable[[], Sequence[str]]] = {
        id(arg.IFACE): lambda: names.interfaces if verb == "add" else names.members.get(target, ()),
        id(arg.BRIDGE): lambda: names.bridges,
        id(arg.NETNS): lambda: names.namespaces,
        id(arg.USER): lambda: names.users,
        id(arg.GROUP): lambda: names.groups,
        id(arg.INET_KNOWN): lambda: [address for address in names.addresses.get(target, ()) if ":" not in address],
        id(arg.INET6_KNOWN): lambda: [address for address in names.addresses.get(target, ()) if ":" in address],
    }
    return found.get(id(argument), tuple)()


def _noun(name: str) -> Noun:
    return BRIDGE if name.startswith("bridge") else VIRT
