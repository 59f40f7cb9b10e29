"""Why the kernel denies a user access to a file of a mount, or a new file in it.

The kernel checks the permission bits before it asks the server, so last_error has no sentence about such an error.
"""

import grp
import os
import pwd
import re
import stat

from virtfs.cli.shell_mark import inside
from virtfs.fuse.mounttable import Mounted, mount_of

_VIRT = re.compile(r"(virt[0-9]+)(/|$)")


def why_denied(path: str) -> str:
    """Return the reason why the user may not use a file of a mount, or "" if the file is in no virtfs mount.

    Call this where a call on the mount may hang, because it calls stat(2) on files of the mount.
    """
    path = os.path.abspath(path)
    mount = mount_of(path)
    if mount is None or not mount.virtfs:
        return ""
    maker = int(mount.option("user_id") or 0)
    if not _admits(mount, maker):
        return f"only {_user(maker)} may use this mount, because it was made without allow_other"
    name = os.path.relpath(path, mount.directory)
    virt = _VIRT.match(name)
    try:
        own, frame = os.stat(path), os.stat(os.path.join(mount.directory, virt[1], "frame") if virt else path)
    except OSError:
        return ""
    if virt is None or own.st_uid != frame.st_uid:
        return "only root may do this"
    owner = f"{_user(frame.st_uid)}{f':{_group(frame.st_gid)}' if frame.st_gid else ''}"
    return f"{virt[1]} belongs to {owner}, and its mode is {stat.S_IMODE(frame.st_mode):04o}"


def why_not_made(path: str) -> str:
    """Return the reason why a new file cannot be made there, or "" if that is in no virtfs mount or the file exists."""
    mount = mount_of(os.path.dirname(os.path.abspath(path)))
    if mount is None or not mount.virtfs or os.path.lexists(path):
        return ""
    if os.path.isabs(path):
        return "no file can be made in a virtfs mount"
    keep = "; virtfs shell keeps yours if -- stands before the command" if inside() else ""
    return f"the working directory is the mount, in which no file can be made: name another directory{keep}"


def _admits(mount: Mounted, maker: int) -> bool:
    """Return whether FUSE lets this user use the mount at all (fs/fuse/dir.c fuse_allow_current_process)."""
    return "allow_other" in mount.options or os.geteuid() == maker


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"group {gid}"
