"""A /run of its own for `virtfs shell`: writable, with the entries of the old one in it.

ip-netns(8) names namespaces in /run/netns, which an ordinary user may not write to and often cannot create. So
may other programs want to write to /run: iptables to xtables.lock, and readers of README. A tmpfs covers /run in
the mount namespace of the shell, and each old entry is bound into it, so that sockets (D-Bus, Wayland) and
resolv.conf stay where they are. An overlay would do it in one mount, but then nobody could connect to the old
sockets: unix_find_bsd() (net/unix/af_unix.c) compares inodes, and an overlay has inodes of its own.
"""

import contextlib
import os

from virtfs.host.mounts import bind, mount_tmpfs

_RUN = "/run"
_NAMED = "netns"


def cover_run(names: bool) -> None:
    """Replace /run in this mount namespace. names: keep those of ip-netns(8), for a caller who may enter them.

    OSError: this system allows no mount.
    """
    with os.scandir(_RUN) as entries:
        old = [entry for entry in entries if entry.name != _NAMED and _usable(entry)]
    named = os.listdir(f"{_RUN}/{_NAMED}") if names and os.path.isdir(f"{_RUN}/{_NAMED}") else []
    covered = os.open(_RUN, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mount_tmpfs(_RUN)
        below = f"/proc/self/fd/{covered}"
        for entry in old:
            if entry.is_symlink():
                os.symlink(os.readlink(f"{below}/{entry.name}"), entry.path)
            else:
                _show(f"{below}/{entry.name}", entry.path)
        if named:
            os.mkdir(f"{_RUN}/{_NAMED}")
        for name in named:
            _show(f"{below}/{_NAMED}/{name}", f"{_RUN}/{_NAMED}/{name}")
    finally:
        os.close(covered)


def _usable(entry: os.DirEntry[str]) -> bool:
    """Whether this user can do anything with it. If not, its name is better free: xtables.lock is root's."""
    return entry.is_symlink() or any(os.access(entry.path, how) for how in (os.R_OK, os.W_OK, os.X_OK))


def _show(source: str, target: str) -> None:
    """Bind an entry; one that cannot be (it is gone meanwhile, its mount is unbindable) is left out."""
    directory = os.path.isdir(source)
    if directory:
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        bind(source, target)
    except OSError:
        with contextlib.suppress(OSError):
            os.rmdir(target) if directory else os.unlink(target)
