"""Who lies where: the one place that knows the names below the mount point."""

from collections.abc import Callable, Iterable
from typing import Protocol

from virtfs.core.errors import VirtError
from virtfs.core.grammar import help_text
from virtfs.core.ids import Unit, User
from virtfs.core.ifconfig import ifconfig
from virtfs.core.script import Script
from virtfs.core.values import TAP_VALUES, VALUES, counter
from virtfs.core.verbs import VIRT, of_file
from virtfs.core.virt import COUNTERS, Virt
from virtfs.files.capture import Capture
from virtfs.files.clients import clients_text
from virtfs.files.clone import Clone
from virtfs.files.ctl import Ctl
from virtfs.files.device import Opens
from virtfs.files.events import Events
from virtfs.files.metrics import metrics
from virtfs.files.node import ROOT, Directory, Node, RootOwned, Symlink
from virtfs.files.ports import Ports
from virtfs.files.text import Text
from virtfs.files.wait import waits
from virtfs.forward.wire import Wire
from virtfs.host.processes import command_of


class Commands(Protocol):
    """What the daemon does for the text files. virt is None where all of the mount is meant."""

    async def run(self, virt: Virt | None, script: Script, data: bytes, user: User) -> None:
        """One write to a ctl."""

    def refused(self, error: VirtError, user: User) -> None:
        """A part of a script that is not run, and why."""

    async def set_value(self, virt: Virt, file: str, data: bytes, user: User) -> None:
        """One write to an attribute file, named relative to the interface's directory."""

    async def refresh(self, virt: Virt | None) -> None:
        """Ask the kernel for what it does not report by itself: counters and addresses."""

    def state(self, virt: Virt | None) -> str:
        """The text of a ctl."""

    def changes(self) -> int:
        """A number that is another after each change, other than of counters."""

    async def make_clone(self, user: User) -> tuple[Unit, Callable[[], None]]:
        """An interface for one open of clone: its unit, and what destroys it."""

    def wires(self) -> list[Wire]:
        """Every interface, by unit."""

    def status(self, version: str) -> str:
        """The text of status.json."""

    def last_error(self, user: User) -> str:
        """The user's last failed command and why."""


def line(value: Callable[[], str]) -> Callable[[User], str]:
    """The text of a file that holds one value."""
    return lambda user: f"{value()}\n"


def root_directory(commands: Commands, version: str, events: Events, pcap: Capture) -> Directory:
    """The mount point's own files. Interfaces come and go beside them."""
    return Directory(
        ROOT,
        {
            "ctl": _ctl(commands, None),
            "clone": Clone(Opens(), commands.make_clone),
            "events": events,
            "pcap": pcap,
            "last_error": Text(ROOT, lambda user: commands.last_error(user) + "\n", personal=True),
            "help": Text(ROOT, lambda user: help_text()),
            "ifconfig": Text(
                ROOT, lambda user: ifconfig(wire.virt for wire in commands.wires()), changes=commands.changes
            ),
            "status.json": _report(commands, lambda: commands.status(version)),
            "metrics": _report(commands, lambda: metrics(version, commands.wires())),
            "version": Text(ROOT, lambda user: f"virtfs {version}\n"),
        },
    )


def interface_names(ports: Ports, commands: Commands) -> dict[str, Node]:
    """What one interface adds to the root."""
    virt = ports.wire.virt
    return {virt.name: _interface(ports, commands), virt.tap: Symlink(ROOT, f"{virt.name}/frame")}


def _interface(ports: Ports, commands: Commands) -> Directory:
    wire, opens = ports.wire, ports.opens
    virt = wire.virt
    return Directory(
        virt,
        {
            "ctl": _ctl(commands, virt),
            "frame": ports.frame,
            "hex": ports.hex,
            "pcap": ports.pcap,
            "inject": ports.inject,
            "rx": ports.rx,
            "history": ports.history_file,
            "next": Text(virt, line(lambda: str(wire.peek()))),
            "wait": Directory(virt, waits(wire, opens)),
            "clients": Text(virt, lambda user: clients_text(opens, command_of)),
            **{name: _value(virt, name, value, commands) for name, value in VALUES.items()},
            "stats": Directory(virt, _stats(virt, commands, COUNTERS)),
            "tap": Directory(virt, _tap(virt, commands)),
        },
    )


def _tap(virt: Virt, commands: Commands) -> dict[str, Node]:
    """The host's end; what of it can be set is root's."""
    addresses = Text(virt, lambda user: "".join(f"{address}\n" for address in virt.host.addresses))
    values = {name: _value(virt, f"tap/{name}", value, commands) for name, value in TAP_VALUES.items()}
    return {**values, "addresses": addresses}


def _report(commands: Commands, text: Callable[[], str]) -> Text:
    """A text with counters of every interface in it."""
    return Text(ROOT, lambda user: text(), refresh=lambda: commands.refresh(None), changes=commands.changes)


def _ctl(commands: Commands, virt: Virt | None) -> Ctl:
    return Ctl(
        virt or ROOT,
        text=lambda user: commands.state(virt),
        run=lambda script, data, user: commands.run(virt, script, data, user),
        refused=commands.refused,
        refresh=lambda: commands.refresh(virt),
        changes=commands.changes if virt is None else None,
    )


def _value(virt: Virt, name: str, value: Callable[[Virt], str], commands: Commands) -> Text:
    """An attribute file; it can be written if a verb mirrors it, by root alone if the verb is root's."""
    verbs = of_file(VIRT, name)
    if not verbs:
        return Text(virt, line(lambda: value(virt)))
    return Text(
        RootOwned(virt=virt) if any(verb.root_only for verb in verbs) else virt,
        line(lambda: value(virt)),
        write=lambda data, user: commands.set_value(virt, name, data, user),
        refused=commands.refused,
    )


def _stats(virt: Virt, commands: Commands, names: Iterable[str]) -> dict[str, Node]:
    def file(name: str) -> Text:
        return Text(virt, line(lambda: counter(virt, name)), refresh=lambda: commands.refresh(virt))

    return {name: file(name) for name in names}
