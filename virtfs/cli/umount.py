"""`virtfs umount`: end a mount, even while its files are open, and wait until its server has finished."""

import errno
import json
import os
import re
import select
import shlex
import time
from contextlib import suppress
from functools import partial

from virtfs.cli.surroundings import complain
from virtfs.core.errors import VirtError
from virtfs.fuse.hanging import SLOW, STOPPED, Child, may_be_stopped, waiting
from virtfs.fuse.mount import detach_lazily
from virtfs.fuse.mounttable import Mounted, mounted_at, resolve

# Seconds to wait for the server. It takes about 16 ms to close a tap, and a mount may have thousands of taps.
PATIENCE = 60.0
ANSWER = 0.5  # seconds within which a server answers a stat(2) if it is ready
_INTERVAL = 0.02  # seconds between two checks
_BLANK = r"\x20"  # a blank in a value of an event, where each backslash is doubled
_ESCAPED = re.compile(r"\\\\|\\x20")


def umount(directory: str, *, force: bool = False) -> None:
    """Unmount a virtfs, and return once its server has answered all readers and closed its taps.

    Detaching the mount makes the server end. To notice the end, this function keeps the mount's root open and calls
    fstat(2) on it, which fails once the server has closed /dev/fuse, its last action.

    force: unmount even if the state file lacks changes, which end with the mount, and warn of them.
    VirtError: EINVAL, no virtfs is mounted there; EPERM, the mount belongs to another user; EBUSY, the state file lacks
    changes, and the mount is left as it is; ETIMEDOUT, the server has not ended after PATIENCE seconds; EIO,
    fusermount3 failed or the server cannot be watched.
    """
    path = resolve(directory)
    mount = mounted_at(path)
    if mount is None:
        raise VirtError(errno.EINVAL, f'"{directory}" is not mounted')
    if not mount.virtfs:
        raise VirtError(errno.EINVAL, f'"{directory}" is a mount of {mount.source} ({mount.type}), not of virtfs')
    if os.geteuid() not in (0, _owner(mount)):
        raise VirtError(errno.EPERM, f'"{directory}" was mounted by user {_owner(mount)}, not by you')
    if why := _unsaved(mount):
        if not force:
            words = f"virtfs umount --force {shlex.quote(directory)}"
            remedy = f'mend this, and the server saves within two seconds; "{words}" gives them up'
            raise VirtError(errno.EBUSY, f'"{directory}" has changes that are not saved: {why}: {remedy}')
        complain("virtfs", f'"{directory}": warning: the last changes are not saved: {why}')
    root = os.open(path, os.O_PATH | os.O_DIRECTORY)
    hearing, opened = os.pipe()
    try:
        with Child(lambda: _tell_warnings(mount, opened)) as child:
            os.close(opened)
            select.select([hearing], [], [], ANSWER)  # a server that replays its state file does not answer
            detach_lazily(path)
            _wait(root, mount)
            child.ended(ANSWER)
    finally:
        os.close(hearing)
        os.close(root)


def _owner(mount: Mounted) -> int:
    return int(mount.option("user_id") or 0)


def _unsaved(mount: Mounted) -> str:
    """Return why the state file lacks changes, or "" if it lacks none or the server does not answer.

    Child processes access the mount, because only SIGKILL can end a system call that hangs. While the server replays
    its state file, it answers no request.
    """
    with Child(lambda: _answers(mount)) as child:
        if not child.ended(ANSWER):
            return ""
    hearing, telling = os.pipe()
    call = partial(_tell_unsaved, mount, telling)
    with open(hearing, "rb") as pipe, open(telling, "wb") as told, Child(call) as child:
        # Reading without this wait could block: a child that hangs keeps its end of the pipe even after SIGKILL.
        if not child.ended(STOPPED):
            return ""
        told.close()
        return pipe.read().decode()


def _answers(mount: Mounted) -> int:
    _become_owner(mount)
    os.stat(mount.directory)
    return 0


def _tell_unsaved(mount: Mounted, telling: int) -> int:
    """Write why the state file lacks changes to a pipe, which holds 64 KiB: more than the sentence with its path."""
    _become_owner(mount)
    try:
        with open(os.path.join(mount.directory, "status.json"), "rb") as file:
            state = json.load(file)["state"]
        if state is not None and not state["saved"]:
            os.write(telling, state["error"].encode(errors="replace"))
    except (OSError, ValueError, KeyError):
        return 1  # the server is gone, or is an old one
    return 0


def _tell_warnings(mount: Mounted, opened: int) -> int:
    """Run in a forked child: print the warnings about the end of the mount, which the file events tells.

    opened: a pipe; a byte in it says that the file is open.
    """
    _become_owner(mount)
    with suppress(OSError), open(os.path.join(mount.directory, "events"), "rb") as events:
        os.write(opened, b"\0")
        for line in events:
            _time, event, _name, *keys = line.decode(errors="replace").split()
            if event == "warning":
                text = _ESCAPED.sub(lambda found: found[0][-1] if found[0] != _BLANK else " ", keys[0])
                complain("virtfs", f'"{mount.directory}": warning: {text.removeprefix("text=")}')
    return 0


def _become_owner(mount: Mounted) -> None:
    """Give this process the user and the group of the mount, if it is root.

    Without allow_other only the owner may use a mount, and root may not (fs/fuse/dir.c fuse_permissible_uidgid).
    """
    if os.geteuid() == 0 and (owner := _owner(mount)):
        group = int(mount.option("group_id") or 0)
        os.setresgid(group, group, group)
        os.setresuid(owner, owner, owner)


def _wait(root: int, mount: Mounted) -> None:
    """Wait until the mount has no server. root: a descriptor of the mount's root directory.

    A child process calls fstat(2) repeatedly, because only SIGKILL can end an fstat(2) that hangs.
    """
    with Child(lambda: _watch(root, mount)) as child:
        if not child.ended(SLOW) and (why := waiting()):
            complain("virtfs", f'"{mount.directory}" is unmounted; {why}')
        if not child.ended(STOPPED - SLOW) and (stopped := may_be_stopped()):
            complain("virtfs", f'"{mount.directory}" is unmounted, but its server {stopped}; waiting for its end')
        if not child.ended(PATIENCE - STOPPED):
            raise VirtError(
                errno.ETIMEDOUT,
                f'"{mount.directory}" is unmounted, but its server did not end within {PATIENCE:.0f} s',
            )
        if child.status:
            sentence = f'"{mount.directory}" is unmounted, but its server cannot be watched (status {child.status})'
            raise VirtError(errno.EIO, sentence)


def _watch(root: int, mount: Mounted) -> int:
    """Run in the forked child: call fstat(2) until it fails. Return 0 if the server is gone, otherwise 1."""
    _become_owner(mount)
    try:
        while True:
            os.fstat(root)
            time.sleep(_INTERVAL)
    except OSError as e:
        return 0 if e.errno in (errno.ENOTCONN, errno.ECONNABORTED) else 1
