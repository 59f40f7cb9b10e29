"""Verbs and impairments as keyword arguments. They become the words of a line of ctl, which the server parses."""

import errno
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Protocol, TypedDict, runtime_checkable

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
    the line.

    >>> words({"up": True, "mtu": 1400, "strict": False, "inet": ["10.0.3.1/24", "10.0.4.1/24"]})
    'up mtu 1400 -strict inet 10.0.3.1/24 inet 10.0.4.1/24'
    """
    first: list[str] = []
    last: list[str] = []
    for keyword, value in verbs.items():
        name = f"-{keyword[3:]}" if keyword.startswith("no_") else keyword
        verb = find(noun, name)
        (last if verb is not None and verb.rest_of_line else first).extend(_with_arguments(name, value, noun))
    if len(last) > 1:
        raise OSError(errno.EINVAL, f"each of {quoted(last[0])} and {quoted(last[1])} needs a line of its own")
    return " ".join(first + last)


def impairment(words: Mapping[str, object]) -> str:
    """Return the words of an impairment.

    TypeError: a time, a share or a rate is a number, which has no unit; or there is a word "jitter".

    >>> impairment({"delay": "20ms", "loss": "1%", "seed": 7})
    'delay 20ms loss 1% seed 7'
    """
    for name, value in words.items():
        if name == "jitter":
            raise TypeError(f'jitter={value!r}: the jitter is the second time of delay, as in delay="20ms 5ms"')
        if name in _UNITS and isinstance(value, int | float):
            raise TypeError(f'{name}={value!r} has no unit: give a text, such as {name}="{_UNITS[name]}"')
    return " ".join(f"{name} {_argument(name, value)}" for name, value in words.items() if value is not None)


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
