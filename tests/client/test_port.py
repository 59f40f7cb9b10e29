"""Port and Stream: frames, time-outs, threads, and the errors at the end of an interface."""

import errno
import gc
import os
import select
import threading
from array import array
from collections.abc import Callable
from typing import Any

import pytest
from harness.serving import Mount, frame
from harness.waiting import PATIENCE, until

import virtfs

from .waiting import Waiting, fails


@pytest.fixture
def host(mount: Mount, v: virtfs.Virt) -> Callable[..., None]:
    """Return a function that sends frames from the host through the tap of virt3."""
    from harness import programs

    wire = mount.root.call(programs.wire, "tap3")
    return lambda *frames: mount.root.call(programs.send, wire, frames)


def test_frames_come_one_by_one(v: virtfs.Virt, host: Callable[..., None]) -> None:
    with v.open() as port:
        host(frame(60, 1), frame(1514, 2), frame(60, 3))
        assert port.recv() == frame(60, 1)
        assert port.recv(timeout=PATIENCE) == frame(1514, 2)
        assert next(iter(port)) == frame(60, 3)


def test_the_longest_frame_is_whole(v: virtfs.Virt, host: Callable[..., None]) -> None:
    """The frame has a VLAN tag, for which the kernel allows 4 bytes more (net/packet/af_packet.c packet_snd)."""
    v.mtu = 65521
    longest = bytes.fromhex("ffffffffffff 020000000001 8100 0007 88b5").ljust(65521 + 18, b"x")
    with v.open() as port:
        host(longest)
        assert port.recv(timeout=PATIENCE) == longest


def test_frames_reach_the_host(mount: Mount, v: virtfs.Virt) -> None:
    from harness import programs

    wire = mount.root.call(programs.wire, "tap3")
    with v.open("w") as port:
        for sent in (frame(60), bytearray(frame(61)), memoryview(frame(62))):
            port.send(sent)
    for length in (60, 61, 62):
        assert mount.root.call(programs.next_from_virt, wire, PATIENCE) == frame(length)


def test_a_time_out(v: virtfs.Virt, host: Callable[..., None]) -> None:
    with v.open() as port:
        for seconds in (0, 0.05):
            with pytest.raises(TimeoutError, match=f"nothing arrived within {seconds:g} s.*frame"):
                port.recv(timeout=seconds)
        waiting = Waiting(port.recv)  # waits for ever, although the descriptor has O_NONBLOCK now
        host(frame(60, 1))
        assert waiting.result() == frame(60, 1)


def test_of_several_threads_each_gets_other_frames(v: virtfs.Virt, host: Callable[..., None]) -> None:
    with v.open() as port:
        readers = [Waiting(port.recv) for _ in range(3)] + [Waiting(port.recv, PATIENCE) for _ in range(2)]
        for reader in readers:
            reader.asleep()
        for _ in range(5):
            port.send(frame(60))  # passes the readers
        host(*(frame(60, number) for number in range(5)))
        assert sorted(reader.result() for reader in readers) == sorted(frame(60, number) for number in range(5))


@pytest.mark.parametrize("seconds", [None, PATIENCE], ids=["blocking", "with a time-out"])
@pytest.mark.parametrize("kind", ["open", "stream"])
@pytest.mark.parametrize(("verb", "number"), [("down", errno.EHOSTDOWN), ("destroy", errno.ENXIO)])
def test_the_end_of_an_interface_ends_a_wait(
    net: virtfs.Mount, v: virtfs.Virt, kind: str, seconds: float | None, verb: str, number: int
) -> None:
    port = getattr(v, kind)()
    waiting = Waiting(port.recv, seconds)
    waiting.asleep()
    net.ctl("virt3 down" if verb == "down" else "destroy 3")
    with fails(number, str(port.path)):
        waiting.result()
    port.close()


def test_iteration_ends_with_the_error(v: virtfs.Virt) -> None:
    with v.open() as port:
        v.up = False
        with pytest.raises(OSError, match=r"Host is down.*virt3/frame"):
            list(port)


def test_strict_tells_the_sender(v: virtfs.Virt) -> None:
    v.strict = True
    with v.open() as port:
        with fails(errno.EMSGSIZE, "virt3/frame: .*9000.*virt3/frame"):
            port.send(frame(9000))
        v.up = False
        with fails(errno.ENETDOWN, "virt3/frame: virt3 is down"):
            port.send(frame(60))


def test_strict_tells_which_frame_of_a_stream_it_is(v: virtfs.Virt) -> None:
    v.strict = True
    with v.stream() as stream:
        with fails(errno.EMSGSIZE, "virt3/stream: byte 64: a frame of 3 bytes is too short"):
            stream.send([frame(60), bytes(3), frame(60)])
        stream.send([frame(60)])
    assert (v.stats["tx_frames"], v.stats["tx_dropped"]) == (2, 1)


def test_opens_that_are_refused(v: virtfs.Virt) -> None:
    """virtfs gives the reason. An error that the kernel makes does not get the reason of an earlier one."""
    for again in (v.open, v.stream):
        with v.open("r"), fails(errno.EBUSY, r"virt3 is already open for reading \(exclusive read; see clients\)"):
            again("r")
    with v.stream("r"), fails(errno.EBUSY, "virt3/hex: virt3 is already open for reading"):
        v.hex("r")
    with pytest.raises(FileNotFoundError, match=r"No such file"):
        virtfs.Port(v.path / "nothing")
    with pytest.raises(ValueError, match=r"mode 'q'"):
        v.open("q")  # type: ignore[arg-type]


def test_an_open_does_not_get_the_sentence_of_another_error(net: virtfs.Mount, v: virtfs.Virt) -> None:
    """While a program has the tap, virtfs refuses `rx` itself, although the FIFO is not in the mount."""
    refused_value = "virt3/mtu: .* is outside the range"
    with v.tap():
        for file, open_it in (("frame", v.open), ("rx", v.rx)):
            with fails(errno.ERANGE, refused_value):
                v.mtu = 1
            with fails(errno.EBUSY, f"virt3/{file}: process .* has the tap"):
                open_it()
            assert net.last_error.startswith(f"virt3/{file}: process ")


def test_rx_waits_while_the_interface_is_down(v: virtfs.Virt, host: Callable[..., None]) -> None:
    with v.rx() as port:
        v.up = False
        with pytest.raises(TimeoutError):
            port.recv(timeout=0)
        v.up = True
        host(frame(60))
        assert port.recv(timeout=PATIENCE) == frame(60)
        v.destroy()
        with fails(errno.ENXIO, "virt3/rx"):
            port.recv(timeout=PATIENCE)


def test_a_port_can_be_polled_and_closed(v: virtfs.Virt, host: Callable[..., None]) -> None:
    port = v.open()
    assert select.select([port], [], [], 0)[0] == []
    host(frame(60))
    assert select.select([port], [], [], PATIENCE)[0] == [port]
    fd = port.fileno()
    assert "closed" not in repr(port)
    port.close()
    port.close()
    assert port.closed
    assert "closed" in repr(port)
    with pytest.raises(ValueError, match="closed"):
        port.recv()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_a_forgotten_port_is_closed(v: virtfs.Virt) -> None:
    v.open()
    until(lambda: v.clients == [], "the port is closed")


def test_a_stream_has_many_frames(v: virtfs.Virt, host: Callable[..., None]) -> None:
    frames = [frame(60 + number, number) for number in range(40)]
    with v.stream() as stream:
        stream.send(frames)
        stream.send([])
        assert v.stats["tx_frames"] == 40
        host(*frames)
        got: list[bytes] = []
        while len(got) < 40:
            got += stream.recv(timeout=PATIENCE)
        assert got == frames
        with pytest.raises(TimeoutError):
            stream.recv(timeout=0)
        host(*frames[:2])
        both = iter(stream)
        assert [next(both), next(both)] == frames[:2]


def test_an_iteration_over_a_stream_that_ends_early_loses_no_frame(v: virtfs.Virt, host: Callable[..., None]) -> None:
    frames = [frame(60, number) for number in range(4)]
    with v.stream() as stream:
        host(*frames)
        for received in stream:
            assert received == frames[0]
            break
        assert next(iter(stream)) == frames[1]
        assert stream.recv(timeout=PATIENCE) == frames[2:]


@pytest.mark.parametrize("strict", [False, True])
def test_an_empty_frame_is_refused(v: virtfs.Virt, strict: bool) -> None:
    """write(2) of no bytes never reaches virtfs, so that it could not count the frame."""
    v.strict = strict
    for empty in (b"", bytearray(), memoryview(b"")):
        with v.open("w") as port, pytest.raises(ValueError, match="a frame cannot be empty"):
            port.send(empty)


@pytest.mark.parametrize("wrong", [None, 5, "a frame", [frame(60)]])
def test_a_frame_is_bytes(v: virtfs.Virt, wrong: Any) -> None:
    reason = f"^a frame is bytes, not {type(wrong).__name__}$"
    with v.stream("w") as stream, v.open("w") as port:
        with pytest.raises(TypeError, match=reason):
            port.send(wrong)
        with pytest.raises(TypeError, match=reason):
            stream.send([frame(60), wrong])
        for no_frames in (None, 5):
            with pytest.raises(TypeError, match=r"^send\(\) takes an iterable of frames, not "):
                stream.send(no_frames)  # type: ignore[arg-type]
        items_of_four_bytes: Any = array("I", frame(60))
        stream.send([items_of_four_bytes])
        port.send(items_of_four_bytes)
    assert (v.stats["tx_frames"], v.stats["tx_bytes"]) == (2, 120)


def test_a_long_stream(v: virtfs.Virt) -> None:
    """More frames than one write(2) takes."""
    with v.stream("w") as stream:
        stream.send(frame(1514, number) for number in range(1500))
    assert v.stats["tx_frames"] == 1500


@pytest.mark.parametrize("length", [0, 65554])
def test_a_stream_refuses_what_can_be_no_frame(v: virtfs.Virt, length: int) -> None:
    with v.stream() as stream:
        with pytest.raises(ValueError, match=f"a frame has 1 to 65553 bytes, not {length}"):
            stream.send([frame(60), bytes(length)])
        assert v.stats["tx_frames"] == 0
        stream.send([frame(60)])
    assert v.stats["tx_frames"] == 1


def test_a_stream_takes_no_single_frame(v: virtfs.Virt) -> None:
    with v.stream() as stream, pytest.raises(TypeError, match=r"use send\(\[frame\]\)"):
        stream.send(frame(60))  # type: ignore[arg-type]
    assert v.stats["tx_frames"] == 0


def test_threads_of_one_program_both_ways(v: virtfs.Virt, host: Callable[..., None]) -> None:
    got: list[bytes] = []

    def receive() -> None:
        got.extend(port.recv(PATIENCE) for _ in range(20))

    with v.open() as port:
        receiver = threading.Thread(target=receive, daemon=True)
        receiver.start()
        for number in range(20):
            port.send(frame(60, number))
            host(frame(60, number))
        receiver.join(PATIENCE)
    assert got == [frame(60, number) for number in range(20)]


def _classes(of: type) -> set[type]:
    below: list[type] = type.__subclasses__(of)
    return {of, *(found for each in below for found in _classes(each))}


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_an_object_whose_init_fails_vanishes_silently(v: virtfs.Virt, capfd: pytest.CaptureFixture[str]) -> None:
    """__del__ runs also for an object that has no attributes yet."""
    for opening in (v.open, v.stream):
        with pytest.raises(ValueError, match="mode 'q' is not"):
            opening("q")  # type: ignore[arg-type]
    for of in (
        each for each in _classes(object) if str(each.__module__).startswith("virtfs.") and hasattr(each, "__del__")
    ):
        of.__new__(of)  # type: ignore[call-overload]
    gc.collect()
    assert "ignored" not in capfd.readouterr().err
