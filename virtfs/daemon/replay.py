"""Recreates the interfaces, bridges and cables that an earlier mount saved in the state file."""

import errno
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import trio

from virtfs.core.errors import VirtError
from virtfs.core.grammar import parse
from virtfs.core.ids import BridgeName, Gid, Uid, Unit, User
from virtfs.core.line_text import format_command
from virtfs.core.quoting import quoted
from virtfs.core.virt import Origin
from virtfs.core.warning_text import join_warnings
from virtfs.daemon.bridge_lines import adopted_before
from virtfs.daemon.bridges import Bridges
from virtfs.daemon.earlier import Earlier, earlier, existed
from virtfs.daemon.failed_lines import FailedLine, FailedLines, member_of, replayable
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.leftovers import sweep, wanted_by
from virtfs.daemon.netns_verb import destination, without_move
from virtfs.daemon.registry import Registry
from virtfs.daemon.virt_checks import OF_HOST
from virtfs.files.events import Events
from virtfs.host.bridge_leave import addresses_of

log = logging.getLogger(__name__)

ROOT_USER = User(Uid(0), Gid(0), 0)


class Lines(Protocol):
    """Runs lines of the mount's ctl."""

    lock: trio.Lock
    ended: bool

    async def run_line(self, text: str, user: User, earlier: Earlier | None = None) -> None:
        """Run a line. The caller holds the lock.

        earlier: what the state file lists, if the line is replayed from it. None: a user wrote the line.
        """


class Replay:
    """Runs the lines of a state file. If a line fails, the error is logged and the next line is run."""

    def __init__(
        self,
        lines: Lines,
        registry: Registry,
        bridges: Bridges,
        failed: FailedLines,
        kernel: Kernel,
        events: Events,
        report: Callable[[VirtError, User], None],
    ) -> None:
        """failed: stores the lines that fail, so that `retry` and the next mount can try them again.

        report: sets a user's last_error.
        """
        self._lines = lines
        self._registry = registry
        self._bridges = bridges
        self._failed = failed
        self._kernel = kernel
        self._events = events
        self._report = report

    async def run(self, text: str, created: bool = False) -> bool:
        """Run every line. Return False if the mount ended before all lines had run.

        created: whether this mount created the state file.
        """
        self._bridges.recalled = adopted_before(text)
        before, left = earlier(text), await self._sweep(text, created)
        self._failed.earlier = before._replace(made=before.made | left)
        warnings = []
        for number, text_line in enumerate(text.splitlines(), start=1):
            if self._lines.ended:
                break
            line = replayable(text_line)
            if (failure := await self._attempt(line)) is not None:
                log.error("state file, line %d: %s: %s", number, quoted(line), failure.reason)
                self._failed.add(failure)
            if line != text_line and (sentence := self._lost_by(line)):
                log.warning("%s", sentence)
                warnings.append(sentence)
        if found := self._found_on_host():
            warnings.insert(0, existed(*found))
        if warnings:
            self._report(VirtError(errno.EADDRNOTAVAIL, join_warnings(warnings)), ROOT_USER)
        return not self._lines.ended

    def _found_on_host(self) -> list[str]:
        """Return the taps and bridges that existed before virtfs used them, and that the state file does not list so.

        The log and `events` already have a warning about each of them.
        """
        taps = [one.virt.tap for one in self._registry if one.virt.origin is Origin.FOUND]
        return [name for name in (*taps, *self._bridges.found) if name not in self._failed.earlier.found]

    def _lost_by(self, line: str) -> str:
        """Return a warning if a line adopts a member that had vanished, and the bridge lacks the member's addresses.

        They are gone if the bridge was deleted, at the end of the last mount or with the machine. "": no warning.
        """
        try:
            command = parse(line)
        except VirtError:
            return ""
        if command is None or (member := member_of(command)) is None:
            return ""
        bridge = BridgeName(str(command.target))
        if not (lost := self._bridges.lost_with(bridge, member)):
            return ""
        what = f"it had adopted from {quoted(member)}"
        return f"{bridge} has lost {addresses_of(lost)}, which {what}: configure the interface again"

    async def _sweep(self, text: str, created: bool) -> frozenset[str]:
        """Remove leftovers of a killed server. Keep those in the state file, and return their names."""
        kernel = self._kernel
        if not kernel.mark:
            return frozenset()
        wanted = None if created else wanted_by(text)
        return await kernel.call(sweep, kernel.links, kernel.mark, wanted, kernel.open_tap)

    async def retry(self) -> None:
        """Retry the failed lines, each as a separate command. Users' commands may run in between.

        If a line uses a tap or bridge that existed before, last_error of root has a warning, as after `create`.
        VirtError: some lines failed again; the errno and the reason are those of the first one.
        """
        refusals, done, before = [], 0, self._found_on_host()
        for one in self._failed:
            if one not in self._failed:
                continue  # a user's line has superseded it in the meantime
            try:
                await self._run(one.line)
            except OSError as refusal:
                self._failed.replace(one, one._replace(reason=str(refusal.strerror)))
                refusals.append(VirtError(refusal.errno or 0, f"{quoted(one.line)}: {refusal.strerror}"))
            else:
                done += 1
                self._failed.replace(one, None)
                log.info("retry: %s is carried out", quoted(one.line))
        if done or refusals:
            self._events.emit("retry", "state", done=done, failed=len(refusals))
        if refusals:
            first, tried = refusals[0], done + len(refusals)
            counts = f"{len(refusals)} of {tried} lines failed again; first error: " if tried > 1 else ""
            raise VirtError(first.errno, f"{counts}{first.strerror}")
        if found := [name for name in self._found_on_host() if name not in before]:
            self._report(VirtError(errno.EEXIST, join_warnings([existed(*found)])), ROOT_USER)

    async def _attempt(self, line: str) -> FailedLine | None:
        """Run a line. If it fails, return the line with the reason."""
        try:
            await self._run(line)
        except OSError as refusal:
            reason = str(refusal.strerror)
        except Exception as failure:
            log.exception("cannot replay %s", quoted(line))
            reason = " ".join(f"{type(failure).__name__}: {failure}".split())
        else:
            return None
        try:
            command = parse(line)
        except VirtError:
            command = None
        return FailedLine(line, command, reason)

    async def _run(self, line: str) -> None:
        """Run a line, with `ensure` in place of `create`.

        A network namespace that was given as a process ID cannot be found again. So an interface that was in such a
        namespace is created without the verb `netns`, and enters the state LOST. This needs a tap for a moment, also if
        that of the interface existed before virtfs used it.
        """
        command = parse(line)
        if command is None:
            return
        netns = destination(command.actions)
        by_process = netns.isdecimal()
        if by_process:
            command = without_move(command, OF_HOST)
        # A member that had vanished may be in its bridge again.
        again = command.kind == "change" and command.target in self._bridges
        kind = "ensure" if again or command.kind == "create" else command.kind
        async with self._lines.lock:
            if self._lines.ended:
                return
            earlier = self._failed.earlier
            if by_process:
                earlier = earlier._replace(found=earlier.found - {f"tap{command.target}"})
            await self._lines.run_line(format_command(replace(command, kind=kind)), ROOT_USER, earlier)
            if by_process and isinstance(command.target, int):
                await self._lose(Unit(command.target), netns)

    async def _lose(self, unit: Unit, netns: str) -> None:
        interface = self._registry.get(unit)
        interface.virt.move(netns)
        interface.lose()
        if interface.virt.tap in self._failed.earlier.found:
            interface.virt.set_origin(Origin.FOUND)
        if interface.tap.made:
            await self._kernel.call(interface.tap.set_persist, False)  # the line may have made it persistent
        await self._kernel.call(interface.tap.close)
