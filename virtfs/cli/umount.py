"""`virtfs umount`: ends a mount, also while files in it are open, and waits for its server to have ended."""

import errno
import os
import select
import signal
import time

from virtfs.core.errors import VirtError
from virtfs.fuse.mount import detach_lazily
from virtfs.fuse.mounttable import Mounted, mounted_at, resolve

PATIENCE = 60.0  # seconds; closing a tap takes the kernel some 16 ms, and a mount may have thousands
_INTERVAL = 0.02


def umount(directory: str) -> None:
    """Unmount a virtfs; returns when its server has finished: readers answered, taps gone.

    Taking the mount out of the table is what tells the server to end. A descriptor of the mount's root keeps
    the file system alive meanwhile, so that fstat(2) on it shows when the server has closed /dev/fuse, its
    last act. VirtError: EINVAL nothing or something else is mounted there; EPERM it is somebody else's;
    ETIMEDOUT.
    """
    path = resolve(directory)
    mount = mounted_at(path)
    if mount is None:
        raise VirtError(errno.EINVAL, f'"{directory}" is not mounted')
    if not mount.virtfs:
        raise VirtError(errno.EINVAL, f'"{directory}" is not a virtfs but {mount.source} ({mount.type})')
    if os.geteuid() not in (0, _owner(mount)):
        raise VirtError(errno.EPERM, f'"{directory}" was mounted by user {_owner(mount)}, not by you')
    root = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        detach_lazily(path)
        _wait(root, mount)
    finally:
        os.close(root)


def _owner(mount: Mounted) -> int:
    return int(mount.option("user_id") or 0)


def _wait(root: int, mount: Mounted) -> None:
    """Until the file system behind `root` has no server. In a child: only death ends an fstat that hangs."""
    child = os.fork()
    if child == 0:
        _watch(root, mount)
    pidfd = os.pidfd_open(child)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(PATIENCE * 1000):
            os.kill(child, signal.SIGKILL)
            raise VirtError(
                errno.ETIMEDOUT,
                f'"{mount.directory}" is unmounted, but its server has not ended after {PATIENCE:.0f} s',
            )
        if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            raise VirtError(errno.EIO, f"cannot see whether the server has ended (status {status})")
    finally:
        os.close(pidfd)


def _watch(root: int, mount: Mounted) -> None:
    """The forked child. Its status: 0 the server is gone."""
    status = 1
    try:
        if os.geteuid() == 0 and (owner := _owner(mount)):
            # Without allow_other only the owner may ask, not even root: fuse_permissible_uidgid(),
            # fs/fuse/dir.c.
            group = int(mount.option("group_id") or 0)
            os.setresgid(group, group, group)
            os.setresuid(owner, owner, owner)
        while True:
            os.fstat(root)
            time.sleep(_INTERVAL)
    except OSError as e:
        status = 0 if e.errno in (errno.ENOTCONN, errno.ECONNABORTED) else 1
    finally:
        os._exit(status)
