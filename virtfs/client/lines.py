"""Verbs and impairments as keyword arguments. They become the words of a line of ctl, which the server parses."""

import errno
from collections.abc import Iterable, Mapping
from itertools import pairwise
from os import PathLike
from typing import TypedDict

from virtfs.client.texts import Named, one_line, text_of
from virtfs.core.arguments import parse_description, parse_mark
from virtfs.core.errors import VirtError
from virtfs.core.impairment import BOTH, UNIMPAIRED
from virtfs.core.impairment_text import WORDS, format_impairments, parse_impairments
from virtfs.core.quantities import hint_of_unit
from virtfs.core.quoting import quoted
from virtfs.core.verbs import VIRT, Noun, find

Number = int | str | None
Text = str | None
Switch = bool | None
Several = str | Iterable[str] | None
Interface = str | Named
Interfaces = Interface | Iterable[Interface] | None


class HostVerbs(TypedDict, total=False):
    """The verbs of an interface except netns, as keyword arguments; see script() for their values."""

    up: Switch
    mtu: Number
    link: Text
    taplink: Text
    inet: Several
    inet6: Several
    no_inet: Several
    no_inet6: Several
    bridge: "Interface | bool | None"
    owner: Number
    group: Number
    mode: Number
    queue: Number
    backlog: Number
    strict: Switch
    promisc: Switch
    antispoof: Switch
    persist: Switch
    upopen: Switch
    carrier: Text
    exclusive: Text
    impair: "Text | bool"
    no_impair: Text
    filter: "Text | bool"
    pace: "float | Text"
    history: "Number | bool"
    mark: Text
    description: Text


class VirtVerbs(HostVerbs, total=False):
    """The verbs of an interface, as keyword arguments; see script() for their values."""

    netns: "Number | Named | PathLike[str]"


class BridgeVerbs(TypedDict, total=False):
    """The verbs of a bridge, as keyword arguments; see script() for their values."""

    up: Switch
    add: Interfaces
    delete: Interfaces
    maxaddr: Number
    timeout: Number
    static: Several
    deladdr: Text
    flush: Switch
    flushall: Switch
    discover: Interfaces
    no_discover: Interfaces
    learn: Interfaces
    no_learn: Interfaces
    protect: Interfaces
    no_protect: Interfaces
    stp: Interfaces
    no_stp: Interfaces
    maxage: Number
    fwddelay: Number
    hellotime: Number
    priority: Number
    ifpriority: Several
    ifpathcost: Several
    groupfwd: Text
    ifgroupfwd: Several
    mtu: Number
    inet: Several
    inet6: Several
    no_inet: Several
    no_inet6: Several


class Impairment(TypedDict, total=False):
    """The words of an impairment, as keyword arguments: delay="20ms 5ms" with its jitter, loss="1%", seed=7."""

    delay: Text
    distribution: Text
    loss: Text
    duplicate: Text
    reorder: Text
    gap: Number
    corrupt: Text
    rate: Text
    limit: Number
    seed: Number


_IDLE = frozenset(("seed", "limit"))  # words of an impairment that have no effect without others
# The words of an impairment whose values have a unit, with an example.
_UNITS = {
    "delay": "20ms",
    "loss": "1%",
    "duplicate": "1%",
    "reorder": "25%",
    "corrupt": "0.1%",
    "rate": "10mbit",
}
_IMPAIRMENT = "delay 20ms loss 1% seed 7"  # an example
# Verbs that have an opposite and take a text. A number for one of them is likely to mean False or True.
_TEXTS = {"filter": "arp or icmp", "impair": _IMPAIRMENT, "bridge": "bridge0"}


def words(verbs: Mapping[str, object], noun: Noun = VIRT) -> str:
    """Return verbs as the words of one line of ctl. OSError EINVAL: they need several lines. Others: as for script().

    >>> words({"up": True, "mtu": 1400, "strict": False, "inet": ["10.0.3.1/24", "10.0.4.1/24"]})
    'up mtu 1400 -strict inet 10.0.3.1/24 inet 10.0.4.1/24'
    """
    first, *more = script(verbs, noun) or [""]
    if more:
        raise OSError(errno.EINVAL, f"{quoted(more[0])} needs a line of its own")
    return first


def script(verbs: Mapping[str, object], noun: Noun = VIRT) -> list[str]:
    """Return verbs as lines of ctl, each without the name of its interface. There is none without verbs.

    True stands for a verb without arguments: `up=True`. False stands for the opposite of a verb: `up=False` is `down`,
    `strict=False` is `-strict`, `filter=False` is `-filter`. None leaves the verb out. A number or a string is the
    verb's argument; the number of a mode is its permission bits. An iterable repeats the verb, once for each argument.
    `no_inet="10.0.3.1/24"` is `-inet 10.0.3.1/24`.
    The words are in the order of the keywords, except that a verb that takes the rest of the line comes last. Each
    further one, a description or a mark, has a line of its own. The server cannot refuse that, so that all verbs take
    effect, or none does.
    OSError EINVAL: an argument is empty, contains a line break, or would begin a comment; a description or a mark is
    too long; or there are two filters. TypeError: a word of an impairment is given as a verb; a verb without arguments
    has a value, or another has True; or a value is a container or bytes.

    >>> script({"filter": "udp", "up": True, "description": "the printer"})
    ['up filter udp', 'description the printer']
    """
    first: list[str] = []
    last: list[tuple[str, str]] = []
    for keyword, value in verbs.items():
        name = f"-{keyword[3:]}" if keyword.startswith("no_") else keyword
        verb = find(noun, name)
        if verb is None and noun is VIRT and keyword in WORDS:
            example = f"impair={quoted(_IMPAIRMENT)}"
            raise TypeError(f"{keyword}={value!r} is not a verb: give it in a text, such as {example}")
        for word in _with_arguments(name, value, noun):
            if verb is not None and verb.rest_of_line and word != _opposite(name, noun):
                last.append((name, word))
            else:
                first.append(word)
    last.sort(key=lambda each: each[0] != "filter")  # only a filter may be refused, and then nothing has changed
    if len(last) > 1:
        _check_further(last[1:])
    rest = [word for _, word in last]
    line = " ".join(first + rest[:1])
    return [line, *rest[1:]] if line else []


def _check_further(last: Iterable[tuple[str, str]]) -> None:
    """Raise the error with which the server would refuse a line after the first."""
    for name, word in last:
        if name == "filter":
            raise OSError(errno.EINVAL, f"{quoted(word)} is a second filter: join the two with and, or, as in tcpdump")
        parse = parse_mark if name == "mark" else parse_description
        try:
            parse(word.removeprefix(name).strip())
        except VirtError as error:
            raise OSError(error.errno, f"{name}: {error.strerror}") from None


def impairment(text: str, words: Mapping[str, object]) -> str:
    """Return the text of an impairment in the form in which the server prints it.

    text: an impairment in words, perhaps of each direction. words: further words, as keyword arguments, which apply to
    both directions. If the text is about one direction, the other one gets them too, unless they have no effect there.
    TypeError: a word is in the text, too; a time, a share or a rate has no unit; there is a word "jitter"; or a value
    is a container.

    >>> impairment("", {"delay": "20ms", "loss": "1%", "seed": 7})
    'delay 20ms loss 1% seed 7'
    >>> impairment("out loss 20% in delay 1ms", {"seed": 5})
    'in delay 1ms seed 5 out loss 20% seed 5'
    """
    for name, value in words.items():
        _check_unit(name, value)
    more = [f"{name} {_argument(name, value)}" for name, value in words.items() if value is not None]
    parts = _by_direction(text_of("impair", text, _IMPAIRMENT).split())
    if more and len(parts) == 1 and (one := next(iter(parts))) and not words.keys() <= _IDLE:
        parts["in" if one == "out" else "out"] = []
    for given in parts.values() if more else ():
        if twice := [name for name in words if name in given and words[name] is not None]:
            raise TypeError(f"{twice[0]}={words[twice[0]]!r} is also in the text {quoted(text)}: give it once")
    whole = " ".join(" ".join(filter(None, (direction, *given, *more))) for direction, given in parts.items())
    return _normal(whole)


def _by_direction(words: list[str]) -> dict[str, list[str]]:
    """Return the words of each direction of an impairment. The key is "" for both directions."""
    if not words or words[0] not in BOTH:
        return {"": words}
    parts: dict[str, list[str]] = {}
    for word in words:
        if word in BOTH and word not in parts:
            given = parts[word] = []
        else:
            given.append(word)
    return parts


def _normal(text: str) -> str:
    """Return an impairment in the form in which the server prints it, or the same text if it is not an impairment."""
    words = text.split()
    try:
        found, count = parse_impairments(words)
    except VirtError:
        return text  # which the server refuses, with its reason
    return format_impairments(*(found.get(way, UNIMPAIRED) for way in BOTH)) if count == len(words) else text


def _check_unit(name: str, value: object) -> None:
    """Raise TypeError if the value of a word lacks its unit, or if there is no such word."""
    if name == "jitter":
        raise TypeError(f'jitter={value!r}: the jitter is the second time of delay, as in delay="20ms 5ms"')
    if name not in _UNITS or value is None:
        return
    given = text_of(name, value, _UNITS[name]).split()
    if hints := [hint for number, unit in pairwise(given) if (hint := hint_of_unit(number, unit))]:
        raise TypeError(f"{name}={value!r}{hints[0]}")
    if any(word[-1:].isdigit() for word in given):
        raise TypeError(f'{name}={value!r} has no unit: give a text, such as {name}="{_UNITS[name]}"')


def _with_arguments(name: str, value: object, noun: Noun) -> list[str]:
    """Return a list of strings "verb argument", one for each argument in `value`."""
    verb = find(noun, name)
    if verb is not None and not verb.arguments and not verb.options and value is not None:
        if value not in (0, 1):
            raise TypeError(f"{name}={value!r}: {name} has no value; give True or False")
        value = bool(value)
    if value is None:
        return []
    if name in _TEXTS and isinstance(value, int | float) and value is not False:
        such = f"such as {name}={quoted(_TEXTS[name])}"
        raise TypeError(f"{name}={value!r} is not a text: give one, {such}, or False for {_opposite(name, noun)}")
    if value is True and verb is not None and verb.arguments:
        raise TypeError(f"{name}=True: {name} needs {'a text' if verb.rest_of_line else verb.arguments[0].noun}")
    if isinstance(value, bool):
        return [name if value else _opposite(name, noun)]
    if isinstance(value, str | bytes | Named | Mapping) or not isinstance(value, Iterable):
        return [f"{name} {_argument(name, value, noun)}".rstrip()]
    return [f"{name} {_argument(name, each, noun)}" for each in value]


def _opposite(name: str, noun: Noun) -> str:
    """Return the verb that reverses a verb: `down` for `up`, otherwise the verb with a minus sign."""
    if name == "up":
        return "down"
    return f"-{name}"


def _argument(name: str, value: object, noun: Noun = VIRT) -> str:
    if name == "mode" and isinstance(value, int):
        return f"{value:o}"
    verb = find(noun, name)
    free = verb is not None and verb.rest_of_line
    text = one_line(name, text_of(name, value, {**_UNITS, **_TEXTS}.get(name, "")))
    if not free and (not text.split() or any(word[0] == "#" for word in text.split())):
        reason = "a word that begins with # begins a comment" if text.split() else "it is empty"
        raise OSError(errno.EINVAL, f"{name}: {quoted(text)} is not an argument: {reason}")
    return text
