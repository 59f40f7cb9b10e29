"""Share the time of one server between users: fair queueing by time, with anticipation.

Each user has an account of the time that the server has spent on the user's requests. The next request is that of the
user with the lowest account. This is start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996) with measured costs: a
user who returns after a pause starts at the account of the user in service, so time that was not used cannot be saved.

A program that waits for each answer before it sends its next request has nothing waiting at most moments. Without
anticipation, a user with long requests would be served at each of these moments. So the server holds the request of a
user while another one with a lower account is likely to send a request soon. This is anticipatory scheduling (Iyer,
Druschel, SOSP 2001): "soon" is learned from the pauses between an answer and the next request of the same user, and
there is an upper limit. Short requests are not held, because the server would be idle for longer than they take.

This module has no clock: the caller passes times in nanoseconds.
"""

from collections.abc import Collection, Iterable
from typing import Generic, TypeVar

HOLD = 400_000  # maximum time in ns that requests are held for another user who has no request waiting
HOLD_BUSY = 2_000_000  # the same while another task works on a request of that user
SLACK = 50_000  # ns added to the expected pause of a user, because pauses vary
BULK = 3  # weight of the time spent on a user who has more requests waiting
GONE = 2_000_000  # ns; a user without a request for so long has left
OWED = 4_000_000  # maximum time in ns by which the account of a user may lag behind

K = TypeVar("K")


class _Account:
    __slots__ = ("begun", "busy", "cost", "ended", "pause", "used")

    def __init__(self, used: int, now: int) -> None:
        self.used = used  # time spent on this user, in ns
        self.ended = now  # when the last request was answered
        self.busy = 0  # requests that another task is working on
        self.begun = now  # when the last of these began
        self.cost = 0  # expected time that a request takes
        self.pause = HOLD  # expected time from an answer to the next request; a new user has to show that it is short


class FairShare(Generic[K]):
    """The accounts of the users of one server. K: the type that identifies a user."""

    def __init__(self) -> None:
        self._accounts: dict[K, _Account] = {}
        self._now_at = 0  # the account of the user who was served last, at that time

    def arrive(self, user: K, now: int, empty: int) -> None:
        """Record that a request of a user has arrived.

        empty: when the server last looked for requests and found none. The request has arrived between `empty` and
        `now`. The server may have worked for somebody else meanwhile, so the pause of the user ended at `empty` or
        later.
        """
        account = self._accounts.get(user)
        if account is None:
            self._accounts[user] = _Account(self._now_at, now)
            return
        pause = max(empty - account.ended, 0)
        if pause > GONE and not account.busy:
            account.used = max(account.used, self._now_at)
        else:
            account.used = max(account.used, self._now_at - OWED)
        account.pause += (min(pause, 2 * HOLD) - account.pause) // 4
        account.ended = now

    def spend(self, user: K, time: int, now: int, bulk: bool = False) -> None:
        """Charge a user for `time` ns of work that has just ended.

        bulk: whether the user has more requests waiting. Time is then charged BULK times, because a user who waits for
        each answer loses more by a delay than the other one gains.
        """
        account = self._accounts.get(user)
        if account is not None:
            account.used += BULK * time if bulk else time
            account.cost += (time - account.cost) // 4
            account.ended = now

    def begin(self, user: K, now: int) -> None:
        """Record that another task works on a request of a user from now on."""
        account = self._accounts.get(user)
        if account is None:
            account = self._accounts[user] = _Account(self._now_at, now)
        account.busy += 1
        account.begun = now

    def end(self, user: K, now: int) -> None:
        """Record that another task has answered a request of a user. Ignore requests without a begin()."""
        account = self._accounts.get(user)
        if account is not None and account.busy:
            account.busy -= 1
            account.ended = now

    def spend_elsewhere(self, time: int) -> None:
        """Charge the users for whom other tasks work, for `time` ns of the work of these tasks."""
        busy = [account for account in self._accounts.values() if account.busy]
        for account in busy:
            account.used += time // len(busy)

    @property
    def busy(self) -> bool:
        """Whether another task works on a request of any user."""
        return any(account.busy for account in self._accounts.values())

    def choose(self, waiting: Collection[K], now: int) -> K | None:
        """Return the user to serve next, out of those who have a request waiting.

        Return None if nobody is waiting, or if the requests are held for a user who is likely to send one soon.
        """
        accounts = self._accounts
        first, used = None, 0
        for user in waiting:
            account = accounts[user]
            if first is None or account.used < used:
                first, used = user, account.used
        if first is None:
            return None
        cost = accounts[first].cost
        for user, account in accounts.items():
            if account.used < used and user not in waiting and _comes(account, cost, now):
                return None
        self._now_at = used
        return first

    def least(self, user: K) -> bool:
        """Return whether no other user has a lower account than this one."""
        used = self._accounts[user].used
        return all(account.used >= used for account in self._accounts.values())

    def forget(self, waiting: Iterable[K], now: int, age: int) -> list[K]:
        """Forget the users without a request for `age` ns. Return the others. waiting: the users to keep."""
        keep = set(waiting)
        for user, account in list(self._accounts.items()):
            if user not in keep and not account.busy and now - account.ended > age:
                del self._accounts[user]
        return list(self._accounts)


def _comes(account: _Account, cost: int, now: int) -> bool:
    """Return whether a request of a user, or the end of one, is likely to come soon, and is worth a wait.

    cost: the expected time of the request that would be held. If it is shorter than a turn of this user, from one
    request to the next, then it can delay the user by less than that, and the user keeps more than half of the rate.
    """
    if account.busy:
        return now - account.begun < HOLD_BUSY
    if cost < account.pause + account.cost:
        return False
    return account.pause < HOLD and now - account.ended < min(2 * account.pause + SLACK, HOLD)
