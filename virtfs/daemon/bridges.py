"""The bridges of a mount: those that virtfs made, and existing ones that the command `create` attached to."""

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import trio

from virtfs.core.bridge import NEW, Bridge, BridgeState, steps, without
from virtfs.core.bridgeplan import Taps
from virtfs.core.errors import VirtError
from virtfs.core.grammar import Action, Command
from virtfs.core.ids import BridgeName, User
from virtfs.core.leftover import bridge_before
from virtfs.daemon import bridge_lines as lines
from virtfs.daemon.bridge_verbs import (
    as_found,
    attribute,
    carry_out,
    check,
    do,
    give_back,
    mark_adopting,
    mark_deleted,
    put_back,
    suppress_gone,
)
from virtfs.daemon.changes import Changes
from virtfs.daemon.interface import Interface
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.registry import Registry
from virtfs.files.bridges import RunBridge, bridge_directory
from virtfs.files.events import Events
from virtfs.files.node import ROOT, Directory
from virtfs.host.bridge import HostBridge, find
from virtfs.host.bridge_adopt import Adoptions
from virtfs.host.bridge_make import make
from virtfs.host.bridgeinfo import Settings
from virtfs.host.marks import adopting_of, alias_of, is_marked
from virtfs.host.monitor import AddressChanged, Event, LinkChanged, LinkGone, Overflow
from virtfs.host.rtnl import Rtnl
from virtfs.host.tap_protocol import TapDevice

log = logging.getLogger(__name__)

MANY = 500  # maximum length of _leaving; if it grows longer, all bridges are refreshed, which shortens it


@dataclass(slots=True, eq=False)
class _Managed:
    """One bridge, and the data needed to release it.

    index: the interface index.
    found: the state of the bridge before virtfs attached to it, or None if virtfs made it.
    settings: the port settings that no verb sets, keyed by member name, as they were when virtfs attached.
    adoptions: the addresses and routes that the bridge has adopted from members.
    taps: the indices of the members that were taps of the mount when the bridge was lost.
    leaving: whether virtfs is releasing the bridge.
    """

    bridge: Bridge
    index: int
    found: BridgeState | None
    settings: dict[str, Settings]
    adoptions: Adoptions
    taps: frozenset[int] = frozenset()
    leaving: bool = False


class Bridges:
    """All bridges of a mount, by name. Their files belong to root."""

    def __init__(
        self,
        kernel: Kernel,
        registry: Registry,
        events: Events,
        changes: Changes,
        report: Callable[[VirtError, User], None],
    ) -> None:
        """registry: the interfaces whose taps may be members. report: sets a user's last_error."""
        self.directory = Directory(ROOT)
        self._kernel = kernel
        self._registry = registry
        self._events = events
        self._changes = changes
        self._report = report
        self._all: dict[BridgeName, _Managed] = {}
        self._lost: dict[BridgeName, _Managed] = {}  # the bridges that another program has deleted or renamed
        # The taps that virtfs is deleting, by interface index. The kernel may still report them as members.
        self._leaving: dict[int, TapDevice] = {}
        self._doubts = 0  # number of refreshes scheduled so far
        self.recalled: lines.Recalled = {}  # addresses that members brought to a killed server's bridges
        self._settled = 0  # value of _doubts when the last completed refresh began
        self._doubted = trio.Event()

    def _sorted(self) -> list[_Managed]:
        return [self._all[name] for name in sorted(self._all, key=lambda name: (len(name), name))]

    def __contains__(self, name: object) -> bool:
        return name in self._all

    def __iter__(self) -> Iterator[Bridge]:
        return iter([managed.bridge for managed in self._sorted()])

    @property
    def made(self) -> list[str]:
        """The names of the bridges that virtfs made and that exist."""
        return [managed.bridge.name for managed in self._sorted() if managed.found is None and not managed.bridge.lost]

    async def run(self, command: Command, run: RunBridge, made: frozenset[str] = frozenset()) -> None:
        """Carry out a line of the mount's ctl whose target is a bridge.

        run: a function that carries out writes to the ctl of the bridge.
        made: the names of the bridges and taps that an earlier run of virtfs made. `destroy` deletes such a bridge, as
        if this run had made it.
        """
        name = BridgeName(str(command.target))
        managed = self._all.get(name)
        match command.kind:
            case "create" if managed is not None:
                raise _exists(managed)
            case "create" | "ensure" if managed is None:
                await self._create(command, name, run, made)
            case "destroy":
                await self._destroy(self._get(name))
            case _:
                await self._change(self._get(name), command.actions, command.kind == "ensure")

    async def change(self, bridge: Bridge, actions: tuple[Action, ...], user: User) -> None:
        """Carry out a line of the ctl of a bridge.

        VirtError: EPERM, the user is not root; ENXIO, the bridge is gone; errors from the verbs.
        """
        await self._change(self._allowed(bridge, user), actions, ensure=False)

    async def check(self, command: Command) -> None:
        """Raise the error that run() would raise for a command, as far as it can be predicted."""
        name, taps = BridgeName(str(command.target)), self._registry.taps()
        managed = self._all.get(name)
        if command.kind == "create" and managed is not None:
            raise _exists(managed)
        if command.kind not in ("create", "ensure"):
            self._get(name)
        if command.kind != "destroy":
            if managed is not None and managed.bridge.lost:
                raise _vanished(name)
            ensure = command.kind == "ensure"
            await self._kernel.call(self._check, name, managed, command.actions, taps, ensure)

    async def check_change(self, bridge: Bridge, actions: tuple[Action, ...], user: User) -> None:
        """Raise the error that change() would raise for a line, as far as it can be predicted."""
        managed, taps = self._allowed(bridge, user), self._registry.taps()
        if bridge.lost:
            raise _vanished(bridge.name)
        await self._kernel.call(self._check, bridge.name, managed, actions, taps, False)

    def _allowed(self, bridge: Bridge, user: User) -> _Managed:
        if not user.root:
            raise VirtError(errno.EPERM, "only root may change a bridge")
        managed = self._get(bridge.name)
        if managed.bridge is not bridge:
            raise VirtError(errno.ENXIO, f"{bridge.name} is gone")
        return managed

    def _get(self, name: BridgeName) -> _Managed:
        managed = self._all.get(name)
        if managed is None:
            raise VirtError(errno.ENXIO, f'there is no bridge "{name}"')
        return managed

    async def _create(self, command: Command, name: BridgeName, run: RunBridge, made: frozenset[str]) -> None:
        managed, left = await self._kernel.call(self._open, name, name in made)
        try:
            if left:
                await self._kernel.call(self._renew, managed, command.actions, made)
            await self._change(managed, command.actions, command.kind == "ensure")
            if managed.bridge.lost:
                raise _vanished(name)
        except BaseException:
            if not left:
                await self._kernel.call(self._let_go, managed)
            raise
        managed.adoptions.inherited = False
        self._all[name] = managed
        self.directory.add({name: bridge_directory(managed.bridge, self, run, self._report)})
        self._events.emit("create", name)

    async def _change(self, managed: _Managed, actions: tuple[Action, ...], ensure: bool) -> None:
        try:
            try:
                await self._kernel.call(self._carry_out, managed, actions, self._registry.taps(), ensure)
            finally:
                await self._look_after(managed)
        except VirtError as refusal:
            if managed.bridge.lost:
                raise _vanished(managed.bridge.name) from refusal
            raise

    async def _look_after(self, managed: _Managed) -> None:
        """Refresh a bridge after a change. If this fails, the change stays, and `follow` tries again later."""
        try:
            await self._look(managed)
        except OSError as refusal:
            log.info("%s: cannot query the bridge: %s; trying again", managed.bridge.name, refusal.strerror)
            self._doubt()

    async def _destroy(self, managed: _Managed) -> None:
        managed.leaving = True
        try:
            await self._kernel.call(self._let_go, managed)
        except BaseException:
            managed.leaving = False
            raise
        managed.bridge.lost = True
        del self._all[managed.bridge.name]
        self._lost.pop(managed.bridge.name, None)
        self.directory.remove(managed.bridge.name)
        self._events.emit("destroy", managed.bridge.name)

    async def destroy_all(self) -> VirtError | None:
        """Release every bridge. Return the first error, or None.

        If the adopted addresses and routes of a bridge cannot be given back to its members, the bridge stays.
        """
        first = None
        for managed in self._sorted():
            try:
                await self._destroy(managed)
            except OSError as refusal:
                log.error("cannot release %s: %s", managed.bridge.name, refusal.strerror)
                sentence = f"cannot release {managed.bridge.name}: {refusal.strerror}"
                first = first or VirtError(refusal.errno or errno.EIO, sentence)
        return first

    async def refresh(self, bridge: Bridge | None) -> None:
        """Query the kernel for the state of one bridge, or of all bridges if `bridge` is None.

        VirtError: ENXIO, the bridge is gone.
        """
        deleted = [index for index, tap in self._leaving.items() if bridge is None and tap.fd < 0]
        for managed in list(self._all.values()):
            if bridge is None or managed.bridge is bridge:
                await self._look(managed)
        for index in deleted:
            self._leaving.pop(index, None)
        if bridge is not None and bridge.lost:
            known = self._all.get(bridge.name)
            there = known is not None and known.bridge is bridge
            raise _vanished(bridge.name) if there else VirtError(errno.ENXIO, f"{bridge.name} is gone")

    async def _look(self, managed: _Managed) -> None:
        """Query the kernel for the state of a bridge. If it is gone, keep the last state, for the lines of ctl."""
        state = await self._kernel.call(self._state, managed)
        if state is None:
            self._lose(managed)
        else:
            managed.bridge.lost = False
            self._lost.pop(managed.bridge.name, None)
            managed.bridge.state = self._without_leaving(state)

    def _lose(self, managed: _Managed) -> None:
        """Record that a bridge has vanished, unless virtfs itself is deleting it."""
        bridge, name_of = managed.bridge, self._registry.name_in_lines
        if bridge.lost or managed.leaving:
            return
        bridge.lost = True
        if self._all.get(bridge.name) is managed:
            managed.taps = frozenset(m.index for m in bridge.state.members if name_of(m.index) is not None)
            self._lost[bridge.name] = managed
            log.warning("%s", _vanished(bridge.name).strerror)
            self._events.emit("lost", bridge.name)

    def lost_bridge_of(self, interface: Interface) -> str:
        """Return the name of the lost bridge that an interface was in, or "" if there is none.

        The result is "" too if the interface has joined another bridge since.
        """
        nsid, index = interface.place
        for name, managed in self._lost.items():
            member = nsid is None and index in managed.taps
            if member and (not interface.virt.kept.bridge or interface.master == managed.index):
                return name
        return ""

    def leave(self, index: int, tap: TapDevice) -> None:
        """Stop listing a tap as a member of its bridge, because virtfs is about to delete the tap.

        Otherwise, the lines of the bridge in ctl would mention the tap as if it were an interface of the host.
        index: the tap's interface index in the daemon's namespace.
        """
        if self._all:
            self._leaving[index] = tap
            for managed in self._all.values():
                managed.bridge.state = self._without_leaving(managed.bridge.state)
            if len(self._leaving) > MANY:
                self._doubt()

    def _without_leaving(self, state: BridgeState) -> BridgeState:
        leaving = frozenset(member.name for member in state.members if member.index in self._leaving)
        return without(state, leaving) if leaving else state

    # Changes by other programs

    def hear(self, event: Event) -> None:
        """Schedule a refresh of the bridges if an event concerns a bridge or a member of a bridge."""
        indices = {managed.index for managed in self._all.values()}
        match event:
            case LinkChanged(None) if indices:
                link = event.link
                concerned = bool(indices & {link.index, link.master}) or self._is_member(link.name)
            case LinkGone(None, index, name):
                concerned = index in indices or self._is_member(name)
            case AddressChanged(None, index):
                concerned = index in indices
            case _:
                concerned = isinstance(event, Overflow)
        if concerned:
            self._doubt()

    def _doubt(self) -> None:
        """Schedule a refresh of the bridges."""
        self._doubts += 1
        self._doubted.set()

    def _is_member(self, name: str) -> bool:
        return any(managed.bridge.state.member(name) for managed in self._all.values())

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

        May be called again after a failure.
        """
        while True:
            await self._doubted.wait()
            self._doubted = trio.Event()
            try:
                await self.catch_up()
            except BaseException:
                self._doubted.set()
                raise
            self._changes.publish()

    # The state as text

    def text(self, bridge: Bridge) -> str:
        """Return verbs that give a new bridge the current state of `bridge`."""
        return lines.verbs(bridge.name, _described(self._get(bridge.name)))

    def lines_before(self) -> Iterator[str]:
        """Yield the lines that create the bridges. They must run before the lines that create interfaces."""
        for name, parts in self._divided():
            yield from lines.adopted(name, self._all[name].bridge.state, self._all[name].adoptions)
            yield from lines.before(name, *parts)

    def lines_after(self) -> Iterator[str]:
        """Yield the lines that configure the taps of this mount as bridge ports.

        They must run after the lines of the interfaces, whose verb `bridge` joins the taps to their bridges.
        """
        for name, parts in self._divided():
            yield from lines.after(name, *parts)

    def _divided(self) -> Iterator[tuple[BridgeName, tuple[BridgeState, frozenset[str]]]]:
        for managed in self._sorted():
            name_of = partial(self._name_in_lost, managed) if managed.bridge.lost else self._registry.name_in_lines
            yield managed.bridge.name, lines.divided(_described(managed), name_of, self._kernel.mark)

    def _name_in_lost(self, managed: _Managed, index: int) -> str | None:
        """Return the name that the lines of a lost bridge use for a member, as Registry.name_in_lines does.

        It is "" for a tap of the mount that has been destroyed or has joined another bridge since.
        """
        if index not in managed.taps:
            return None
        interface = self._registry.at((None, index))
        if interface is None or self.lost_bridge_of(interface) != managed.bridge.name:
            return ""
        return self._registry.name_in_lines(index)

    # Blocking functions, for Kernel.call

    def _open(self, name: BridgeName, ours: bool) -> tuple[_Managed, bool]:
        """Attach to a bridge, or make it. Return the bridge, and whether a killed server left it behind.

        ours: whether the state file says that an earlier run of virtfs made the bridge.
        """
        with Rtnl() as rtnl:
            index = find(rtnl, name)
            made = index is None
            if index is None:
                index = make(rtnl, self._kernel.links, name, self._kernel.mark)
            left = not made and (ours or is_marked(alias_of(rtnl, index), self._kernel.mark))
            host = HostBridge(rtnl, self._kernel.links, name, index)
            if left:
                host.adoptions.inherited = True
                host.adoptions.recalled = {
                    member: its for (bridge, member), its in self.recalled.items() if bridge == name
                }
            try:
                state, settings = host.look(), host.settings()
            except BaseException:
                if made:
                    host.delete()
                raise
            found = None if made or left else state
            return _Managed(Bridge(name, state), index, found, settings, host.adoptions), left

    def _renew(self, managed: _Managed, actions: tuple[Action, ...], made: frozenset[str]) -> None:
        """Reset the settings that a killed server left on a bridge, except those that the bridge's line sets.

        actions: the verbs of the line. made: the names of the taps and bridges that the killed server made.
        """
        with Rtnl() as rtnl:
            host = self._host(rtnl, managed)
            self._kernel.links.quiet(host)
            now, alias = host.look(), alias_of(rtnl, managed.index)
            indices = adopting_of(alias, self._kernel.mark)
            attribute(host, now, actions, indices)
            do(host, steps(now, bridge_before(now, actions, made, indices)))

    def _host(self, rtnl: Rtnl, managed: _Managed) -> HostBridge:
        return HostBridge(rtnl, self._kernel.links, managed.bridge.name, managed.index, managed.adoptions)

    def _carry_out(self, managed: _Managed, actions: tuple[Action, ...], taps: Taps, ensure: bool) -> None:
        with Rtnl() as rtnl:
            host, marked = self._host(rtnl, managed), self._kernel.mark and managed.found is None
            if marked:
                mark_adopting(host, self._kernel.mark, actions)
            carry_out(host, actions, taps, ensure)
            if marked:
                with suppress(OSError):  # the line is done; the next line that adds a member tries again
                    mark_deleted(host, self._kernel.mark, actions)

    def _check(
        self,
        name: BridgeName,
        managed: _Managed | None,
        actions: tuple[Action, ...],
        taps: Taps,
        ensure: bool,
    ) -> None:
        with Rtnl() as rtnl:
            if managed is not None:
                before = self._host(rtnl, managed).look()
            else:
                index = find(rtnl, name)
                before = NEW if index is None else HostBridge(rtnl, self._kernel.links, name, index).look()
            check(rtnl, before, actions, taps, ensure)

    def _state(self, managed: _Managed) -> BridgeState | None:
        """Query the kernel for the state of a bridge. Return None if the bridge is gone."""
        with Rtnl() as rtnl:
            try:
                state = self._host(rtnl, managed).look()
                # A deletion that began during the query may show in part. The kernel holds a lock during the whole
                # deletion, and this request waits for it (net/core/rtnetlink.c rtnl_getlink).
                self._host(rtnl, managed).expect()
                return state
            except VirtError as refusal:
                if refusal.errno != errno.ENXIO:
                    raise
                return None

    def _let_go(self, managed: _Managed) -> None:
        """Give the adopted addresses and routes back to the members of a bridge, and release the bridge.

        If virtfs made the bridge, delete it. Otherwise restore the state that it had before virtfs attached to it.
        """
        with Rtnl() as rtnl:
            host = self._host(rtnl, managed)
            if managed.found is not None:
                with suppress_gone():
                    put_back(host, as_found(host, managed.found), managed.settings)
                return
            give_back(host)
            host.delete()


def _vanished(name: BridgeName) -> VirtError:
    sentence = f"{name} is lost: another program has deleted or renamed it: destroy {name}, then create it again"
    return VirtError(errno.ENXIO, sentence)


def _described(managed: _Managed) -> BridgeState:
    """Return the state of a bridge that ctl shows as verbs. It does not include addresses adopted from members."""
    state = managed.bridge.state
    return replace(state, addresses=tuple(a for a in state.addresses if managed.adoptions.is_own(a)))


def _exists(managed: _Managed) -> VirtError:
    """Return the error of `create` for a bridge that exists already, or is lost."""
    name = managed.bridge.name
    remedy = f", but is lost: destroy {name} first" if managed.bridge.lost else ""
    return VirtError(errno.EEXIST, f'"{name}" already exists{remedy}')
