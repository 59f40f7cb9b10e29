"""`virtfs top`: a live view of the interfaces in all mounts that the user can see."""

import errno
import os
import signal
import time
from contextlib import closing

from virtfs.cli.mounts import visible, visible_at
from virtfs.cli.rates import Interfaces
from virtfs.cli.sampling import Sampler
from virtfs.cli.shell_mark import own_first
from virtfs.cli.terminal import Ended, Terminal
from virtfs.cli.top_view import View
from virtfs.core.errors import VirtError
from virtfs.core.quoting import quoted
from virtfs.fuse.mounttable import Mounted

_LOOK = 1.0  # seconds between two reads of the mount table


class _Mounts:
    """The watched mounts, with their samples and errors."""

    def __init__(self, directory: str | None, interval: float) -> None:
        self._directory = directory
        self._interval = interval
        self._samplers: dict[str, Sampler] = {}
        self._errors: dict[str, str] = {}
        self._looked = -_LOOK
        self.interfaces = Interfaces(own_first())
        self.clients = ""

    def close(self) -> None:
        for sampler in self._samplers.values():
            sampler.close()

    def descriptors(self) -> list[int]:
        """Return the descriptors that become readable when a mount answers."""
        return [sampler.fileno() for sampler in self._samplers.values()]

    def look(self) -> None:
        """Start samplers for new mounts and end those of unmounted ones. VirtError ENODEV: the chosen mount is gone."""
        if time.monotonic() < self._looked + _LOOK:
            return
        self._looked = time.monotonic()
        wanted = {mount.device: mount for mount in _seen(self._directory)}
        if self._directory is not None and not wanted:
            raise VirtError(errno.ENODEV, f"{quoted(self._directory)} has been unmounted")
        for device in self._samplers.keys() - wanted.keys():
            self._end(device)
        for device in wanted.keys() - self._samplers.keys():
            self._samplers[device] = Sampler(wanted[device], self._interval)

    def _end(self, device: str) -> None:
        sampler = self._samplers.pop(device)
        sampler.close()
        self._errors.pop(sampler.mount.directory, None)
        self.interfaces.forget(sampler.mount.directory)

    def take(self, ready: list[int]) -> None:
        """Take the samples of the mounts whose descriptors are ready."""
        for device, sampler in list(self._samplers.items()):
            if sampler.fileno() not in ready:
                continue
            directory = sampler.mount.directory
            samples = sampler.take()
            if samples is None:
                self._end(device)  # look() starts a new sampler
                continue
            for sample in samples:
                if sample.status is None:
                    self._errors[directory] = sample.error
                    self.interfaces.forget(directory)
                else:
                    self._errors.pop(directory, None)
                    self.interfaces.add(directory, sample.at, sample.status)
                if sampler.watched:
                    self.clients = sample.clients

    def watch(self, key: tuple[str, int] | None) -> None:
        """Select the interface whose file `clients` is read. key: see Interface.key; None for no interface."""
        for sampler in self._samplers.values():
            sampler.watch(f"virt{key[1]}" if key is not None and key[0] == sampler.mount.directory else "")
        if key is None:
            self.clients = ""

    def troubles(self) -> dict[str, str]:
        """Return an error message for each mount that cannot be read, keyed by the directory of the mount."""
        silent = {sampler.mount.directory: sampler.silence() for sampler in self._samplers.values()}
        return {directory: why for directory, why in (silent | self._errors).items() if why}


def _seen(directory: str | None) -> list[Mounted]:
    return [mount for mount in visible() if directory in (None, mount.directory)]


def top(directory: str | None, interval: float) -> None:
    """Show interfaces until the user quits.

    directory: the mount point; None for all mounts. interval: the time between two samples in seconds.
    VirtError: EINVAL, no virtfs is mounted there; ENOTTY, there is no suitable terminal; ENODEV, the mount has been
    unmounted. KeyboardInterrupt: Ctrl-C. SIGTERM and SIGHUP end the process as usual, with the terminal restored.
    """
    if directory is not None:
        directory = visible_at(directory).directory
    try:
        terminal = Terminal()
        with closing(_Mounts(directory, interval)) as mounts, terminal:
            _show(terminal, mounts, View(terminal.unicode))
    except Ended as ended:
        signal.signal(ended.number, signal.SIG_DFL)
        os.kill(os.getpid(), ended.number)


def _show(terminal: Terminal, mounts: _Mounts, view: View) -> None:
    going = True
    while going:
        mounts.look()
        mounts.watch(view.watched)
        height, width = terminal.size()
        terminal.show(view.lines(mounts.interfaces, mounts.troubles(), height, width, mounts.clients))
        mounts.take(terminal.wait(mounts.descriptors(), _LOOK))
        for key in terminal.pressed():
            going = going and view.press(key, mounts.interfaces)
