"""The state file: the text of ctl, kept for the next mount."""

import logging
import os
from pathlib import Path

import trio

from virtfs.core.errors import VirtError
from virtfs.forward.tasks import in_thread

log = logging.getLogger(__name__)

MADE = "# made: "  # precedes the names of taps and bridges that virtfs made and that outlive it


class StateFile:
    """One file, replaced as a whole: a reader finds the old text or the new one, also after a crash."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text: str | None = None
        self._trouble = ""  # the last one logged
        self._one = trio.Lock()

    async def load(self) -> str:
        """Return its text, "" if there is no file yet. VirtError: it cannot be read."""
        try:
            # A file system that hangs must not keep a mount from ending.
            return await in_thread(lambda: self._path.read_text(errors="surrogateescape"), abandon=True)
        except FileNotFoundError:
            return ""
        except OSError as refusal:
            raise VirtError(refusal.errno or 0, f'state file "{self._path}": {refusal.strerror}') from None

    async def save(self, text: str) -> bool:
        """Write the text if it differs from the last. False: that failed and was logged."""
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
    """Return the names in the comment lines that record what virtfs made."""
    lines = (line.removeprefix(MADE) for line in text.splitlines() if line.startswith(MADE))
    return frozenset(name for line in lines for name in line.split())
