"""The bridges of a mount: those that virtfs made, and existing ones that the command `create` attached to."""

import errno
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from virtfs.core.bridge import Bridge
from virtfs.core.bridgeplan import Taps
from virtfs.core.errors import VirtError, forget_frames
from virtfs.core.grammar import Action, Command
from virtfs.core.ids import BridgeName, User
from virtfs.core.ip import IpInterface
from virtfs.core.quoting import quoted
from virtfs.daemon.bridge_calls import attach, change, new_name, predict, release, renew
from virtfs.daemon.bridge_follow import BridgeFollower
from virtfs.daemon.bridge_lines import Recalled
from virtfs.daemon.bridge_registry import BridgeRegistry, Managed, vanished
from virtfs.daemon.bridge_texts import BridgeTexts
from virtfs.daemon.earlier import NOTHING, Earlier, existed
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.registry import Registry
from virtfs.files.bridges import RunBridge, bridge_directory
from virtfs.files.events import Events
from virtfs.files.node import ROOT, Directory
from virtfs.host.bridge_leave import addresses_of

log = logging.getLogger(__name__)


class Bridges:
    """Carries out the lines of ctl that create, change and destroy bridges. The files of a bridge belong to root."""

    def __init__(
        self,
        kernel: Kernel,
        registry: Registry,
        bridges: BridgeRegistry,
        follower: BridgeFollower,
        texts: BridgeTexts,
        events: Events,
        report: Callable[[VirtError, User], None],
    ) -> None:
        """registry: the interfaces whose taps may be members. report: sets a user's last_error."""
        self.directory = Directory(ROOT)
        self.recalled: Recalled = {}  # addresses that members brought to a killed server's bridges
        self._kernel = kernel
        self._registry = registry
        self._bridges = bridges
        self._follower = follower
        self._texts = texts
        self._events = events
        self._report = report

    def __contains__(self, name: object) -> bool:
        return name in self._bridges

    @property
    def found(self) -> list[str]:
        """The names of the bridges that virtfs found on the host, even of those that are lost."""
        return self._texts.found

    def lost_with(self, name: BridgeName, member: str) -> frozenset[IpInterface]:
        """Return the addresses that the state file attributes to an adopted member and the bridge does not have.

        Link-local addresses are left out: the kernel makes new ones.
        """
        managed, recalled = self._bridges.find(name), self.recalled.get((name, member), frozenset())
        lost = recalled.difference(() if managed is None else managed.bridge.state.addresses)
        return frozenset(address for address in lost if not address.ip.is_link_local)

    async def refresh(self, bridge: Bridge) -> None:
        """Query the kernel for the state of a bridge (files.bridges.Bridges). VirtError: ENXIO, the bridge is gone."""
        await self._follower.refresh(bridge)

    def text(self, bridge: Bridge) -> str:
        """Return verbs that give a new bridge the current state of `bridge` (files.bridges.Bridges)."""
        return self._texts.text(bridge)

    async def run(self, command: Command, run: RunBridge, earlier: Earlier = NOTHING) -> list[str]:
        """Carry out a line of the mount's ctl whose target is a bridge. Return warnings.

        run: a function that carries out writes to the ctl of the bridge.
        earlier: what the state file lists. `destroy` deletes a bridge that an earlier run made, as if this run had made
        it. A bridge that an earlier run found on the host is not made.
        """
        name = BridgeName(str(command.target))
        match command.kind:
            case "create":
                self._bridges.expect_none(name)
                await self._create(command, name, run, earlier)
            case "ensure":
                return await self._ensure(command, name, run, earlier)
            case "destroy":
                return await self._destroy(self._bridges.get(name))
            case _:
                await self._change(self._bridges.get(name), command.actions, ensure=False)
        return []

    async def change(self, bridge: Bridge, actions: tuple[Action, ...], user: User) -> None:
        """Carry out a line of the ctl of a bridge.

        VirtError: EPERM, the user is not root; ENXIO, the bridge is gone; errors from the verbs.
        """
        await self._change(self._allowed(bridge, user), actions, ensure=False)

    async def check(self, command: Command) -> None:
        """Raise the error that run() would raise for a command, as far as it can be predicted."""
        name, taps = BridgeName(str(command.target)), self._taps()
        managed = self._bridges.find(name)
        if command.kind == "create":
            self._bridges.expect_none(name)
        if command.kind not in ("create", "ensure"):
            self._bridges.get(name)
        if command.kind == "destroy":
            return
        actions, ensure = command.actions, command.kind == "ensure"
        if managed is not None and await self._is_lost(managed):
            if not ensure:
                raise vanished(name)
            lost, again, managed = managed, self._texts.again(managed), None
            async with self._making_again(lost):
                await self._kernel.call(predict, self._kernel, name, None, again, taps, True)
            actions = (*again, *actions)
        await self._kernel.call(predict, self._kernel, name, managed, actions, taps, ensure)

    async def check_change(self, bridge: Bridge, actions: tuple[Action, ...], user: User) -> None:
        """Raise the error that change() would raise for a line, as far as it can be predicted."""
        managed, taps = self._allowed(bridge, user), self._taps()
        if await self._is_lost(managed):
            raise vanished(bridge.name)
        await self._kernel.call(predict, self._kernel, bridge.name, managed, actions, taps, False)

    def _taps(self) -> Taps:
        bridges = (managed.bridge for managed in self._bridges)
        names = frozenset(bridge.name for bridge in bridges if not bridge.lost)
        return replace(self._registry.taps(), bridges=names)

    def _allowed(self, bridge: Bridge, user: User) -> Managed:
        if not user.root:
            raise VirtError(errno.EPERM, "only root may change a bridge")
        return self._bridges.of(bridge)

    async def _ensure(self, command: Command, name: BridgeName, run: RunBridge, earlier: Earlier) -> list[str]:
        """Carry out the command `ensure`. Return warnings, as run() does."""
        managed = self._bridges.find(name)
        if managed is None:
            await self._create(command, name, run, earlier)
        elif await self._is_lost(managed):
            return await self._make_again(managed, command.actions)
        else:
            await self._change(managed, command.actions, ensure=True)
        return []

    async def _is_lost(self, managed: Managed) -> bool:
        """Query the kernel for whether a bridge is lost. OSError: the query failed."""
        await self._follower.look(managed)
        return managed.bridge.lost

    async def _create(self, command: Command, name: BridgeName, run: RunBridge, earlier: Earlier) -> None:
        managed = await self._make(name, command.actions, command.kind == "ensure", earlier)
        self._bridges.add(managed)
        self.directory.add({name: bridge_directory(managed.bridge, self, run, self._report)})
        self._tell_made(managed)
        if managed.found is not None:
            if name in earlier.found:
                log.info("%s", existed(name))
            else:
                self._warn(managed, existed(name))

    def existed(self, name: BridgeName) -> str:
        """Return the sentence that a bridge existed before virtfs used it, or "" if virtfs made the bridge."""
        managed = self._bridges.find(name)
        return "" if managed is None or managed.found is None else existed(name)

    def _warn(self, managed: Managed, sentence: str) -> None:
        log.warning("%s", sentence)
        self._events.emit("warning", managed.bridge.name, text=sentence)

    async def _make(
        self,
        name: BridgeName,
        actions: tuple[Action, ...],
        ensure: bool,
        earlier: Earlier = NOTHING,
        lost: Managed | None = None,
    ) -> Managed:
        """Make a bridge or attach to it, and carry out a line. If this fails, restore what was there before.

        earlier: as for run(). lost: the bridge of that name that is lost; its lines are carried out before `actions`.
        """
        again = self._texts.again(lost) if lost is not None else ()
        managed, left = await self._kernel.call(attach, self._kernel, name, earlier, self.recalled)
        try:
            if left:
                await self._kernel.call(renew, self._kernel, managed, (*again, *actions), earlier.made)
            if lost is not None:
                async with self._making_again(lost):
                    await self._change(managed, again, ensure=True)
            await self._change(managed, actions, ensure)
            if managed.bridge.lost:
                raise vanished(name)
        except BaseException:
            if not left:
                await self._kernel.call(release, self._kernel, managed)
            raise
        managed.adoptions.inherited = False
        return managed

    async def _make_again(self, managed: Managed, actions: tuple[Action, ...]) -> list[str]:
        """Make a lost bridge again, as its lines in ctl say, and carry out a line. If this fails, it stays lost.

        Return a sentence for each adopted member whose addresses the bridge had and now lacks.
        VirtError: EBUSY, a member is in another bridge, for example because this bridge was renamed; ENXIO, a member
        does not exist; other errors from the verbs.
        """
        name, texts = managed.bridge.name, self._texts
        new = await self._make(name, actions, ensure=True, lost=managed)
        before, adoptions = managed.bridge.state.addresses, managed.adoptions
        shares = adoptions.shares(adoptions.names, before)
        lost = texts.of_lost_taps(managed)
        self._bridges.restore(managed, new, {interface.place[1]: port for interface, port in lost.items()})
        for interface in lost:
            interface.virt.keep_bridge(name)
        await self._follower.look_after(managed)  # events about the new bridge were ignored until now
        self._tell_made(managed)
        log.info("%s, which was lost, is made again", name)
        lacking = {member: its.difference(managed.bridge.state.addresses) for member, its in shares.items()}
        return [
            f"{name} is made again without {addresses_of(its)}, which it had adopted from {quoted(member)}"
            for member, all_ in lacking.items()
            if (its := frozenset(address for address in all_ if not address.ip.is_link_local))
        ]

    def _tell_made(self, managed: Managed) -> None:
        self._events.emit("create", managed.bridge.name)
        before = () if managed.found is None else [member.index for member in managed.found.members]
        self._follower.tell_joined(managed, managed.bridge.state, before)

    @asynccontextmanager
    async def _making_again(self, lost: Managed) -> AsyncIterator[None]:
        """Prefix errors with the bridge that cannot be made again, and name the way out."""
        try:
            yield
        except VirtError as refusal:
            name, why = lost.bridge.name, refusal.strerror
            way_out = f'"destroy {name}" drops its lines'
            now = await self._kernel.call(new_name, lost)
            if now and f"is in {quoted(now)}" in why:
                why = f"it is {quoted(now)} now, with its members"
                way_out = f"{quoted(f'ip link set {now} name {name}')} gives it back, and {way_out}"
            raise VirtError(refusal.errno, f"cannot make {name} again: {why}. {way_out}") from refusal

    async def _change(self, managed: Managed, actions: tuple[Action, ...], ensure: bool) -> None:
        before = managed.added
        # Before the change, because a member may vanish as soon as it has joined.
        managed.added |= {str(action.args[0]) for action in actions if action.verb == "add"}
        try:
            try:
                await self._kernel.call(change, self._kernel, managed, actions, self._taps(), ensure)
                managed.added = _added_by(before, actions)
            except OSError:
                managed.added = before
                raise
            finally:
                await self._follower.look_after(managed)
        except VirtError as refusal:
            if managed.bridge.lost:
                raise vanished(managed.bridge.name) from refusal
            raise

    async def _destroy(self, managed: Managed) -> list[str]:
        """Release a bridge. Return a sentence for each vanished member whose addresses are lost."""
        managed.leaving = True
        try:
            lost = await self._kernel.call(release, self._kernel, managed)
        except BaseException:
            managed.leaving = False
            raise
        managed.bridge.lost = True
        self._bridges.remove(managed)
        self.directory.remove(managed.bridge.name)
        for sentence in lost:
            self._warn(managed, sentence)
        self._events.emit("destroy", managed.bridge.name)
        return lost

    async def destroy_all(self) -> VirtError | None:
        """Release every bridge. Return the first error, or None.

        If the adopted addresses and routes of a bridge cannot be given back to its members, the bridge stays.
        """
        first = None
        for managed in self._bridges:
            try:
                await self._destroy(managed)
            except OSError as refusal:
                sentence = f"cannot release {managed.bridge.name}: {refusal.strerror}"
                log.error("%s", sentence)
                self._events.emit("warning", managed.bridge.name, text=sentence)
                first = first or VirtError(refusal.errno or errno.EIO, sentence)
                forget_frames(refusal)
        return first


def _added_by(before: frozenset[str], actions: tuple[Action, ...]) -> frozenset[str]:
    """Return the interfaces that lines have added to a bridge and not deleted since. before: those before this line."""
    added = set(before)
    for action in actions:
        if action.verb == "add":
            added.add(str(action.args[0]))
        elif action.verb == "delete":
            added.discard(str(action.args[0]))
    return frozenset(added)
