"""`mount -o remount`: what of a mount can change while it is served, which are the kernel's flags."""

import errno
import json
import os

from virtfs.cli.options import MountOptions, parse
from virtfs.core.errors import VirtError
from virtfs.fuse.mount import change_flags
from virtfs.fuse.mounttable import Mounted, mounted_at, resolve

_MS_DIRSYNC = 128  # linux/mount.h, where the other flags have the values that statvfs(3) has
_FLAGS = {
    "ro": os.ST_RDONLY,
    "noexec": os.ST_NOEXEC,
    "noatime": os.ST_NOATIME,
    "sync": os.ST_SYNCHRONOUS,
    "dirsync": _MS_DIRSYNC,
}
_KEPT = os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_SYNCHRONOUS | os.ST_NOATIME | os.ST_NODIRATIME


def remount(directory: str, text: str, sloppy: bool = False) -> None:
    """Make the flags of a mounted virtfs what a list of options says; nothing else of it can change.

    mount(8) repeats the options of fstab(5), or those that the kernel's table shows: what is so already is accepted.
    VirtError: EINVAL nothing, or no virtfs, is mounted there, or an option would change; EPERM not root; what keeps
    the mount from telling how it is.
    """
    path = resolve(directory)
    mount = mounted_at(path)
    if mount is None or not mount.virtfs:
        what = "is not mounted" if mount is None else f"is not a virtfs but {mount.source} ({mount.type})"
        raise VirtError(errno.EINVAL, f'"{directory}" {what}')
    options = parse(",".join(word for word in text.split(",") if word not in mount.options), sloppy)
    _refuse_changes(mount, options)
    try:
        flags = os.statvfs(path).f_flag & _KEPT
    except OSError as e:
        raise _silent(directory, e) from None
    if "dirsync" in mount.options:
        flags |= _MS_DIRSYNC
    for name, on in options.flags:
        if name in _FLAGS:
            flags = flags | _FLAGS[name] if on else flags & ~_FLAGS[name]
    change_flags(path, flags)


def _refuse_changes(mount: Mounted, options: MountOptions) -> None:
    again = f'while it is mounted: "virtfs umount {mount.directory}", then mount it'
    try:
        with open(os.path.join(mount.directory, "status.json")) as status:
            said: str = json.load(status)["options"]
    except OSError as e:
        raise _silent(mount.directory, e) from None
    now, wanted = parse(said).own(), options.own()
    for name in sorted(options.given):
        if now[name] != wanted[name]:
            raise VirtError(errno.EINVAL, f'"{wanted[name]}" cannot replace "{now[name] or f"no {name}"}" {again}')
    if options.source not in (None, mount.source):
        raise VirtError(errno.EINVAL, f'"fsname={options.source}" cannot replace "{mount.source}" {again}')
    if dict(options.flags).get("allow_other"):  # else it is among the mount's options
        raise VirtError(errno.EINVAL, f'"allow_other" cannot be added {again}')


def _silent(directory: str, error: OSError) -> VirtError:
    return VirtError(error.errno or errno.EIO, f'"{directory}" does not say how it is mounted: {error.strerror}')
