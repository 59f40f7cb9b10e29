"""rx: what a reader of the FIFO gets, and how that differs from frame."""

import errno
import os
import select

from harness.process import fails
from harness.serving import Virt, frame
from harness.waiting import PATIENCE

NONBLOCK = os.O_RDONLY | os.O_NONBLOCK


def test_a_reader_that_polls_first_gets_no_end_of_the_file(virt: Virt) -> None:
    """The open returns before the server has found the reader."""
    file = virt.mount.root.open(f"{virt.name}/rx", NONBLOCK)
    polling = file.begin_poll(select.POLLIN)
    assert virt.read("wait/reader") == "1"
    virt.host_sends(frame(60), frame(61))
    assert polling.result() == select.POLLIN
    assert file.read() == frame(60)
    assert file.poll(select.POLLIN, PATIENCE) == select.POLLIN
    assert file.read() == frame(61)
    with fails(errno.EAGAIN):
        file.read()


def test_a_reader_that_has_gone_ends_no_wait_for_the_next(virt: Virt) -> None:
    """The server looks for readers only a few times a second, but also when a program begins to wait for one."""
    file = virt.mount.root.open(f"{virt.name}/rx", NONBLOCK)
    assert virt.read("wait/reader") == "1"
    file.close()
    waiting = virt.mount.root.open(f"{virt.name}/wait/reader", NONBLOCK)
    with fails(errno.EAGAIN):
        waiting.read()
    virt.mount.process().open(f"{virt.name}/rx", os.O_RDONLY)
    assert waiting.poll(select.POLLIN, PATIENCE) == select.POLLIN


def test_a_reader_is_not_told_of_down(virt: Virt) -> None:
    file = virt.mount.root.open(f"{virt.name}/rx", os.O_RDONLY)
    reading = file.begin_read()
    virt.set("down")
    assert file.poll() == 0
    virt.set("up")
    virt.host_sends(frame())
    assert reading.result() == frame()


def test_a_destroyed_interface_is_the_end_of_the_file(virt: Virt) -> None:
    file = virt.mount.root.open(f"{virt.name}/rx", os.O_RDONLY)
    reading = file.begin_read()
    virt.mount.ctl(f"destroy {virt.unit}")
    assert reading.result() == b""
    assert file.poll(select.POLLIN, PATIENCE) == select.POLLHUP


def test_a_longer_frame_than_a_packet_is_dropped(virt: Virt) -> None:
    virt.set("mtu 9000")
    file = virt.mount.root.open(f"{virt.name}/rx", os.O_RDONLY)
    reading = file.begin_read()
    virt.host_sends(frame(4097), frame(4096))
    assert reading.result() == frame(4096)
    assert (virt.count("rx_dropped"), virt.count("rx_frames")) == (1, 1)
