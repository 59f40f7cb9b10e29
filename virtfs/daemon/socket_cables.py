"""The cables of a mount whose far end is a socket."""

import errno
import logging
from collections.abc import Iterator
from functools import partial

import trio

from virtfs.core.arguments import Impairments
from virtfs.core.errors import VirtError
from virtfs.core.grammar import Action, Command
from virtfs.core.impairment import BOTH, UNIMPAIRED
from virtfs.core.line_text import format_command
from virtfs.core.socketname import SocketName
from virtfs.daemon.interface import Interface
from virtfs.files.events import Events
from virtfs.forward.impaired_path import ImpairedPath
from virtfs.forward.socket_cable import SocketCable
from virtfs.forward.socket_ways import Room
from virtfs.forward.tasks import Start, in_thread, surely_in_thread
from virtfs.host import sockets
from virtfs.host.sockets import OwnSocket, Rights

log = logging.getLogger(__name__)

PATIENCE = 5  # maximum number of seconds to make a cable's own socket; other commands have to wait


class Reports:
    """Reports what happens to the connection of a cable: in the log, and as events. virt: the name of its interface."""

    def __init__(self, virt: str, name: SocketName, events: Events) -> None:
        self._virt = virt
        self._name = name
        self._events = events
        self._logged = ""

    def connected(self, peer: str) -> None:
        """Report a new connection. peer: the address of a TCP peer, or ""."""
        log.info("%s: connected to %s%s", self._virt, self._name, f", peer {peer}" if peer else "")
        self._logged = ""
        self._events.emit("connect", self._virt, socket=self._name)

    def disconnected(self, reason: VirtError | None) -> None:
        """Report the end of a connection. reason: the error that ended it, or None if the cable was removed."""
        if reason is not None:
            log.warning("%s: disconnected from %s: %s", self._virt, self._name, reason.strerror)
        number = 0 if reason is None else reason.errno
        self._events.emit("disconnect", self._virt, socket=self._name, errno=errno.errorcode.get(number, number))

    def cannot_connect(self, reason: VirtError) -> None:
        """Report a failed attempt to connect, unless the last attempt failed for the same reason."""
        if reason.strerror != self._logged:
            self._logged = reason.strerror
            log.warning("%s: %s; trying again", self._virt, reason.strerror)
            self._events.changed()


class Plugged:
    """One cable, with its interface."""

    def __init__(
        self,
        interface: Interface,
        name: SocketName,
        impairments: Impairments,
        own: OwnSocket | None,
        room: Room,
        events: Events,
    ) -> None:
        self.interface = interface
        self.name = name
        self.own = own
        self.cable = SocketCable(interface.wire, name, own, room, Reports(interface.virt.name, name, events))
        self.removing = trio.Lock()
        actions = (Action("impair", (impairments,)),) if impairments else ()
        # The command that would recreate the cable. A cable never changes.
        self.line = format_command(Command("cable", interface.virt.unit, actions, name))

    def describe(self) -> dict[str, object]:
        """Return the object `socket` of status.json (core.status)."""
        cable = self.cable
        return {
            "state": cable.state,
            "peer": cable.peer,
            "connections": cable.connections,
            "error": cable.error,
        }


class SocketCables:
    """All cables of a mount whose far end is a socket. start: runs a task until the mount ends."""

    def __init__(self, events: Events, start: Start) -> None:
        self._events = events
        self._start = start
        self._room: Room | None = None  # created for the first cable
        self._all: list[Plugged] = []

    def __iter__(self) -> Iterator[Plugged]:
        return iter(list(self._all))

    def at(self, interface: Interface) -> Plugged | None:
        """Return the cable of an interface, or None."""
        return next((one for one in self._all if one.interface is interface), None)

    async def plug(self, interface: Interface, name: SocketName, impairments: Impairments) -> None:
        """Connect an interface that has no cable yet to a socket.

        impairments: "in" is the direction from the socket, and "out" is the opposite direction.
        VirtError: as for host.sockets.listen(), if the cable has a socket of its own; ETIMEDOUT, making that socket
        took too long; EMFILE, ENFILE, ENOMEM.
        """
        own = await self._own_socket(interface, name)
        impaired: list[ImpairedPath] = []
        try:
            if self._room is None:
                self._room = Room()
            plugged = Plugged(interface, name, impairments, own, self._room, self._events)
            said = dict(impairments)
            for direction in BOTH:
                path = plugged.cable.impair(said.get(direction, UNIMPAIRED), direction)
                if path is not None:
                    impaired.append(path)
        except BaseException:
            for path in impaired:
                path.close()
            if own is not None:
                with trio.CancelScope(shield=True):
                    await surely_in_thread(own.close)
            raise
        self._all.append(plugged)
        for work in (*(path.run for path in impaired), plugged.cable.run):
            self._start(work, name=f"the cable between {interface.virt.name} and {name}")

    async def _own_socket(self, interface: Interface, name: SocketName) -> OwnSocket | None:
        """Return the bound socket of a cable that listens or exchanges datagrams, else None."""
        virt = interface.virt
        path, rights = name.own_path(virt.unit), _rights(interface)
        if name.kind == "dgram":
            make = partial(sockets.bind_datagrams, path, rights)
        elif name.listens:
            make = partial(sockets.listen, name, rights)
        else:
            return None
        abandoned = False

        def made() -> OwnSocket:
            own = make()
            if abandoned:
                own.close()
            return own

        try:
            with trio.fail_after(PATIENCE):
                return await in_thread(made, abandon=True)
        except BaseException as failure:
            abandoned = True
            if isinstance(failure, trio.TooSlowError):
                raise VirtError(errno.ETIMEDOUT, f"creating the socket {name} took more than {PATIENCE} s") from None
            raise

    async def set_rights(self, interface: Interface) -> None:
        """Give the path of the interface's own socket, if there is one, the owner, group and mode of `frame`.

        A failure is only logged, because another program may have removed the path.
        """
        plugged = self.at(interface)
        if plugged is None or plugged.own is None:
            return
        try:
            with trio.fail_after(PATIENCE):
                await in_thread(plugged.own.set_rights, _rights(interface), abandon=True)
        except (OSError, trio.TooSlowError) as failure:
            log.warning(
                "%s: %s",
                interface.virt.name,
                str(failure) or f"changing the mode of {plugged.name} took over {PATIENCE} s",
            )

    async def unplug(self, plugged: Plugged) -> None:
        """Remove a cable."""
        # Two tasks may remove the cable at the same time. The second waits for the first.
        async with plugged.removing:
            if plugged in self._all:
                await plugged.cable.stop()
                self._all.remove(plugged)


def _rights(interface: Interface) -> Rights:
    virt = interface.virt
    return Rights(virt.owner, virt.group, virt.mode)
