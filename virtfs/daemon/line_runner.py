"""Carries out single lines of ctl. daemon.commands takes the lock for each line, and remembers its error.

Once a line has begun to take effect, it is shielded from cancellation, so it completes.
"""

import errno
import logging
from collections.abc import Sequence
from functools import partial
from typing import cast

import trio

from virtfs.core.arguments import Impairments
from virtfs.core.bridge import Bridge
from virtfs.core.errors import VirtError, refused
from virtfs.core.grammar import Action, Command, parsing, parsing_verbs, split_check
from virtfs.core.ids import BridgeName, Unit, User
from virtfs.core.line_text import format_command
from virtfs.core.socketname import SocketName
from virtfs.core.verbs import BRIDGE, VIRT
from virtfs.core.virt import Origin, Virt
from virtfs.daemon.bridge_warnings import BridgeWarnings
from virtfs.daemon.bridges import Bridges
from virtfs.daemon.cable_warnings import COMPARED, unlike_ends
from virtfs.daemon.cables import Cables
from virtfs.daemon.changes import Changes
from virtfs.daemon.check import LineChecks
from virtfs.daemon.earlier import NOTHING, Earlier
from virtfs.daemon.errors_by_user import ErrorsByUser
from virtfs.daemon.failed_lines import FailedLine
from virtfs.daemon.follow import Follower
from virtfs.daemon.interface import Interface
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.lifecycle import Lifecycle, Names
from virtfs.daemon.netns_verb import destination, move_first, refuse_moves
from virtfs.daemon.port_addresses import idle_addresses
from virtfs.daemon.registry import Registry
from virtfs.daemon.state import State
from virtfs.daemon.virt_checks import VirtChecks
from virtfs.daemon.virt_verbs import VirtVerbs
from virtfs.files.bridges import RunBridge
from virtfs.files.events import Events
from virtfs.forward.recorder import Mark
from virtfs.forward.slices import in_steps
from virtfs.forward.supervisor import together

log = logging.getLogger(__name__)


def whole() -> trio.CancelScope:
    """Return a scope for work that must be completed or undone once it has begun, even if the writer gets a signal."""
    return trio.CancelScope(shield=True)


class LineRunner:
    """Carries out lines of the ctl files (replay.Lines). The caller holds the lock."""

    def __init__(
        self,
        kernel: Kernel,
        registry: Registry,
        lifecycle: Lifecycle,
        bridges: Bridges,
        bridge_warnings: BridgeWarnings,
        cables: Cables,
        follower: Follower,
        checks: VirtChecks,
        verbs: VirtVerbs,
        state: State,
        errors: ErrorsByUser,
        changes: Changes,
        events: Events,
        lock: trio.Lock,
        names: Names,
        run: RunBridge,
    ) -> None:
        """Store the parts of the mount that lines change.

        state: has the lines of lost interfaces, and the failed lines of the state file.
        lock: held while interfaces change.
        names: returns the entries of a new interface in the root directory.
        run: carries out writes to the ctl of a bridge.
        """
        self.lock = lock
        self.ended = False
        self._kernel = kernel
        self._registry = registry
        self._lifecycle = lifecycle
        self._bridges = bridges
        self._bridge_warnings = bridge_warnings
        self._cables = cables
        self._follower = follower
        self._checks = checks
        self._line_checks = LineChecks(kernel, registry, lifecycle, bridges, cables, checks, state)
        self._verbs = verbs
        self._state = state
        self._failed = state.failed
        self._errors = errors
        self._changes = changes
        self._events = events
        self._names = names
        self._run = run

    def end(self) -> None:
        """Refuse further lines, because the mount is ending."""
        self.ended = True

    async def run_line(self, text: str, user: User, earlier: Earlier | None = None) -> None:
        """Carry out a line of the mount's ctl.

        earlier: what the state file lists, if the line is replayed from it. None means that a user wrote the line. A
        user's line supersedes failed lines of the state file about the same interface or bridge.
        """
        self.refuse_at_end()
        command = await in_steps(parsing(text))
        if command is None:
            return
        if not user.root:
            raise VirtError(errno.EPERM, "only root may use this ctl; write to the ctl of your interface")
        if command.checks:
            await self._reap()
            await self._line_checks.command(command, user)
            return
        if command.kind == "mark":
            await self._mark(str(command.actions[0].args[0]))
            return
        if command.kind == "destroy" and command.target is None:
            await self._destroy_all()
            return
        try:
            existed = self._existed(command.target)
            target, warnings = await self._run_command(command, user, earlier or NOTHING)
            if earlier is None:
                self._failed.supersede(target, None if command.kind in ("create", "destroy") else command.actions)
                if existed is None and (came := self._existed(target)):
                    warnings.append(came)
                await self.warn(target, command.actions, user, command.kind == "cable", warnings)
            else:
                self._errors.warn(warnings, user)
                await self._reap()  # Commands.run() does this after a script, but not for the state file
        finally:
            self._changes.publish()

    def _existed(self, target: object) -> str | None:
        """Return whether an interface or a bridge existed before virtfs used it, as a sentence or "".

        target: a unit or the name of a bridge. The result is None if the mount does not have it.
        """
        if isinstance(target, str):
            return self._bridges.existed(BridgeName(target)) if target in self._bridges else None
        interface = self._registry.find(Unit(target)) if isinstance(target, int) else None
        return None if interface is None else interface.existed

    async def _destroy_all(self) -> None:
        """Destroy everything in the mount, and drop the failed lines of the state file.

        VirtError: a bridge could not be released; it stays, and everything else has been destroyed.
        """
        try:
            with whole():
                refusal = await self._bridges.destroy_all()
                await self._lifecycle.destroy_all(end=False)
                self._failed.clear()
        finally:
            self._changes.publish()
        if refusal is not None:
            raise refusal

    async def _run_command(self, command: Command, user: User, earlier: Earlier) -> tuple[object, list[str]]:
        """Carry out a command. Return its target, a unit or the name of a bridge, and warnings."""
        if command.kind != "destroy" or isinstance(command.target, str):
            await self._reap()
        if command.kind == "destroy" and self._only_failed(command):
            return command.target, []
        if isinstance(command.target, str):
            with whole():
                warnings = await self._bridges.run(command, self._run, earlier)
                await self._follower.caught_up()  # updates the taps that have joined or left the bridge
            return command.target, warnings
        unit = None if command.target is None else Unit(int(command.target))
        interface = None if unit is None else self._registry.find(unit)
        if command.kind == "ensure" and interface is not None and interface.virt.lost:
            await self._make_again(interface, command, user)
        match command.kind:
            case "uncable":
                other = None if command.peer is None else self._end(command.peer)
                with whole():
                    await self._cables.separate(self._existing(unit), other)
            case "cable" if command.peer is not None:
                await self._cable(command, self._existing(unit), self._end(command.peer), user)
            case "create":
                self._registry.expect_none(unit)
                unit = await self._create(unit, command.actions, user, earlier)
            case "ensure" if interface is None:
                await self._create(unit, command.actions, user, earlier)
            case "destroy":
                with whole():
                    await self._lifecycle.retire(self._existing(unit))
            case _:
                existing = self._existing(unit)
                await refuse_moves(self._kernel, existing, command.actions)
                await self.change(existing, command.actions, user)
        return unit, []

    def _only_failed(self, command: Command) -> bool:
        """Return whether only failed lines of the state file mention the target. Then `destroy` just drops them."""
        target = command.target
        there = target in self._bridges if isinstance(target, str) else self._registry.find(Unit(int(target or 0)))
        return not there and self._failed.about(target)

    async def run_verbs(self, of: Virt | Bridge, text: str, user: User) -> None:
        """Carry out a line of the ctl of an interface or a bridge."""
        self.refuse_at_end()
        await self._reap()
        checks, text = split_check(text)
        if checks:
            await self._line_checks.verbs(of, text, user)
            return
        actions = await in_steps(parsing_verbs(text, BRIDGE if isinstance(of, Bridge) else VIRT))
        if isinstance(of, Bridge):
            with whole():
                await self._bridges.change(of, actions, user)
                await self._follower.caught_up()
        else:
            await self.change(self._registry.of(of), actions, user)
        target = of.name if isinstance(of, Bridge) else of.unit
        self._failed.supersede(target, actions)
        await self.warn(target, actions, user)

    async def warn(
        self,
        target: object,
        actions: tuple[Action, ...],
        user: User,
        cabled: bool = False,
        warnings: Sequence[str] = (),
    ) -> None:
        """Tell the user, in last_error, that a line has taken effect but may not have the effect that was meant.

        cabled: whether the line was a command `cable`. warnings: those that carrying it out has given.
        """
        with whole():
            found = [*warnings, *await idle_addresses(self._kernel, self._registry, self._bridges, target, actions)]
            if cabled or COMPARED.intersection(action.verb for action in actions):
                found += self._about_cable(target)
            found += await self._bridge_warnings.after(target, actions)
            self._errors.warn(found, user)

    def _about_cable(self, target: object) -> list[str]:
        """Return warnings about the cable of the interface that a line has changed."""
        interface = self._registry.find(Unit(target)) if isinstance(target, int) else None
        other = None if interface is None else self._cables.other_end(interface)
        return [] if interface is None or other is None else unlike_ends(interface, other)

    async def _mark(self, text: str) -> None:
        """Mark this moment in the captures and histories of all interfaces."""
        mark = Mark(text)
        with whole():
            await together(*(partial(interface.recorder.mark, mark) for interface in self._registry))
            self._events.emit("mark", "mount", text=text)

    async def _create(self, unit: Unit | None, actions: tuple[Action, ...], user: User, earlier: Earlier) -> Unit:
        self._lifecycle.check_room()
        await self._checks.check(None, actions, user)
        netns = destination(actions)
        with whole():
            interface = await self._lifecycle.create(unit, self._names, earlier, netns)
            attached = not interface.tap.made
            try:
                if attached and interface.virt.origin is Origin.MADE:
                    await self._verbs.renew(interface, actions, self._lifecycle.new_queue)
                await self._verbs.carry_out(interface, move_first(actions))
            except BaseException:
                await self._lifecycle.destroy(interface, keep=attached)
                raise
        return interface.virt.unit

    async def _make_again(self, interface: Interface, command: Command, user: User) -> None:
        """Make a lost interface again, as its lines in ctl say, for an `ensure` whose verbs are carried out afterwards.

        If the other end of its cable is lost too, make it again first, since no cable can lead to a lost interface.
        VirtError: a name in the lines does not exist, and nothing has changed; or the kernel refused one of the lines,
        and they are now failed lines, which `retry` runs.
        """
        await self._line_checks.again(interface, command, user)
        with whole():
            lost = self._cables.lost_with(interface)
            lines = {format_command(line): line for one in lost for line in self._state.again(one.virt)}
            ordered = sorted(lines.items(), key=lambda line: line[1].kind == "cable")  # a cable needs both of its ends
            for one in lost:
                await self._lifecycle.retire(one)
            try:
                for _, line in ordered:
                    await self._run_command(line, user, NOTHING)
            except Exception as failure:
                for one in lost:
                    if (new := self._registry.find(one.virt.unit)) is not None:
                        await self._lifecycle.destroy(new)
                refusal = refused(failure) if isinstance(failure, OSError | MemoryError) else None
                reason = type(failure).__name__ if refusal is None else str(refusal.strerror)
                for text, line in ordered:
                    self._failed.add(FailedLine(text, line, reason))
                if refusal is None:
                    raise
                sentence = f'cannot make {interface.virt.name} again: {reason}: "retry" runs its lines again'
                raise VirtError(refusal.errno, sentence) from failure
        for one in lost:
            log.info("%s, which was lost, is made again", one.virt.name)

    async def change(self, interface: Interface, actions: tuple[Action, ...], user: User) -> None:
        """Carry out verbs on an interface. VirtError: the user may not use a verb, or a verb fails."""
        await self._checks.check(interface, actions, user)
        await self._reap()
        try:
            with whole():
                await self._verbs.carry_out(interface, actions)
        finally:
            self._changes.publish()

    async def _cable(self, command: Command, first: Interface, other: Interface | SocketName, user: User) -> None:
        await self._checks.check(None, command.actions, user)
        impairments = cast(Impairments, command.actions[0].args[0] if command.actions else ())
        if isinstance(other, SocketName):
            await self._cables.plug(first, other, impairments)
        else:
            self._cables.join(first, other, impairments)

    def _end(self, peer: Unit | SocketName) -> Interface | SocketName:
        return peer if isinstance(peer, SocketName) else self._existing(peer)

    def _existing(self, unit: Unit | None) -> Interface:
        if unit is None:
            raise VirtError(errno.EINVAL, "the command needs an interface")
        return self._registry.get(unit)

    def refuse_at_end(self) -> None:
        """Raise VirtError ENXIO if the mount is ending."""
        if self.ended:
            raise VirtError(errno.ENXIO, "the mount is ending")

    async def _reap(self) -> None:
        """Remove the taps of destroyed interfaces, because a line may reuse their names. The caller holds the lock."""
        with whole():
            await self._lifecycle.reap()
