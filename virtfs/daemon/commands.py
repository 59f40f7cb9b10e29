"""Carries out commands: turns the bytes written to a ctl into changes, or into an errno.

One command runs at a time. If a command fails, the user can read the reason in last_error.

A signal to the writer cancels the methods below that have a parameter `user`. Cancellation ends a wait for the lock or
for the lookup of a user. Once a line has begun to take effect, it is shielded from cancellation, so it completes.
"""

import errno
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from virtfs.core.bridge import Bridge
from virtfs.core.bytestext import to_text
from virtfs.core.errors import VirtError, refused
from virtfs.core.grammar import Action, file_action, parse
from virtfs.core.ids import Uid, Unit, User
from virtfs.core.quoting import quoted
from virtfs.core.script import Line, Script
from virtfs.core.virt import Virt
from virtfs.daemon.bridge_warnings import BridgeWarnings
from virtfs.daemon.bridges import Bridges
from virtfs.daemon.cables import Cables
from virtfs.daemon.changes import Changes
from virtfs.daemon.errors_by_user import ErrorsByUser
from virtfs.daemon.follow import Follower
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.lifecycle import Lifecycle
from virtfs.daemon.line_runner import LineRunner, whole
from virtfs.daemon.registry import Registry
from virtfs.daemon.replay import Replay
from virtfs.daemon.state import State
from virtfs.daemon.virt_checks import VirtChecks
from virtfs.daemon.virt_verbs import VirtVerbs
from virtfs.files.events import Events
from virtfs.files.frame import TapReturning
from virtfs.files.text import Turn
from virtfs.files.tree import Reports, Tree
from virtfs.forward.tasks import Start

AT_A_TIME = 8  # maximum number of one user's writes that may run or wait at the same time


async def at_once(user: User) -> None:
    """Let other tasks run once, without queueing. Used as `turn` by callers that are not users of the mount."""
    await trio.lowlevel.checkpoint()


class Commands:
    """Carries out writes to ctl files and attribute files (files.tree.Commands)."""

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
        reports: Reports,
        errors: ErrorsByUser,
        changes: Changes,
        lock: trio.Lock,
        start: Start,
        events: Events,
    ) -> None:
        """lock: held while interfaces change. start: runs a task until the mount ends."""
        self.tree = Tree(self, reports, errors, lifecycle.files_made)
        self.lines = LineRunner(
            kernel,
            registry,
            lifecycle,
            bridges,
            bridge_warnings,
            cables,
            follower,
            checks,
            verbs,
            state,
            errors,
            changes,
            events,
            lock,
            self.tree.interface,
            self.run,
        )
        self.replay = Replay(self.lines, registry, bridges, state.failed, kernel, events, errors.report)
        self._lock = lock
        self._registry = registry
        self._lifecycle = lifecycle
        self._bridges = bridges
        self._follower = follower
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
            began = time.time_ns()
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
            await self._keep(user, began)

    async def _reap_locked(self) -> None:
        """Remove the taps of the interfaces that this write has destroyed. The caller must not hold the lock."""
        if self._lifecycle.retired:
            with whole():
                async with self._lock:
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
        async with self._lock:
            if of is None:
                await self.lines.run_line(line.text, user)
            else:
                await self.lines.run_verbs(of, line.text, user)

    async def _retry(self, text: str, user: User) -> None:
        """Retry the failed lines of the state file. The caller must not hold the lock, since each line takes it."""
        self.lines.refuse_at_end()
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
            began = time.time_ns()
            await self._follower.caught_up()
            try:
                async with self._lock:
                    actions = (file_action(file, text),)
                    await self.lines.change(self._registry.of(virt), actions, user)
                    await self.lines.warn(virt.unit, actions, user)
            except (OSError, MemoryError) as failure:
                refusal = refused(failure)
                sentence = f"{virt.name}/{file}: {refusal.strerror.removeprefix(f'{file}: ')}"
                raise self._errors.remember(VirtError(refusal.errno, sentence), user) from None
            await self._keep(user, began)

    async def change(self, virt: Virt, actions: tuple[Action, ...], user: User) -> None:
        """Carry out a chmod(2) or chown(2), given as the equivalent verbs."""
        with self._admitted(user):
            began = time.time_ns()
            try:
                async with self._lock:
                    await self.lines.change(self._registry.of(virt), actions, user)
            except (OSError, MemoryError) as failure:
                raise self._errors.remember(refused(failure), user) from None
            await self._keep(user, began)

    async def _keep(self, user: User, began: int) -> None:
        """Save the state after a command, even if the writer gets a signal.

        If this fails, the command stays in effect, and last_error tells the user why the save failed, besides
        the warnings about the command. began: when the command began, in ns since 1970.
        """
        with whole():
            kept = await self._state.keep()
        if not kept and (unsaved := self._state.unsaved) is not None:
            sentence = f"the command took effect, but virtfs {unsaved.refusal.strerror}"
            self._errors.remember_beside(VirtError(unsaved.refusal.errno, sentence), user, began)

    async def make_clone(self, user: User) -> tuple[Unit, Callable[[], None]]:
        """Create an interface for one open of clone. Return its unit, and a function that destroys it."""
        async with self._lock:
            self.lines.refuse_at_end()
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
            async with self._lock:
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
        self.lines.end()
        self._state.end()
        async with self._lock:
            await self._bridges.destroy_all()
            await self._lifecycle.destroy_all(end=True)
