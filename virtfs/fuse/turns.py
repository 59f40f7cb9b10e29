"""Choose the next request from /dev/fuse when several users send requests at the same time.

While only one user sends requests, the channel reads and answers them in order. As soon as a second user appears, the
channel reads ahead. It copies requests into a queue for each user, so that one user's requests do not delay another's.
core.fair_share chooses the user to serve next. If that user's request is the next one on /dev/fuse, it is answered
without being copied. A thread waits for the answer to its request, so a user's queue has at most one request for each
thread. The bytes in a queue are bounded too.

A user has two queues: one for requests that the channel answers itself, and one for requests that other tasks answer.
At most AT_ONCE of the latter are in progress at a time, because those tasks serve requests in the order of arrival.
"""

from collections import Counter, deque
from collections.abc import Callable
from errno import EINTR
from time import monotonic_ns
from typing import NamedTuple

import trio

from virtfs.core.errors import VirtError
from virtfs.core.fair_share import FairShare
from virtfs.core.ids import Uid, User
from virtfs.core.memory import REQUEST, Kind
from virtfs.files.device import ParkedRead, Unique
from virtfs.fuse import protocol as p
from virtfs.fuse.inodes_handles import HandleId, Handles

NOBODY = -1  # no uid
# AT_ONCE: while there are several users, the maximum number of one user's requests in progress in the slow plane. A
# request that takes longer than LAPSE ns is assumed to wait for the kernel and does not count.
AT_ONCE, LAPSE = 1, 5_000_000
# Charge in ns for a request to the slow plane. Its true cost cannot be measured, because several tasks work on it.
PRICE = 250_000
SHORT_TURN = 100_000  # maximum time in ns before other tasks run, while they work on a request
CALM = 20_000_000  # a user counts as alone after this many ns without a request from another user
READS = 64  # maximum number of requests read before one is answered

# Requests without a user: their header has uid 0, whoever caused them (fs/fuse/dev.c fuse_args_to_req, nocreds).
_OF_NOBODY = frozenset((p.FUSE_INTERRUPT, p.FUSE_FORGET, p.FUSE_BATCH_FORGET, p.FUSE_INIT))
_RELEASES = frozenset((p.FUSE_RELEASE, p.FUSE_RELEASEDIR))


class Got(NamedTuple):
    """What a Read returns.

    length: that of a request that is to be answered, or None. requests: number of requests already answered. spent: the
    time in ns that they took. ended: when the last of them ended. empty: when /dev/fuse was last found empty, or 0 if
    it was not. All times are in ns (monotonic_ns).
    """

    length: int | None
    requests: int = 0
    spent: int = 0
    ended: int = 0
    empty: int = 0


# Answers plain requests of a user (or of NOBODY) until a time, and returns the first other request from /dev/fuse. The
# arguments are the uid, whether to wait for further requests of this user, and the time in ns (monotonic_ns).
Read = Callable[[int, bool, int], Got]
# One of: a request, in an array at least as long as request_head, and its length; the number of a write request to
# continue; the event that lets a script run its next line.
_Message = tuple[bytearray, int] | Unique | trio.Event


class Turns:
    """The requests of one FUSE connection that have been read but not begun.

    crowded: whether there is more than one user. alone: the uid of the only user, or NOBODY.
    user: the uid of the request that next() returned last, or NOBODY.
    fail: answers a request with an errno.
    """

    def __init__(self, handles: Handles, fail: Callable[[Unique, int], None]) -> None:
        self.crowded = False
        self.alone = NOBODY
        self.user = NOBODY
        self._handles = handles
        self._fail = fail
        self._share: FairShare[int] = FairShare()
        self._queues: dict[tuple[int, bool], deque[_Message]] = {}
        self._slow: Counter[int] = Counter()  # requests in progress in the slow plane, by user
        self._elsewhere: Counter[int] = Counter()  # requests in progress in any task, including the slow plane, by user
        self._begun: dict[int, int] = {}  # when each user's latest request to the slow plane began
        self._held = False  # whether next() held back all requests
        self._wake = trio.CancelScope()
        self._ended = False  # whether an event has ended the wait that began last
        self._continued: Unique | trio.Event | None = None
        self._empty = 0  # when /dev/fuse was last found empty
        self._look = 0  # when to check next whether there are still several users

    @property
    def waiting(self) -> bool:
        """Whether a queue has an entry, or a write or script can continue now."""
        return bool(self._queues) or self._continued is not None

    @property
    def held(self) -> bool:
        """Whether requests are held back because another user is likely to send one soon.

        False while other tasks work on requests.
        """
        return self._held and not self._elsewhere

    async def wait(self, fuse: int) -> None:
        """Wait until next() may return another result.

        A request on /dev/fuse, an answer by another task, or a newly queued write or script ends the wait. If requests
        are queued, the wait lasts at most LAPSE ns. Other tasks that work on requests run first, and their time is
        charged.
        """
        if self._held or (self.crowded and self._elsewhere):
            began, self._ended = monotonic_ns(), False
            await trio.lowlevel.checkpoint()
            self.spent_elsewhere(monotonic_ns() - began)
            if self._held or self._ended:
                return
        with trio.CancelScope() as self._wake:
            if self._queues:
                self._wake.deadline = trio.current_time() + LAPSE / 1e9
            await trio.lowlevel.wait_readable(fuse)

    def _end_wait(self) -> None:
        """End wait(), or the next wait if that has not begun."""
        self._ended = True
        self._wake.cancel()

    @property
    def elsewhere(self) -> bool:
        """Whether other tasks work on a request."""
        return bool(self._elsewhere)

    def meet(self, uid: int, opcode: int) -> None:
        """Record a request. Those of the user who is `alone` may be left out.

        The first user becomes `alone`. When a request of a second user is recorded, `crowded` becomes true.
        """
        if opcode in _OF_NOBODY or opcode in _RELEASES:
            return
        if self.alone in (NOBODY, uid):
            self.alone = uid
            return
        now = monotonic_ns()
        self.crowded, self._look = True, now + CALM
        self._share = FairShare()
        for user, requests in self._elsewhere.items():
            for _ in range(requests):
                self._share.begin(user, now)
        self._empty = now
        for user in (self.alone, uid):
            self._share.arrive(user, now, now)
        self.user, self.alone = uid, NOBODY

    def next(
        self, read: Read, room: memoryview, is_slow: Callable[[int, int, HandleId], bool], turn: int
    ) -> tuple[memoryview, int | None]:
        """Return the request to answer now, and its length. The length is None if no request is to be answered now.

        The result is valid until the next call.
        read: first answers plain requests of one user until a time, then reads another request into `room`; see Read.
        is_slow: returns whether another task answers a request; its arguments are those of Answerers.slow().
        turn: when to return at the latest, in ns (monotonic_ns).
        OSError: reading /dev/fuse failed.
        """
        now = monotonic_ns()
        if now > self._look:
            self._look_around(now)
            if not self.crowded:
                return room, None
        polls = not self._elsewhere and (self._held or not self.waiting)
        self._held = False
        if self._elsewhere:
            turn = min(turn, now + SHORT_TURN)
        for _ in range(READS):
            waiting = {uid for uid, _ in self._queues}
            first, lead = self._share.first(waiting, self._empty)
            favoured = NOBODY if first is None or first in waiting else first
            length, requests, spent, ended, empty = read(favoured, polls, min(turn, now + lead) if waiting else turn)
            if requests and first is not None:
                self._share.arrive(first, now, self._empty)
                self._share.served(first, requests, spent, ended)
            if requests or polls:
                now = monotonic_ns()
            self._empty = max(self._empty, empty)
            if length is None:
                break
            _, opcode, unique, inode, uid, _, _, _, _ = p.fuse_in_header.unpack_from(room)
            if length < p.BODY or opcode in _OF_NOBODY:
                self.user = NOBODY
                return room, length
            fh = HandleId(p.fuse_fh.unpack_from(room, p.BODY)[0] if length >= p.BODY + p.fuse_fh.size else 0)
            if opcode in _RELEASES:
                uid = self._opener(fh)
            self._share.arrive(uid, now, self._empty)
            slow = is_slow(opcode, inode, fh)
            # No other user takes precedence, and this user has no earlier request: it need not be queued.
            if uid not in waiting and self._share.least(uid) and self._may(uid, slow, now):
                self._share.choose((uid,), now)
                self.user = uid
                return room, length
            self._queue((uid, slow), Unique(unique), room[:length])
            before, now = now, monotonic_ns()
            self._share.spend(uid, now - before, now, bulk=True)
        users = {uid for uid, slow in self._queues if self._may(uid, slow, now)}
        uid = self._share.choose(users, now)
        if uid is None:
            self._held = bool(users)
            return room, None
        self.user = uid
        message = self._pop((uid, (uid, False) not in self._queues))
        if not isinstance(message, tuple):
            self._continued = message
            return room, None
        return memoryview(message[0]), message[1]

    def again(self, uid: int, unique: Unique) -> None:
        """Queue a write that has yielded to other requests. The write resumes at its user's next turn."""
        now = monotonic_ns()
        if not self.crowded:
            self.crowded, self._look = True, now + CALM
            self._share, self.alone = FairShare(), NOBODY
        self._share.arrive(uid, now, now)
        self._queues.setdefault((uid, False), deque()).append(unique)
        self._end_wait()

    async def turn(self, user: User) -> None:
        """Wait for a user's turn to run the next line of a script, which is a write of several lines to ctl.

        If this call is cancelled, its entry in the user's queue has no effect.
        """
        if not self.crowded:
            await trio.lowlevel.checkpoint()
            return
        event = trio.Event()
        now = monotonic_ns()
        self._share.arrive(user.uid, now, now)
        self._queues.setdefault((user.uid, False), deque()).append(event)
        self._end_wait()
        await event.wait()

    def continued(self) -> Unique | trio.Event | None:
        """Return the write or script to continue now, or None. Call this after next() has returned no request.

        A second call returns None.
        """
        continued, self._continued = self._continued, None
        return continued

    def _may(self, uid: int, slow: bool, now: int) -> bool:
        return not slow or self._slow[uid] < AT_ONCE or now - self._begun.get(uid, 0) > LAPSE

    def _opener(self, fh: HandleId) -> int:
        opener = self._handles.opener(fh)
        return 0 if opener is None else opener.uid

    def _queue(self, key: tuple[int, bool], unique: Unique, message: memoryview) -> None:
        uid, memory = Uid(key[0]), self._handles.memory
        size = REQUEST + len(message)
        if len(message) > p.DATA:
            try:
                memory.check(Kind.REQUESTS, uid, size)
            except VirtError as refusal:
                self._fail(unique, refusal.errno)
                return
        memory.add(Kind.REQUESTS, uid, size)
        room = bytearray(max(len(message), p.request_head.size))
        room[: len(message)] = message
        self._queues.setdefault(key, deque()).append((room, len(message)))

    def _pop(self, key: tuple[int, bool]) -> _Message:
        message = self._queues[key].popleft()
        self._removed(key, message)
        return message

    def _removed(self, key: tuple[int, bool], message: _Message) -> None:
        if not self._queues[key]:
            del self._queues[key]
        if isinstance(message, tuple):
            self._handles.memory.add(Kind.REQUESTS, Uid(key[0]), -(REQUEST + message[1]))

    def _look_around(self, now: int) -> None:
        """Set `crowded` to false if at most one user is left."""
        self._look = now + CALM
        users = self._share.forget([uid for uid, _ in self._queues], now, CALM)
        if len(users) <= 1 and not self._queues:
            self.crowded, self.alone = False, users[0] if users else NOBODY

    # The time that requests take

    def spent(self, time: int, now: int) -> None:
        """Charge the user of the last request for the `time` ns that it took."""
        if self.user != NOBODY:
            bulk = (self.user, False) in self._queues or (self.user, True) in self._queues
            self._share.spend(self.user, time, now, bulk)

    def spent_elsewhere(self, time: int) -> None:
        """Charge `time` ns, spent by other tasks, in equal shares to the users for whom those tasks work."""
        self._share.spend_elsewhere(time)

    def begin(self, uid: int, slow: bool) -> None:
        """Record that another task starts to work on a request. slow: whether the task belongs to the slow plane."""
        now = monotonic_ns()
        self._elsewhere[uid] += 1
        if slow:
            self._slow[uid] += 1
            self._begun[uid] = now
        if self.crowded:
            self._share.begin(uid, now)
            if slow:
                self._share.spend(uid, PRICE, now, bulk=(uid, True) in self._queues)

    def end(self, uid: int, slow: bool) -> None:
        """Record that another task has answered a request. slow: as in begin()."""
        self._elsewhere -= Counter((uid,))
        if slow:
            self._slow -= Counter((uid,))
            if not self._slow[uid]:
                self._begun.pop(uid, None)
        if self.crowded:
            self._share.end(uid, monotonic_ns())
            self._end_wait()

    # Requests that have not begun

    def interrupt(self, unique: Unique) -> ParkedRead | None:
        """End a queued read or write of a device file, because its caller got a signal. Ignore any other request.

        A write is answered with EINTR. A read is returned unanswered. The channel then ends it like a waiting read.
        """
        if (found := self._find(unique)) is None:
            return None
        message, length = found[1]
        opcode, _, _, thread, fh, offset, size, _, _ = p.request_head.unpack_from(message)
        handle = self._handles.devices.get(fh)
        if handle is not None and opcode == p.FUSE_READ and length == p.DATA:
            self._remove(*found)
            return ParkedRead(handle, size, offset, thread)
        if handle is not None and opcode == p.FUSE_WRITE:
            self.cancel(unique)
        return None

    def caller(self, unique: Unique) -> int | None:
        """Return the thread that made a request, or None if the request is not queued."""
        found = self._find(unique)
        return None if found is None else p.fuse_in_header.unpack_from(found[1][0])[6]

    def cancel(self, unique: Unique) -> None:
        """Answer a queued request with EINTR. Ignore any other request."""
        if (found := self._find(unique)) is not None:
            self._remove(*found)
            self._fail(unique, EINTR)

    def _find(self, unique: Unique) -> tuple[tuple[int, bool], tuple[bytearray, int]] | None:
        """Return the key of the queue that holds this request, and the request. Return None if it is not queued."""
        for key, queue in self._queues.items():
            for message in queue:
                if isinstance(message, tuple) and p.fuse_in_header.unpack_from(message[0])[2] == unique:
                    return key, message
        return None

    def _remove(self, key: tuple[int, bool], message: _Message) -> None:
        self._queues[key].remove(message)
        self._removed(key, message)

    def end_all(self, error: int) -> None:
        """Answer every queued request with an errno, let queued scripts continue, and forget all users."""
        for key in tuple(self._queues):
            while key in self._queues:
                message = self._pop(key)
                if isinstance(message, trio.Event):
                    message.set()
                elif isinstance(message, tuple):
                    self._fail(Unique(p.fuse_in_header.unpack_from(message[0])[2]), error)
        self.crowded, self.alone, self._held = False, NOBODY, False
