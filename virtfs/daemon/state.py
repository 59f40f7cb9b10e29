"""The state of a mount as text. The ctl files and the state file contain it."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from errno import errorcode
from time import localtime, strftime
from typing import NamedTuple

import trio

from virtfs.core.grammar import Action, Command, parse
from virtfs.core.ids import Unit
from virtfs.core.line_text import format_actions, format_command, unwritable_comment, writable
from virtfs.core.values import verbs_of
from virtfs.core.virt import Origin, Virt
from virtfs.daemon.bridge_follow import BridgeFollower
from virtfs.daemon.bridge_texts import BridgeTexts
from virtfs.daemon.cables import Cables
from virtfs.daemon.earlier import FOUND, MADE
from virtfs.daemon.failed_lines import FailedLines
from virtfs.daemon.follow import Follower
from virtfs.daemon.registry import Registry
from virtfs.daemon.statefile import StateFile, Unsaved
from virtfs.daemon.userdb import Accounts
from virtfs.files.events import Events
from virtfs.forward.slices import in_slices

log = logging.getLogger(__name__)

_OWNERS = {Origin.CLONED: "an open clone", Origin.SHELL: "virtfs shell --net"}  # of the interfaces that are not saved
ATTEMPTS = 3  # maximum number of attempts to take a consistent snapshot while other programs change bridges


class _Lines(NamedTuple):
    """The lines of ctl that recreate an interface, and what they were made from."""

    virt: Virt
    version: int
    names: tuple[str, str, str]  # of the owner, the group and the lost bridge (BridgeTexts.lost_bridge_of)
    text: str


class State:
    """The state of a mount as text."""

    def __init__(
        self,
        registry: Registry,
        bridges: BridgeTexts,
        cables: Cables,
        follower: Follower,
        bridge_follower: BridgeFollower,
        accounts: Accounts,
        file: StateFile | None,
        lock: trio.Lock,
        events: Events,
        failed: FailedLines,
    ) -> None:
        """file: keeps the state for the next mount, or None. lock: held while interfaces change."""
        self.failed = failed
        self.file = file
        self._registry = registry
        self._bridges = bridges
        self._cables = cables
        self._follower = follower
        self._bridge_follower = bridge_follower
        self._accounts = accounts
        self._lock = lock
        self._events = events
        self._ended = False
        self._made: dict[Unit, _Lines] = {}
        self._told = 0  # errno of the last event `unsaved`; 0 after `saved`

    def verbs(self, virt: Virt) -> str:
        """Return lines of verbs that give a new interface the current state of `virt`."""
        lines, unwritable = self._verbs_of(virt)
        comments = [unwritable_comment(virt.name, action) for action in unwritable]
        return "".join(f"{line}\n" for line in (*map(format_actions, lines), *comments))

    def text(self) -> str:
        """Return the lines that recreate every interface, bridge and cable.

        Comments record what the lines cannot express: the taps and bridges that virtfs made and that outlive the
        daemon, those that it found on the host, the interfaces that are not saved, and the lines of the state file that
        could not be replayed.
        """
        for interface in self._registry:
            self._renew(interface.virt)
        return self._joined()

    def pieces(self) -> Iterator[str]:
        """Yield the text as one piece, after empty pieces between which other tasks can run.

        The text is a snapshot, taken when the last piece is requested. The lines of the interfaces and bridges are made
        before, so the last piece only joins them.
        """
        for interface in self._registry:
            self._renew(interface.virt)
            yield ""
        for _ in self._bridges.renewals():
            yield ""
        yield self._joined()

    def _joined(self) -> str:
        """Return the text. Lines made earlier are used again if their interface or bridge has not changed."""
        before, after = self._bridges.lines()
        parts = [f"{line}\n" for line in (*self._lines_before(), *before)]
        get = self._made.get
        for interface in self._registry:
            virt = interface.virt
            known = get(virt.unit)
            if known is None or known.virt is not virt or known.version != virt.version:
                known = self._renew(virt)
            parts.append(known.text)
        parts += [f"{line}\n" for line in (*after, *self._lines_after())]
        if len(self._made) > len(self._registry):
            self._made = {unit: lines for unit, lines in self._made.items() if self._registry.find(unit) is not None}
        return "".join(parts)

    def _lines_before(self) -> Iterator[str]:
        """Yield the lines that precede those of the bridges."""
        made = [i.virt.tap for i in self._registry if i.virt.persist and i.virt.origin is Origin.MADE]
        made += self._bridges.made
        if made := made + [name for name in self.failed.still_made() if name not in made]:
            yield MADE + " ".join(made)
        found = [i.virt.tap for i in self._registry if i.virt.origin is Origin.FOUND]
        found += self._bridges.found
        if found := found + [name for name in self.failed.still_found() if name not in found]:
            yield FOUND + " ".join(found)

    def _lines_after(self) -> Iterator[str]:
        """Yield the lines that follow those of the interfaces and bridges."""
        yield from self._cables.saved_lines()
        yield from self.failed.comments()

    def _renew(self, virt: Virt) -> "_Lines":
        """Return the lines that recreate an interface. They are kept until the interface or a user's name changes."""
        names = self._names(virt)
        known = self._made.get(virt.unit)
        if known is None or (known.virt, known.version, known.names) != (virt, virt.version, names):
            text = "".join(f"{line}\n" for line in self._make_lines(virt))
            self._made[virt.unit] = known = _Lines(virt, virt.version, names, text)
        return known

    def _make_lines(self, virt: Virt) -> list[str]:
        if not virt.saved:
            return [f"# {virt.name} is the interface of {_OWNERS[virt.origin]}"]
        (first, *more), unwritable = self._verbs_of(virt, makes=True)
        return [
            format_command(Command("create", virt.unit, first)),
            *(format_command(Command("change", virt.unit, actions)) for actions in more),
            *(unwritable_comment(virt.name, action) for action in unwritable),
        ]

    def _verbs_of(self, virt: Virt, *, makes: bool = False) -> tuple[list[tuple[Action, ...]], list[Action]]:
        """Return lines of verbs that recreate the state of `virt`, and the actions that no line can express."""
        user, group, bridge = self._names(virt)
        divided = [writable(actions) for actions in verbs_of(virt, user, group, makes=makes, bridge=bridge)]
        return [line for line, _ in divided if line], [action for _, others in divided for action in others]

    def _names(self, virt: Virt) -> tuple[str, str, str]:
        """Return the names in the lines of an interface that can change without the interface: see _Lines."""
        interface = self._registry.find(virt.unit)
        bridge = "" if interface is None else self._bridges.lost_bridge_of(interface)
        return self._accounts.user_name(virt.owner), self._accounts.group_name(virt.group), bridge

    def again(self, virt: Virt) -> list[Command]:
        """Return the commands that recreate an interface, its port settings in a bridge, and its cable."""
        made = [command for line in self._make_lines(virt) if (command := parse(line)) is not None]
        for line in self._bridges.lines()[1]:
            command = parse(line)
            actions = () if command is None else tuple(one for one in command.actions if virt.tap in one.args[:1])
            if command is not None and actions:
                made.append(replace(command, actions=actions))
        cables = [command for line in self._cables.lines() if (command := parse(line)) is not None]
        return made + [command for command in cables if virt.unit in (command.target, command.peer)]

    async def keep(self) -> bool:
        """Save the state if there is a state file.

        Return False on failure: the caller should try again later, and `unsaved` has the error.
        The caller must not hold the lock: _snapshot() takes it, so that the saved text reflects the effect of each
        command completely or not at all.
        """
        if self.file is None or self._ended:
            return True
        await self._accounts.learn_all(interface.virt for interface in self._registry)
        kept = await self.file.save(self._snapshot)
        self._tell(0 if self.file.unsaved is None else self.file.unsaved.refusal.errno)
        return kept

    def _tell(self, number: int) -> None:
        """Emit an event if the result of a save differs from that of the previous save. number: the errno, or 0."""
        if number != self._told:
            self._told = number
            if number:
                self._events.emit("unsaved", "state", errno=errorcode.get(number, number))
            else:
                self._events.emit("saved", "state")

    @property
    def unsaved(self) -> Unsaved | None:
        """Why the state file is out of date. None if it is up to date, or if there is no state file."""
        return None if self.file is None else self.file.unsaved

    def report(self) -> dict[str, object] | None:
        """Return the object `state` of status.json (core.status). None if there is no state file."""
        if self.file is None:
            return None
        unsaved = self.file.unsaved
        return {
            "file": str(self.file.path),
            "saved": unsaved is None,
            "unsaved_since": None if unsaved is None else round(unsaved.since, 6),
            "error": None if unsaved is None else unsaved.refusal.strerror,
            "failed_lines": [{"line": one.line, "reason": one.reason} for one in self.failed],
        }

    async def _snapshot(self) -> str | None:
        """Apply the pending reports from the kernel, and return the text. Return None if the mount is ending."""
        async with self._lock:
            if self._ended:
                return None
            for _ in range(ATTEMPTS):
                await self._follower.caught_up()
                await self._bridge_follower.catch_up()
                text = "".join(await in_slices(self.pieces()))
                # The text is certain to be consistent only if no bridge changed while it was generated.
                if self._bridge_follower.settled:
                    break
            return text

    def end(self) -> None:
        """Stop saving the state, so that the state file keeps the interfaces that the ending mount removes.

        Log changes that the file lacks, because they end with the mount.
        """
        if not self._ended and (unsaved := self.unsaved) is not None:
            since = strftime("%H:%M:%S", localtime(unsaved.since))
            said = "the mount ends, and its changes since %s are not saved: %s"
            log.error(said, since, unsaved.refusal.strerror)
        self._ended = True
