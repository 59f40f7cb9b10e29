"""The FIFOs behind `rx`, in the run-time directory of the mount. Each file `rx` is a symbolic link to one of them.

The FIFOs cannot be in the mount, because the daemon opens them itself, and would have to answer its own open(2).
"""

import errno
import fcntl
import logging
import math
import os
import shutil
import tempfile
import time
from collections import OrderedDict
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path

import trio

from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit
from virtfs.core.virt import Virt
from virtfs.daemon.interface import Interface
from virtfs.forward.feed import Feed
from virtfs.forward.tasks import Start
from virtfs.host.fifo import Fifo

log = logging.getLogger(__name__)

# This prefix must differ from the one that cli.shell uses for its mount points. Otherwise make_directory() would also
# search these mount points, one of which may be the daemon's own mount.
PREFIX = "virtfs-run-"
LOCK = "lock"
YOUNG = 60  # seconds
PAUSE = 0.25  # seconds between two checks for readers
# A program that follows the link rx normally opens the FIFO at once. So the server looks at this FIFO alone after each
# of these pauses, in seconds. For SOUGHT seconds, every check includes the FIFO, but not more than SOUGHT_MOST of them.
SOON = (0.001, 0.01, 0.1)
SOUGHT = 60.0
SOUGHT_MOST = 64
IN_TURN = 16  # number of other FIFOs that each check includes, in turn


def make_directory() -> tuple[Path, int]:
    """Make a run-time directory. Return its path, and the descriptor of the lock that marks it as in use.

    For root, the directory is in /run, and for other users in XDG_RUNTIME_DIR. If that place is full, missing or
    read-only, the directory for temporary files is used instead.
    Everyone may open files in the run-time directory by name, but only its owner may list it. This function also
    removes the directories left behind by killed daemons, whose locks no process holds.

    VirtError: none of these places is usable; the errno is that of the last attempt.
    """
    places = _places()
    failure = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for place in places:
        try:
            return _make_in(place)
        except OSError as refusal:
            failure = refusal
    tried = ", ".join(map(str, places)) or "/run, /tmp"
    raise VirtError(
        failure.errno or errno.EIO, f"cannot make a run-time directory in any of {tried}: {failure.strerror}"
    ) from failure


def _places() -> list[Path]:
    # Root uses /run, because other users cannot search root's XDG_RUNTIME_DIR.
    places = ["/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "")]
    with suppress(FileNotFoundError):  # no directory for temporary files is usable
        places.append(tempfile.gettempdir())
    return [Path(place) for place in places if place and os.access(place, os.W_OK)]


def _make_in(base: Path) -> tuple[Path, int]:
    for old in base.glob(f"{PREFIX}*"):
        # If the directory is a mount point, `virtfs shell` has bind-mounted it. Then rmtree() would empty the
        # directory but could not remove it, so leave it alone. The directory may vanish at any time.
        with suppress(OSError):
            if not old.is_mount():
                _clear(old)
    while True:
        directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            directory.chmod(0o711)
            lock = _locked(directory)
            undo.callback(os.close, lock)
            if (directory / LOCK).exists():
                undo.pop_all()
                return directory, lock
            # Another daemon found the directory unlocked, and removed it before this daemon locked it. Try again.


def _locked(directory: Path) -> int:
    """Make the lock file of a run-time directory, and return a descriptor that holds the lock."""
    lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _clear(directory: Path) -> None:
    """Remove a run-time directory, unless a daemon uses it."""
    try:
        found = directory.lstat()
        if found.st_uid != os.getuid():
            return  # in /tmp, any user can make such a directory
        # A daemon that was killed while it made or removed the directory has left no lock. A young directory without a
        # lock may belong to a daemon that is about to lock it.
        create = os.O_CREAT if time.time() - found.st_mtime > YOUNG else 0
        fd = os.open(directory / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | create, 0o600)
    except OSError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return  # in use
    else:
        shutil.rmtree(directory, ignore_errors=True)
    finally:
        os.close(fd)


class _Soon:
    """The FIFOs whose links programs have just followed. Each is due after each of the pauses SOON.

    `ls -lR` follows the link of every interface, so the work for each must not depend on how many others were followed.
    """

    def __init__(self) -> None:
        # For each pause, the units and the times when they are due (trio.current_time). They become due in this order.
        self._due: tuple[dict[Unit, float], ...] = tuple({} for _ in SOON)

    def add(self, unit: Unit, now: float) -> None:
        """Begin the pauses of a unit again, unless its first pause has already begun."""
        if unit not in self._due[0]:
            self.discard(unit)
            self._due[0][unit] = now + SOON[0]

    def discard(self, unit: Unit) -> None:
        """Remove a unit. If there is none, do nothing."""
        for waiting in self._due:
            waiting.pop(unit, None)

    def next(self) -> float:
        """Return when the next unit is due, or inf."""
        return min((due for waiting in self._due for due in islice(waiting.values(), 1)), default=math.inf)

    def take(self, now: float) -> list[Unit]:
        """Return the units that are due, and begin their next pauses."""
        taken = []
        for number, waiting in reversed(tuple(enumerate(self._due))):
            while waiting and waiting[unit := next(iter(waiting))] <= now:
                del waiting[unit]
                taken.append(unit)
                if number + 1 < len(SOON):
                    self._due[number + 1][unit] = now + SOON[number + 1]
        return taken


class Fifos:
    """The FIFOs of a mount. start: runs a task until the mount ends."""

    def __init__(self, start: Start) -> None:
        self.directory, self._lock = make_directory()
        self._start = start
        self._feeds: OrderedDict[Unit, tuple[Interface, Feed]] = OrderedDict()  # the FIFO to check next is first
        self._fed: set[Unit] = set()  # FIFOs that had a reader when they were last checked
        # For each unit, the time (trio.current_time) until which every check includes its FIFO. The earliest is first.
        self._sought: OrderedDict[Unit, float] = OrderedDict()
        self._soon = _Soon()
        self._pause = trio.CancelScope()  # ends at the next check, or when a unit in _soon is due
        self._troubles: dict[str, str] = {}  # for each virt, the last failure logged, to avoid logging it again

    def path(self, virt: Virt) -> Path:
        """Return the path of an interface's FIFO."""
        return self.directory / f"{virt.name}.rx"

    def appear(self, interface: Interface) -> None:
        """Make the FIFO of a new interface, and its feed. VirtError: the FIFO cannot be made."""
        self._ensure_directory()
        fifo = Fifo(self.path(interface.virt))
        feed = Feed(interface.wire, fifo, lambda: bool(interface.ports.frame.seats.readers))
        self._feeds[interface.virt.unit] = interface, feed
        self.set_rights(interface)

    def _ensure_directory(self) -> None:
        """Recreate the run-time directory if another program has removed it. VirtError: it cannot be made."""
        if self.directory.is_dir():
            return
        try:
            self.directory.mkdir(0o711)
            self.directory.chmod(0o711)
            lock = _locked(self.directory)
        except OSError as refusal:
            sentence = f'rx: cannot make the run-time directory "{self.directory}": {refusal.strerror}'
            raise VirtError(refusal.errno or errno.EIO, sentence) from refusal
        os.close(self._lock)
        self._lock = lock

    def vanish(self, interface: Interface) -> None:
        """Remove the FIFO of an interface that is being destroyed."""
        self._troubles.pop(interface.virt.name, None)
        self._sought.pop(interface.virt.unit, None)
        self._fed.discard(interface.virt.unit)
        self._soon.discard(interface.virt.unit)
        if (found := self._feeds.pop(interface.virt.unit, None)) is not None:
            found[1].stop()

    def set_rights(self, interface: Interface) -> None:
        """Give the FIFO the owner, group and read permissions of `frame`."""
        virt = interface.virt
        if (found := self._feeds.get(virt.unit)) is not None:
            found[1].fifo.set_rights(virt.owner, virt.group, virt.mode & 0o444)

    def followed(self, unit: Unit) -> None:
        """Schedule an early check of a FIFO for readers, because a program has followed the symbolic link to it."""
        if unit in self._feeds:
            self._seek(unit)
            self._soon.add(unit, trio.current_time())
            self._pause.deadline = min(self._pause.deadline, self._soon.next())

    def _seek(self, unit: Unit) -> None:
        self._sought[unit] = trio.current_time() + SOUGHT
        self._sought.move_to_end(unit)
        if len(self._sought) > SOUGHT_MOST:
            self._sought.popitem(last=False)

    async def run(self) -> None:
        """Check FIFOs for readers every PAUSE seconds, until cancelled. A failure at one FIFO does not affect others.

        A check looks at each FIFO that has a reader, at up to SOUGHT_MOST that had one, or whose link was followed, in
        the last SOUGHT seconds, and at IN_TURN of the others. So a check takes no longer with thousands of interfaces.
        There is no cheaper way to notice that a program is opening a FIFO. inotify(7) reports an open(2) only when it
        has finished, and an open(2) of a FIFO waits for a writer.
        """
        following = trio.current_time()  # when the next check is due
        while True:
            with trio.CancelScope(deadline=min(following, self._soon.next())) as self._pause:
                await trio.sleep_forever()
            now = trio.current_time()
            for unit in self._soon.take(now):
                self._check(unit)
            if following <= now:
                self.check()
                following = now + PAUSE

    def check(self) -> None:
        """Look for readers once. Called by run() and by tests."""
        now = trio.current_time()
        for unit in [unit for unit, until in self._sought.items() if until < now]:
            del self._sought[unit]
        for unit in self._next():
            self._check(unit)

    def look(self, unit: Unit) -> None:
        """Look now whether a program reads the FIFO of an interface, so that the wire counts its readers correctly."""
        if unit in self._feeds:
            self._check(unit)

    async def is_read(self, interface: Interface) -> bool:
        """Look now whether a program reads the FIFO of an interface, instead of trusting the last check."""
        unit = interface.virt.unit
        if (found := self._feeds.get(unit)) is None:
            return False
        self._check(unit)
        return await found[1].settled()

    def _check(self, unit: Unit) -> None:
        interface, feed = self._feeds[unit]
        try:
            self._look(interface, feed)
        except OSError as failure:
            if self._troubles.get(interface.virt.name) != (trouble := str(failure.strerror)):
                log.warning("%s: cannot check rx for readers: %s", interface.virt.name, trouble)
                self._troubles[interface.virt.name] = trouble
        else:
            if self._troubles.pop(interface.virt.name, None) is not None:
                log.info("%s: rx is checked for readers again", interface.virt.name)
        if feed.fed:
            self._fed.add(unit)
        elif unit in self._fed:
            self._fed.discard(unit)
            self._seek(unit)

    def _next(self) -> list[Unit]:
        """Return the units whose FIFOs the next check looks at."""
        units = dict.fromkeys((*self._fed, *self._sought))
        for _ in range(min(IN_TURN, len(self._feeds))):
            unit = next(iter(self._feeds))
            self._feeds.move_to_end(unit)
            units[unit] = None
        return list(units)

    def _look(self, interface: Interface, feed: Feed) -> None:
        try:
            feed.look(self._start)
        except VirtError as failure:
            if failure.errno != errno.ENOENT:
                raise
            self._ensure_directory()
            self.set_rights(interface)  # recreates the FIFO

    def remove(self) -> None:
        """Remove the directory at the end of the mount."""
        shutil.rmtree(self.directory, ignore_errors=True)
        os.close(self._lock)
