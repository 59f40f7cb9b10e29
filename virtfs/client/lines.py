"""Verbs and impairments as keyword arguments. They become the words of a line of ctl, which the server parses."""

import errno
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Protocol, TypedDict, runtime_checkable

from virtfs.core.errors import VirtError
from virtfs.core.impairment import BOTH, UNIMPAIRED
from virtfs.core.impairment_text import WORDS, format_impairments, parse_impairments
from virtfs.core.quoting import quoted
from virtfs.core.verbs import VIRT, Noun, find


@runtime_checkable
class Named(Protocol):
    """An object with a name, such as a Virt or a Bridge."""

    @property
    def name(self) -> str:
        """The name of the object in a line of ctl."""


Number = int | str | None
Text = str | None
Switch = bool | None
Several = str | Iterable[str] | None
Interface = str | Named
Interfaces = Interface | Iterable[Interface] | None


class VirtVerbs(TypedDict, total=False):
    """The verbs of an interface, as keyword arguments; see words() for their values."""

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
    netns: "Number | Named | PathLike[str]"
    exclusive: Text
    impair: "Text | bool"
    no_impair: Text
    filter: "Text | bool"
    pace: "float | Text"
    history: "Number | bool"
    mark: Text
    description: Text


class BridgeVerbs(TypedDict, total=False):
    """The verbs of a bridge, as keyword arguments; see words() for their values."""

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


def words(verbs: Mapping[str, object], noun: Noun = VIRT) -> str:
    """Return the words of a line of ctl.

    True stands for the verb alone: `up=True`. False stands for its opposite: `up=False` is `down`, `strict=False` is
    `-strict`, `filter=False` is `-filter`. None leaves the verb out. A number or a string is the verb's argument. An
    iterable of strings repeats the verb, once for each string. `no_inet="10.0.3.1/24"` is `-inet 10.0.3.1/24`.
    The words are in the order of the keywords, except that a verb that takes the rest of the line comes last.
    OSError EINVAL: an argument is empty, contains a newline, or would begin a comment; or two verbs take the rest of
    the line. TypeError: a word of an impairment is given as a verb.

    >>> words({"up": True, "mtu": 1400, "strict": False, "inet": ["10.0.3.1/24", "10.0.4.1/24"]})
    'up mtu 1400 -strict inet 10.0.3.1/24 inet 10.0.4.1/24'
    """
    first: list[str] = []
    last: list[str] = []
    for keyword, value in verbs.items():
        name = f"-{keyword[3:]}" if keyword.startswith("no_") else keyword
        verb = find(noun, name)
        if verb is None and noun is VIRT and keyword in WORDS:
            example = 'impair="delay 20ms loss 1% seed 7"'
            raise TypeError(f"{keyword}={value!r} is not a verb: give it in a text, such as {example}")
        (last if verb is not None and verb.rest_of_line else first).extend(_with_arguments(name, value, noun))
    if len(last) > 1:
        raise OSError(errno.EINVAL, f"each of {quoted(last[0])} and {quoted(last[1])} needs a line of its own")
    return " ".join(first + last)


def impairment(text: str, words: Mapping[str, object]) -> str:
    """Return the text of an impairment in the form in which the server prints it.

    text: an impairment in words, perhaps of each direction. words: further words, as keyword arguments, which apply to
    both directions. If the text is about one direction, the other one gets them too, unless they have no effect there.
    TypeError: a word is in the text, too; a time, a share or a rate has no unit; or there is a word "jitter".

    >>> impairment("", {"delay": "20ms", "loss": "1%", "seed": 7})
    'delay 20ms loss 1% seed 7'
    >>> impairment("out loss 20% in delay 1ms", {"seed": 5})
    'in delay 1ms seed 5 out loss 20% seed 5'
    """
    for name, value in words.items():
        _check_unit(name, value)
    more = [f"{name} {_argument(name, value)}" for name, value in words.items() if value is not None]
    parts = _by_direction(text.split())
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
    if name in _UNITS and value is not None and any(word[-1:].isdigit() for word in str(value).split()):
        raise TypeError(f'{name}={value!r} has no unit: give a text, such as {name}="{_UNITS[name]}"')


def _with_arguments(name: str, value: object, noun: Noun) -> list[str]:
    """Return a list of strings "verb argument", one for each argument in `value`."""
    if value is None:
        return []
    if isinstance(value, bool):
        return [name if value else _opposite(name, noun)]
    if isinstance(value, str | Named) or not isinstance(value, Iterable):
        return [f"{name} {_argument(name, value, noun)}".rstrip()]
    return [f"{name} {_argument(name, each, noun)}" for each in value]


def _opposite(name: str, noun: Noun) -> str:
    """Return the verb that reverses a verb: `down` for `up`, otherwise the verb with a minus sign."""
    if name == "up":
        return "down"
    return f"-{name}"


def _argument(name: str, value: object, noun: Noun = VIRT) -> str:
    text = value.name if isinstance(value, Named) and not isinstance(value, PathLike) else str(value)
    verb = find(noun, name)
    free = verb is not None and verb.rest_of_line
    if "\n" in text or (not free and (not text.split() or any(word[0] == "#" for word in text.split()))):
        raise OSError(errno.EINVAL, f"{name}: {quoted(text)} is not an argument")
    return text
