"""Keeps the state of the bridges up to date, and notices the bridges that other programs delete or rename."""

import errno
import logging
from collections.abc import Collection, Iterable
from dataclasses import replace

import trio

from virtfs.core.bridge import NEW, Bridge, BridgeState, Member, steps, without
from virtfs.core.errors import VirtError
from virtfs.core.grammar import Command
from virtfs.core.line_text import format_command, writable
from virtfs.core.quoting import quoted
from virtfs.core.verbs import BRIDGE
from virtfs.daemon.bridge_calls import Seen, settle_lost, state_of
from virtfs.daemon.bridge_registry import BridgeRegistry, Managed, vanished
from virtfs.daemon.changes import Changes
from virtfs.daemon.failed_lines import FailedLine, FailedLines
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.registry import Registry
from virtfs.files.events import Events
from virtfs.host.bridge_leave import Departure
from virtfs.host.monitor import AddressChanged, Event, LinkChanged, LinkGone, Overflow
from virtfs.host.tap_protocol import TapDevice

log = logging.getLogger(__name__)

LONGEST = 1.0  # maximum pause between two refreshes in the background, in seconds
MANY = 500  # maximum length of _leaving; if it grows longer, all bridges are refreshed, which shortens it


class BridgeFollower:
    """Queries the kernel for the bridges after each change of them, by virtfs or by another program."""

    def __init__(
        self,
        kernel: Kernel,
        registry: Registry,
        bridges: BridgeRegistry,
        failed: FailedLines,
        events: Events,
        changes: Changes,
    ) -> None:
        """registry: the interfaces whose taps may be members. failed: keeps the lines that add vanished members."""
        self._kernel = kernel
        self._registry = registry
        self._bridges = bridges
        self._failed = failed
        self._events = events
        self._changes = changes
        # The taps that virtfs is deleting, by interface index. The kernel may still report them as members.
        self._leaving: dict[int, TapDevice] = {}
        self._doubts = 0  # number of refreshes scheduled so far
        self._settled = 0  # value of _doubts when the last completed refresh began
        self._doubted = trio.Event()

    async def refresh(self, bridge: Bridge | None) -> None:
        """Query the kernel for the state of one bridge, or of all bridges if `bridge` is None.

        VirtError: ENXIO, the bridge is gone.
        """
        deleted = [index for index, tap in self._leaving.items() if bridge is None and tap.fd < 0]
        for managed in self._bridges:
            if bridge is None or managed.bridge is bridge:
                await self.look(managed)
        for index in deleted:
            self._leaving.pop(index, None)
        if bridge is not None and bridge.lost:
            known = self._bridges.find(bridge.name)
            there = known is not None and known.bridge is bridge
            raise vanished(bridge.name) if there else VirtError(errno.ENXIO, f"{bridge.name} is gone")

    async def look_after(self, managed: Managed) -> None:
        """Refresh a bridge after a change. If this fails, the change stays, and `follow` tries again later."""
        try:
            await self.look(managed)
        except OSError as refusal:
            log.info("%s: cannot query the bridge: %s; trying again", managed.bridge.name, refusal.strerror)
            self._doubt()

    async def look(self, managed: Managed) -> None:
        """Query the kernel for the state of a bridge. If it is gone, keep the last state, for the lines of ctl.

        OSError: the query failed.
        """
        seen = await self._kernel.call(state_of, self._kernel, managed)
        if seen is None:
            if not managed.bridge.lost and not managed.leaving:
                self._lose(managed, *await self._kernel.call(settle_lost, self._kernel, managed))
        else:
            state = self._without_leaving(seen.state)
            self._tell_departures(managed, seen.departures)
            self._tell_members(managed, state, seen)
            managed.bridge.lost, managed.returned = False, frozenset()
            if self._bridges.lost.get(managed.bridge.name) is managed:
                del self._bridges.lost[managed.bridge.name]
                log.info("%s, which was lost, has its name again", managed.bridge.name)
            self._store(managed, state)

    def _tell_departures(self, managed: Managed, departures: Iterable[Departure]) -> None:
        """Tell which adopted members have left a bridge. Keep a line for each one that does not have its addresses."""
        for departure in departures:
            log.warning("%s: %s", managed.bridge.name, departure.sentence)
            self._events.emit("leave", managed.bridge.name, member=departure.member, returned=int(departure.returned))
            if departure.returned:
                continue
            if departure.index in self._leaving or self._is_ours(departure.index):
                managed.adoptions.own_kept(departure.member)
            else:
                gone = Member(departure.member, adopted=True, index=departure.index)
                self._keep_line(managed, gone, departure.reason)

    def _tell_members(self, managed: Managed, state: BridgeState, seen: Seen) -> None:
        """Tell which members have joined a bridge, and which others have left it. Keep a line for those that are gone.

        Only members that a line had added keep one.

        The taps of the mount have their own events, and their own lines.
        state: the new state of the bridge.
        """
        name, told = managed.bridge.name, {departure.index for departure in seen.departures}
        if self._bridges.find(name) is not managed:
            return  # it is being made
        here = {member.index for member in state.members}
        self.tell_joined(managed, state, {member.index for member in managed.bridge.state.members})
        for member in managed.bridge.state.members:
            if member.index in here | told or self._is_ours(member.index):
                continue
            self._events.emit("leave", name, member=member.name, returned=1)
            if member.index in seen.gone and member.name in managed.added:
                reason = f"{quoted(member.name)} is gone"
                log.warning('%s: %s: "retry" adds it again once it is back', name, reason)
                self._keep_line(managed, member, reason)
            else:
                log.info("%s: %s has left the bridge", name, quoted(member.name))
        for known, line in self._failed.of_members(name).items():
            if state.member(known) is not None:
                self._failed.replace(line, None)

    def tell_joined(self, managed: Managed, state: BridgeState, before: Collection[int]) -> None:
        """Tell which members have joined a bridge. before: the interface indices of its members until now."""
        for member in state.members:
            if member.index not in before and not self._is_ours(member.index):
                self._events.emit("join", managed.bridge.name, member=member.name)

    def _keep_line(self, managed: Managed, gone: Member, reason: str) -> None:
        """Keep the verbs that make a vanished interface a member again, for `retry` and the next mount."""
        before, bridge = managed.bridge.state, managed.bridge.name
        was = next((member for member in before.members if member.index == gone.index), gone)
        known = tuple(entry for entry in before.known if entry.member == was.name)
        actions = writable(steps(NEW, replace(NEW, members=(was,), known=known)), BRIDGE)[0]
        command = Command("change", bridge, actions)
        if actions and was.name not in self._failed.of_members(bridge):
            self._failed.add(FailedLine(format_command(command), command, reason))

    def _store(self, managed: Managed, state: BridgeState) -> None:
        """Store the state of a bridge, and keep the ports of the taps that have left it.

        A tap may have left because another program has deleted it. Then its lines stay, and so do its port settings.
        """
        here, ours = {member.index for member in state.members}, self._is_ours
        left = managed.gone or any(member.index not in here for member in managed.bridge.state.members)
        if left:
            ports = managed.ports()
            managed.gone = {index: port for index, port in ports.items() if index not in here and ours(index)}
        self._bridges.store(managed, state)

    def _is_ours(self, index: int) -> bool:
        """Return whether an interface of the daemon's namespace is a tap of the mount."""
        return self._registry.last_at((None, index)) is not None

    def _lose(self, managed: Managed, renamed: str, departures: Collection[Departure]) -> None:
        """Record that a bridge has vanished, unless virtfs itself is deleting it.

        renamed: the name that another program has given it, or "" if it is gone. departures: the members whose
        addresses it had adopted.
        """
        bridge = managed.bridge
        if bridge.lost or managed.leaving:
            return
        bridge.lost = True
        if self._bridges.find(bridge.name) is managed:
            managed.taps = frozenset(member.index for member in bridge.state.members if self._is_ours(member.index))
            managed.returned = frozenset(departure.index for departure in departures if departure.returned)
            self._bridges.lost[bridge.name] = managed
            now = f"; it is {quoted(renamed)} now, and virtfs leaves it alone" if renamed else ""
            log.warning("%s%s", vanished(bridge.name).strerror, now)
            self._events.emit("lost", bridge.name)
            for departure in departures:
                log.warning("%s: %s", bridge.name, departure.sentence)
                returned = int(departure.returned)
                self._events.emit("leave", bridge.name, member=departure.member, returned=returned)

    def leave(self, index: int, tap: TapDevice) -> None:
        """Stop listing a tap as a member of its bridge, because virtfs is about to delete the tap.

        Otherwise, the lines of the bridge in ctl would mention the tap as if it were an interface of the host.
        index: the tap's interface index in the daemon's namespace.
        """
        if self._bridges:
            self._leaving[index] = tap
            for managed in self._bridges:
                self._bridges.store(managed, self._without_leaving(managed.bridge.state))
            if len(self._leaving) > MANY:
                self._doubt()

    def _without_leaving(self, state: BridgeState) -> BridgeState:
        leaving = frozenset(member.name for member in state.members if member.index in self._leaving)
        return without(state, leaving) if leaving else state

    def hear(self, event: Event) -> None:
        """Schedule a refresh of the bridges if an event concerns a bridge or a member of a bridge."""
        bridges, members = self._bridges.indices()
        match event:
            case LinkChanged(None, index) if bridges:
                concerned = index in bridges or index in members or event.link.master in bridges
            case LinkGone(None, index):
                concerned = index in bridges or index in members
            case AddressChanged(None, index):
                concerned = index in bridges
            case _:
                concerned = isinstance(event, Overflow)
        if concerned:
            self._doubt()

    def _doubt(self) -> None:
        """Schedule a refresh of the bridges."""
        self._doubts += 1
        self._doubted.set()

    @property
    def settled(self) -> bool:
        """Whether catch_up() has processed all events."""
        return self._settled == self._doubts

    async def catch_up(self) -> None:
        """Refresh the bridges if an event has not been processed yet, even if follow() has begun to process it.

        On return the state is no older than the last event. So a text made from it lists no member that is gone.
        OSError: as for refresh().
        """
        if not self.settled:
            doubts = self._doubts
            await self.refresh(None)
            self._settled = max(self._settled, doubts)

    async def follow(self) -> None:
        """Refresh the bridges after each event that concerns one of them, until cancelled.

        Refreshes of less than half a second take at most a third of the time. The refresh of a bridge with hundreds of
        ports takes long, and each line that adds a port causes events. Readers of a text call catch_up() and do not
        wait for this.
        May be called again after a failure.
        """
        while True:
            await self._doubted.wait()
            self._doubted, began = trio.Event(), trio.current_time()
            try:
                await self.catch_up()
            except BaseException:
                self._doubted.set()
                raise
            self._changes.publish()
            await trio.sleep(min(2 * (trio.current_time() - began), LONGEST))
