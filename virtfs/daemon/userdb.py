"""Users and groups by name or number.

A lookup may query a server (nsswitch.conf(5)). So it runs in a thread, and names are cached.
"""

import errno
import grp
import pwd
from collections.abc import Callable, Iterable
from typing import TypeVar

import trio

from virtfs.core.arguments import GROUP, USER, Argument
from virtfs.core.errors import VirtError
from virtfs.core.ids import Gid, Uid
from virtfs.core.virt import Virt
from virtfs.forward.tasks import in_thread
from virtfs.host.descriptors import one_left
from virtfs.host.textfiles import read_text

CACHED = 1024  # maximum number of cached user names, and of cached group names

T = TypeVar("T")
U = TypeVar("U")


def _extents(kind: str) -> tuple[tuple[int, int], ...]:
    """Return the first id and the count of each range in /proc/self/{kind}_map (user_namespaces(7))."""
    lines = read_text(f"/proc/self/{kind}_map").splitlines()
    return tuple((int(first), int(count)) for first, _, count in (line.split() for line in lines))


# The maps are read when the module is imported, while a file descriptor is still free. They never change later, because
# they are written before the first program of a user namespace runs.
_MAPPED = {kind: _extents(kind) for kind in ("uid", "gid")}


class Accounts:
    """Looks up users and groups, and caches their names."""

    def __init__(self) -> None:
        self._users: dict[Uid, str] = {}
        self._groups: dict[Gid, str] = {}
        self._one = trio.CapacityLimiter(1)

    async def user_id(self, text: str) -> Uid:
        """Return the uid of a user name or number, and cache the user's name.

        VirtError: EINVAL, the name is unknown, or the uid is not mapped in the user namespace of virtfs; EMFILE, ENFILE
        or ENOMEM, the lookup could not run.
        """
        uid = Uid(await self._id(text, _uid_of, f'owner: there is no user "{text}"'))
        _check_mapped("owner", "uid", uid, text)
        await self.learn([uid], [])
        return uid

    async def group_id(self, text: str) -> Gid:
        """Return the gid of a group name or number, and cache the group's name. Errors: as for user_id()."""
        gid = Gid(await self._id(text, _gid_of, f'group: there is no group "{text}"'))
        _check_mapped("group", "gid", gid, text)
        await self.learn([], [gid])
        return gid

    async def _id(self, text: str, look_up: Callable[[str], int | None], unknown: str) -> int:
        if text.isascii() and text.isdecimal():
            return int(text)
        number = await self._call(look_up, text)
        if number is None:
            raise VirtError(errno.EINVAL, unknown)
        return number

    async def learn_all(self, virts: Iterable[Virt]) -> None:
        """Look up the names of the owners and groups that are not cached yet."""
        virts = list(virts)
        await self.learn({virt.owner for virt in virts}, {virt.group for virt in virts})

    async def learn(self, uids: Iterable[Uid], gids: Iterable[Gid]) -> None:
        """Look up names that are not cached yet. A failed lookup is not cached, so the next call repeats it."""
        for uid in uids:
            await self._learn(self._users, uid, _name_of_user)
        for gid in gids:
            await self._learn(self._groups, gid, _name_of_group)

    async def _learn(self, cache: dict[T, str], number: T, look_up: Callable[[T], str]) -> None:
        if number in cache:
            return
        try:
            name = await self._call(look_up, number)
        except OSError:
            return
        if len(cache) >= CACHED:
            del cache[next(iter(cache))]
        cache[number] = name

    async def _call(self, look_up: Callable[[T], U], argument: T) -> U:
        """Run a lookup in a thread. Cancellation abandons it, so a mount can end even if a name server hangs."""
        return await in_thread(look_up, argument, limiter=self._one, abandon=True)

    def user_name(self, uid: Uid) -> str:
        """Return the cached name of a user, or the uid as text."""
        return self._users.get(uid, str(uid))

    def group_name(self, gid: Gid) -> str:
        """Return the cached name of a group, or the gid as text."""
        return self._groups.get(gid, str(gid))


# These functions block. Python raises KeyError for an unknown name, but also if no file descriptor is free. In the
# latter case, one_left() raises the real error.


def _uid_of(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        one_left()
        return None


def _gid_of(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        one_left()
        return None


def _name_of_user(uid: Uid) -> str:
    try:
        return _or_number(USER, pwd.getpwuid(uid).pw_name, uid)
    except KeyError:
        one_left()
        return str(uid)


def _name_of_group(gid: Gid) -> str:
    try:
        return _or_number(GROUP, grp.getgrgid(gid).gr_name, gid)
    except KeyError:
        one_left()
        return str(gid)


def _or_number(kind: Argument, name: str, number: int) -> str:
    """Return an account's name, or its number if ctl could not parse the name, or would parse it as a number."""
    try:
        kind.parse(name)
    except VirtError:
        return str(number)
    return str(number) if name.isdecimal() else name


def _check_mapped(verb: str, kind: str, number: int, text: str) -> None:
    """Raise EINVAL, as chown(2) does, if the id is not mapped.

    stat(2) of a file whose owner or group is not mapped reports the overflow id (user_namespaces(7)).
    """
    extents = _MAPPED[kind]
    if any(first <= number < first + count for first, count in extents):
        return
    what = f"{kind} {number}" if text.isdecimal() else f'{kind} {number}, "{text}"'
    sentence = f"{verb}: this user namespace has no {what}"
    if sum(count for _, count in extents) == 1:
        sentence += (
            f"; for more ids in `virtfs shell`, install new{kind}map (package uidmap) and add a range to /etc/sub{kind}"
        )
    raise VirtError(errno.EINVAL, sentence)
