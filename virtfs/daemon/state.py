"""The state of a mount as text. The ctl files and the state file contain it."""

from collections.abc import Iterator

import trio

from virtfs.core.grammar import Action, Command, format_actions, format_command, unwritable_comment, writable
from virtfs.core.values import verbs_of
from virtfs.core.virt import Origin, Virt
from virtfs.daemon.bridges import Bridges
from virtfs.daemon.cables import Cables
from virtfs.daemon.failed_lines import FailedLines
from virtfs.daemon.follow import Follower
from virtfs.daemon.registry import Registry
from virtfs.daemon.statefile import MADE, StateFile
from virtfs.daemon.userdb import Accounts


class State:
    """The state of a mount as text."""

    def __init__(
        self,
        registry: Registry,
        bridges: Bridges,
        cables: Cables,
        follower: Follower,
        accounts: Accounts,
        file: StateFile | None,
        lock: trio.Lock,
    ) -> None:
        """file: keeps the state for the next mount, or None. lock: held while interfaces change."""
        self.failed = FailedLines()
        self._registry = registry
        self._bridges = bridges
        self._cables = cables
        self._follower = follower
        self._accounts = accounts
        self._file = file
        self._lock = lock
        self._ended = False

    def verbs(self, virt: Virt) -> str:
        """Return lines of verbs that give a new interface the current state of `virt`."""
        lines, unwritable = self._verbs_of(virt)
        comments = [unwritable_comment(virt.name, action) for action in unwritable]
        return "".join(f"{line}\n" for line in (*map(format_actions, lines), *comments))

    def text(self) -> str:
        """Return the lines that recreate every interface, bridge and cable.

        Comments record what the lines cannot express: the taps and bridges that virtfs made and that outlive the
        daemon, the interfaces that belong to an open of clone, and the lines of the state file that could not be
        replayed.
        """
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        made = [i.virt.tap for i in self._registry if i.virt.persist and i.virt.origin is Origin.MADE]
        if made := made + self._bridges.made:
            yield MADE + " ".join(made)
        yield from self._bridges.lines_before()
        for interface in self._registry:
            virt = interface.virt
            if virt.origin is Origin.CLONED:
                yield f"# {virt.name} is the interface of an open clone"
                continue
            (first, *more), unwritable = self._verbs_of(virt, makes=True)
            yield format_command(Command("create", virt.unit, first))
            for actions in more:
                yield format_command(Command("change", virt.unit, actions))
            for action in unwritable:
                yield unwritable_comment(virt.name, action)
        yield from self._bridges.lines_after()
        yield from map(format_command, self._cables.lines())
        yield from self.failed.comments()

    def _verbs_of(self, virt: Virt, *, makes: bool = False) -> tuple[list[tuple[Action, ...]], list[Action]]:
        """Return the lines of verbs, and the actions that no line can express."""
        user, group = self._accounts.user_name(virt.owner), self._accounts.group_name(virt.group)
        divided = [writable(actions) for actions in verbs_of(virt, user, group, makes=makes)]
        return [line for line, _ in divided if line], [action for _, others in divided for action in others]

    async def keep(self) -> bool:
        """Save the state if there is a state file.

        Return False if this failed. The error is then logged, and the caller should try again later.
        The caller must not hold the lock: _snapshot() takes it, so that the saved text reflects the effect of each
        command completely or not at all.
        """
        if self._file is None or self._ended:
            return True
        await self._accounts.learn_all(interface.virt for interface in self._registry)
        return await self._file.save(self._snapshot)

    async def _snapshot(self) -> str | None:
        """Apply the pending reports from the kernel, and return the text. Return None if the mount is ending."""
        async with self._lock:
            if self._ended:
                return None
            self._follower.catch_up()
            await self._bridges.catch_up()
            return self.text()

    def end(self) -> None:
        """Stop saving the state, so that the state file keeps the interfaces that the ending mount removes."""
        self._ended = True
