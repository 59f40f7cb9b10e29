"""Who lies where: the one place that knows the names below the mount point."""

from collections.abc import Callable, Iterable
from typing import Protocol

from virtfs.core.grammar import help_text
from virtfs.core.ids import User
from virtfs.core.script import Script
from virtfs.core.values import TAP_VALUES, VALUES, counter
from virtfs.core.verbs import VIRT, of_file
from virtfs.core.virt import COUNTERS, Virt
from virtfs.files.ctl import Ctl
from virtfs.files.frame import Frame
from virtfs.files.node import ROOT, Directory, Node, Symlink
from virtfs.files.text import Text
from virtfs.forward.wire import Wire


class Commands(Protocol):
    """What the daemon does for the text files. virt is None where all of the mount is meant."""

    async def run(self, virt: Virt | None, script: Script, data: bytes, user: User) -> None:
        """One write to a ctl."""

    def dropped(self, virt: Virt | None, rest: str, user: User) -> None:
        """A ctl was closed within a line."""

    async def set_value(self, virt: Virt, file: str, data: bytes, user: User) -> None:
        """One write to an attribute file, named relative to the interface's directory."""

    async def refresh(self, virt: Virt | None) -> None:
        """Ask the kernel for what it does not report by itself: counters and addresses."""

    def state(self, virt: Virt | None) -> str:
        """The text of a ctl."""

    def last_error(self, user: User) -> str:
        """The user's last failed command and why."""


def line(value: Callable[[], str]) -> Callable[[User], str]:
    """The text of a file that holds one value, or a list one a line; nothing at all is an empty file."""

    def text(user: User) -> str:
        return f"{now}\n" if (now := value()) else ""

    return text


def root_directory(commands: Commands, version: str) -> Directory:
    """The mount point's own files. Interfaces come and go beside them."""
    return Directory(
        ROOT,
        {
            "ctl": _ctl(commands, None),
            "last_error": Text(ROOT, lambda user: commands.last_error(user) + "\n"),
            "help": Text(ROOT, lambda user: help_text()),
            "version": Text(ROOT, lambda user: f"virtfs {version}\n"),
        },
    )


def interface_names(virt: Virt, wire: Wire, commands: Commands) -> dict[str, Node]:
    """What one interface adds to the root."""
    return {virt.name: _interface(virt, wire, commands), virt.tap: Symlink(ROOT, f"{virt.name}/frame")}


def _interface(virt: Virt, wire: Wire, commands: Commands) -> Directory:
    values = {name: _value(virt, name, value, commands) for name, value in VALUES.items()}
    return Directory(
        virt,
        {
            "ctl": _ctl(commands, virt),
            "frame": Frame(wire),
            "next": Text(virt, line(lambda: str(wire.peek()))),
            **values,
            "stats": Directory(virt, _stats(virt, commands, COUNTERS)),
            "tap": Directory(virt, {name: _tap_value(virt, name, commands) for name in TAP_VALUES}),
        },
    )


def _ctl(commands: Commands, virt: Virt | None) -> Ctl:
    return Ctl(
        virt or ROOT,
        text=lambda user: commands.state(virt),
        run=lambda script, data, user: commands.run(virt, script, data, user),
        drop=lambda rest, user: commands.dropped(virt, rest, user),
        refresh=lambda: commands.refresh(virt),
    )


def _value(virt: Virt, name: str, value: Callable[[Virt], str], commands: Commands) -> Text:
    if not of_file(VIRT, name):
        return Text(virt, line(lambda: value(virt)))
    return Text(
        virt,
        line(lambda: value(virt)),
        write=lambda data, user: commands.set_value(virt, name, data, user),
    )


def _tap_value(virt: Virt, name: str, commands: Commands) -> Text:
    value = TAP_VALUES[name]
    return Text(virt, line(lambda: value(virt)))


def _stats(virt: Virt, commands: Commands, names: Iterable[str]) -> dict[str, Node]:
    def file(name: str) -> Text:
        return Text(virt, line(lambda: counter(virt, name)), refresh=lambda: commands.refresh(virt))

    return {name: file(name) for name in names}
