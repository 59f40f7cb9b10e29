"""Users and groups by name or number. Names are remembered, for looking one up may ask a server."""

import errno
import grp
import pwd
from functools import lru_cache
from pathlib import Path

from virtfs.core.errors import VirtError
from virtfs.core.ids import Gid, Uid
from virtfs.host.descriptors import one_left


def _extents(kind: str) -> tuple[tuple[int, int], ...]:
    """Return first id and count of each range in /proc/self/uid_map or gid_map: user_namespaces(7)."""
    lines = Path(f"/proc/self/{kind}_map").read_text().splitlines()
    return tuple((int(first), int(count)) for first, _, count in (line.split() for line in lines))


# Read once, while there is a descriptor for it: a map is written before the first program runs, and never again.
_MAPPED = {kind: _extents(kind) for kind in ("uid", "gid")}


def user_id(text: str) -> Uid:
    """Return the uid of a name or number. EINVAL: unknown name, or a uid that the server's user namespace lacks."""
    if text.isascii() and text.isdecimal():
        uid = int(text)
    else:
        try:
            uid = pwd.getpwnam(text).pw_uid
        except KeyError:
            one_left()
            raise VirtError(errno.EINVAL, f'owner: there is no user "{text}"') from None
    _check_mapped("owner", "uid", uid, text)
    return Uid(uid)


def group_id(text: str) -> Gid:
    """Return the gid of a name or number. EINVAL: unknown name, or a gid that the server's user namespace lacks."""
    if text.isascii() and text.isdecimal():
        gid = int(text)
    else:
        try:
            gid = grp.getgrnam(text).gr_gid
        except KeyError:
            one_left()
            raise VirtError(errno.EINVAL, f'group: there is no group "{text}"') from None
    _check_mapped("group", "gid", gid, text)
    return Gid(gid)


def _check_mapped(verb: str, kind: str, number: int, text: str) -> None:
    """Raise EINVAL, as chown(2) does, unless the id is mapped: the kernel shows its files as the overflow uid's."""
    extents = _MAPPED[kind]
    if any(first <= number < first + count for first, count in extents):
        return
    what = f"{kind} {number}" if text.isdecimal() else f'{kind} {number}, "{text}"'
    sentence = f"{verb}: this user namespace has no {what}"
    if sum(count for _, count in extents) == 1:
        sentence += f"; `virtfs shell` has more with new{kind}map (package uidmap) and a range in /etc/sub{kind}"
    raise VirtError(errno.EINVAL, sentence)


def user_name(uid: Uid) -> str:
    """The name of a uid, its number when it has none, or none can be looked up now."""
    try:
        return _user(uid)
    except OSError:
        return str(uid)


def group_name(gid: Gid) -> str:
    """The name of a gid, its number when it has none, or none can be looked up now."""
    try:
        return _group(gid)
    except OSError:
        return str(gid)


@lru_cache(maxsize=1024)
def _user(uid: Uid) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        one_left()  # what is raised is not remembered
        return str(uid)


@lru_cache(maxsize=1024)
def _group(gid: Gid) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        one_left()
        return str(gid)
