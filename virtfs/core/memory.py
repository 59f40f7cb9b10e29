"""Account for the memory that clients can make a mount hold, and refuse requests for more than the limits allow.

Each buffer that a client can fill has a Hold. The Hold charges the buffer's bytes to a kind of memory and to a user:
the user who opened the file, or the owner of the interface whose frames wait. Two limits apply, one to all users
together and one to each user except root.

Kinds belong to levels. A level and all lower levels together may use only a share of each limit. From the lowest level
to the highest:

    COPIES   copies of frames, for history and captures. Frames that do not fit are left out of both.
    QUEUES   waiting frames. Frames that do not fit are dropped, but never because of copies alone.
    CONTENT  the content of open files, unfinished input, capture rings. An open, read or write that does not fit fails.
    BASIC    open files and waiting requests.

So a user who has filled the shares of COPIES and QUEUES with frames can still open ctl to free memory, and can still
read a history that fills the share of COPIES. The last eighth of the limit of all users together is reserved for root,
who must be able to repair a mount that other users have filled.

Sizes are estimates that include the overhead of Python's objects. A charge takes about 1 µs, which is too much for
each frame. So Hold.cover() charges in steps that grow with the buffer, and most frames cost only a comparison.
"""

import errno
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, IntEnum
from fractions import Fraction
from functools import cache

from virtfs.core.errors import VirtError
from virtfs.core.ids import Uid
from virtfs.core.limits import Limits

ROOT = Uid(0)
_USUAL = Limits()
OPEN = 4096  # bytes charged for an open file: its objects, one waiting read or write, and a poller
REQUEST = 1024  # bytes charged for each further waiting request, and for each message that waits for libfuse
PARTED = 64  # maximum number of users who hold nothing and whose refusals are remembered
NAME = 96  # bytes charged for each name in an open directory


class Level(IntEnum):
    """The levels of memory. A lower level is refused earlier. The values are indices into SHARES."""

    COPIES = 0
    QUEUES = 1
    CONTENT = 2
    BASIC = 3


# The share of a limit that each level and all lower levels together may use.
SHARES = (Fraction(1, 3), Fraction(1, 2), Fraction(7, 8), Fraction(1))
_OTHERS = Fraction(7, 8)  # the share of the mount's limit that users other than root may use


class Kind(Enum):
    """The kinds of memory: the name in reports, the level, and a description."""

    FRAMES = "frames", Level.QUEUES, "frames that wait in the server for a reader or a cable, and the backlog"
    DELAYED = "delayed", Level.QUEUES, "frames delayed by an impairment of an interface or a cable"
    HISTORY = "history", Level.COPIES, "frames kept for the file history"
    CAPTURES = "captures", Level.COPIES, "frames waiting for readers of pcap"
    RINGS = "rings", Level.CONTENT, "packet rings of captured interfaces"
    CONTENTS = (
        "contents",
        Level.CONTENT,
        "contents of open histories, texts and directories, unread parts of frames",
    )
    INPUT = "input", Level.CONTENT, "unfinished lines and records, incomplete capture files, and writes in progress"
    OPENS = "opens", Level.BASIC, "open files and directories"
    REQUESTS = "requests", Level.BASIC, "waiting requests, except the first of each open file"

    def __init__(self, label: str, level: Level, meaning: str) -> None:
        self.label = label
        self.level = level
        self.meaning = meaning

    # Enum.__hash__() is written in Python and would take longer than the rest of a charge.
    __hash__ = object.__hash__


# The kinds that belong to an interface, not to an open file.
OF_INTERFACES = (Kind.FRAMES, Kind.DELAYED, Kind.HISTORY, Kind.RINGS)


class Usage:
    """The memory of one kind. now: the bytes in use. highest: their peak. refused: the number of refusals."""

    __slots__ = ("highest", "now", "refused")

    def __init__(self) -> None:
        self.now = self.highest = self.refused = 0


_KINDS = tuple(Kind)


@cache
def _shares(limit: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the attributes `most` and `others` of an account. Cached, because opening a file often creates one."""
    return tuple(int(limit * share) for share in SHARES), tuple(int(limit * share * _OTHERS) for share in SHARES)


class Account:
    """The memory of one user, or of all users together.

    limit: the maximum in bytes.
    kinds: the usage of each kind. In the account of a user, kinds that have never been used are left out, because an
    open or a close often makes and drops such an account.
    upto: for each level, the bytes in use at that level and below.
    most: for each level, the limit on `upto`.
    others: as `most`, but for requests of users other than root. Used only by the account of all users together.
    refused: whether a request was refused.
    """

    __slots__ = ("kinds", "limit", "most", "others", "refused", "upto")

    def __init__(self, limit: int, kinds: Iterable[Kind] = ()) -> None:
        self.limit = limit
        self.kinds = {kind: Usage() for kind in kinds}
        self.upto = [0] * len(SHARES)
        self.refused = False
        self.most, self.others = _shares(limit)

    @property
    def used(self) -> int:
        """The number of bytes in use."""
        return self.upto[Level.BASIC]

    def fits(self, kind: Kind, size: int, most: Sequence[int]) -> bool:
        """Return whether `size` more bytes of a kind fit. most: the attribute `most` or `others` of this account."""
        upto = self.upto
        for level in range(kind.level, len(most)):  # noqa: SIM110, a generator takes twice as long
            if upto[level] + size > most[level]:
                return False
        return True

    def add(self, kind: Kind, size: int) -> None:
        """Add `size`, which may be negative, to the bytes in use."""
        usage = self.kinds.get(kind) or self.usage(kind)
        usage.now += size
        if usage.now > usage.highest:
            usage.highest = usage.now
        for level in range(kind.level, len(SHARES)):
            self.upto[level] += size

    def refuse(self, kind: Kind) -> None:
        """Count a refusal."""
        self.usage(kind).refused += 1
        self.refused = True

    def usage(self, kind: Kind) -> Usage:
        """Return the usage of a kind."""
        return self.kinds.setdefault(kind, Usage())


class Memory:
    """The accounts of one mount.

    total: the limit in bytes of all users together. each: the limit in bytes of each user except root.
    users: the accounts of the users who hold memory now.
    """

    def __init__(self, total: int = _USUAL.memory, each: int = _USUAL.user_memory) -> None:
        self.all = Account(total, _KINDS)
        self.each = each
        self.users: dict[Uid, Account] = {}
        # The accounts of users who hold nothing now and were refused something, the latest last. Without them, nothing
        # would tell who was at the limit once the programs of this user have ended.
        self._parted: dict[Uid, Account] = {}
        self._newcomer = Account(each)

    def hold(self, kind: Kind, uid: Uid | Callable[[], Uid] = ROOT) -> "Hold":
        """Return an empty Hold. uid: the user to charge, or a function that returns this user at each charge."""
        return Hold(self, kind, uid if callable(uid) else lambda: uid)

    def exceeded(self, kind: Kind, uid: Uid, size: int) -> Account | None:
        """Return the account that has no room for `size` more bytes of a kind, or None if they fit."""
        if uid == ROOT:
            return None if self.all.fits(kind, size, self.all.most) else self.all
        user = self.users.get(uid, self._newcomer)
        if not user.fits(kind, size, user.most):
            return user
        return None if self.all.fits(kind, size, self.all.others) else self.all

    def refuse(self, kind: Kind, uid: Uid) -> None:
        """Count a refusal."""
        self.all.refuse(kind)
        user = self.users.get(uid)
        if user is None:
            user = self._parted.pop(uid, None) or Account(self.each)
            self._part(uid, user)
        user.refuse(kind)

    def _part(self, uid: Uid, user: Account) -> None:
        self._parted[uid] = user
        if len(self._parted) > PARTED:
            del self._parted[next(iter(self._parted))]

    def check(self, kind: Kind, uid: Uid, size: int) -> None:
        """Raise VirtError ENOBUFS if `size` more bytes of a kind would exceed a limit. Count this as a refusal."""
        full = self.exceeded(kind, uid, size)
        if full is not None:
            self.refuse(kind, uid)
            whose, option = ("this mount", "max_memory") if full is self.all else (f"user {uid}", "max_user_memory")
            raise VirtError(
                errno.ENOBUFS,
                f"no memory for {size} more bytes of {kind.label}: "
                f"{whose} holds {full.used} of {full.limit} bytes (mount option {option})",
            )

    def add(self, kind: Kind, uid: Uid, size: int) -> None:
        """Add `size`, which may be negative, to the bytes in use of a kind, whatever the limits are."""
        if not size:
            return
        self.all.add(kind, size)
        user = self.users.get(uid)
        if user is None:
            known = self._parted.pop(uid, None) if self._parted else None
            user = self.users[uid] = known or Account(self.each)
        user.add(kind, size)
        if not user.used:
            del self.users[uid]
            if user.refused:
                self._part(uid, user)

    def left(self, kinds: Iterable[Kind]) -> dict[str, int]:
        """Return the bytes in use as a dict keyed by the name of the kind. Kinds with no bytes in use are left out."""
        return {kind.label: now for kind in kinds if (now := self.all.kinds[kind].now)}

    def text(self) -> str:
        """Return the text of the file `memory`: a heading, the totals for all users, and the lines for each user.

        Kinds that have never been used or refused are left out. Users who hold nothing are left out too, except the
        last PARTED of them that were refused something.
        """
        lines = ["USER KIND BYTES HIGHEST REFUSED"]
        users = {**self._parted, **self.users}
        accounts = [("all", self.all), *((str(uid), users[uid]) for uid in sorted(users))]
        for name, account in accounts:
            for kind in _KINDS:
                usage = account.kinds.get(kind)
                if usage is not None and (usage.highest or usage.refused):
                    lines.append(f"{name} {kind.label} {usage.now} {usage.highest} {usage.refused}")
        return "".join(f"{line}\n" for line in lines)

    def describe(self) -> dict[str, object]:
        """Return the object `memory` of status.json.

        It contains for each kind the bytes in use, their peak, and the number of refusals.
        """
        return {
            kind.label: {"bytes": usage.now, "highest": usage.highest, "refused": usage.refused}
            for kind, usage in self.all.kinds.items()
        }


class Hold:
    """The memory of one buffer.

    size: the number of bytes charged. When it grows, all bytes are charged to the user who owns the buffer at that
    time. Shrinking does not change the user.
    """

    __slots__ = ("_kind", "_memory", "_payer", "_uid", "size")

    def __init__(self, memory: Memory, kind: Kind, payer: Callable[[], Uid]) -> None:
        self._memory = memory
        self._kind = kind
        self._payer = payer
        self._uid = ROOT
        self.size = 0

    def resize(self, size: int) -> None:
        """Set the charge to `size` bytes. VirtError ENOBUFS: a limit would be exceeded, and the charge is unchanged.

        Reducing the charge cannot fail.
        """
        if size > self.size:
            uid = self._payer()
            self._memory.check(self._kind, uid, size - (self.size if uid == self._uid else 0))
        self.force(size)

    def grow(self, size: int) -> None:
        """Charge `size` more bytes. The errors are those of resize()."""
        self.resize(self.size + size)

    def cover(self, size: int) -> bool:
        """Set the charge to `size` bytes plus a reserve, so that few further calls are needed.

        If the reserve does not fit, charge `size` bytes only. Return False if even these would exceed a limit; the
        charge is then unchanged. While the buffer is no larger than `self.size`, no call is needed.
        """
        uid = self._payer()
        held = self.size if uid == self._uid else 0
        for wanted in (size + (size >> 3) + 2048, size):
            if self._memory.exceeded(self._kind, uid, wanted - held) is None:
                self.force(wanted)
                return True
        self._memory.refuse(self._kind, uid)
        return False

    def relax(self, size: int) -> None:
        """Reduce the charge of a buffer that has shrunk to `size` bytes, if the difference is large."""
        if self.size > 4 * size + 8192:
            self.resize(size + (size >> 3) + 2048)

    def force(self, size: int) -> None:
        """Set the charge to `size` bytes, whatever the limits are. The caller bounds the size in another way."""
        uid = self._payer() if size > self.size else self._uid
        if uid == self._uid:
            self._memory.add(self._kind, uid, size - self.size)
        else:
            self._memory.add(self._kind, self._uid, -self.size)
            self._memory.add(self._kind, uid, size)
            self._uid = uid
        self.size = size

    def release(self) -> None:
        """Reduce the charge to 0. Idempotent."""
        if self.size:
            self.force(0)
