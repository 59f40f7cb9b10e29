"""Share the time of one server between users: fair queueing by time, with anticipation.

Each user has an account of the time that the server has spent on the user's requests. The user with the lowest account
is served next. This is start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996) with measured costs: a user who
returns after a pause starts with the account of the user in service. So a user cannot save up unused time.

A program that waits for each answer before it sends its next request has no request waiting most of the time. Without
anticipation, a user with long requests would be served in each of these gaps. So the server holds a user's request
while another user, who has a lower account, is likely to send one soon. This is anticipatory scheduling (Iyer,
Druschel, SOSP 2001). "Soon" is learned from the pauses between an answer and the next request of the same user, and has
an upper limit. Short requests are not held, because the server would be idle for longer than they take.

The idle time while a request is held is charged to nobody. So a request is held for at most PATIENCE times the time
that it is expected to take. Without this limit, beside a user with a frame of 60 bytes every 120 µs, a user who writes
256 KiB at a time to `hex` was left with 3 % of the usual rate; with it, with 30 %. Charging a part of the idle time to
the first user was tried too: a ping-pong beside long scripts then kept less than half of its rate (bench/fairness.py).

This module has no clock: the caller passes times in nanoseconds.
"""

from collections.abc import Collection, Iterable
from typing import Generic, TypeVar

HOLD = 400_000  # maximum time in ns that requests are held for another user who has no request waiting
HOLD_BUSY = 2_000_000  # the same maximum while another task is working on a request of that user
SLACK = 50_000  # ns added to the expected pause of a user, because pauses vary
# A request is held for at most PATIENCE times the time that it is expected to take.
PATIENCE = 5
BULK = 3  # weight of the time spent on a user who has more requests waiting
GONE = 2_000_000  # a user who has sent no request for this many ns counts as gone
FORGETTING = 256  # after this many short steps of other tasks, an expected cost has fallen by about two thirds
OWED = 4_000_000  # how far, in ns, a user's account may be below that of the user served last

K = TypeVar("K")


class _Account:
    __slots__ = ("begun", "busy", "cost", "ended", "held", "pause", "used")

    def __init__(self, used: int, now: int) -> None:
        self.used = used  # time spent on this user, in ns
        self.ended = now  # when the last request was answered
        self.busy = 0  # requests that another task is working on
        self.begun = now  # when another task last began a request
        self.cost = 0  # expected time that a request takes
        self.held: int | None = None  # since when a request of this user has been held
        self.pause = HOLD  # expected time from an answer to the next request; a high value until it is measured


class FairShare(Generic[K]):
    """The accounts of the users of one server. K: the type that identifies a user."""

    def __init__(self) -> None:
        self._accounts: dict[K, _Account] = {}
        self._now_at = 0  # `used` of the user that choose() last returned, at that time

    def arrive(self, user: K, now: int, empty: int) -> None:
        """Record that a request of a user has arrived.

        empty: when the server last looked for requests and found none. The request arrived between `empty` and `now`.
        The server may have worked for another user in between, so the pause is measured up to `empty`, not `now`.
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

        bulk: whether the user has more requests waiting. The time is then multiplied by BULK. This favours users who
        wait for each answer, because a delay costs them more than it saves a user with several waiting requests.
        """
        account = self._accounts.get(user)
        if account is not None:
            account.used += BULK * time if bulk else time
            account.cost += (time - account.cost) // 4
            account.ended = now

    def begin(self, user: K, now: int) -> None:
        """Record that another task starts to work on a user's request."""
        account = self._accounts.get(user)
        if account is None:
            account = self._accounts[user] = _Account(self._now_at, now)
        account.busy += 1
        account.begun = now

    def end(self, user: K, now: int) -> None:
        """Record that another task has answered a user's request. Ignore requests without a begin()."""
        account = self._accounts.get(user)
        if account is not None and account.busy:
            account.busy -= 1
            account.ended = now

    def spend_elsewhere(self, time: int) -> None:
        """Charge `time` ns, spent by other tasks, in equal shares to the users for whom those tasks are working.

        A task works in steps, many of which are short. The expected cost of a user's request therefore rises quickly
        after a long step, and falls slowly after short ones.
        """
        busy = [account for account in self._accounts.values() if account.busy]
        for account in busy:
            share = time // len(busy)
            account.used += share
            account.cost += (share - account.cost) // (4 if share > account.cost else FORGETTING)

    @property
    def busy(self) -> bool:
        """Whether another task is working on any user's request."""
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
        chosen = accounts[first]
        if chosen.held is None or now - chosen.held < PATIENCE * chosen.cost:
            for user, account in accounts.items():
                if account.used < used and user not in waiting and _held_for(account, chosen.cost, now):
                    chosen.held = chosen.held or now
                    return None
        chosen.held = None
        self._now_at = used
        return first

    def first(self, waiting: Collection[K], empty: int) -> tuple[K | None, int]:
        """Return the user to serve next and that user's lead, in ns.

        Candidates have a request waiting, or have probably sent one since `empty`, when the server last found none. The
        user has the lowest account of them. The lead is the distance to the next one's account, at most GONE.
        """
        first, lowest, second = None, 0, 0
        for user, account in self._accounts.items():
            if user not in waiting and not _comes(account, empty):
                continue
            used = account.used
            if first is None:
                first, lowest, second = user, used, used + GONE
            elif used < lowest:
                first, lowest, second = user, used, lowest
            elif used < second:
                second = used
        return first, min(second - lowest, GONE)

    def least(self, user: K) -> bool:
        """Return whether no other user's account is lower than this user's."""
        used = self._accounts[user].used
        return not any([account.used < used for account in self._accounts.values()])  # noqa: C419 (three times as fast)

    def served(self, user: K, requests: int, time: int, now: int) -> None:
        """Charge a user for `time` ns spent on `requests` requests that never waited in a queue.

        now: when the last request ended.
        """
        account = self._accounts[user]
        self._now_at = account.used
        account.used += time
        account.cost += (time // requests - account.cost) // 4
        account.ended = now

    def forget(self, waiting: Iterable[K], now: int, age: int) -> list[K]:
        """Forget users who have sent no request in the last `age` ns, except those in `waiting`.

        Users for whom another task is working are also kept. Return the remaining users.
        """
        keep = set(waiting)
        for user, account in list(self._accounts.items()):
            if user not in keep and not account.busy and now - account.ended > age:
                del self._accounts[user]
        return list(self._accounts)


def _held_for(account: _Account, cost: int, now: int) -> bool:
    """Return whether to hold another user's request, because the user of `account` will probably send one soon.

    This user must have no request waiting.
    cost: the expected time of the other user's request. If it is less than the cycle of this user (the time from one
    request to the next), serving the other request delays this user by less than one cycle. This user then keeps more
    than half of the usual rate, so the other request is not held.
    """
    return _comes(account, now) and (account.busy > 0 or cost >= account.pause + account.cost)


def _comes(account: _Account, now: int) -> bool:
    """Return whether a user who has no request waiting is likely to have one soon.

    If another task is working on a request of this user, return True for at most HOLD_BUSY ns.
    """
    if account.busy:
        return now - account.begun < HOLD_BUSY
    return account.pause < HOLD and now - account.ended < min(2 * account.pause + SLACK, HOLD)
