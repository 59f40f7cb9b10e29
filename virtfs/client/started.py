"""mount(): starts a server as a separate process. The returned mount ends it."""

import errno
import os
import shutil
import site
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TypedDict, Unpack

from virtfs.client import temporary
from virtfs.client.mount import Mount


class Options(TypedDict, total=False):
    """The options of a mount, as keyword arguments: those of virtfs(1). False and None leave an option out."""

    max_virts: int | None
    max_queue: int | None
    max_backlog: int | None
    max_history: int | str | None
    max_memory: int | str | None
    max_user_memory: int | str | None
    capture: int | str | None
    state: "str | os.PathLike[str] | None"
    log: "str | os.PathLike[str] | None"
    debug: bool | None
    ro: bool | None
    rw: bool | None
    noexec: bool | None
    exec: bool | None
    noatime: bool | None
    atime: bool | None
    sync: bool | None
    dirsync: bool | None
    allow_other: bool | None
    fsname: str | None


class Started(Mount):
    """A mount made by mount(). close() ends it."""

    __slots__ = ("_made",)

    def __init__(self, directory: Path, made: bool) -> None:
        """made: whether mount() made the directory. If so, close() removes it."""
        super().__init__(directory)
        self._made = made

    def close(self) -> None:
        """End the server; idempotent. Readers get ENXIO. When close() returns, interfaces and bridges are gone.

        OSError: EBUSY, the file of the option `state` lacks changes, for example because the disk is full, and the
        mount is left as it is; other errors, the server cannot be ended, or has been ended by another program.
        """
        if not os.path.ismount(self.path):
            return
        _run("umount", str(self.path))
        if self._made:
            self.path.rmdir()


def mount(directory: "str | os.PathLike[str] | None" = None, **options: Unpack[Options]) -> Mount:
    """Start a server, as `virtfs mount` does, and return its mount when it is ready. close() and `with` end it.

    directory: an existing directory; by default a temporary one, which only this user can enter.
    options: those of `virtfs mount -o`, such as max_virts=16, state="/var/lib/lab.state" and debug=True. False and None
    leave an option out.
    If this program is killed, the server keeps running; end it with `virtfs umount DIR`. The server logs to the
    journal or to syslog, or to the file that the option `log` names.
    OSError: EPERM, you are not root: run the program in `virtfs shell`; EINVAL, an option is wrong; EBUSY, a virtfs is
    mounted there; and other errors that virtfs(1) describes.

    >>> with virtfs.mount(max_virts=16) as own:
    ...     own.create(up=True)
    ...     own.status()["options"]
    Virt('/tmp/virtfs-.../virt0')
    'max_virts=16'
    """
    text = ",".join(
        name if value is True else f"{name}={value}" for name, value in options.items() if value not in (False, None)
    )
    made = directory is None
    path = Path(tempfile.mkdtemp(prefix="virtfs-") if directory is None else directory).absolute()
    try:
        _run("mount", *(["-o", text] if text else []), str(path))
        return Started(path, made)
    except BaseException:
        if made and not os.path.ismount(path):
            path.rmdir()
        raise


def _run(*words: str) -> None:
    """Run a command of virtfs in a child process.

    OSError: the command fails. The errno comes from the message that the command sends to a service manager
    (sd_notify(3)), the text from its standard error.
    """
    folder = tempfile.mkdtemp(prefix="virtfs-")
    try:
        with (
            temporary.place_of_socket(Path(folder), "notify") as place,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager,
        ):
            manager.bind(place)
            environment = {**os.environ, "NOTIFY_SOCKET": place, "PYTHONPATH": search_path()}
            command = [sys.executable, "-P", "-m", "virtfs", *words]
            done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            if done.returncode:
                sentence = done.stderr.decode(errors="replace").strip().rpartition("\n")[2].removeprefix("virtfs: ")
                raise OSError(_errno(manager), sentence or f"virtfs {words[0]} failed", words[-1])
    finally:
        shutil.rmtree(folder)


def _errno(manager: socket.socket) -> int:
    """Return the last errno that the server reported by sd_notify(3). If it reported none, return EINVAL."""
    number = errno.EINVAL
    try:
        while message := manager.recv(65536):
            for line in message.decode(errors="replace").splitlines():
                if line.startswith("ERRNO="):
                    number = int(line.removeprefix("ERRNO="))
    except BlockingIOError:
        pass
    return number


def search_path() -> str:
    """Return a PYTHONPATH that lets a child process find this virtfs, even if it is not installed."""
    here = str(Path(__file__).parents[2])
    installed = [*site.getsitepackages(), site.getusersitepackages()]
    return os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), *([here] if here not in installed else [])])
