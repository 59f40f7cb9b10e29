"""The state file: what reading ctl gives, kept where the next mount finds it."""

import logging
import os
from pathlib import Path

import trio

from virtfs.core.errors import VirtError
from virtfs.forward.tasks import in_thread

log = logging.getLogger(__name__)

MADE = "# made: "  # before the names of what outlives the daemon and yet was made by virtfs


class StateFile:
    """One file, replaced whole: a reader, or a crash, finds the text before or the text after."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text: str | None = None
        self._trouble = ""  # as it was last logged
        self._one = trio.Lock()

    async def load(self) -> str:
        """Its text, "" when there is none yet. VirtError when it cannot be read."""
        try:
            # A file system that hangs must not keep a mount from ending.
            return await in_thread(lambda: self._path.read_text(errors="surrogateescape"), abandon=True)
        except FileNotFoundError:
            return ""
        except OSError as refusal:
            raise VirtError(refusal.errno or 0, f'state file "{self._path}": {refusal.strerror}') from None

    async def save(self, text: str) -> bool:
        """Make it so, if it is not. A failure is logged, and False: what the text describes holds all the same."""
        async with self._one:
            if text == self._text:
                return True
            try:
                await in_thread(self._replace, text)
            except OSError as refusal:
                if (trouble := str(refusal.strerror)) != self._trouble:
                    log.error('state file "%s": %s', self._path, trouble)
                self._trouble = trouble
                return False
            self._text, self._trouble = text, ""
            return True

    def _replace(self, text: str) -> None:
        new = self._path.with_name(self._path.name + ".new")
        with open(new, "w", errors="surrogateescape", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)


def made_before(text: str) -> frozenset[str]:
    """The names in the comment lines that record what virtfs made itself."""
    lines = (line.removeprefix(MADE) for line in text.splitlines() if line.startswith(MADE))
    return frozenset(name for line in lines for name in line.split())
