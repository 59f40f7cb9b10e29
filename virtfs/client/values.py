"""Attributes that are files: reading one reads the file, setting it writes the file."""

from collections.abc import Callable
from os import PathLike
from typing import Generic, TypeVar, overload

from virtfs.client.folder import Folder
from virtfs.client.texts import Named, text_of
from virtfs.core.quantities import parse_size

T = TypeVar("T")
S = TypeVar("S", bound="Value[object]")


class Value(Generic[T]):
    """An attribute whose value is the text of a file.

    file: the name of the file in the directory. parse: converts the text to the value. doc: the attribute's docstring.
    """

    def __init__(self, file: str, parse: Callable[[str], T], doc: str) -> None:
        self.file = file
        self.parse = parse
        self.__doc__ = doc

    @overload
    def __get__(self: S, folder: None, of: type) -> S: ...
    @overload
    def __get__(self, folder: Folder, of: type) -> T: ...
    def __get__(self, folder: Folder | None, of: type) -> object:
        return self if folder is None else self.parse(folder.read(self.file))

    def __set__(self, folder: Folder, value: T) -> None:
        raise AttributeError(f"{self.file} cannot be set")


class Setting(Value[T]):
    """An attribute that can be set. A string is written unchanged, so `v.history_size = "64K"` works too."""

    def __set__(self, folder: Folder, value: T | str | Named | PathLike[str]) -> None:
        if isinstance(value, bool) and self.parse is not switch:
            raise TypeError(f"{self.file}={value!r}: only a switch is True or False; give a text or a number")
        folder.write(self.file, text_of(self.file, value))


def switch(text: str) -> bool:
    """Return whether a switch is on."""
    return text == "1"


def size(text: str) -> int:
    """Return a size in bytes."""
    return parse_size(text)


def lines(text: str) -> list[str]:
    """Return the lines of a text."""
    return text.splitlines()
