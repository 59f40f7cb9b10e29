"""The state file: the text of ctl, kept for the next mount."""

import errno
import fcntl
import logging
import os
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from time import time
from typing import NamedTuple

import trio

from virtfs.core.errors import VirtError, refused
from virtfs.core.grammar import parse
from virtfs.core.quoting import quoted
from virtfs.daemon.earlier import FOUND, MADE
from virtfs.daemon.failed_lines import PREFIX
from virtfs.forward.tasks import in_thread
from virtfs.fuse.hanging import REMEDY, stopped_servers
from virtfs.host.textfiles import read_text

log = logging.getLogger(__name__)

_COMMANDS = ("create ", "ensure ", "cable ")  # begin the lines that virtfs and users write
MOST = 16 << 20  # maximum size of the file in bytes; 4000 interfaces take about 2 MiB


class Unsaved(NamedTuple):
    """The error that keeps the file out of date. since: the time of the first failed save, in seconds since 1970."""

    refusal: VirtError
    since: float


class StateFile:
    """One state file, which only one mount can use at a time.

    The file is replaced as a whole. So a reader finds either the old text or the new one, even after a crash.
    The file in use is locked (flock(2)). Each new file is locked before it replaces the old one, so another mount never
    finds the file unlocked.
    """

    def __init__(self, path: Path) -> None:
        """path: the path of the file. A symbolic link is resolved here, and later changes to the link are ignored."""
        self.path = Path(os.path.realpath(path))
        self.created = False  # whether load() created the file
        self._locked = -1  # the descriptor that holds the lock
        self._text: str | None = None
        self.unsaved: Unsaved | None = None  # None if the last save() succeeded
        self._one = trio.Lock()

    async def load(self) -> str:
        """Create the file if it does not exist, lock it, and return its text.

        VirtError: EBUSY, another mount is using the file; EINVAL, it is not a regular file, or its text is not of a
        state file (why_foreign); EFBIG, it is larger than MOST; errors of open(2). The file is unchanged then.
        """
        try:
            # The thread may be abandoned, so that a mount can end even if the file system of the state file hangs.
            self._locked, text = await in_thread(self._open, abandon=True)
        except OSError as refusal:
            raise VirtError(refusal.errno or 0, f"state file {quoted(str(self.path))}: {refusal.strerror}") from None
        return text

    def _open(self) -> tuple[int, str]:
        self.created = not self.path.exists()
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(self.path, flags, 0o600)
            try:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode):
                    raise OSError(errno.EINVAL, "it is not a regular file")
                if found.st_size > MOST:
                    raise OSError(errno.EFBIG, f"it is larger than {MOST >> 20} MiB")
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise OSError(errno.EBUSY, _used_by(self.path, found)) from None
                # If the path now leads to another file, another mount replaced the file after open(2). Try again.
                if os.path.samestat(found, os.stat(self.path)):
                    text = _read(fd).decode("utf-8", "surrogateescape")
                    if why := why_foreign(text):
                        raise OSError(errno.EINVAL, why)
                    return fd, text
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    async def save(self, snapshot: Callable[[], Awaitable[str | None]]) -> bool:
        """Write a snapshot if it differs from the last one, or if that could not be written. Return False on failure.

        An error is stored in `unsaved`. It is logged, unless the previous save failed with the same error.
        snapshot: returns the text to save, or None if the state must no longer be saved. It is called after earlier
        saves have ended, so that an older text never replaces a newer one.
        """
        async with self._one:
            try:
                text = await snapshot()
                if text is None or text == self._text:
                    return True
                self._locked = await in_thread(self._replace, text)
            except (OSError, MemoryError) as failure:
                self._fail(refused(failure))
                return False
            if self.unsaved is not None:
                log.info("the state file %s is saved again", quoted(str(self.path)))
            self._text, self.unsaved = text, None
            return True

    def _fail(self, failure: VirtError) -> None:
        refusal = VirtError(failure.errno, f"cannot save the state file {quoted(str(self.path))}: {failure.strerror}")
        before = self.unsaved
        if before is None or before.refusal.strerror != refusal.strerror:
            log.error("%s", refusal.strerror)
        self._text = None  # the file may have been replaced nevertheless, so even the last text is written again
        self.unsaved = Unsaved(refusal, time() if before is None else before.since)

    def _replace(self, text: str) -> int:
        """Replace the file and return the descriptor that locks the new one.

        Both the text and the rename are on the disk when this function returns. The descriptor is
        read-only, because a writable one would keep the file system from being remounted read-only.
        """
        new = self.path.with_name(self.path.name + ".new")
        # A crash may have left a file of this name. If the name is a symbolic link, unlink(2) removes only the link.
        with suppress(FileNotFoundError):
            new.unlink()
        fd = -1
        try:
            # The opener's descriptor is closed even if open() fails afterwards, for example for lack of memory.
            with open(new, "xb", opener=_private) as file:
                file.write(text.encode("utf-8", "surrogateescape"))
                file.flush()
                os.fsync(file.fileno())
                fd = os.open(new, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.replace(self.path)
        except BaseException:
            if fd >= 0:
                os.close(fd)
            with suppress(OSError):
                new.unlink()
            raise
        before, self._locked = self._locked, fd
        if before >= 0:
            os.close(before)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)  # writes the rename to the disk
        finally:
            os.close(directory)
        return fd

    def close(self) -> None:
        """Unlock the file."""
        fd, self._locked = self._locked, -1
        if fd >= 0:
            os.close(fd)


def _private(path: str, flags: int) -> int:
    """Open a file like open(2), but with mode 0600, and not through a symbolic link."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _read(fd: int) -> bytes:
    with open(fd, "rb", closefd=False) as file:
        return file.read()


def why_foreign(text: str) -> str:
    """Return why a text cannot be that of a state file, or "" if it can. The first save would destroy a foreign file.

    A text is foreign if it has a NUL, or if it has lines and no line is one that virtfs writes. A line that begins like
    a command counts even if it cannot be parsed, because another version may have written it.
    """
    if "\0" in text:
        return "it has NUL bytes, so it is damaged or is not a state file"
    why = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith((MADE, FOUND, PREFIX, *_COMMANDS)):
            return ""
        try:
            command = parse(line)
        except VirtError as refusal:
            why = why or f"it is not a state file: line {number}: {quoted(line)}: {refusal.strerror}"
        else:
            if command is not None:
                return ""
    return why


def _used_by(path: Path, found: os.stat_result) -> str:
    """Return a sentence that names the process that locks a file, with the remedy if the process is stopped."""
    with suppress(OSError):
        if pid := _in_locks(found) or _among_descriptors(path):
            stopped = f"pid {pid}" in stopped_servers().split(", ")
            remedy = f", and is stopped: {REMEDY}" if stopped else ""
            return f"the server of another mount (pid {pid}) is using it{remedy}"
    return "another mount is using it"


def _in_locks(found: os.stat_result) -> str:
    """Return the process that locks a file, or "" if it is not found.

    Source: /proc/locks (proc_locks(5)), with devices in hexadecimal: "1: FLOCK ADVISORY WRITE 12 fe:01:34 0 EOF".
    """
    file = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in read_text("/proc/locks").splitlines():
        words = line.split()
        if words[1] == "FLOCK" and words[5:6] == [file] and words[4] not in ("0", "-1"):
            return words[4]
    return ""


def _among_descriptors(path: Path) -> str:
    """Return the process whose descriptor of a file holds a lock (proc_pid_fdinfo(5)), or "" if it is not found.

    Only root can inspect the processes of other users. But /proc/locks does not have the numbers that stat(2) returns
    if the file is on overlayfs (Documentation/filesystems/overlayfs.rst, "Inode properties"). The names are compared,
    because a stat(2) of a descriptor hangs if its file is in the mount of a stopped server.
    """
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with suppress(OSError):
                for fd in (process / "fd").iterdir():
                    with suppress(OSError):
                        if os.readlink(fd) == str(path) and "FLOCK" in read_text(process / "fdinfo" / fd.name):
                            return process.name
    return ""
