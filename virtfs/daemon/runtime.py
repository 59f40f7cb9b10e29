"""The run-time directory: where the FIFOs lie that the tree's symlinks `rx` point at.

They cannot lie in the mount: the daemon would have to open them through itself.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

import trio

from virtfs.core.ids import Unit
from virtfs.core.virt import Virt
from virtfs.daemon.interface import Interface
from virtfs.daemon.interfaces import Interfaces
from virtfs.forward.feed import Feed
from virtfs.host.fifo import Fifo

PREFIX = "virtfs-run-"  # not what cli.shell calls the mount points it makes: looking into our own mount would hang us
LOCK = "lock"
PAUSE = 0.25  # seconds between looks for a reader


def make_directory() -> tuple[Path, int]:
    """A new one, and the lock that says it is in use: a descriptor.

    Below /run for the system's root, else where there is one for the user. Others may pass, not look in. Those that a
    daemon left which was killed are cleared away: nobody holds their lock.
    """
    places = ("/run" if os.geteuid() == 0 else "", os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir())
    base = next(Path(place) for place in places if place and os.access(place, os.W_OK))
    for old in base.glob(f"{PREFIX}*/{LOCK}"):
        if not old.parent.is_mount():  # bound by `virtfs shell`: it can be emptied, not removed
            _clear(old)
    while True:
        directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        try:
            directory.chmod(0o711)
            lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (directory / LOCK).exists():
            return directory, lock
        os.close(lock)  # another daemon took it for one that is left, before it was locked


def _clear(lock: Path) -> None:
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return  # in use
    else:
        shutil.rmtree(lock.parent, ignore_errors=True)
    finally:
        os.close(fd)


class Runtime:
    """The FIFOs of a mount."""

    def __init__(self, interfaces: Interfaces) -> None:
        self.directory, self._lock = make_directory()
        self._interfaces = interfaces
        self._feeds: dict[Unit, tuple[Interface, Feed]] = {}

    def path(self, virt: Virt) -> Path:
        """Where an interface's FIFO lies."""
        return self.directory / f"{virt.name}.rx"

    def appear(self, interface: Interface) -> None:
        """A new interface."""
        fifo = Fifo(self.path(interface.virt))
        feed = Feed(interface.wire, fifo, lambda: bool(interface.ports.frame.seats.readers))
        self._feeds[interface.virt.unit] = interface, feed
        self.follow(interface)

    def vanish(self, interface: Interface) -> None:
        """It goes."""
        if (found := self._feeds.pop(interface.virt.unit, None)) is not None:
            found[1].stop()

    def follow(self, interface: Interface) -> None:
        """Its owner or mode is another now: the FIFO's is that of frame, as far as reading goes."""
        virt = interface.virt
        if (found := self._feeds.get(virt.unit)) is not None:
            found[1].fifo.set_rights(virt.owner, virt.group, virt.mode & 0o444)

    async def run(self) -> None:
        """Look for readers until cancelled."""
        while True:
            await trio.sleep(PAUSE)
            for _, feed in tuple(self._feeds.values()):
                feed.look(self._interfaces.later)

    def remove(self) -> None:
        """At the end of the mount."""
        shutil.rmtree(self.directory, ignore_errors=True)
        os.close(self._lock)
