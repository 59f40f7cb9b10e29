"""The channel's answers for open streams, as the kernel sees them."""

import errno
import os
import select
from collections.abc import Callable

import pytest
import trio
from harness.channels import CALLER, Answer, Talk, TalkHandle, channel, notification
from harness.in_trio import in_trio
from harness.recorded import FRAME_SESSION, IOCTL

from virtfs.core.errors import VirtError
from virtfs.core.ids import Gid, Uid, User
from virtfs.core.memory import Memory
from virtfs.files.node import ROOT
from virtfs.files.text import Text
from virtfs.fuse import protocol as p
from virtfs.fuse.parked import AT_ONCE
from virtfs.fuse.text_pollers import texts_changed


def stumble(*methods: str) -> Callable[[str], None]:
    """Return a function for Talk.first that raises ValueError in the given methods."""

    def first(method: str) -> None:
        if method in methods:
            raise ValueError(f"a fault in {method}")

    return first


@in_trio
async def test_recorded_session_is_answered_as_recorded() -> None:
    async with channel() as bench:
        bench.open_text(lambda user: "")  # the recorded session had ctl open, with the first fh
        assert [bench.place(Talk(), name) for name in ("ctl", "virt3", "frame")] == [2, 3, 4]
        for message, reply in FRAME_SESSION:
            bench.send(message)
            answers = await bench.answers()
            if message is IOCTL:
                continue  # only the frame file answers so: see test_frame
            if reply is None:
                assert answers == []
            else:
                (answer,) = answers
                (error, unique), body = p.fuse_out_header.unpack_from(reply)[1:], reply[p.REPLY :]
                assert answer == Answer(error, unique, body)


@in_trio
async def test_open_says_direct_nonseekable_stream_and_who_opens() -> None:
    async with channel() as bench:
        talk = Talk()
        flags = os.O_RDWR | os.O_NONBLOCK
        answer = await bench.ask(p.FUSE_OPEN, bench.place(talk), p.fuse_open_in.pack(flags, 0))
        assert answer.error == 0
        fh, said, _ = p.fuse_open_out.unpack(answer.body)
        assert said & 0b11111 == 1 | 4 | 16  # linux/fuse.h: FOPEN_DIRECT_IO, FOPEN_NONSEEKABLE, FOPEN_STREAM
        ((opened_with, user),) = talk.opened
        assert opened_with == flags
        assert (user.uid, user.gid, user.pid) == (1000, 1001, CALLER)
        assert fh != await bench.open(talk)


@in_trio
async def test_open_of_what_is_gone_or_refuses() -> None:
    class Shut(Talk):
        def open(self, flags: int, user: User) -> TalkHandle:
            raise VirtError(errno.EBUSY, "in use")

    async with channel() as bench:
        assert (await bench.ask(p.FUSE_OPEN, 999, p.fuse_open_in.pack(0, 0))).error == -errno.ENXIO
        shut = bench.place(Shut())
        assert (await bench.ask(p.FUSE_OPEN, shut, p.fuse_open_in.pack(0, 0))).error == -errno.EBUSY
        assert not bench.handles.devices


@in_trio
async def test_read_is_answered_at_once() -> None:
    async with channel() as bench:
        fh = await bench.open(Talk(b"first", b"second", b"too long"))
        unique = bench.read(fh)
        assert await bench.answers() == [Answer(0, unique, b"first")]
        uniques = [bench.read(fh), bench.read(fh, size=3)]
        assert await bench.answers() == [Answer(0, uniques[0], b"second"), Answer(0, uniques[1], b"too")]


@in_trio
async def test_read_waits_and_is_answered_on_wake() -> None:
    async with channel() as bench:
        talk = Talk()
        fh = await bench.open(talk)
        unique = bench.read(fh, size=3)
        assert await bench.answers() == []
        assert talk.started == 1
        talk.waiters.wake()  # without data
        assert await bench.answers() == []
        talk.say(b"frame")
        assert await bench.answers() == [Answer(0, unique, b"fra")]
        talk.waiters.wake()
        assert await bench.answers() == [], "answered twice"
        assert not talk.waiters


@in_trio
async def test_nonblock_is_seen_at_each_read() -> None:
    async with channel() as bench:
        talk = Talk()
        fh = await bench.open(talk)
        unique = bench.read(fh, flags=os.O_RDWR | os.O_NONBLOCK)
        assert await bench.answers() == [Answer(-errno.EAGAIN, unique, b"")]
        waiting = bench.read(fh)
        assert await bench.answers() == []
        unique = bench.read(fh, flags=os.O_NONBLOCK)
        assert await bench.answers() == [Answer(-errno.EAGAIN, unique, b"")]
        talk.say(b"frame")
        assert await bench.answers() == [Answer(0, waiting, b"frame")]


@in_trio
async def test_interrupt_ends_one_read_and_takes_nothing() -> None:
    async with channel() as bench:
        talk = Talk()
        fh = await bench.open(talk)
        killed, other = bench.read(fh), bench.read(fh)
        assert await bench.answers() == []
        bench.request(p.FUSE_INTERRUPT, 0, p.fuse_interrupt_in.pack(killed))
        assert await bench.answers() == [Answer(-errno.EINTR, killed, b"")]
        talk.say(b"one", b"two")
        assert await bench.answers() == [Answer(0, other, b"one")]
        unique = bench.read(fh)
        assert await bench.answers() == [Answer(0, unique, b"two")]


@in_trio
async def test_interrupt_of_what_does_not_wait_is_ignored() -> None:
    async with channel() as bench:
        fh = await bench.open(Talk(b"frame"))
        done = bench.read(fh)
        assert len(await bench.answers()) == 1
        for unique in (done, 0, 2**64 - 1):
            bench.request(p.FUSE_INTERRUPT, 0, p.fuse_interrupt_in.pack(unique))
        assert await bench.answers() == []
        assert await bench.forwarded() == []


@in_trio
async def test_waiting_readers_are_served_in_order() -> None:
    async with channel() as bench:
        talk = Talk()
        handles = [await bench.open(talk) for _ in range(3)]
        uniques = [bench.read(fh) for fh in (*handles, *handles)]
        assert await bench.answers() == []
        talk.say(b"1")
        assert await bench.answers() == [Answer(0, uniques[0], b"1")]
        talk.say(b"2", b"3", b"4")
        assert await bench.answers() == [Answer(0, u, b) for u, b in zip(uniques[1:4], (b"2", b"3", b"4"), strict=True)]
        bench.request(p.FUSE_INTERRUPT, 0, p.fuse_interrupt_in.pack(uniques[4]))
        assert len(await bench.answers()) == 1
        talk.say(b"5")
        assert await bench.answers() == [Answer(0, uniques[5], b"5")]


@in_trio
async def test_five_hundred_wait_and_another_is_answered() -> None:
    async with channel() as bench:
        if not bench.has_room:
            pytest.skip("needs root: a socket buffer of more than a megabyte")
        talk, other = Talk(), Talk(b"here")
        fh, free = await bench.open(talk), await bench.open(other)
        uniques = []
        for _ in range(500):
            uniques.append(bench.read(fh))
            assert await bench.answers() == []
        unique = bench.read(free)
        assert await bench.answers() == [Answer(0, unique, b"here")]
        talk.say(*[b"x"] * 500)
        assert [answer.unique for answer in await bench.answers()] == uniques


@in_trio
async def test_write_is_taken_whole_and_its_size_said() -> None:
    async with channel() as bench:
        talk = Talk()
        fh = await bench.open(talk)
        frames = [b"", b"x", bytes(range(256)) * 256]
        for frame in frames:
            unique = bench.write(fh, frame)
            assert await bench.answers() == [Answer(0, unique, p.fuse_write_out.pack(len(frame), 0))]
        assert talk.heard == frames


@in_trio
async def test_largest_write_arrives() -> None:
    async with channel() as bench:
        talk = Talk()
        fh = await bench.open(talk)
        try:
            bench.write(fh, bytes(p.MAX_WRITE))
        except OSError:
            pytest.skip("needs root: a socket buffer of more than a megabyte")
        assert len(await bench.answers()) == 1
        assert [len(frame) for frame in talk.heard] == [p.MAX_WRITE]


@in_trio
async def test_write_goes_through_while_a_read_of_the_same_handle_waits() -> None:
    async with channel() as bench:
        talk = Talk()
        fh = await bench.open(talk)
        reading = bench.read(fh)
        writing = bench.write(fh, b"out")
        assert [answer.unique for answer in await bench.answers()] == [writing]
        talk.say(b"in")
        assert await bench.answers() == [Answer(0, reading, b"in")]


@in_trio
async def test_poll_notifies_once_and_only_whom_asked() -> None:
    async with channel() as bench:
        talk = Talk()
        asks, looks = await bench.open(talk), await bench.open(talk)
        assert await bench.poll(looks, kh=7, schedule=False) == select.POLLOUT
        assert await bench.poll(asks, kh=8, schedule=True) == select.POLLOUT
        assert talk.started == 1
        talk.waiters.wake()  # without a new event
        assert await bench.answers() == []
        talk.say(b"frame")
        assert await bench.answers() == [notification(8)]
        talk.say(b"another")
        assert await bench.answers() == [], "a wake-up that no poll asked for"
        assert await bench.poll(looks, kh=7, schedule=False) == select.POLLOUT | select.POLLIN
        assert await bench.poll(asks, kh=8, schedule=True) == select.POLLOUT | select.POLLIN
        talk.say(b"a third")  # edge-triggered epoll(7) needs a wake-up although earlier frames are unread
        assert await bench.answers() == [notification(8)]


@in_trio
async def test_poll_of_a_text_then_of_a_stream() -> None:
    """ENOSYS for the text would make every stream always ready (fs/fuse/file.c fuse_file_poll, no_poll)."""
    now = "old\n"
    async with channel() as bench:
        text = bench.open_text(lambda user: now)
        assert await bench.poll(text, kh=1, schedule=True) == select.POLLIN | select.POLLOUT
        handle = bench.handles.texts[next(iter(bench.handles.texts))]
        await handle.renew()
        assert handle.read(0, 100) == b"old\n"
        await texts_changed(bench.handles, bench.channel.answers)  # another text has changed
        assert await bench.answers() == []
        now = "new\n"
        await texts_changed(bench.handles, bench.channel.answers)
        await texts_changed(bench.handles, bench.channel.answers)
        assert await bench.answers() == [notification(1)]
        expected = select.POLLIN | select.POLLOUT | select.POLLPRI | select.POLLERR
        assert await bench.poll(text, kh=1, schedule=True) == expected
        stream = await bench.open(Talk())
        assert await bench.poll(stream, kh=2, schedule=True) == select.POLLOUT
        assert await bench.forwarded() == []


@in_trio
async def test_ioctl() -> None:
    async with channel() as bench:
        fh = await bench.open(Talk())

        async def ioctl(command: int, argument: bytes, out_size: int) -> Answer:
            body = p.fuse_ioctl_in.pack(fh, 0, command, 0x7FFF0000, len(argument), out_size) + argument
            return await bench.ask(p.FUSE_IOCTL, 2, body)

        answer = await ioctl(1, b"abcd", 4)
        assert answer.error == 0
        assert answer.body == p.fuse_ioctl_out.pack(0, 0, 0, 0) + b"dcba"
        answer = await ioctl(1, b"abcd", 2)
        assert answer.body == p.fuse_ioctl_out.pack(0, 0, 0, 0) + b"dc", "more than the caller has room for"
        assert await ioctl(0, b"", 0) == Answer(-errno.ENOTTY, answer.unique + 2, b"")


@in_trio
async def test_flush_is_answered_for_every_handle() -> None:
    async with channel() as bench:
        stream, text = await bench.open(Talk()), bench.open_text(lambda user: "")
        for fh in (stream, text, 12345):
            answer = await bench.ask(p.FUSE_FLUSH, 2, p.fuse_fh.pack(fh) + bytes(16))
            assert (answer.error, answer.body) == (0, b"")
        assert await bench.forwarded() == []


@pytest.mark.parametrize(
    ("opcode", "error"),
    [
        (p.FUSE_FSYNC, errno.EINVAL),
        (p.FUSE_FALLOCATE, errno.EOPNOTSUPP),
        (p.FUSE_LSEEK, errno.ESPIPE),
        (p.FUSE_COPY_FILE_RANGE, errno.EINVAL),
    ],
)
def test_what_a_character_device_refuses(opcode: int, error: int) -> None:
    @in_trio
    async def run() -> None:
        async with channel() as bench:
            fh = await bench.open(Talk())
            answer = await bench.ask(opcode, 2, p.fuse_fh.pack(fh) + bytes(48))
            assert answer.error == -error
            assert await bench.forwarded() == []

    run()


@in_trio
async def test_release_forgets_the_poll() -> None:
    async with channel() as bench:
        talk = Talk()
        closed, still = await bench.open(talk), await bench.open(talk)
        await bench.poll(closed, kh=1, schedule=True)
        await bench.poll(still, kh=2, schedule=True)
        body = p.fuse_fh.pack(closed) + bytes(16)
        assert (await bench.ask(p.FUSE_RELEASE, 2, body)).error == 0
        assert talk.released == 1
        talk.say(b"frame")
        assert await bench.answers() == [notification(2)]
        bench.read(closed)
        await bench.answers()
        assert talk.to_say, "a closed handle reads no frame"


@in_trio
async def test_release_with_a_waiting_read_ends_nothing_else() -> None:
    """The kernel sends a release only after the last read is answered. This test sends it earlier."""
    async with channel() as bench:
        talk = Talk()
        closed, still = await bench.open(talk), await bench.open(talk)
        bench.read(closed)
        waiting = bench.read(still)
        assert (await bench.ask(p.FUSE_RELEASE, 2, p.fuse_fh.pack(closed) + bytes(16))).error == 0
        talk.say(b"1", b"2")
        assert waiting in [answer.unique for answer in await bench.answers()]
        assert not talk.waiters


@in_trio
async def test_fault_in_a_handle_is_eio_and_the_rest_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async with channel() as bench:
        talk = Talk(ValueError("a fault"), VirtError(errno.EHOSTDOWN, "down"), b"after")
        fh = await bench.open(talk)
        uniques = [bench.read(fh) for _ in range(3)]
        assert await bench.answers() == [
            Answer(-errno.EIO, uniques[0], b""),
            Answer(-errno.EHOSTDOWN, uniques[1], b""),
            Answer(0, uniques[2], b"after"),
        ]
        talk.first = stumble("write", "poll", "ioctl")
        unique = bench.write(fh, b"a frame")
        assert await bench.answers() == [Answer(-errno.EIO, unique, b"")]
        assert (await bench.ask(p.FUSE_POLL, 2, p.fuse_poll_in.pack(fh, 1, 1, 1))).error == -errno.EIO
        assert (await bench.ask(p.FUSE_IOCTL, 2, p.fuse_ioctl_in.pack(fh, 0, 1, 0, 0, 0))).error == -errno.EIO
        waiting = [bench.read(fh) for _ in range(3)]
        assert await bench.answers() == []
        talk.say(ValueError("another"), OSError(errno.ENXIO, "gone"), b"and after")
        assert await bench.answers() == [
            Answer(-errno.EIO, waiting[0], b""),
            Answer(-errno.ENXIO, waiting[1], b""),
            Answer(0, waiting[2], b"and after"),
        ]
    assert "a fault in write" in caplog.text, "the traceback is in the log"


@in_trio
async def test_never_says_enosys() -> None:
    async with channel() as bench:
        fh = await bench.open(Talk(OSError(errno.ENOSYS, "said by something below")))
        bench.read(fh)
        (answer,) = await bench.answers()
        assert answer.error == -errno.EOPNOTSUPP


@in_trio
async def test_fault_in_poll_does_not_reach_whoever_wakes(caplog: pytest.LogCaptureFixture) -> None:
    """Wake-ups run in a wire's task. If a faulty handle ended that task, the mount would end."""
    async with channel() as bench:
        talk = Talk()
        fh = await bench.open(talk)
        await bench.poll(fh, kh=1, schedule=True)
        talk.first = stumble("poll")
        talk.say(b"frame")
        unique = bench.read(fh)
        assert Answer(0, unique, b"frame") in await bench.answers()
    assert "a fault in poll" in caplog.text


@in_trio
async def test_a_read_that_wakes_the_others_disturbs_nobody() -> None:
    """A source may wake waiters during a read, for instance because the read makes room."""
    async with channel() as bench:
        talk = Talk()
        fh = await bench.open(talk)
        uniques = [bench.read(fh) for _ in range(3)]
        assert await bench.answers() == []
        depth = 0

        def wake_once(method: str) -> None:
            nonlocal depth
            depth += 1
            if depth == 1:
                talk.waiters.wake()

        talk.first = wake_once
        talk.say(b"1", b"2", b"3", b"4")
        answers = await bench.answers()
        assert sorted(answer.unique for answer in answers) == uniques
        assert sorted(answer.body for answer in answers) == [b"1", b"2", b"3"]
        assert list(talk.to_say) == [b"4"]


@in_trio
async def test_end_answers_all_who_wait() -> None:
    async with channel() as bench:
        talk = Talk()
        fh = await bench.open(talk)
        await bench.poll(await bench.open(talk), kh=5, schedule=True)
        uniques = {bench.read(fh) for _ in range(3)}
        assert await bench.answers() == []
        bench.channel.end()
        answers = await bench.answers()
        assert {answer.unique for answer in answers if answer.error == -errno.ENXIO} == uniques
        assert notification(5) in answers
        talk.say(b"late")
        assert [answer for answer in await bench.answers() if answer.unique] == []


@in_trio
async def test_readers_of_one_queue_are_not_all_tried() -> None:
    """A frame for one of a hundred waiting readers must not cost a hundred reads."""
    async with channel() as bench:
        talk = Talk()
        talk.waiters.one_queue = True
        fh = await bench.open(talk)
        readers = [bench.read(fh, 100) for _ in range(100)]
        assert await bench.answers() == []
        calls: list[str] = []
        talk.first = calls.append
        talk.to_say.append(b"one")
        talk.waiters.wake()
        assert await bench.answers() == [Answer(0, readers[0], b"one")]
        assert calls.count("read") == 2


@in_trio
async def test_many_waiting_calls_are_served_in_slices() -> None:
    """All of them are served, in the order of their arrival, and other requests are answered in between."""
    async with channel() as bench:
        talk, other = Talk(), Talk(b"other")
        fh, free = await bench.open(talk), await bench.open(other)
        readers = [bench.read(fh, 100) for _ in range(5 * AT_ONCE)]
        polls = [await bench.open(talk) for _ in range(2)]
        for kh, poller in enumerate(polls):
            assert await bench.poll(poller, kh, schedule=True) == select.POLLOUT
        assert await bench.answers() == []
        between = bench.read(free, 100)
        talk.say(*(b"%d" % number for number in range(len(readers))))
        answers = await bench.answers()
        assert [answer for answer in answers if not answer.unique] == [notification(kh) for kh in range(2)]
        order = [answer.unique for answer in answers if answer.unique]
        assert order.index(between) <= 2 * AT_ONCE
        order.remove(between)
        assert order[:AT_ONCE] == readers[:AT_ONCE]
        assert sorted(order) == readers


@in_trio
async def test_a_wake_while_many_calls_are_served_loses_none() -> None:
    async with channel() as bench:
        talk = Talk()
        fh = await bench.open(talk)
        readers = [bench.read(fh, 100) for _ in range(5 * AT_ONCE)]
        assert await bench.answers() == []
        talk.waiters.wake()  # nobody finds anything
        for number in range(len(readers)):
            talk.say(b"%d" % number)
        answers = await bench.answers()
        assert sorted(answer.unique for answer in answers) == readers


@in_trio
async def test_a_poll_after_a_change_is_woken_when_the_text_may_be_made_again() -> None:
    """The change came before the poll, and the text is too recent to be made again at once."""
    async with channel() as bench:
        version = 1
        node = Text(ROOT, lambda user: f"{version}\n", changes=lambda: version)
        handle = node.open(User(Uid(0), Gid(0), 1), Memory())
        fh = bench.handles.add_text(handle)
        handle.take(await node.fresh(handle.user))
        node._work = 0.005  # so the next text for pollers may be made after 0.1 s
        version = 2
        assert await bench.poll(fh, 7, schedule=True) == select.POLLIN | select.POLLOUT
        answers: list[Answer] = []
        while not answers:
            answers = await bench.answers()
            await trio.sleep(0.01)
        assert answers == [notification(7)]
        assert await bench.poll(fh, 7, schedule=False) & select.POLLPRI
