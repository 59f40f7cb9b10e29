"""The bridges of a mount: those it made, and those of the host that it was told to use."""

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import trio

from virtfs.core.bridge import NEW, Bridge, BridgeState, steps, steps_after, without
from virtfs.core.errors import VirtError
from virtfs.core.grammar import Action, Command, format_actions, format_command
from virtfs.core.ids import BridgeName, User
from virtfs.core.verbs import BRIDGE
from virtfs.daemon.bridge_verbs import as_found, carry_out, put_back
from virtfs.daemon.kernel import Kernel
from virtfs.files.bridges import BridgeCommands, bridge_directory
from virtfs.files.node import ROOT, Directory
from virtfs.host.adopt import Adoptions
from virtfs.host.bridge import HostBridge, find, make
from virtfs.host.bridgeinfo import Settings
from virtfs.host.monitor import AddressChanged, Event, LinkChanged, LinkGone, Overflow
from virtfs.host.rtnl import Rtnl

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Held:
    """One bridge with what has to be known to let go of it."""

    bridge: Bridge
    index: int
    found: BridgeState | None  # as it was before virtfs, None when virtfs made it
    settings: dict[str, Settings]  # of its members then, beside what verbs say
    adoptions: Adoptions


class Bridges:
    """All of a mount, by name. Everything here belongs to root."""

    def __init__(self, kernel: Kernel, taps: Callable[[], dict[str, str]]) -> None:
        """taps: what each virtN and tapN is called on the host now."""
        self.directory = Directory(ROOT)
        self._kernel = kernel
        self._taps = taps
        self.tell: Callable[..., None] = lambda what, name, **words: None  # as files.events.Events.emit
        self._all: dict[BridgeName, _Held] = {}
        self._doubt = trio.Event()

    def _sorted(self) -> list[_Held]:
        return [self._all[name] for name in sorted(self._all, key=lambda name: (len(name), name))]

    def __iter__(self) -> Iterator[Bridge]:
        return iter([held.bridge for held in self._sorted()])

    @property
    def made(self) -> list[str]:
        """The names of those that virtfs made."""
        return [held.bridge.name for held in self._sorted() if held.found is None]

    async def run(self, command: Command, commands: BridgeCommands, made: bool = False) -> None:
        """A line of the root's ctl that names a bridge.

        made: one that is there was made by virtfs, in an earlier life, and `destroy` is to remove it.
        """
        assert isinstance(command.target, str)
        name = BridgeName(command.target)
        held = self._all.get(name)
        match command.kind:
            case "create" if held is not None:
                raise VirtError(errno.EEXIST, f'"{name}" exists already')
            case "create" | "ensure" if held is None:
                await self._create(command, name, commands, made)
            case "destroy":
                await self._destroy(self._get(name))
            case _:
                await self._change(self._get(name), command.actions, command.kind == "ensure")

    async def change(self, bridge: Bridge, actions: tuple[Action, ...], user: User) -> None:
        """A line of the bridge's own ctl."""
        if not user.root:
            raise VirtError(errno.EPERM, "a bridge is for root alone")
        held = self._get(bridge.name)
        if held.bridge is not bridge:
            raise VirtError(errno.ENXIO, f"{bridge.name} is gone")
        await self._change(held, actions, ensure=False)

    def _get(self, name: BridgeName) -> _Held:
        held = self._all.get(name)
        if held is None:
            raise VirtError(errno.ENXIO, f'there is no "{name}"')
        return held

    async def _create(self, command: Command, name: BridgeName, commands: BridgeCommands, made: bool) -> None:
        held = await self._kernel.call(self._open, name)
        if made:
            held.found = None
        try:
            await self._change(held, command.actions, command.kind == "ensure")
        except BaseException:
            if not made:
                await self._kernel.call(self._let_go, held)
            raise
        self._all[name] = held
        self.directory.children[name] = bridge_directory(held.bridge, commands)
        self.tell("create", name)

    async def _change(self, held: _Held, actions: tuple[Action, ...], ensure: bool) -> None:
        try:
            await self._kernel.call(self._carry_out, held, actions, self._taps(), ensure)
        finally:
            await self._look_after(held)

    async def _look_after(self, held: _Held) -> None:
        """Look at a bridge after a change. The change holds, so where that fails it is done later, by `follow`."""
        try:
            await self._kernel.call(self._look, held)
        except OSError as refusal:
            log.info("%s: %s", held.bridge.name, refusal.strerror)
            self._doubt.set()

    async def _destroy(self, held: _Held) -> None:
        await self._kernel.call(self._let_go, held)
        held.bridge.lost = True
        del self._all[held.bridge.name]
        self.directory.children.pop(held.bridge.name, None)
        self.tell("destroy", held.bridge.name)

    async def destroy_all(self) -> None:
        """At the end of the mount. A bridge that cannot give back what it adopted stays, for that would be lost."""
        for held in self._sorted():
            try:
                await self._destroy(held)
            except OSError as refusal:
                log.error("%s stays: %s", held.bridge.name, refusal.strerror)

    async def refresh(self, bridge: Bridge | None) -> None:
        """Look at one bridge, or at all. ENXIO: that one is gone."""
        for held in list(self._all.values()):
            if bridge is None or held.bridge is bridge:
                await self._kernel.call(self._look, held)
        if bridge is not None and bridge.lost:
            raise VirtError(errno.ENXIO, f"{bridge.name} is gone")

    # What others do to them

    def hear(self, event: Event) -> None:
        """Of a bridge or a member of one: look soon."""
        indices = {held.index for held in self._all.values()}
        match event:
            case LinkChanged(None, link):
                concerned = bool(indices & {link.index, link.master}) or self._is_member(link.name)
            case LinkGone(None, index, name):
                concerned = index in indices or self._is_member(name)
            case AddressChanged(None, index):
                concerned = index in indices
            case _:
                concerned = isinstance(event, Overflow)
        if concerned:
            self._doubt.set()

    def _is_member(self, name: str) -> bool:
        return any(held.bridge.state.member(name) for held in self._all.values())

    async def follow(self, changed: Callable[[], None]) -> None:
        """Until cancelled, look when something was heard. changed: called when that is known.

        When it fails it can be called again, and looks then.
        """
        while True:
            await self._doubt.wait()
            self._doubt = trio.Event()
            try:
                await self.refresh(None)
            except BaseException:
                self._doubt.set()
                raise
            changed()

    # What would make them again

    def state(self, bridge: Bridge) -> str:
        """One bridge's verbs."""
        return format_actions(steps(NEW, _said(self._get(bridge.name))), BRIDGE) + "\n"

    def lines_before(self) -> Iterator[str]:
        """The lines that make every bridge, before any interface is made."""
        taps = frozenset(self._taps().values())
        for held in self._sorted():
            if not held.bridge.lost:
                actions = steps(NEW, without(_said(held), taps))
                yield format_command(Command("create", held.bridge.name, actions))

    def lines_after(self) -> Iterator[str]:
        """What is to be said of members that are the mount's own taps, when they have come by their verb `bridge`."""
        taps = frozenset(self._taps().values())
        for held in self._sorted():
            if not held.bridge.lost and (actions := steps_after(_said(held), taps)):
                yield format_command(Command("change", held.bridge.name, actions))

    # In the thread

    def _open(self, name: BridgeName) -> _Held:
        with Rtnl() as rtnl:
            index = find(rtnl, name)
            made = index is None
            if index is None:
                index = make(rtnl, self._kernel.links, name)
            host = HostBridge(rtnl, self._kernel.links, name, index)
            try:
                state, settings = host.look(), host.settings()
            except BaseException:
                if made:
                    host.delete()
                raise
            return _Held(Bridge(name, state), index, None if made else state, settings, host.adoptions)

    def _host(self, rtnl: Rtnl, held: _Held) -> HostBridge:
        return HostBridge(rtnl, self._kernel.links, held.bridge.name, held.index, held.adoptions)

    def _carry_out(self, held: _Held, actions: tuple[Action, ...], taps: dict[str, str], ensure: bool) -> None:
        with Rtnl() as rtnl:
            carry_out(self._host(rtnl, held), actions, taps, ensure)

    def _look(self, held: _Held) -> None:
        with Rtnl() as rtnl:
            try:
                held.bridge.state = self._host(rtnl, held).look()
                held.bridge.lost = False
            except VirtError as refusal:
                if refusal.errno != errno.ENXIO:
                    raise
                held.bridge.lost = True

    def _let_go(self, held: _Held) -> None:
        """What was adopted goes back, then a bridge that was made goes; one that was found is as it was."""
        with Rtnl() as rtnl:
            host = self._host(rtnl, held)
            with suppress_gone():
                if held.found is not None:
                    put_back(host, as_found(host, held.found), held.settings)
                    return
                for member in host.look().members:
                    with suppress_gone():
                        if member.adopted:
                            host.remove(member.name)
            if held.found is None:
                host.delete()


def _said(held: _Held) -> BridgeState:
    """The bridge as verbs are to tell it: what an adopted member brought comes with `adopt`."""
    state = held.bridge.state
    return replace(state, addresses=tuple(a for a in state.addresses if held.adoptions.is_own(a)))


@contextmanager
def suppress_gone() -> Iterator[None]:
    """A bridge or a member that others have taken away: there is nothing to do for it any more."""
    try:
        yield
    except VirtError as refusal:
        if refusal.errno != errno.ENXIO:
            raise
