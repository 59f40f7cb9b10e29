"""Fuzzing of the channel: messages of any content to a fake /dev/fuse, with the compiled loop if it has been built."""

import logging
import os
from contextlib import suppress
from random import Random

from harness.channels import Talk, channel, request
from harness.in_trio import in_trio
from harness.recorded import EVERY
from harness.wires import frame_file, plain_wire

from fuzz.corpus import corpus
from fuzz.mutate import mutate
from virtfs.core.ids import Unit
from virtfs.core.virt import HostEnd, Virt
from virtfs.fuse import protocol as p
from virtfs.host.fakes import FakeTap

OPCODES = tuple(range(1, 54))
SESSION = 400  # messages to one channel


class Complaints(logging.Handler):
    """Keeps what the channel logs, because it logs each unexpected exception."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record with its traceback."""
        self.found.append(logging.Formatter().format(record))


def message(random: Random, kept: list[bytes]) -> bytes:
    """Return a recorded message that has been changed, or a made-up request."""
    if random.random() < 0.5:
        made = mutate(random, kept)
    else:
        numbers = (random.choice((0, 1, 2, 3, 4, 2**31, 2**63, 2**64 - 1)) for _ in range(random.randrange(9)))
        body = b"".join(number.to_bytes(8, "little") for number in numbers)
        body = random.choice((body, body[: random.randrange(len(body) + 1)], mutate(random, [body])))
        made = request(random.choice(OPCODES), random.randrange(1, 2**20), random.randrange(6), body)
    # An INIT of an old protocol ends the mount, as it should.
    return made if made[4:8] != p.FUSE_INIT.to_bytes(4, "little") else made[: p.BODY]


@in_trio
async def session(random: Random, messages: int, complaints: Complaints) -> None:
    """Send messages to a new channel, then assert that it still answers a valid request."""
    kept = [*EVERY, *corpus("channel")]
    tap = FakeTap("tap3")
    virt = Virt(Unit(3), bytes(6), HostEnd("tap3", 7, True, 1500, bytes(6), True, queue=256))
    wire = plain_wire(virt, tap)
    async with channel() as bench:
        talk = Talk(b"one", b"two")
        for stream in (talk, frame_file(wire), talk):  # the recorded requests on frame have the fh 2
            await bench.open(stream)
        bench.open_text(lambda user: "text\n")
        for _ in range(messages):
            sent = message(random, kept)
            if not sent:
                continue
            bench.send(sent)
            await bench.answers()  # asserts that the kernel would accept each
            await bench.refuse_all()
            assert not complaints.found, f"{sent.hex()}: {complaints.found}"
            if random.random() < 0.1:
                talk.say(random.randbytes(random.randrange(100)))
                with suppress(BlockingIOError):
                    tap.host_send(random.randbytes(random.randrange(14, 1515)))
            with suppress(BlockingIOError):
                tap.host_receive()
        await bench.answers()
        fresh = Talk(b"still here")
        inode = bench.place(fresh, "fresh")
        bench.send(request(p.FUSE_OPEN, 2**40, inode, p.fuse_open_in.pack(os.O_RDWR, 0)))
        (answer,) = await bench.answers()
        assert (answer.unique, answer.error) == (2**40, 0)
    wire.close()
    tap.close()


def fuzz(inputs: int, seed: int) -> None:
    """Send messages to channels. AssertionError: a channel has logged an exception, or does not answer any more."""
    random, complaints = Random(seed), Complaints()
    log = logging.getLogger("virtfs")
    log.addHandler(complaints)
    log.propagate = False
    try:
        for begin in range(0, inputs, SESSION):
            session(random, min(SESSION, inputs - begin), complaints)
    finally:
        log.removeHandler(complaints)
        log.propagate = True
