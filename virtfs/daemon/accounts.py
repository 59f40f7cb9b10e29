"""Users and groups by name or number. Names are remembered, for looking one up may ask a server."""

import errno
import grp
import pwd
from functools import lru_cache

from virtfs.core.errors import VirtError
from virtfs.core.ids import Gid, Uid


def user_id(text: str) -> Uid:
    """The uid of a name or number; EINVAL when no such name is known."""
    if text.isascii() and text.isdecimal():
        return Uid(int(text))
    try:
        return Uid(pwd.getpwnam(text).pw_uid)
    except KeyError:
        raise VirtError(errno.EINVAL, f'owner: there is no user "{text}"') from None


def group_id(text: str) -> Gid:
    """The gid of a name or number; EINVAL when no such name is known."""
    if text.isascii() and text.isdecimal():
        return Gid(int(text))
    try:
        return Gid(grp.getgrnam(text).gr_gid)
    except KeyError:
        raise VirtError(errno.EINVAL, f'group: there is no group "{text}"') from None


@lru_cache(maxsize=1024)
def user_name(uid: Uid) -> str:
    """The name of a uid, its number when it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@lru_cache(maxsize=1024)
def group_name(gid: Gid) -> str:
    """The name of a gid, its number when it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
