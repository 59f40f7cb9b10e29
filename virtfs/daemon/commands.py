"""Carries out commands: turns the bytes written to a ctl into changes, or into an errno.

One command runs at a time. If a command fails, the user can read the reason in last_error.

A signal to the writer cancels the methods below that have a parameter `user`. Cancellation ends a wait for the lock or
for the lookup of a user. Once a line has begun to take effect, it is shielded from cancellation, so it completes.
"""

import errno
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import cast

import trio

from virtfs.core.arguments import Impairments
from virtfs.core.bridge import Bridge
from virtfs.core.bytestext import to_text
from virtfs.core.errors import VirtError, refused
from virtfs.core.grammar import Action, Command, file_action, parse, parsing, parsing_verbs, split_check
from virtfs.core.ids import Uid, Unit, User
from virtfs.core.quoting import quoted
from virtfs.core.script import Line, Script
from virtfs.core.socketname import SocketName
from virtfs.core.verbs import BRIDGE, VIRT
from virtfs.core.virt import Origin, Virt
from virtfs.daemon.bridges import Bridges
from virtfs.daemon.cables import Cables
from virtfs.daemon.changes import Changes
from virtfs.daemon.check import LineChecks
from virtfs.daemon.errors_by_user import ErrorsByUser
from virtfs.daemon.follow import Follower
from virtfs.daemon.interface import Interface
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.lifecycle import Lifecycle
from virtfs.daemon.netns_verb import destination, refuse_moves
from virtfs.daemon.port_addresses import idle_addresses
from virtfs.daemon.registry import Registry
from virtfs.daemon.replay import Replay
from virtfs.daemon.state import State
from virtfs.daemon.virt_checks import VirtChecks
from virtfs.daemon.virt_verbs import VirtVerbs
from virtfs.files.events import Events
from virtfs.files.frame import TapReturning
from virtfs.files.text import Turn
from virtfs.files.tree import Reports, Tree
from virtfs.forward.recorder import Mark
from virtfs.forward.slices import in_steps
from virtfs.forward.supervisor import together
from virtfs.forward.tasks import Start

AT_A_TIME = 8  # maximum number of one user's writes that may run or wait at the same time


async def at_once(user: User) -> None:
    """Let other tasks run once, without queueing. Used as `turn` by callers that are not users of the mount."""
    await trio.lowlevel.checkpoint()


def whole() -> trio.CancelScope:
    """Return a scope for work that must be completed or undone once it has begun, even if the writer gets a signal."""
    return trio.CancelScope(shield=True)


class Commands:
    """Carries out writes to ctl files and attribute files (files.tree.Commands)."""

    def __init__(
        self,
        kernel: Kernel,
        registry: Registry,
        lifecycle: Lifecycle,
        bridges: Bridges,
        cables: Cables,
        follower: Follower,
        checks: VirtChecks,
        verbs: VirtVerbs,
        state: State,
        reports: Reports,
        errors: ErrorsByUser,
        changes: Changes,
        lock: trio.Lock,
        start: Start,
        events: Events,
    ) -> None:
        """lock: held while interfaces change. start: runs a task until the mount ends."""
        self.lock = lock
        self.ended = False
        self.tree = Tree(self, reports, errors)
        self.replay = Replay(self, registry, bridges, state.failed, kernel, events)
        self._kernel = kernel
        self._registry = registry
        self._lifecycle = lifecycle
        self._bridges = bridges
        self._cables = cables
        self._follower = follower
        self._checks = checks
        self._line_checks = LineChecks(kernel, registry, lifecycle, bridges, cables, checks, state.failed)
        self._events = events
        self._verbs = verbs
        self._state = state
        self._errors = errors
        self._changes = changes
        self._start = start
        self._waiting: Counter[Uid] = Counter()

    # Methods of the protocol files.tree.Commands

    async def run(
        self, of: Virt | Bridge | None, script: Script, data: bytes, user: User, turn: Turn = at_once
    ) -> None:
        """Run the lines that this write completes. Stop at the first line that fails.

        of: the interface or bridge whose ctl is written, or None for the ctl of the mount.
        script: keeps the unfinished line between writes. turn: called before each line; waits for the user's turn.
        """
        with self._admitted(user):
            await self._follower.caught_up()
            try:
                lines = script.feed(data)
            except VirtError as refusal:
                raise self._errors.remember(refusal, user) from None
            try:
                for line in lines:
                    if line.text and not line.text.isspace():
                        await turn(user)
                        await self._run_locked(of, script, line, user)
                    else:
                        await trio.lowlevel.checkpoint()
            except BaseException:
                with whole():
                    await self._reap_locked()
                    await self._state.keep()
                raise
            await self._reap_locked()
            await self._keep(user)

    async def _reap_locked(self) -> None:
        """Remove the taps of the interfaces that this write has destroyed. The caller must not hold the lock."""
        if self._lifecycle.retired:
            with whole():
                async with self.lock:
                    await self._lifecycle.reap()

    async def _reap(self) -> None:
        """Remove the taps of destroyed interfaces, because a line may reuse their names. The caller holds the lock."""
        with whole():
            await self._lifecycle.reap()

    async def _run_locked(self, of: Virt | Bridge | None, script: Script, line: Line, user: User) -> None:
        try:
            if of is None and line.text.split(maxsplit=1)[0] == "retry":
                await self._retry(line.text, user)
                return
            try:
                await self._run_one(of, line, user)
            except TapReturning as returning:  # the line has changed nothing
                await returning.regained()
                await self._run_one(of, line, user)
        except (OSError, MemoryError) as failure:
            script.forget()
            refusal = refused(failure)
            located = line.locate(VirtError(refusal.errno, f"{quoted(line.text.strip())}: {refusal.strerror}"))
            raise self._errors.remember(located, user) from None

    async def _run_one(self, of: Virt | Bridge | None, line: Line, user: User) -> None:
        async with self.lock:
            if of is None:
                await self.run_line(line.text, user)
            else:
                await self._run_verbs(of, line.text, user)

    async def _retry(self, text: str, user: User) -> None:
        """Retry the failed lines of the state file. The caller must not hold the lock, since each line takes it."""
        self._refuse_at_end()
        parse(text)
        if not user.root:
            raise VirtError(errno.EPERM, "only root may use this ctl; write to the ctl of your interface")
        await self.replay.retry()

    async def set_value(self, virt: Virt, file: str, data: bytes, user: User) -> None:
        """Carry out one write to an attribute file.

        file: the path of the attribute file, relative to the interface's directory.
        """
        text = to_text(data)
        with self._admitted(user):
            await self._follower.caught_up()
            try:
                async with self.lock:
                    actions = (file_action(file, text),)
                    await self._change(self._registry.of(virt), actions, user)
                    await self._warn(virt.unit, actions, user)
            except (OSError, MemoryError) as failure:
                refusal = refused(failure)
                sentence = f"{virt.name}/{file}: {refusal.strerror.removeprefix(f'{file}: ')}"
                raise self._errors.remember(VirtError(refusal.errno, sentence), user) from None
            await self._keep(user)

    async def change(self, virt: Virt, actions: tuple[Action, ...], user: User) -> None:
        """Carry out a chmod(2) or chown(2), given as the equivalent verbs."""
        with self._admitted(user):
            try:
                async with self.lock:
                    await self._change(self._registry.of(virt), actions, user)
            except (OSError, MemoryError) as failure:
                raise self._errors.remember(refused(failure), user) from None
            await self._keep(user)

    async def _keep(self, user: User) -> None:
        """Save the state after a command, even if the writer gets a signal.

        If this fails, the command stays in effect, and last_error tells the user why the save failed.
        """
        with whole():
            kept = await self._state.keep()
        if not kept and (unsaved := self._state.unsaved) is not None:
            sentence = f"the command took effect, but virtfs {unsaved.refusal.strerror}"
            self._errors.remember(VirtError(unsaved.refusal.errno, sentence), user)

    async def make_clone(self, user: User) -> tuple[Unit, Callable[[], None]]:
        """Create an interface for one open of clone. Return its unit, and a function that destroys it."""
        async with self.lock:
            self._refuse_at_end()
            with whole():
                interface = await self._lifecycle.create(None, self.tree.interface, cloned=True)
                try:
                    await self._verbs.give(interface, user)
                except BaseException:
                    await self._lifecycle.destroy(interface)
                    raise
                finally:
                    self._changes.publish()

        async def destroy() -> None:
            async with self.lock:
                if interface in self._registry:
                    with whole():
                        await self._lifecycle.destroy(interface)
            self._changes.publish()

        return interface.virt.unit, lambda: self._start(
            destroy, name=f"destroying {interface.virt.name} of a closed clone"
        )

    @contextmanager
    def _admitted(self, user: User) -> Iterator[None]:
        """Count a write while it runs or waits, unless the user is root.

        VirtError: EBUSY, the user already has AT_A_TIME such writes.
        """
        if user.root:
            yield
            return
        if self._waiting[user.uid] >= AT_A_TIME:
            refusal = VirtError(errno.EBUSY, f"{AT_A_TIME} of your commands are already waiting: try again later")
            raise self._errors.remember(refusal, user)
        self._waiting[user.uid] += 1
        try:
            yield
        finally:
            self._waiting[user.uid] -= 1
            if not self._waiting[user.uid]:
                del self._waiting[user.uid]

    async def end(self) -> None:
        """Finish the running line, refuse further lines, and release every bridge and tap."""
        self.ended = True
        self._state.end()
        async with self.lock:
            await self._bridges.destroy_all()
            await self._lifecycle.destroy_all(keep=True)

    # Running a line. The caller of these methods holds the lock.

    async def run_line(self, text: str, user: User, made: frozenset[str] | None = None) -> None:
        """Carry out a line of the mount's ctl.

        made: the names of the taps and bridges that an earlier run of virtfs made, if the line is replayed from the
        state file. None means that a user wrote the line. A user's line supersedes failed lines of the state file about
        the same interface or bridge.
        """
        self._refuse_at_end()
        command = await in_steps(parsing(text))
        if command is None or command.kind == "help":
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
            target = await self._run_command(command, user, made or frozenset())
            if made is None:
                self._state.failed.supersede(target)
                await self._warn(target, command.actions, user)
            else:
                await self._reap()  # run() does this after a script, but does not run the lines of the state file
        finally:
            self._changes.publish()

    async def _destroy_all(self) -> None:
        """Destroy everything in the mount, and drop the failed lines of the state file.

        VirtError: a bridge could not be released; it stays, and everything else has been destroyed.
        """
        try:
            with whole():
                refusal = await self._bridges.destroy_all()
                await self._lifecycle.destroy_all(keep=False)
                self._state.failed.clear()
        finally:
            self._changes.publish()
        if refusal is not None:
            raise refusal

    async def _run_command(self, command: Command, user: User, made: frozenset[str]) -> object:
        """Carry out a command, and return its target: a unit or the name of a bridge."""
        if command.kind != "destroy" or isinstance(command.target, str):
            await self._reap()
        if command.kind == "destroy" and self._only_failed(command):
            return command.target
        if isinstance(command.target, str):
            with whole():
                await self._bridges.run(command, self.run, made)
                await self._follower.caught_up()  # updates the taps that have joined or left the bridge
            return command.target
        unit = None if command.target is None else Unit(int(command.target))
        interface = None if unit is None else self._registry.find(unit)
        match command.kind:
            case "uncable":
                other = None if command.peer is None else self._end(command.peer)
                with whole():
                    await self._cables.separate(self._existing(unit), other)
            case "cable" if command.peer is not None:
                await self._cable(command, self._existing(unit), self._end(command.peer), user)
            case "create":
                self._registry.expect_none(unit)
                unit = await self._create(unit, command.actions, user, made)
            case "ensure" if interface is None:
                await self._create(unit, command.actions, user, made)
            case "destroy":
                with whole():
                    await self._lifecycle.retire(self._existing(unit))
            case _:
                existing = self._existing(unit)
                await refuse_moves(self._kernel, existing, command.actions)
                await self._change(existing, command.actions, user)
        return unit

    def _only_failed(self, command: Command) -> bool:
        """Return whether only failed lines of the state file mention the target. Then `destroy` just drops them."""
        target = command.target
        there = target in self._bridges if isinstance(target, str) else self._registry.find(Unit(int(target or 0)))
        return not there and self._state.failed.about(target)

    async def _run_verbs(self, of: Virt | Bridge, text: str, user: User) -> None:
        """Carry out a line of the ctl of an interface or a bridge."""
        self._refuse_at_end()
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
            await self._change(self._registry.of(of), actions, user)
        target = of.name if isinstance(of, Bridge) else of.unit
        self._state.failed.supersede(target)
        await self._warn(target, actions, user)

    async def _warn(self, target: object, actions: tuple[Action, ...], user: User) -> None:
        """Tell the user, in last_error, that a line has taken effect but that addresses no longer work."""
        with whole():
            warning = await idle_addresses(self._kernel, self._registry, self._bridges, target, actions)
            if warning is not None:
                self._errors.remember(warning, user)

    async def _mark(self, text: str) -> None:
        """Mark this moment in the captures and histories of all interfaces."""
        mark = Mark(text)
        with whole():
            await together(*(partial(interface.recorder.mark, mark) for interface in self._registry))
            self._events.emit("mark", "mount", text=text)

    async def _create(self, unit: Unit | None, actions: tuple[Action, ...], user: User, made: frozenset[str]) -> Unit:
        self._lifecycle.check_room()
        await self._checks.check(None, actions, user)
        netns = destination(actions)
        with whole():
            interface = await self._lifecycle.create(unit, self.tree.interface, f"tap{unit}" in made, netns)
            attached = not interface.tap.made
            try:
                if attached and interface.virt.origin is Origin.MADE:
                    await self._verbs.renew(interface, actions)
                await self._verbs.carry_out(interface, actions)
            except BaseException:
                await self._lifecycle.destroy(interface, keep=attached)
                raise
        return interface.virt.unit

    async def _change(self, interface: Interface, actions: tuple[Action, ...], user: User) -> None:
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

    def _refuse_at_end(self) -> None:
        if self.ended:
            raise VirtError(errno.ENXIO, "the mount is ending")
