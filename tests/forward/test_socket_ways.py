"""The way from a tap to a socket: frames arrive in order, and each is delivered or in exactly one counter."""

import errno
import socket
import struct
from contextlib import suppress

import pytest
from harness.wires import frame, wire
from hypothesis import given, settings
from hypothesis import strategies as st

from virtfs.core.counters import CableCounters
from virtfs.core.errors import VirtError
from virtfs.forward.socket_ways import MessageSender, Room, StreamSender

ROOM = Room()
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("host"), st.integers(1, 60)),
        st.tuples(st.just("deliver"), st.integers(1, 20)),
        st.tuples(st.just("read"), st.integers(1, 20_000)),
        st.tuples(st.just("resume"), st.just(0)),
    ),
    max_size=30,
)


def split(data: bytes) -> list[bytes]:
    """Return the complete frames of a byte stream."""
    frames = []
    while len(data) >= 4 and len(data) >= 4 + (length := struct.unpack_from(">I", data)[0]):
        frames.append(data[4 : 4 + length])
        data = data[4 + length :]
    return frames


def sized(number: int) -> bytes:
    """Return a frame whose length depends on its number."""
    return frame(number, 20 + 37 * number % 1500)


def received(peer: socket.socket, size: int) -> bytes:
    try:
        return peer.recv(size)
    except BlockingIOError:
        return b""


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET], ids=["stream", "seqpacket"])
def test_each_frame_is_delivered_or_counted(kind: int) -> None:
    stream = kind == socket.SOCK_STREAM

    @given(STEPS)
    @settings(max_examples=30)
    def run(steps: list[tuple[str, int]]) -> None:
        errors: list[VirtError] = []
        ours, peer = socket.socketpair(socket.AF_UNIX, kind)
        with wire(queue=16) as bench, ours, peer:
            for end in (ours, peer):
                end.setblocking(False)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            bench.wire.take_over(lambda frame: None)
            out = CableCounters()
            sender = (StreamSender if stream else MessageSender)(bench.wire, out, ours, ROOM, errors.append)
            number = in_tap = from_tap = 0
            got: list[bytes] = []
            for step, amount in steps:
                match step:
                    case "host":
                        with suppress(BlockingIOError):  # the tap's queue is full
                            for _ in range(amount):
                                bench.tap.host_send(sized(number))
                                number += 1
                                in_tap += 1
                        while in_tap and sender.writable.is_set():
                            sent = sender.burst()
                            in_tap -= sent
                            from_tap += sent
                    case "deliver" if not in_tap:  # a frame in the tap would be overtaken
                        for _ in range(amount):
                            sender.deliver(sized(number))
                            number += 1
                    case "read":
                        got.append(received(peer, amount if stream else 1 << 16))
                    case "resume" if sender.full.is_set():
                        sender.resume()
            sender.end()
            while more := received(peer, 1 << 16):
                got.append(more)
            whole = split(b"".join(got)) if stream else [one for one in got if one]
            assert not errors
            assert out.frames == len(whole)
            assert out.bytes == sum(map(len, whole))
            assert out.frames + out.dropped == number - in_tap
            assert bench.counters.rx_frames == from_tap
            order = [int.from_bytes(one[14:18], "big") for one in whole]
            assert order == sorted(set(order))
            assert not bench.wire.memory.left(tuple(bench.wire.memory.all.kinds))

    run()


def test_without_memory_for_the_rest_the_connection_ends() -> None:
    errors: list[VirtError] = []
    ours, peer = socket.socketpair()
    with wire(queue=512) as bench, ours, peer:
        ours.setblocking(False)
        peer.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        bench.wire.memory.all.most = (0,) * 4
        bench.wire.take_over(lambda frame: None)
        out = CableCounters()
        sender = StreamSender(bench.wire, out, ours, ROOM, errors.append)
        for number in range(20):
            bench.tap.host_send(frame(number, 1514))
        assert sender.burst() == 20
        assert [error.errno for error in errors] == [errno.ENOBUFS]
        sender.end()
        whole = split(received(peer, 1 << 16))
        assert (out.frames, out.dropped) == (len(whole), 20 - len(whole))
