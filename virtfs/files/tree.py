"""The names below the mount point, and the object that serves each file."""

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Protocol

from virtfs.core.bridge import Bridge
from virtfs.core.counters import Way
from virtfs.core.errors import VirtError
from virtfs.core.help_text import help_text
from virtfs.core.ids import Unit, User
from virtfs.core.ifconfig import ifconfig
from virtfs.core.memory import Memory
from virtfs.core.script import Script
from virtfs.core.values import OF_KERNEL, TAP_VALUES, VALUES
from virtfs.core.verbs import VIRT, of_file
from virtfs.core.virt import COUNTERS, Virt
from virtfs.files.capture import Capture
from virtfs.files.clients import clients_text, follow_forks
from virtfs.files.clone import Clone
from virtfs.files.ctl import Ctl
from virtfs.files.device import Opens
from virtfs.files.events import Events
from virtfs.files.node import ROOT, Directory, Node, Rights, RootOwned, Symlink
from virtfs.files.ports import Ports
from virtfs.files.stats import Counter, Stats
from virtfs.files.text import Text, Turn, nothing
from virtfs.files.wait import waits
from virtfs.forward.socket_cable import SocketCable
from virtfs.forward.tasks import in_thread
from virtfs.forward.wire import Wire
from virtfs.host.processes import command_of


class Commands(Protocol):
    """Carries out writes to ctl and attribute files."""

    async def run(self, of: Virt | None, script: Script, data: bytes, user: User, turn: Turn, /) -> None:
        """Carry out one write to the ctl of the interface `of`, or to the mount's ctl if `of` is None.

        turn: waits until it is the user's turn; called before each line.
        """

    async def set_value(self, virt: Virt, file: str, data: bytes, user: User) -> None:
        """Carry out one write to an attribute file. file: the path relative to the interface's directory."""

    async def make_clone(self, user: User) -> tuple[Unit, Callable[[], None]]:
        """Create an interface for one open of clone. Return its unit, and a function that destroys it."""


class Reports(Protocol):
    """Supplies the texts of report files. If `virt` is None, the text is about the whole mount."""

    async def refresh(self, virt: Virt | None) -> None:
        """Query the kernel for state that it sends no notifications about: counters, and taps in other namespaces."""

    async def count(self, virt: Virt | None) -> None:
        """Query the kernel for counters."""

    def ctl(self, virt: Virt | None) -> str | Iterator[str]:
        """Return the text of a ctl. The text of the mount's ctl comes in pieces."""

    @property
    def memory(self) -> Memory:
        """The memory accounts of the mount."""

    @property
    def directory(self) -> str:
        """The path at which the file system is mounted."""

    def changes(self) -> int:
        """Return a number that grows with every change of state. Counters do not affect it."""

    def wires(self) -> list[Wire]:
        """Return the wires of all interfaces, ordered by unit."""

    def ways(self) -> list[Way]:
        """Return both directions of each cable, with their counters."""

    def status(self, version: str) -> Iterator[str]:
        """Yield the text of status.json in pieces."""

    def topology(self) -> Iterator[str]:
        """Yield the text of topology in pieces."""

    def state_gauges(self) -> dict[str, float] | None:
        """Return the metrics about the state file, by name, or None if there is no state file."""

    def socket_cables(self) -> list[SocketCable]:
        """Return the cables whose far end is a socket."""

    def bridges(self) -> list[Bridge]:
        """Return all bridges."""


class Errors(Protocol):
    """Keeps each user's last error."""

    def report(self, refusal: VirtError, user: User) -> None:
        """Set the user's last error."""

    def last_error(self, user: User) -> str:
        """Return the user's last failed command and the reason for the failure."""

    def error_time(self, user: User) -> int:
        """Return when the user's last error was set, in ns since 1970, or 0 if there is none."""


class Tree:
    """Makes the files of the mount and of each interface. The files of an interface are made when they are first used.

    grown: called when the files of an interface have been made.
    """

    def __init__(self, commands: Commands, reports: Reports, errors: Errors, grown: Callable[[], None]) -> None:
        self._commands = commands
        self._reports = reports
        self._errors = errors
        self._grown = grown
        self._loaded_metrics = False

    def root(self, version: str, loop: Callable[[], str], events: Events, pcap: Capture) -> dict[str, Node]:
        """Return the files of the mount itself, by name. The daemon later adds and removes the files of interfaces.

        loop: returns the name of the loop that answers requests.
        """
        commands, reports, errors = self._commands, self._reports, self._errors
        return {
            "ctl": self._ctl(None),
            "clone": Clone(Opens(), commands.make_clone),
            "events": events,
            "pcap": pcap,
            "last_error": Text(
                ROOT,
                lambda user: errors.last_error(user) + "\n",
                personal=True,
                always=True,
                written=errors.error_time,
            ),
            "help": Text(ROOT, lambda user: help_text()),
            "ifconfig": Text(
                ROOT, lambda user: ifconfig(wire.virt for wire in reports.wires()), changes=reports.changes
            ),
            "status.json": self._report(lambda: reports.status(version), b'"memory": {'),
            "stats": Stats(reports.wires, partial(reports.count, None), reports.changes),
            "metrics": self._report(lambda: self._metrics(version), b"# HELP virtfs_memory_bytes ", self._load_metrics),
            "memory": Text(ROOT, lambda user: reports.memory.text(), rights=Rights.PRIVATE),
            "topology": self._report(reports.topology),
            "version": Text(ROOT, lambda user: f"virtfs {version}, {loop()}\n"),
        }

    def interface(self, ports: Ports) -> dict[str, Node]:
        """Return the entries of one interface in the root directory: virt3/, and the symlink tap3 to virt3/frame."""
        virt = ports.wire.virt
        return {virt.name: self._directory(ports), virt.tap: Symlink(ROOT, f"{virt.name}/frame")}

    def _directory(self, ports: Ports) -> Directory:
        return Directory(ports.wire.virt, lambda: self._files(ports), steady=True, directories=3)

    def _files(self, ports: Ports) -> dict[str, Node]:
        wire, opens = ports.wire, ports.opens
        virt = wire.virt
        self._grown()
        return {
            "ctl": self._ctl(virt),
            "frame": ports.frame,
            "hex": ports.hex,
            "stream": ports.stream,
            "pcap": ports.pcap,
            "inject": ports.inject,
            "rx": ports.rx,
            "fd": ports.fd,
            "history": ports.history_file,
            "next": Text(virt, _line(lambda: str(wire.peek())), lasting=False),
            "wait": Directory(virt, lambda: waits(wire, opens, ports.frame.seats, ports.look), steady=True),
            "clients": self._clients(ports),
            **{name: self._value(virt, name, value) for name, value in VALUES.items()},
            "stats": Directory(virt, lambda: {name: self._counter(ports, name) for name in COUNTERS}, steady=True),
            "tap": Directory(virt, lambda: self._tap(virt), steady=True),
        }

    def _tap(self, virt: Virt) -> dict[str, Node]:
        """Return the files of tap/, which show the host's end. Only root can write them."""
        addresses = Text(virt, lambda user: "".join(f"{address}\n" for address in virt.host.addresses))
        values = {name: self._value(virt, f"tap/{name}", value) for name, value in TAP_VALUES.items()}
        return {**values, "addresses": addresses}

    def _clients(self, ports: Ports) -> Text:
        """Return the file `clients`.

        A read looks for the heirs of processes that have ended. While a program has borrowed the tap, it also queries
        the kernel: virtfs does not see the program's frames, nor which of its processes still run.
        """
        virt, opens, seats = ports.wire.virt, ports.opens, ports.frame.seats

        async def refresh() -> None:
            if seats.holder is not None:
                await self._reports.refresh(virt)
            if seats.holder is not None:
                await in_thread(seats.holder.look)
            await follow_forks(opens, self._reports.directory)

        return Text(virt, lambda user: clients_text(opens, command_of), refresh=refresh, changes=self._reports.changes)

    async def _load_metrics(self) -> None:
        """Load the module behind the file `metrics` in a thread, which takes 25 ms. Only readers need the module."""
        await in_thread(import_module, "virtfs.files.metrics")
        self._loaded_metrics = True

    def _metrics(self, version: str) -> Iterator[str]:
        """Return the text of `metrics`, or one line for a stat(2) before the first read: the file never looks empty."""
        if not self._loaded_metrics:
            return iter(("# not read yet\n",))
        from virtfs.files.metrics import metrics

        reports = self._reports
        return metrics(
            version,
            reports.directory,
            reports.wires(),
            reports.memory,
            reports.state_gauges(),
            reports.ways(),
            reports.socket_cables(),
            reports.bridges(),
        )

    def _report(
        self, text: Callable[[], Iterator[str]], unsteady: bytes = b"", before: Callable[[], Awaitable[None]] = nothing
    ) -> Text:
        """Return a text that covers all interfaces. Each read queries the kernel.

        unsteady: the bytes that mark the start of a final part whose numbers change at every read, or b"" if there is
        no such part. before: called before the query.
        """
        reports = self._reports

        async def refresh() -> None:
            await before()
            await reports.refresh(None)

        return Text(
            ROOT,
            lambda user: text(),
            refresh=refresh,
            changes=reports.changes,
            unsteady=unsteady,
        )

    def _ctl(self, virt: Virt | None) -> Ctl:
        commands, reports = self._commands, self._reports
        return Ctl(
            virt or ROOT,
            text=lambda user: reports.ctl(virt),
            run=lambda script, data, user, turn: commands.run(virt, script, data, user, turn),
            refused=self._errors.report,
            refresh=lambda: reports.refresh(virt),
            changes=reports.changes if virt is None else None,
        )

    def _value(self, virt: Virt, name: str, value: Callable[[Virt], str]) -> Text:
        """Return an attribute file. It is writable if a verb of ctl sets the same value.

        If only root may use that verb, only root may write the file.
        """
        commands = self._commands
        verbs = of_file(VIRT, name)
        if not verbs:
            return Text(virt, _line(lambda: value(virt)))
        return Text(
            RootOwned(virt=virt) if any(verb.root_only for verb in verbs) else virt,
            _line(lambda: value(virt)),
            write=lambda data, user: commands.set_value(virt, name, data, user),
            refused=self._errors.report,
        )

    def _counter(self, ports: Ports, name: str) -> Counter:
        virt, seats = ports.wire.virt, ports.frame.seats
        refresh = partial(self._reports.count, virt)
        return Counter(virt, name, refresh, counted=lambda: name not in OF_KERNEL and seats.holder is None)


def _line(value: Callable[[], str]) -> Callable[[User], str]:
    """Return a function that makes the text of a file with one value."""
    return lambda user: f"{value()}\n"
