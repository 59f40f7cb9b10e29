"""Commands, from a line of text to what it has changed or the errno it is refused with.

One command runs at a time. Whoever's was refused finds it, and why, in last_error.
"""

import errno
import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import cast

import trio

from virtfs.core.arguments import Impairments
from virtfs.core.bridge import Bridge
from virtfs.core.errors import VirtError, refused
from virtfs.core.grammar import Action, Command, file_action, format_actions, format_command, parse, parse_verbs
from virtfs.core.ids import Gid, Uid, Unit, User
from virtfs.core.quoting import quoted
from virtfs.core.script import Line, Script
from virtfs.core.status import describe, describe_bridge, describe_cable, status
from virtfs.core.values import verbs_of
from virtfs.core.verbs import BRIDGE
from virtfs.core.virt import Virt
from virtfs.daemon.accounts import group_name, user_name
from virtfs.daemon.bridges import Bridges
from virtfs.daemon.cables import Cables
from virtfs.daemon.interface import Interface
from virtfs.daemon.interfaces import Interfaces
from virtfs.daemon.moves import destination, refuse_moves, without_move
from virtfs.daemon.statefile import MADE, StateFile, made_before
from virtfs.daemon.verbs import OF_HOST, carry_out, check, follow_opens
from virtfs.files.frame import Frame
from virtfs.files.node import Node
from virtfs.forward.wire import Wire

log = logging.getLogger(__name__)

ROOT_USER = User(Uid(0), Gid(0), 0)
AT_A_TIME = 8  # writes of one user that wait for their turn
REMEMBERED = 1024  # users whose last error is kept


class Commander:
    """Carries out what is written to ctl and to the attribute files, and what chmod and chown say."""

    def __init__(self, interfaces: Interfaces) -> None:
        self._interfaces = interfaces
        self.bridges = Bridges(interfaces.kernel, interfaces.tap_names)
        interfaces.mount = replace(interfaces.mount, told=self.refused)
        self.cables = Cables(interfaces)
        self._one_at_a_time = trio.Lock()
        self._errors: OrderedDict[Uid, str] = OrderedDict()
        self._waiting: Counter[Uid] = Counter()
        self._ended = False
        self._made_before: frozenset[str] = frozenset()
        self.state_file: StateFile | None = None
        self.options = ""  # of the mount
        self.changed: Callable[[], None] = lambda: None
        self.changed_times = 0
        self.caught_up: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint

    # As files.tree.Commands

    async def run(self, virt: Virt | Bridge | None, script: Script, data: bytes, user: User) -> None:
        """Run the lines that this write completes, up to the first that is refused."""
        with self._admitted(user):
            try:
                lines = script.feed(data)
            except VirtError as refusal:
                raise self._remember(user, refusal) from None
            try:
                for line in lines:
                    if line.text and not line.text.isspace():
                        await self._run_one(virt, script, line, user)
                    elif not line.number % 64:
                        await trio.lowlevel.checkpoint()  # a script of any length holds nobody up
            finally:
                await self.keep()

    async def _run_one(self, virt: Virt | Bridge | None, script: Script, line: Line, user: User) -> None:
        try:
            await trio.lowlevel.checkpoint()
            async with self._one_at_a_time:
                await self._run_line(virt, line, user)
        except (OSError, MemoryError) as failure:
            script.forget()
            refusal = refused(failure)
            said = VirtError(refusal.errno, f"{quoted(line.text.strip())}: {refusal.strerror}")
            raise self._remember(user, line.locate(said)) from None

    @contextmanager
    def _admitted(self, user: User) -> Iterator[None]:
        """Of a user who is not root only some writes may wait at a time, for each holds one of the mount's workers."""
        if user.root:
            yield
            return
        if self._waiting[user.uid] >= AT_A_TIME:
            raise self._remember(user, VirtError(errno.EBUSY, f"{AT_A_TIME} of your commands are waiting already"))
        self._waiting[user.uid] += 1
        try:
            yield
        finally:
            self._waiting[user.uid] -= 1
            if not self._waiting[user.uid]:
                del self._waiting[user.uid]

    async def set_value(self, virt: Virt, file: str, data: bytes, user: User) -> None:
        """Apply one write to an attribute file."""
        text = data.decode(errors="surrogateescape")
        with self._admitted(user):
            try:
                async with self._one_at_a_time:
                    await self._change(self._of(virt), (file_action(file, text),), user)
            except (OSError, MemoryError) as failure:
                refusal = refused(failure)
                said = f"{virt.name}/{file}: {refusal.strerror.removeprefix(f'{file}: ')}"
                raise self._remember(user, VirtError(refusal.errno, said)) from None
            await self.keep()

    def refused(self, error: VirtError, user: User) -> None:
        """A part of a script that did not come here, and why."""
        self._remember(user, error)

    async def refresh(self, virt: Virt | None) -> None:
        """Look at the host's end of one interface, or of all; beside the commands, not between them."""
        if virt is None:
            await self.bridges.refresh(None)
            await self._interfaces.refresh_all()
            return
        interface = self._interfaces.find(virt.unit)
        if interface is not None and interface.virt is virt and not virt.lost:
            await self._interfaces.refresh(interface)
            interface.wire.settle()

    async def refresh_bridge(self, bridge: Bridge) -> None:
        """Look at a bridge."""
        await self.bridges.refresh(bridge)

    def bridge_state(self, bridge: Bridge) -> str:
        """A bridge's verbs."""
        return self.bridges.state(bridge)

    def state(self, virt: Virt | None) -> str:
        """One interface's verbs, or the lines that would make every interface.

        Comments tell what the lines cannot: what of it virtfs has made though it outlives the daemon, and what goes
        with an open of clone.
        """
        if virt is not None:
            return "".join(format_actions(actions) + "\n" for actions in _verbs(virt))
        made = [i.virt.tap for i in self._interfaces if i.virt.persist and i.found is None]
        made += self.bridges.made
        lines = [MADE + " ".join(made)] if made else []
        lines += self.bridges.lines_before()
        for interface in self._interfaces:
            virt = interface.virt
            if interface.cloned:
                lines.append(f"# {virt.name} is of an open clone")
                continue
            first, *more = _verbs(virt, makes=True)
            lines.append(format_command(Command("create", virt.unit, first)))
            lines += [format_command(Command("change", virt.unit, actions)) for actions in more]
        lines += self.bridges.lines_after()
        lines += map(format_command, self.cables.lines())
        return "".join(f"{line}\n" for line in lines)

    def changes(self) -> int:
        """How many changes there have been, as `changed` tells of them."""
        return self.changed_times

    async def make_clone(self, user: User) -> tuple[Unit, Callable[[], None]]:
        """An interface for one open of clone, its opener's: its unit, and what destroys it."""
        async with self._one_at_a_time:
            self._refuse_at_end()
            interface = await self._make(None, "")
            interface.cloned = True
            interface.virt.owner, interface.virt.group = user.uid, user.gid
            self._interfaces.given(interface)
            self.changed()

        async def destroy() -> None:
            async with self._one_at_a_time:
                if self._interfaces.has(interface):
                    await self._interfaces.destroy(interface)
            self.changed()

        return interface.virt.unit, lambda: self._interfaces.later(destroy)

    # The state file

    async def replay(self, text: str) -> bool:
        """Make what an earlier mount's ctl gave. A line that fails is logged, the others are tried all the same.

        False: the mount has ended meanwhile, and not all of it is made; the state file stays as it is.
        """
        self._made_before = made_before(text)
        for number, line in enumerate(text.splitlines(), start=1):
            async with self._one_at_a_time:
                if self._ended:
                    break
                try:
                    await self._replay_line(line)
                except OSError as refusal:
                    log.error("state file, line %d: %s: %s", number, quoted(line), refusal.strerror)
                except Exception:
                    log.exception("state file, line %d: %s", number, quoted(line))
        self._made_before = frozenset()
        return not self._ended

    async def _replay_line(self, line: str) -> None:
        """By ensure. A namespace that was named by a process is gone with it: its interface comes back lost."""
        command = parse(line)
        if command is None:
            return
        netns = destination(command.actions)
        by_process = netns.isdecimal()
        if by_process:
            command = without_move(command, OF_HOST)
        kind = "ensure" if command.kind == "create" else command.kind
        await self._run_line(None, Line(format_command(replace(command, kind=kind)), 1, 1), ROOT_USER)
        if by_process and isinstance(command.target, int):
            interface = self._interfaces.get(Unit(command.target))
            interface.lose()
            interface.virt.netns = netns
            await self._interfaces.kernel.call(interface.tap.close)

    async def keep(self) -> bool:
        """Save the state as it is, if it is to be kept. False: that could not be done, and should be tried again."""
        if self.state_file is None or self._ended:
            return True
        return await self.state_file.save(self.state(None))

    def wires(self) -> list[Wire]:
        """Every interface, by unit."""
        return self._interfaces.wires()

    def status(self, version: str) -> str:
        """Every interface and bridge as JSON. Each name is looked up once, as that may ask a server."""
        user, group = cache(user_name), cache(group_name)
        virts = [describe(wire.virt, wire.readers, user, group) for wire in self.wires()]
        cables = [format_command(command).split(maxsplit=3)[1:] for command in self.cables.lines()]
        bridges = map(describe_bridge, self.bridges)
        return status(version, virts, bridges, map(describe_cable, cables), self.options)

    def last_error(self, user: User) -> str:
        """The user's last failed command and why, "ok" when there was none."""
        return self._errors.get(user.uid, "ok")

    # As fuse.names.Keeper

    async def catch_up(self) -> None:
        """Know what the kernel has reported so far."""
        await self.caught_up()

    async def set_mode(self, node: Node, mode: int, user: User) -> None:
        """chmod: the verb mode, on frame; elsewhere it means nothing."""
        if not isinstance(node, Frame):
            raise self._remember(user, VirtError(errno.EPERM, "chmod: an interface's mode is that of its frame"))
        if mode > 0o777:
            raise self._remember(user, VirtError(errno.EINVAL, f'chmod: "{mode:o}" is more than permission bits'))
        await self._by_call(node, (Action("mode", (mode,)),), user)

    async def set_owner(self, node: Node, owner: Uid | None, group: Gid | None, user: User) -> None:
        """chown, chgrp: the verbs owner and group, on any file of an interface, by root."""
        actions = []
        if owner is not None:
            actions.append(Action("owner", (str(owner),)))
        if group is not None:
            actions.append(Action("group", (str(group),)))
        await self._by_call(node, tuple(actions), user)

    async def _by_call(self, node: Node, actions: tuple[Action, ...], user: User) -> None:
        with self._admitted(user):
            try:
                virt = node.owner if isinstance(node.owner, Virt) else getattr(node.owner, "virt", None)
                if virt is None:
                    raise VirtError(errno.EPERM, "this file belongs to no interface: it stays root's")
                async with self._one_at_a_time:
                    await self._change(self._of(virt), actions, user)
            except (OSError, MemoryError) as failure:
                raise self._remember(user, refused(failure)) from None
            await self.keep()

    async def end(self) -> None:
        """Finish the line that is running, run nothing more, and give every tap back."""
        self._ended = True
        async with self._one_at_a_time:
            await self.bridges.destroy_all()
            await self._interfaces.destroy_all()

    # What a line does

    async def _run_line(self, virt: Virt | Bridge | None, line: Line, user: User) -> None:
        self._refuse_at_end()
        if isinstance(virt, Bridge):
            await self.bridges.change(virt, parse_verbs(line.text, BRIDGE), user)
            await self.caught_up()  # with its taps' side of it
            return
        if virt is not None:
            await self._change(self._of(virt), parse_verbs(line.text), user)
            return
        command = parse(line.text)
        if command is None or command.kind == "help":
            return
        if not user.root:
            raise VirtError(errno.EPERM, "this ctl is root's; an interface's owner has the interface's own")
        if isinstance(command.target, str):
            await self.bridges.run(command, self, command.target in self._made_before)
            await self.caught_up()
            self.changed()
            return
        unit = None if command.target is None else Unit(int(command.target))
        interface = None if unit is None else self._interfaces.find(unit)
        if command.peer is not None:
            self._lay(command, self._existing(unit), self._existing(command.peer), user)
            self.changed()
            return
        match command.kind:
            case "create" if interface is not None:
                raise VirtError(errno.EEXIST, f'"{interface.virt.name}" exists already')
            case "create":
                await self._create(unit, command.actions, user)
            case "ensure" if interface is None:
                await self._create(unit, command.actions, user)
            case "destroy":
                await self._interfaces.destroy(self._existing(unit))
            case _:
                existing = self._existing(unit)
                await refuse_moves(self._interfaces, existing, command.actions)
                await self._change(existing, command.actions, user)
        self.changed()

    def _lay(self, command: Command, first: Interface, second: Interface, user: User) -> None:
        if command.kind == "uncable":
            self.cables.separate(first, second)
            return
        for action in command.actions:
            check(self._interfaces.limits, None, action, user)
        impairments = command.actions[0].args[0] if command.actions else ()
        self.cables.join(first, second, cast(Impairments, impairments))

    def _refuse_at_end(self) -> None:
        if self._ended:
            raise VirtError(errno.ENXIO, "the mount is ending")

    def _existing(self, unit: Unit | None) -> Interface:
        assert unit is not None  # the grammar asks for it
        return self._interfaces.get(unit)

    def _of(self, virt: Virt) -> Interface:
        interface = self._interfaces.find(virt.unit)
        if interface is None or interface.virt is not virt:
            raise VirtError(errno.ENXIO, f"{virt.name} is gone")
        return interface

    async def _create(self, unit: Unit | None, actions: tuple[Action, ...], user: User) -> None:
        self._interfaces.room()
        for action in actions:
            check(self._interfaces.limits, None, action, user)
        interface = await self._make(unit, destination(actions))
        try:
            await carry_out(self._interfaces, interface, actions)
        except BaseException:
            await self._interfaces.destroy(interface)
            raise

    async def _make(self, unit: Unit | None, netns: str) -> Interface:
        interface = await self._interfaces.create(unit, self, f"tap{unit}" in self._made_before, netns)

        async def follow() -> None:
            async with self._one_at_a_time:
                await follow_opens(self._interfaces, interface)

        async def follow_close() -> None:
            try:
                await follow()
            except OSError as refusal:  # nobody is left to be told
                log.warning("%s: after the last close: %s", interface.virt.name, refusal.strerror)

        interface.ports.frame.first = follow
        interface.ports.frame.last = lambda: self._interfaces.later(follow_close)
        if netns:
            try:
                await self._interfaces.look_for(interface)
            except BaseException:
                await self._interfaces.destroy(interface)
                raise
        return interface

    async def _change(self, interface: Interface, actions: tuple[Action, ...], user: User) -> None:
        for action in actions:
            check(self._interfaces.limits, interface, action, user)
        try:
            await carry_out(self._interfaces, interface, actions)
        finally:
            self.changed()

    def _remember(self, user: User, refusal: VirtError) -> VirtError:
        self._errors[user.uid] = refusal.strerror
        self._errors.move_to_end(user.uid)
        self.changed()
        if len(self._errors) > REMEMBERED:
            self._errors.popitem(last=False)
        return refusal


def _verbs(virt: Virt, *, makes: bool = False) -> list[tuple[Action, ...]]:
    return verbs_of(virt, user_name(virt.owner), group_name(virt.group), makes=makes)
