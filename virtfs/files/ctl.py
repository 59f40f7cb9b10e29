"""ctl: takes a script of commands, one per line. One script may arrive in several writes, split anywhere."""

import errno
from collections.abc import Awaitable, Callable, Iterator

from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.core.memory import Memory
from virtfs.core.quoting import quoted
from virtfs.core.script import Script
from virtfs.files.node import Owner
from virtfs.files.text import Text, TextHandle, Turn

# Runs the lines completed by one write. The Script keeps an unfinished line for the next write to the same open file.
# Before each line, the Turn waits until it is the user's turn.
Run = Callable[[Script, bytes, User, Turn], Awaitable[None]]


class Ctl(Text):
    """A control file. A read returns commands that recreate the current state; a write runs commands.

    run: runs the lines completed by one write.
    refused: called with the error and the user if a command is not run.
    """

    __slots__ = ("run",)

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

    def open(self, user: User, memory: Memory) -> "CtlHandle":
        return CtlHandle(self, user, memory)


async def _unused(data: bytes, user: User) -> None:
    raise AssertionError("CtlHandle overrides write() and does not call this")


class CtlHandle(TextHandle):
    """One open of a control file. script: keeps the unfinished line of the last write."""

    __slots__ = ("ctl", "script")

    def __init__(self, ctl: Ctl, user: User, memory: Memory) -> None:
        super().__init__(ctl, user, memory)
        self.ctl = ctl
        self.script = Script()

    async def apply(self, data: bytes, turn: Turn) -> None:
        kept = self.script.size
        try:
            await self.ctl.run(self.script, data, self.user, turn)
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
        if rest := self.script.rest():
            said = f"{quoted(rest)}: not run, because the file was closed before a newline"
            self.ctl.refused(VirtError(errno.EINVAL, said), self.user)
        super().release()
