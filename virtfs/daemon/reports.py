"""The texts of the report files. They show the state of interfaces, bridges and cables.

refresh() and count() query the kernel. The other methods return the last known state.
"""

from collections.abc import Iterator
from dataclasses import asdict

from virtfs.core.bridge import Bridge
from virtfs.core.counters import Way
from virtfs.core.limits import Limits
from virtfs.core.memory import Memory
from virtfs.core.status import Object, describe, describe_bridge, describe_cable, status_pieces
from virtfs.core.topology import topology
from virtfs.core.virt import Virt
from virtfs.daemon.bridge_follow import BridgeFollower
from virtfs.daemon.bridge_registry import BridgeRegistry
from virtfs.daemon.cables import Cables
from virtfs.daemon.changes import Changes
from virtfs.daemon.follow import Follower
from virtfs.daemon.registry import Registry
from virtfs.daemon.state import State
from virtfs.daemon.userdb import Accounts
from virtfs.forward.socket_cable import SocketCable
from virtfs.forward.wire import Wire


class Reports:
    """Generates the texts of the report files (files.tree.Reports).

    directory: the path of the mount point, which `metrics` shows. options: the mount options. netns: the inode of the
    network namespace of the mount. limits: the limits of the mount. memory: the memory accounts of the mount.
    status.json shows the last four.
    """

    def __init__(
        self,
        registry: Registry,
        bridges: BridgeRegistry,
        cables: Cables,
        follower: Follower,
        bridge_follower: BridgeFollower,
        accounts: Accounts,
        state: State,
        changes: Changes,
        directory: str,
        options: str,
        netns: int,
        limits: Limits,
        memory: Memory,
    ) -> None:
        self._registry = registry
        self._bridges = bridges
        self._cables = cables
        self._follower = follower
        self._bridge_follower = bridge_follower
        self._accounts = accounts
        self._state = state
        self._changes = changes
        self.directory = directory
        self._options = options
        self._netns = netns
        self._limits = limits
        self.memory = memory

    async def refresh(self, virt: Virt | None) -> None:
        """Query the kernel for the host's end of one interface. If `virt` is None, query all interfaces and bridges.

        Commands may run while this method waits for the kernel.
        """
        if virt is None:
            await self._bridge_follower.refresh(None)
            await self._follower.refresh_all()
            await self._accounts.learn_all(interface.virt for interface in self._registry)
            return
        interface = self._registry.find(virt.unit)
        if interface is not None and interface.virt is virt and not virt.lost:
            await self._follower.refresh(interface)
            interface.wire.settle()
        await self._accounts.learn_all([virt])

    async def count(self, virt: Virt | None) -> None:
        """Query the kernel for the counters of one interface. If `virt` is None, query those of all interfaces."""
        if virt is None:
            await self._follower.refresh_all()
            return
        interface = self._registry.find(virt.unit)
        if interface is not None and interface.virt is virt and not virt.lost:
            await self._follower.count(interface)
            interface.wire.settle()

    def ctl(self, virt: Virt | None) -> str | Iterator[str]:
        """Return the verbs of one interface. If `virt` is None, return the lines that recreate the whole mount.

        The mount's lines are returned as an iterator of pieces, all from one snapshot.
        """
        return self._state.pieces() if virt is None else self._state.verbs(virt)

    def changes(self) -> int:
        """Return the number of changes so far."""
        return self._changes.count

    def wires(self) -> list[Wire]:
        """Return the wires of all interfaces, ordered by unit."""
        return self._registry.wires()

    def ways(self) -> list[Way]:
        """Return both directions of each cable, with their counters."""
        return [way for ways in self._cables.ways() for way in ways]

    def status(self, version: str) -> Iterator[str]:
        """Yield the text of status.json in pieces. Each interface, bridge and cable in it is a snapshot of its own."""
        state, limits, memory = self._state.report(), asdict(self._limits), self.memory.describe()
        return status_pieces(version, *self._objects(), self._options, self._netns, state, limits, memory)

    def topology(self) -> Iterator[str]:
        """Yield a graph of the network for Graphviz in pieces. Each object in it is a snapshot of its own."""
        return topology(*self._objects())

    def _objects(self) -> tuple[Iterator[Object], Iterator[Object], Iterator[Object]]:
        """Return iterators over the interfaces, bridges and cables, as objects of status.json."""
        names = self._accounts.user_name, self._accounts.group_name
        virts = (describe(wire.virt, wire.readers, *names) for wire in self.wires())
        bridges = (describe_bridge(bridge) for bridge in self.bridges())
        cables = (
            describe_cable("".join(line.split(maxsplit=3)[3:]), *ways, socket)
            for line, ways, socket in self._cables.described()
        )
        return virts, bridges, cables

    def bridges(self) -> list[Bridge]:
        """Return all bridges."""
        return [managed.bridge for managed in self._bridges]

    def socket_cables(self) -> list[SocketCable]:
        """Return the cables whose far end is a socket."""
        return [plugged.cable for plugged in self._cables.sockets]

    def state_gauges(self) -> dict[str, float] | None:
        """Return the values of the metrics about the state file. Return None if there is no state file."""
        if self._state.file is None:
            return None
        unsaved = self._state.unsaved
        return {
            "saved": float(unsaved is None),
            "unsaved_since_seconds": 0.0 if unsaved is None else unsaved.since,
            "failed_lines": float(len(self._state.failed)),
        }
