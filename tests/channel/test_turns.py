"""Several users at one channel: the requests of one do not stand between another and the channel."""

import errno
import itertools
import os
from collections import deque
from collections.abc import Callable
from time import thread_time_ns
from typing import Any

import pytest
import trio
from harness.channels import Answer, Bench, Talk, TalkHandle, channel, request
from harness.in_trio import in_trio

from virtfs.core.ids import User
from virtfs.core.memory import Kind, Memory
from virtfs.forward.wire import HEADROOM
from virtfs.fuse import channel as channel_module
from virtfs.fuse import protocol as p
from virtfs.fuse import turns
from virtfs.fuse.inodes_handles import Handles
from virtfs.fuse.turns import Got

ALICE, BOB = 1000, 1001
MS = 1_000_000


@pytest.fixture
def busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the channel measure the processor time of its thread: a busy machine makes no difference.

    Otherwise a user would be charged for other programs that run during a request, and rightly lose precedence.
    """
    for module in (channel_module, turns):
        monkeypatch.setattr(module, "monotonic_ns", thread_time_ns)


def work(method: str) -> None:
    """Take a millisecond of the channel's time, as a long write does."""
    end = thread_time_ns() + MS
    while thread_time_ns() < end:
        pass


def write(bench: Bench, fh: int, unique: int, uid: int, data: bytes = b"data") -> None:
    body = p.fuse_write_in.pack(fh, 0, len(data), 0, 0, 0, 0) + data
    bench.send(request(p.FUSE_WRITE, unique, 2, body, uid))


@pytest.mark.usefixtures("busy_machine")
@in_trio
async def test_a_request_of_another_user_overtakes_those_that_wait() -> None:
    async with channel() as bench:
        bench.channel._loop = None  # it has a clock of its own
        talk = Talk()
        fh = await bench.open(talk)
        talk.first = work
        write(bench, fh, 2, BOB)
        for unique in range(100, 160, 2):
            write(bench, fh, unique, ALICE)
        write(bench, fh, 1000, BOB)
        order = [answer.unique for answer in await bench.answers()]
        assert sorted(order) == [2, *range(100, 160, 2), 1000], "each is answered once"
        alice = [unique for unique in order if 100 <= unique < 160]
        assert alice == [*range(100, 160, 2)], "in order for each user"
        assert order.index(1000) < 10
        assert len(talk.heard) == 32


@pytest.mark.usefixtures("busy_machine")
@in_trio
async def test_a_signal_ends_a_request_that_waits_for_its_turn() -> None:
    async with channel() as bench:
        bench.channel._loop = None  # it has a clock of its own
        talk = Talk()
        fh = await bench.open(talk)
        talk.first = work
        write(bench, fh, 2, BOB)
        for unique in range(100, 140, 2):
            write(bench, fh, unique, ALICE)
        bench.send(request(p.FUSE_INTERRUPT, 139, 0, p.fuse_interrupt_in.pack(138), 0))
        answers = await bench.answers()
        assert Answer(-errno.EINTR, 138, b"") in answers
        assert len(answers) == 21
        assert len(talk.heard) == 20, "the interrupted write has no effect"


@pytest.mark.usefixtures("busy_machine")
@in_trio
async def test_other_tasks_run_while_several_users_send_without_a_pause() -> None:
    async with channel() as bench, trio.open_nursery() as nursery:
        bench.channel._loop = None  # it has a clock of its own
        talk = Talk()
        fh = await bench.open(talk)
        talk.first = work
        seen = set()

        async def look() -> None:
            while len(talk.heard) < 40:
                seen.add(len(talk.heard))
                await trio.lowlevel.checkpoint()

        nursery.start_soon(look)
        for unique in range(2, 82, 4):
            write(bench, fh, unique, BOB)
            write(bench, fh, unique + 2, ALICE)
        assert len(await bench.answers()) == 40
    assert len(seen) > 8, "a write takes 1 ms, and after 2 ms another task has a turn"


class Filled(Talk):
    """A file whose interrupted reads return a filler, as those of pcap do."""

    def open(self, flags: int, user: User) -> TalkHandle:
        return FilledHandle(self, user)


class FilledHandle(TalkHandle):
    def interrupted(self, room: memoryview, size: int) -> int:
        room[HEADROOM : HEADROOM + 6] = b"filler"
        return 6


@pytest.mark.usefixtures("busy_machine")
@in_trio
async def test_a_signal_to_a_read_that_waits_for_its_turn() -> None:
    """It ends as if it had waited for data: a reader of pcap survives Ctrl-Z and strace."""
    async with channel() as bench:
        bench.channel._loop = None  # it has a clock of its own
        talk = Filled()
        fh = await bench.open(talk)
        talk.first = work
        write(bench, fh, 2, BOB)
        for unique in range(100, 120, 2):
            write(bench, fh, unique, ALICE)
        body = p.fuse_read_in.pack(fh, 0, 4096, p.FUSE_READ_LOCKOWNER, 7, os.O_RDWR, 0)
        bench.send(request(p.FUSE_READ, 120, 2, body, ALICE))
        bench.send(request(p.FUSE_INTERRUPT, 121, 0, p.fuse_interrupt_in.pack(120), 0))
        assert Answer(0, 120, b"filler") in await bench.answers()


@pytest.mark.usefixtures("busy_machine")
@in_trio
async def test_what_waits_is_bounded() -> None:
    async with channel(memory=(memory := Memory(each=100_000))) as bench:
        bench.channel._loop = None  # it has a clock of its own
        talk = Talk()
        fh = await bench.open(talk)
        talk.first = work
        write(bench, fh, 2, BOB)
        for unique in range(100, 120, 2):
            write(bench, fh, unique, ALICE, bytes(30_000))
        answers = await bench.answers()
        assert len(answers) == 11
        refused = [answer.unique for answer in answers if answer.error == -errno.ENOBUFS]
        assert refused
        assert memory.left([Kind.REQUESTS]) == {}
        assert len(talk.heard) == 11 - len(refused)


@in_trio
async def test_the_slow_plane_gets_one_request_of_a_user_at_a_time() -> None:
    async with channel() as bench:
        inode = bench.inodes.number(bench.root)
        bench.send(request(p.FUSE_STATFS, 2, inode, b"", BOB))
        for unique in range(100, 110, 2):
            bench.send(request(p.FUSE_STATFS, unique, inode, b"", ALICE))
        seen = []
        while messages := await bench.forwarded():
            for message in messages:
                unique = p.fuse_in_header.unpack_from(message)[2]
                seen.append(unique)
                bench.reply(p.fuse_out_header.pack(p.REPLY, -errno.ENOENT, unique))
            await bench.answers()
        assert sorted(seen) == [2, *range(100, 110, 2)]
        assert not bench.channel._turns.elsewhere


class Clocked:
    """Turns on a fake clock. read: called for each read of /dev/fuse, with the arguments of turns.Read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, read: Callable[[int, bool, int], Got]) -> None:
        self.now = 0
        monkeypatch.setattr(turns, "monotonic_ns", lambda: self.now)
        self.turns = turns.Turns(Handles(Memory()), lambda unique, error: None)
        self.room = memoryview(bytearray(p.LONGEST_REQUEST))
        self._read = read
        for uid in (ALICE, BOB):
            self.turns.meet(uid, p.FUSE_WRITE)
        assert (self.turns.crowded, self.turns.alone) == (True, turns.NOBODY)

    def next(self) -> int | None:
        """Return the unique number of the request to answer now, or None."""
        message, length = self.turns.next(self._read, self.room, lambda *request: False, self.now + 2 * MS)
        return None if length is None else p.fuse_in_header.unpack_from(message)[2]

    def nothing(self) -> Got:
        return Got(None, empty=self.now)

    def arrive(self, unique: int, uid: int) -> Got:
        body = p.fuse_write_in.pack(1, 0, 4, 0, 0, 0, 0) + b"data"
        message = request(p.FUSE_WRITE, unique, 2, body, uid)
        self.room[: len(message)] = message
        return Got(len(message))


def test_a_user_who_is_left_alone_is_served_as_one_user_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """While there are several users, a frame takes several times as long."""
    pending: list[int] = []
    clocked = Clocked(monkeypatch, lambda *_: clocked.arrive(pending.pop(), ALICE) if pending else clocked.nothing())
    these = clocked.turns
    for _ in range(30):
        clocked.now += turns.CALM // 10
        pending.append(2)
        while these.crowded and clocked.next() is not None:
            pass
    assert (these.crowded, these.alone) == (False, ALICE)
    these.meet(ALICE, p.FUSE_WRITE)
    assert (these.crowded, these.alone) == (False, ALICE)
    these.meet(BOB, p.FUSE_WRITE)
    assert (these.crowded, these.alone) == (True, turns.NOBODY)


def test_the_compiled_loop_serves_the_user_who_takes_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alice waits for each answer, and Bob has 50 threads. The compiled loop may answer her requests, but not his."""
    asked: list[int] = []
    pending: deque[tuple[int, int]] = deque()
    busy = False  # whether Alice has a request whenever /dev/fuse is read

    def read(uid: int, polls: bool, until: int) -> Got:
        assert clocked.now <= until <= clocked.now + 2 * MS
        asked.append(uid)
        answered = busy and uid == ALICE
        clocked.now += 1_000 + 5_000 * answered
        length = clocked.arrive(*pending.popleft())[0] if pending else None
        return Got(length, answered, 5_000 * answered, clocked.now, clocked.now if length is None else 0)

    clocked = Clocked(monkeypatch, read)
    for unique in range(2, 42, 2):  # this shows how soon Alice sends the next request
        pending.append((unique, ALICE))
        while clocked.next() is None:
            pass
        clocked.turns.spent(5_000, clocked.now)
    pending.extend((unique, BOB) for unique in range(100, 150))
    busy = True
    asked.clear()
    served: list[int] = []
    while len(served) < 50 and len(asked) < 10_000:
        if (answer := clocked.next()) is not None:
            served.append(answer)
            clocked.turns.spent(200_000, clocked.now)
            clocked.now += 200_000
    assert served == list(range(100, 150))
    assert 5_000 * asked.count(ALICE) > 50 * 200_000, "she is given more time than he: he has more requests waiting"


@in_trio
async def test_the_channel_sleeps_while_slow_requests_are_queued() -> None:
    async with channel() as bench:
        inode, calls, of_turns = bench.inodes.number(bench.root), 0, bench.channel._turns
        next_ = of_turns.next

        def counted(*given: Any) -> tuple[memoryview, int | None]:
            nonlocal calls
            calls += 1
            return next_(*given)

        of_turns.next = counted  # type: ignore[method-assign,assignment]
        bench.send(request(p.FUSE_STATFS, 2, inode, b"", BOB))
        for unique in range(100, 140, 2):
            bench.send(request(p.FUSE_STATFS, unique, inode, b"", ALICE))
        assert len(await bench.forwarded()) >= 2  # Bob's and Alice's first; after LAPSE, her next
        await trio.sleep(2 * turns.LAPSE / 1e9)
        assert calls < 200, "the queued requests wait for an answer, which does not come"
        await bench.refuse_all()


@in_trio
async def test_taps_are_looked_at_between_short_bursts() -> None:
    """The requests of all calls of the compiled loop count, not only those of one call."""
    async with channel() as bench:
        given = []

        class Loop:
            """In place of the compiled loop: answers three requests in each call."""

            requests = spent = ended = empty = 0

            def answer(self, uid: int, looks: int, again: int, left: int, until: int) -> tuple[None, int, int]:
                given.append(left)
                return None, 0, max(left - 3, 0)

        bench.channel._loop = Loop()  # type: ignore[assignment]
        for _ in range(12):
            bench.channel._read(ALICE, False, 0)
        assert given == [32, 29, 26, 23, 20, 17, 14, 11, 8, 5, 2, 32]


def test_one_user_who_never_pauses_is_served_as_one_user_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if /dev/fuse is never found empty."""
    uniques = itertools.count(2, 2)
    clocked = Clocked(monkeypatch, lambda *_: clocked.arrive(next(uniques), ALICE))
    clocked.turns._share.spend(BOB, 1000 * MS, 0)  # so that her requests are answered without being queued
    for _ in range(30):
        if not clocked.turns.crowded:
            break
        clocked.now += turns.CALM // 10
        clocked.next()
        clocked.turns.spent(MS, clocked.now)
    assert (clocked.turns.crowded, clocked.turns.alone) == (False, ALICE)


def test_the_compiled_loop_waits_for_requests_only_while_nobody_else_has_any(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []

    def read(uid: int, polls: bool, until: int) -> Got:
        waits.append(polls)
        return clocked.nothing() if len(waits) > 3 else clocked.arrive(len(waits), BOB)

    clocked = Clocked(monkeypatch, read)
    clocked.turns.spent(1_000, 0)
    while clocked.next() is None:
        pass
    clocked.next()
    assert waits[0]
    assert not any(waits[4:])


@in_trio
async def test_work_of_other_tasks_is_charged_while_the_channel_waits() -> None:
    with pytest.MonkeyPatch.context() as patch:
        clocked = Clocked(patch, lambda *_: clocked.nothing())
        these, (wakes, wake) = clocked.turns, os.pipe()

        async def script() -> None:
            clocked.now += MS // 2
            os.write(wake, b"x")

        async with trio.open_nursery() as nursery:
            these.begin(ALICE, slow=False)
            for _ in range(100):  # trio chooses by chance whether the script or the channel runs first
                nursery.start_soon(script)
                await these.wait(wakes)
            user, lead = these._share.first((ALICE, BOB), clocked.now)
            assert user == BOB
            assert lead >= MS
        os.close(wakes)
        os.close(wake)
