"""Recreates the interfaces, bridges and cables that an earlier mount saved in the state file."""

import logging
from dataclasses import replace

from virtfs.core.grammar import Command, format_command, parse
from virtfs.core.ids import Gid, Uid, Unit, User
from virtfs.core.quoting import quoted
from virtfs.daemon.commands import Commands
from virtfs.daemon.failed_lines import FailedLines, replayable
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.netns_verb import destination, without_move
from virtfs.daemon.registry import Registry
from virtfs.daemon.statefile import made_before
from virtfs.daemon.virt_checks import OF_HOST

log = logging.getLogger(__name__)

ROOT_USER = User(Uid(0), Gid(0), 0)


class Replay:
    """Runs the lines of a state file. If a line fails, the error is logged and the next line is run."""

    def __init__(self, commands: Commands, registry: Registry, failed: FailedLines, kernel: Kernel) -> None:
        """failed: stores the lines that fail, so that the next mount can try them again."""
        self._failed = failed
        self._commands = commands
        self._registry = registry
        self._kernel = kernel

    async def run(self, text: str) -> bool:
        """Run every line. Return False if the mount ended before all lines had run."""
        made = made_before(text)
        for number, text_line in enumerate(text.splitlines(), start=1):
            if self._commands.ended:
                break
            line = replayable(text_line)
            command = None
            try:
                command = parse(line)
                if command is not None:
                    await self._run(command, made)
            except OSError as refusal:
                log.error("state file, line %d: %s: %s", number, quoted(line), refusal.strerror)
                self._failed.add(line, command, str(refusal.strerror))
            except Exception as failure:
                log.exception("state file, line %d: %s", number, quoted(line))
                self._failed.add(line, command, f"{type(failure).__name__}: {failure}")
        return not self._commands.ended

    async def _run(self, command: Command, made: frozenset[str]) -> None:
        """Run a line, with `ensure` in place of `create`.

        A network namespace that was given as a process ID cannot be found again. So an interface that was in such a
        namespace is created without the verb `netns`, and enters the state LOST.
        """
        netns = destination(command.actions)
        by_process = netns.isdecimal()
        if by_process:
            command = without_move(command, OF_HOST)
        kind = "ensure" if command.kind == "create" else command.kind
        async with self._commands.lock:
            if self._commands.ended:
                return
            await self._commands.run_line(format_command(replace(command, kind=kind)), ROOT_USER, made)
            if by_process and isinstance(command.target, int):
                interface = self._registry.get(Unit(command.target))
                interface.virt.move(netns)
                interface.lose()
                await self._kernel.call(interface.tap.close)
