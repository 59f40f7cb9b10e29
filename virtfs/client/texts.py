"""Values of keyword arguments and attributes as texts, for lines of ctl and for files."""

import errno
from collections.abc import Iterable
from os import PathLike
from typing import Protocol, runtime_checkable

from virtfs.core.quoting import quoted


@runtime_checkable
class Named(Protocol):
    """An object with a name, such as a Virt or a Bridge."""

    @property
    def name(self) -> str:
        """The name of the object in a line of ctl."""


def text_of(name: str, value: object, example: str = "") -> str:
    """Return a value as text: 1 or 0 for a switch, digits for a number, the name of an object.

    name: the verb or file, for the error. example: a text that would be right.
    TypeError: the value is None, bytes or a container, whose text would be that of Python.

    >>> text_of("up", True), text_of("mtu", 1500), text_of("carrier", "open")
    ('1', '1500', 'open')
    """
    if isinstance(value, Named) and not isinstance(value, PathLike):  # a Path has a name, too
        return value.name
    if value is None or (isinstance(value, Iterable) and not isinstance(value, str)):
        such = f", such as {name}={quoted(example)}" if example else ""
        raise TypeError(f"{name}={value!r} is not a text: give one{such}")
    return str(int(value)) if isinstance(value, bool) else str(value)


def one_line(name: str, text: object) -> str:
    """Return a text that becomes a part of a line of ctl. OSError EINVAL: what follows a line break would be a command.

    name: the verb or command, for the error. TypeError: as for text_of().
    """
    line = text_of(name, text)
    if "\n" in line:
        raise OSError(errno.EINVAL, f"{name}: {quoted(line)} contains a line break, which would end the line")
    return line
