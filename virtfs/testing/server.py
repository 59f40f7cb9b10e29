"""Server: a mount for a test run. It ends with the process that started it, however that process ends."""

import errno
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Unpack

from virtfs.client import temporary
from virtfs.client.lines import VirtVerbs
from virtfs.client.mount import Mount
from virtfs.client.started import search_path
from virtfs.client.virt import Virt
from virtfs.testing.needs import check_mount

HISTORY: Final = "256K"  # bytes of recent frames that each interface keeps
PATIENCE: Final = 10.0  # maximum number of seconds to wait for the server to end after SIGTERM

# With this option, the kernel signals the program when the thread that started the program ends, even by kill -9.
# The server drops capabilities but gains none, so the setting survives (kernel/cred.c commit_creds).
_DYING_WITH_US = ("setpriv", "--pdeathsig")
# Runs a program, unless the process with ID $0 was killed before setpriv asked for the signal. A child's parent is then
# another process. It is 0 for the first process of a PID namespace.
_UNLESS_ALONE = 'case $PPID in "$0"|0) exec "$@" ;; esac'


def dying_with_us(name: str, *command: str) -> list[str]:
    """Return a command line that runs `command`, and sends it a signal such as "TERM" when this thread ends."""
    return [*found(*_DYING_WITH_US), name, *found("sh", "-c"), _UNLESS_ALONE, str(os.getpid()), *command]


def found(name: str, *words: str) -> list[str]:
    """Return a command line with the path of its program, which an environment with another PATH does not change."""
    return [shutil.which(name) or name, *words]


class Recording(Mount):
    """A mount whose new interfaces keep their last frames, HISTORY bytes per interface, unless `history` is given."""

    __slots__ = ()

    def create(self, number: int | str | None = None, **verbs: Unpack[VirtVerbs]) -> Virt:
        """Create an interface that keeps its last frames. Otherwise like Mount.create()."""
        verbs.setdefault("history", HISTORY)
        return super().create(number, **verbs)

    def ensure(self, number: int | str | Virt, **verbs: Unpack[VirtVerbs]) -> Virt:
        """Create an interface that keeps its last frames, unless it exists. Otherwise like Mount.ensure()."""
        if number not in self:
            verbs.setdefault("history", HISTORY)
        return super().ensure(number, **verbs)

    @contextmanager
    def clone(self) -> Iterator[Virt]:
        """Create an interface that keeps its last frames. Otherwise like Mount.clone()."""
        with super().clone() as virt:
            virt.set(history=HISTORY)
            yield virt


class Server:
    """A foreground server: a child process with its own session, so that Ctrl-C reaches only the tests.

    net: its mount, in a temporary directory that only this user can enter.
    If the server ends by itself, restart() mounts a new one at the same place, for which `net` stands, too.
    OSError: the machine lacks what check_mount() looks for; or the mount fails, with the message of `virtfs mount`.
    """

    def __init__(self) -> None:
        check_mount()
        self._folder, self._lock = temporary.make()
        self._point = self._folder / "virt"
        self._log = self._folder / "log"
        self._told = 0  # number of bytes of the log that news() has returned
        self._process: subprocess.Popen[bytes] | None = None
        self._fate = ""
        try:
            self._point.mkdir()
            self._start()
            self.net = Recording(self._point)
        except BaseException:
            self.end()
            raise

    def _start(self) -> None:
        """Start the program, and wait until it reports through its socket that the mount is ready (sd_notify(3))."""
        (self._folder / "notify").unlink(missing_ok=True)
        with (
            temporary.place_of_socket(self._folder, "notify") as place,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
            self._log.open("ab") as log,
        ):
            manager.bind(place)
            program = [sys.executable, "-P", "-m", "virtfs", "mount", "-f", str(self._point)]
            self._process = subprocess.Popen(
                dying_with_us("TERM", *program),
                env={**os.environ, "NOTIFY_SOCKET": place, "PYTHONPATH": search_path()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            ended = os.pidfd_open(self._process.pid)
            try:
                while b"READY=1" not in _message(manager, ended):
                    if self._process.poll() is not None:
                        sentence = self.news().strip().rpartition("\n")[2].removeprefix("virtfs: ")
                        raise OSError(errno.EIO, sentence or "the server has ended", str(self._point))
            finally:
                os.close(ended)

    def news(self) -> str:
        """Return what the server has logged since the last call, without the line that reports that it is ready."""
        with suppress(OSError), self._log.open("rb") as log:
            log.seek(self._told)
            text = log.read()
            self._told += len(text)
            lines = text.decode(errors="replace").splitlines(keepends=True)
            return "".join(line for line in lines if not line.endswith(" is mounted\n"))
        return ""

    def fate(self) -> str:
        """Return how the server has ended before end(), such as "the server has ended (SIGKILL)", or "" if it has not.

        A program sees the mount fail just before the process that served it can be waited for.
        """
        if self._process is not None and not self._serves():
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
        self._look()
        return self._fate

    def _serves(self) -> bool:
        try:
            os.statvfs(self._point)  # asks the server, where the kernel may answer stat(2) by itself
        except OSError:
            return False
        return os.path.ismount(self._point)

    def _look(self) -> None:
        if self._process is not None and (status := self._process.poll()) is not None:
            cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            self._fate = f"the server has ended ({cause})"

    def restart(self) -> None:
        """End the server if it still runs, and start another, without interfaces. OSError: the mount fails."""
        self._stop()
        self._start()
        self._fate = ""

    def end(self) -> None:
        """End the server, by SIGKILL if SIGTERM has no effect, and remove the directory; idempotent."""
        self._look()
        self._stop()
        if self._lock >= 0:
            temporary.remove(self._folder, self._lock)
            self._lock = -1

    def _stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                if self._process.wait(PATIENCE) not in (0, -signal.SIGTERM):
                    self._look()  # another signal was faster, whose effect could not be seen yet
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.returncode:  # a killed server leaves a mount that no program can use
                subprocess.run(["umount", "-l", str(self._point)], capture_output=True, check=False)
            self._process = None


def _message(manager: socket.socket, ended: int) -> bytes:
    """Wait for a message from the server, or for its end. Return the message, or b""."""
    poller = select.poll()
    poller.register(manager, select.POLLIN)
    poller.register(ended, select.POLLIN)
    found = dict(poller.poll())
    return manager.recv(65536) if manager.fileno() in found else b""
