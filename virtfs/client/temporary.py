"""Temporary folders for mounts, which a later program of the user removes if their program was killed.

A folder has a file `lock`, which is locked while its program lives. The mount point is its folder `virt`, or in
`virtfs shell` the folder itself: then the mount hides the lock, but only in the namespaces of the shell.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from virtfs.core.socketname import PATH_MAX

_PREFIX: Final = "virtfs-"  # of the names of the folders


def make() -> tuple[Path, int]:
    """Make a folder that only this user can enter. Return it and the descriptor of its lock, for remove().

    Remove the abandoned folders first.
    """
    remove_abandoned(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    return folder, locked(folder)


def remove(folder: Path, lock: int) -> None:
    """Remove a folder of make(), unless its folder `virt` is still mounted, and close its lock."""
    with suppress(OSError):
        _remove(folder)
    os.close(lock)


def locked(folder: Path) -> int:
    """Make a file `lock`, and return its descriptor. The kernel unlocks it when this process ends, however it ends."""
    new = folder / "new"
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    new.rename(folder / "lock")  # the lock never exists unlocked while this process lives
    return descriptor


@contextmanager
def place_of_socket(folder: Path, name: str) -> Iterator[str]:
    """Yield a path for a Unix socket: in the folder, or in a temporary one in /tmp if that path would be too long.

    The kernel copies the path into an address with room for 107 bytes (unix(7)), which a long TMPDIR exceeds.
    """
    path = str(folder / name)
    if len(path.encode(errors="surrogateescape")) <= PATH_MAX:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir="/tmp") as other:
        yield f"{other}/{name}"


def remove_abandoned(directory: Path) -> None:
    """Remove the folders of this user's programs that were killed. A folder that is in use is locked."""
    mounts = _names_of_mounts()
    for folder in directory.glob(f"{_PREFIX}*"):
        if folder.name in mounts:
            continue  # its server may hang, and then so would any access
        with suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            descriptor = os.open(folder / "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(folder)
            finally:
                os.close(descriptor)


def _remove(folder: Path) -> None:
    with suppress(FileNotFoundError):
        (folder / "virt").rmdir()  # fails if still mounted: rmtree() must not enter a mount
    shutil.rmtree(folder)


def _names_of_mounts() -> set[str]:
    """Return the last components of all mount points (proc_pid_mountinfo(5)). Those of make() contain no escapes."""
    rows = Path("/proc/self/mountinfo").read_bytes().decode(errors="replace").splitlines()
    return {row.split()[4].rpartition("/")[2] for row in rows}
