"""ctl: takes a script of commands, one per line. One script may arrive in several writes, split anywhere."""

import errno
from collections.abc import Awaitable, Callable, Iterator
from time import monotonic

from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.core.memory import Memory
from virtfs.core.quoting import quoted
from virtfs.core.script import Script
from virtfs.files.node import Owner
from virtfs.files.text import Text, TextHandle, Turn

# Seconds after which a write starts no further line while the file has several opens for writing. So a second writer
# waits for less than a second.
LONGEST = 0.3

# Runs the lines completed by one write. The Script keeps an unfinished line for the next write to the same open file.
# Before each line, the Turn waits until it is the user's turn.
Run = Callable[[Script, bytes, User, Turn], Awaitable[None]]


class Ctl(Text):
    """A control file. A read returns commands that recreate the current state; a write runs commands.

    run: runs the lines completed by one write.
    refused: called with the error and the user if a command is not run.
    """

    __slots__ = ("run", "writers")

    def __init__(
        self,
        owner: Owner,
        text: Callable[[User], str | Iterator[str]],
        run: Run,
        refused: Callable[[VirtError, User], None],
        refresh: Callable[[], Awaitable[None]],
        changes: Callable[[], int] | None = None,
    ) -> None:
        super().__init__(owner, text, write=_unused, refresh=refresh, refused=refused, changes=changes)
        self.run = run
        self.writers = 0  # number of opens for writing

    def open(self, user: User, memory: Memory) -> "CtlHandle":
        return CtlHandle(self, user, memory)


async def _unused(data: bytes, user: User) -> None:
    raise AssertionError("CtlHandle overrides write() and does not call this")


class _EnoughError(Exception):
    """A write has run lines for LONGEST, and another program may be waiting to write to the same file."""


class CtlHandle(TextHandle):
    """One open of a control file. script: keeps the unfinished line of the last write.

    The kernel passes on one write to a file at a time, and not even SIGKILL ends the wait of a second writer. So while
    the file has several opens for writing, a write starts no further line after LONGEST seconds and returns the number
    of bytes whose lines have run. The program then writes the rest, as after a signal.
    """

    __slots__ = ("_cut", "_writes", "ctl", "script")

    def __init__(self, ctl: Ctl, user: User, memory: Memory) -> None:
        super().__init__(ctl, user, memory)
        self.ctl = ctl
        self.script = Script()
        self._writes = False
        self._cut = False  # whether the last write returned early

    def writes(self) -> None:
        self._writes = True
        self.ctl.writers += 1

    async def apply(self, data: bytes, turn: Turn) -> int:
        until, kept = monotonic() + LONGEST, self.script.size

        async def turn_or_end(user: User) -> None:
            if self.ctl.writers > 1 and self.script.begun and monotonic() > until:
                raise _EnoughError
            await turn(user)

        self._cut = False
        try:
            await self.ctl.run(self.script, data, self.user, turn_or_end)
            return len(data)
        except _EnoughError:
            self._cut = True
            return self.script.give_back()
        finally:
            # write() has already charged more than this for `data`, which contains the unfinished line. So this charge
            # cannot exceed a limit.
            self._input.force(self._input.size + self.script.size - kept)

    def interrupt(self) -> int:
        line, taken = self.script.line, self.script.give_back()
        said = f"line {line}: not run, because a signal interrupted the write; the lines before it have run"
        self.ctl.refused(VirtError(errno.EINTR, said), self.user)
        return taken

    def refused(self, error: VirtError) -> None:
        self._input.resize(self._input.size - self.script.size)
        self.script.forget()
        self.ctl.refused(error, self.user)

    def release(self) -> None:
        if self._writes:
            self.ctl.writers -= 1
        if self._cut:
            said = f"line {self.script.line}: not run, because write(2) returned early and the program did not continue"
            self.ctl.refused(VirtError(errno.EINTR, said), self.user)
        elif rest := self.script.rest():
            said = f"{quoted(rest)}: not run, because the file was closed before a newline"
            self.ctl.refused(VirtError(errno.EINVAL, said), self.user)
        super().release()
