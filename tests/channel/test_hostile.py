"""Whatever bytes arrive, the channel keeps running and answers the next valid request."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from harness.channels import Bench, Talk, channel, request
from harness.in_trio import in_trio
from harness.recorded import EVERY
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from virtfs.fuse import protocol as p
from virtfs.fuse.libfuse_pair import ProtocolTooOld

OPCODES = tuple(sorted({value for name, value in vars(p).items() if name.startswith("FUSE_") and name.isupper()}))
small = st.integers(0, 4)
numbers = small | st.integers(0, 2**64 - 1) | st.sampled_from([2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1])
bodies = st.builds(
    lambda fh, rest, data: fh.to_bytes(8, "little") + b"".join(n.to_bytes(4, "little") for n in rest) + data,
    numbers,
    st.lists(st.integers(0, 2**32 - 1) | small, max_size=12),
    st.binary(max_size=64),
)
made_up = st.builds(
    lambda opcode, unique, inode, body: request(opcode, unique, inode, body),
    st.sampled_from(OPCODES) | st.integers(0, 64) | st.integers(0, 2**32 - 1),
    numbers,
    numbers,
    bodies | st.binary(max_size=200),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Return a recorded message with up to four bytes changed, perhaps truncated or extended."""
    message = bytearray(draw(st.sampled_from(EVERY)))
    for _ in range(draw(st.integers(0, 4))):
        message[draw(st.integers(0, len(message) - 1))] = draw(st.integers(0, 255))
    return bytes(message[: draw(st.integers(0, len(message)))]) + draw(st.binary(max_size=20))


messages = st.lists(st.binary(max_size=200) | made_up | mutated(), min_size=1, max_size=12)
patient = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])


@contextmanager
def quiet() -> Iterator[None]:
    """Disable logging, because complaints of the channel are expected here."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def too_old(message: bytes) -> bool:
    """Return whether a message is an INIT with a protocol version too old for the mount."""
    return message[4:8] == (p.FUSE_INIT).to_bytes(4, "little") and tuple(
        int.from_bytes(message[at : at + 4], "little") for at in (p.BODY, p.BODY + 4)
    ) < (p.MAJOR, p.OLDEST_MINOR)


async def works(bench: Bench) -> None:
    """Assert that valid requests are answered, both those for streams and those for libfuse."""
    await bench.answers()
    await bench.refuse_all()
    fresh = Talk(b"still here")
    inode = bench.place(fresh, "fresh")
    opening, unknown = 2**40, 2**40 + 2
    bench.send(request(p.FUSE_OPEN, opening, inode, p.fuse_open_in.pack(os.O_RDWR, 0)))
    (answer,) = await bench.answers()
    assert (answer.unique, answer.error) == (opening, 0)
    fh = p.fuse_open_out.unpack(answer.body)[0]
    unique = bench.read(fh)
    (answer,) = await bench.answers()
    assert (answer.unique, answer.body) == (unique, b"still here")
    unique = bench.write(fh, b"heard")
    (answer,) = await bench.answers()
    assert (answer.unique, fresh.heard) == (unique, [b"heard"])
    message = request(p.FUSE_STATFS, unknown, 1)
    bench.send(message)
    assert await bench.forwarded() == [message]
    bench.reply(p.fuse_out_header.pack(p.REPLY, -2, unknown))
    (answer,) = await bench.answers()
    assert (answer.unique, answer.error) == (unknown, -2)


@given(messages)
@example([b""])
@example([bytes(p.BODY - 1)])
@example([request(opcode, 2, 1) for opcode in OPCODES])
@example([request(opcode, 2, 1, (1).to_bytes(8, "little")) for opcode in OPCODES])
@example([request(p.FUSE_READ, 2, 4, p.fuse_read_in.pack(1, 0, 2**32 - 1, how, 0, 0, 0)) for how in (0, 2)])
@patient
def test_any_bytes(received: list[bytes]) -> None:
    @in_trio
    async def run() -> None:
        async with channel() as bench:
            talk = Talk(b"one", b"two")
            await bench.open(talk)
            await bench.open(talk)
            bench.open_text(lambda user: "text\n")
            for message in received:
                bench.send(message)
                await bench.answers()  # asserts that the kernel would accept each
                await bench.refuse_all()
            talk.say(b"more", b"and more")
            await works(bench)

    with quiet():
        try:
            run()
        except ProtocolTooOld:
            assert any(map(too_old, received))


@given(st.permutations(EVERY[3:]))
@patient
def test_good_messages_in_any_order(received: list[bytes]) -> None:
    @in_trio
    async def run() -> None:
        async with channel() as bench:
            for name in ("a", "b", "c"):
                bench.place(Talk(b"said"), name)  # inodes 2 to 4, the recorded one last
            for message in received:
                bench.send(message)
            await works(bench)
            talk = bench.root.children["c"]
            assert isinstance(talk, Talk)
            talk.say(b"after all")
            await works(bench)

    with quiet():
        run()
