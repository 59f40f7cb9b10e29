"""`mount -o remount`: change the flags of a mount while it is served. No other option can change."""

import errno
import json
import os
from contextlib import suppress
from dataclasses import replace
from functools import partial

from virtfs.cli.options import MountOptions, parse
from virtfs.cli.shell_mark import remedy
from virtfs.cli.surroundings import complain
from virtfs.core.errors import VirtError
from virtfs.fuse.hanging import unless_stopped
from virtfs.fuse.mount import change_flags
from virtfs.fuse.mounttable import Mounted, mounted_at, resolve
from virtfs.host.textfiles import read_text

# MS_DIRSYNC of linux/mount.h; statvfs(3) has no such flag. The other flags have the same values in mount(2) and
# statvfs(3).
_MS_DIRSYNC = 128
_FLAGS = {
    "ro": os.ST_RDONLY,
    "noexec": os.ST_NOEXEC,
    "noatime": os.ST_NOATIME,
    "sync": os.ST_SYNCHRONOUS,
    "dirsync": _MS_DIRSYNC,
}
# The flags that keep their value unless an option changes it.
_KEPT = os.ST_RDONLY | os.ST_NOEXEC | os.ST_SYNCHRONOUS | os.ST_NOATIME | os.ST_NODIRATIME
# The flags that every mount has. A remount by mount(8) that does not run mount.virtfs drops them.
_ALWAYS = os.ST_NOSUID | os.ST_NODEV


def remount(directory: str, text: str, sloppy: bool = False, program: str = "virtfs") -> None:
    """Apply the flags in a list of options to a mounted virtfs. Other flags keep their values.

    mount(8) repeats the options from fstab(5) or from the mount table. So an option that is not a flag is accepted if
    it does not change the mount.

    program: the name that messages begin with. VirtError: EINVAL, no virtfs is mounted at the directory, or an option
    that is not a flag would change; EPERM, the caller is not root; EBUSY, the server is stopped; any other errno, the
    mount's options cannot be read.
    """
    path = resolve(directory)
    mount = mounted_at(path)
    if mount is None or not mount.virtfs:
        what = "is not mounted" if mount is None else f"is a mount of {mount.source} ({mount.type}), not of virtfs"
        raise VirtError(errno.EINVAL, f'"{directory}" {what}')
    options = parse(without_present(mount, text), sloppy)
    unless_stopped(path, lambda: _ask(path), partial(complain, program))
    _refuse_changes(mount, options)
    try:
        flags = os.statvfs(path).f_flag & _KEPT | _ALWAYS
    except OSError as e:
        raise _unreadable(directory, e) from None
    if "dirsync" in mount.options:
        flags |= _MS_DIRSYNC
    for name, on in options.flags:
        if name in _FLAGS:
            flags = flags | _FLAGS[name] if on else flags & ~_FLAGS[name]
    change_flags(path, flags)


def without_present(mount: Mounted, text: str) -> str:
    """Return a list of options without those that a mount has. mount(8) repeats these, such as user_id=0."""
    return ",".join(word for word in text.split(",") if word not in mount.options)


def _ask(path: str) -> int:
    """Wait until the server of a mount answers. Errors are ignored here, because later calls report them."""
    with suppress(OSError):
        os.statvfs(path)
    return 0


def _refuse_changes(mount: Mounted, options: MountOptions) -> None:
    again = f'while "{mount.directory}" is mounted: run "virtfs umount {mount.directory}", then mount it again'
    try:
        said: str = json.loads(read_text(os.path.join(mount.directory, "status.json")))["options"]
    except OSError as e:
        raise _unreadable(mount.directory, e) from None
    now, wanted = parse(said).own(), replace(options, limits=options.limits.consistent()).own()
    for name in sorted(options.given):
        if now[name] != wanted[name]:
            change = f'change "{now[name]}" to' if now[name] else "add"
            raise VirtError(errno.EINVAL, f'cannot {change} "{wanted[name]}" {again}')
    if options.source not in (None, mount.source):
        raise VirtError(errno.EINVAL, f'cannot change "fsname={mount.source}" to "fsname={options.source}" {again}')
    # remount() has removed the options that the mount already has. So an allow_other that is still here is new.
    if dict(options.flags).get("allow_other"):
        raise VirtError(errno.EINVAL, f'cannot add "allow_other" {again}')


def _unreadable(directory: str, error: OSError) -> VirtError:
    why = f": {remedy(directory)}" if error.errno == errno.ENOTCONN else ""
    sentence = f'cannot read the current options of "{directory}": {error.strerror}{why}'
    return VirtError(error.errno or errno.EIO, sentence)
