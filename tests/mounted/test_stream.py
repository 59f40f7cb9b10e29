"""stream: frames as a byte stream, for pipes, sockets and programs that move many frames a call."""

import errno
import os
import select
import struct
import subprocess

import pytest
from harness.places import finished
from harness.process import fails
from harness.serving import Virt, Virts, frame
from harness.waiting import until


def records(*frames: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(one)) + one for one in frames)


def test_one_read_returns_all_waiting_frames(virt: Virt) -> None:
    file = virt.mount.root.open(f"{virt.name}/stream")
    sent = [frame(14, 1), frame(60, 2), frame(1514, 3)]
    virt.host_sends(*sent)
    until(lambda: virt.read("next") == "14", "the frames have arrived")
    assert file.read(1 << 20) == records(*sent)
    assert (virt.count("rx_frames"), virt.count("rx_bytes")) == (3, 14 + 60 + 1514)


def test_a_read_waits_for_the_first_frame(virt: Virt) -> None:
    file = virt.mount.root.open(f"{virt.name}/stream")
    waiting = file.begin_read()
    virt.host_sends(frame(60))
    assert waiting.result() == records(frame(60))
    file.set_blocking(False)
    with fails(errno.EAGAIN):
        file.read()
    assert file.poll(select.POLLIN | select.POLLOUT) == select.POLLOUT
    virt.host_sends(frame(61))
    assert file.poll(select.POLLIN, 5) == select.POLLIN
    assert file.read(10) == records(frame(61))[:10]
    assert file.poll(select.POLLIN) == select.POLLIN, "the rest of the record"
    assert file.read() == records(frame(61))[10:]


def test_a_write_may_be_cut_anywhere(virt: Virt) -> None:
    file = virt.mount.root.open(f"{virt.name}/stream", os.O_WRONLY)
    sent = [frame(60, 1), frame(1514, 2), frame(14, 3)]
    data = records(*sent)
    for at in range(0, len(data), 7):
        piece = data[at : at + 7]
        assert file.write(piece) == len(piece)
    assert [virt.host_gets() for _ in sent] == sent
    assert virt.count("tx_frames") == 3


def test_a_megabyte_in_one_write(virt: Virt) -> None:
    one = records(frame(60))
    data = one * ((1 << 20) // len(one))
    file = virt.mount.root.open(f"{virt.name}/stream", os.O_WRONLY)
    assert file.write(data) == len(data)
    assert virt.count("tx_frames") + virt.count("tx_dropped") == len(data) // len(one)


def test_a_length_that_no_frame_has(virt: Virt) -> None:
    file = virt.mount.root.open(f"{virt.name}/stream", os.O_WRONLY)
    with fails(errno.EINVAL):
        file.write(records(frame(60)) + struct.pack(">I", 65554) + bytes(100))
    assert virt.mount.read("last_error").startswith(f'{virt.name}/stream: byte 64: invalid frame length "65554"')
    assert virt.host_gets() == frame(60)
    file.write(records(frame(61)))
    assert virt.host_gets() == frame(61)


@pytest.mark.parametrize("cut", [0, 20, 64, 66, 70], ids=lambda cut: f"after a write of {cut} bytes")
def test_a_refused_frame_is_found_by_its_offset(virt: Virt, cut: int) -> None:
    """The frames before it are sent, it is counted, and the rest of the write is discarded and counted nowhere."""
    virt.set("strict")
    file = virt.mount.root.open(f"{virt.name}/stream", os.O_WRONLY)
    data = records(frame(60, 1), frame(3), frame(60, 3))
    assert file.write(data[:cut]) == cut
    with fails(errno.EMSGSIZE):
        file.write(data[cut:])
    said = f"{virt.name}/stream: byte 64: a frame of 3 bytes is too short: the minimum is 14"
    assert virt.mount.read("last_error") == said
    assert virt.host_gets() == frame(60, 1)
    assert (virt.count("tx_frames"), virt.count("tx_dropped"), virt.count("tx_short")) == (1, 1, 1)
    file.write(records(frame(61, 4)))
    assert virt.host_gets() == frame(61, 4), "the next write begins with a record"
    virt.set("down")
    with fails(errno.ENETDOWN):
        file.write(records(frame(60)))
    said = f"{virt.name}/stream: byte {cut + 65}: {virt.name} is down"
    assert virt.mount.read("last_error") == said, "the offset leaves out the write that failed"


def test_a_record_that_the_close_cuts_is_reported(virt: Virt) -> None:
    file = virt.mount.root.open(f"{virt.name}/stream", os.O_WRONLY)
    file.write(records(frame(60))[:20])
    file.close()
    until(lambda: "the last frame was not sent" in virt.mount.read("last_error"), "it is reported")
    assert "after 20 bytes" in virt.mount.read("last_error")
    assert (virt.count("tx_frames"), virt.count("tx_dropped")) == (0, 0)


def test_it_is_a_reader_like_frame(virt: Virt) -> None:
    file = virt.mount.root.open(f"{virt.name}/stream", os.O_RDONLY)
    with fails(errno.EBUSY):
        virt.open(os.O_RDONLY)
    assert "stream" in virt.read("clients")
    file.close()
    virt.open(os.O_RDONLY).close()
    virt.mount.root.open(f"{virt.name}/stream", os.O_RDONLY)


def test_down_and_gone(virt: Virt) -> None:
    file = virt.mount.root.open(f"{virt.name}/stream")
    waiting = file.begin_read()
    virt.set("down")
    with fails(errno.EHOSTDOWN):
        waiting.result()
    virt.set("up")
    waiting = file.begin_read()
    virt.mount.ctl(f"destroy {virt.unit}")
    with fails(errno.ENXIO):
        waiting.result()
    with fails(errno.ENXIO):
        file.write(records(frame(60)))


@pytest.mark.parametrize("over", ["a pipe", "a socket"])
def test_two_virts_are_joined_by(over: str, virts: Virts) -> None:
    """A pipe, ssh or TCP joins two interfaces without losing the boundaries of frames."""
    one, two = virts(), virts()
    if over == "a pipe":
        command = f"cat {one.name}/stream >{two.name}/stream"
    else:
        command = f"socat -u -b65536 GOPEN:{one.name}/stream - | socat -u -b65536 - GOPEN:{two.name}/stream"
    joined = one.mount.shell(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: "stream" in one.read("clients") and "stream" in two.read("clients"), "both are open")
    sent = [frame(60 + number, number) for number in range(100)]
    one.host_sends(*sent)
    assert [two.host_gets() for _ in sent] == sent
    one.mount.ctl(f"destroy {one.unit}")
    finished(joined)
