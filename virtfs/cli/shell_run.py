"""A private, writable /run for `virtfs shell` that still contains the entries of the system's /run.

ip-netns(8) keeps named namespaces in /run/netns. An ordinary user cannot write to this directory, and often cannot
create it. Other programs write to /run as well, for example iptables to /run/xtables.lock. So a tmpfs covers /run in
the mount namespace of the shell. Each old entry is bind-mounted into the tmpfs, so that sockets (D-Bus, Wayland) and
the target of /etc/resolv.conf stay reachable. An overlay would need only one mount, but connect(2) to a socket in its
lower layer fails: unix_find_bsd() (net/unix/af_unix.c) compares inodes, and an overlay has inodes of its own.
"""

import contextlib
import os

from virtfs.host.mount_call import bind, mount_tmpfs

_RUN = "/run"
_NAMED = "netns"


def cover_run(names: bool) -> None:
    """Cover /run in this mount namespace with a tmpfs and bind the old entries into it.

    names: whether to keep the named namespaces of ip-netns(8) visible. This is useful if the caller may enter them.
    OSError: mount(2) failed.
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
    """Return whether this user can access an entry.

    Binding an inaccessible entry, such as xtables.lock, would only keep the user from creating a file of that name.
    """
    return entry.is_symlink() or any(os.access(entry.path, how) for how in (os.R_OK, os.W_OK, os.X_OK))


def _show(source: str, target: str) -> None:
    """Bind an entry to its new path. Skip an entry that no longer exists or whose mount is unbindable."""
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
