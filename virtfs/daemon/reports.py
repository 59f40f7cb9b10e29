"""What the text files show: the state of the interfaces, bridges and cables, fresh from the kernel."""

from virtfs.core.grammar import format_command
from virtfs.core.status import describe, describe_bridge, describe_cable, status
from virtfs.core.virt import Virt
from virtfs.daemon.bridges import Bridges
from virtfs.daemon.cables import Cables
from virtfs.daemon.changes import Changes
from virtfs.daemon.follow import Follower
from virtfs.daemon.registry import Registry
from virtfs.daemon.state import State
from virtfs.daemon.userdb import Accounts
from virtfs.forward.wire import Wire


class Reports:
    """The texts (files.tree.Reports). options: the mount's, shown in status.json."""

    def __init__(
        self,
        registry: Registry,
        bridges: Bridges,
        cables: Cables,
        follower: Follower,
        accounts: Accounts,
        state: State,
        changes: Changes,
        options: str,
    ) -> None:
        self._registry = registry
        self._bridges = bridges
        self._cables = cables
        self._follower = follower
        self._accounts = accounts
        self._state = state
        self._changes = changes
        self._options = options

    async def refresh(self, virt: Virt | None) -> None:
        """Query the host's end of one interface, or of all. Commands may run meanwhile."""
        if virt is None:
            await self._bridges.refresh(None)
            await self._follower.refresh_all()
            await self._accounts.learn_all(interface.virt for interface in self._registry)
            return
        interface = self._registry.find(virt.unit)
        if interface is not None and interface.virt is virt and not virt.lost:
            await self._follower.refresh(interface)
            interface.wire.settle()
        await self._accounts.learn_all([virt])

    def ctl(self, virt: Virt | None) -> str:
        """Return one interface's verbs, or the lines that would make everything in the mount."""
        return self._state.text() if virt is None else self._state.verbs(virt)

    def changes(self) -> int:
        """Return the number of changes so far."""
        return self._changes.count

    def wires(self) -> list[Wire]:
        """Return every interface's wire, by unit."""
        return self._registry.wires()

    def status(self, version: str) -> str:
        """Return every interface, bridge and cable as JSON."""
        names = self._accounts.user_name, self._accounts.group_name
        virts = [describe(wire.virt, wire.readers, *names) for wire in self.wires()]
        cables = [format_command(command).split(maxsplit=3)[1:] for command in self._cables.lines()]
        bridges = map(describe_bridge, self._bridges)
        return status(version, virts, bridges, map(describe_cable, cables), self._options)
