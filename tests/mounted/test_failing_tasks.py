"""A mount goes on when the tasks that serve it fail: the loops of both planes, and the socket pair between them."""

import os
import signal
import sys

from harness.fixtures import Alone
from harness.serving import Virt, frame
from harness.waiting import until

# A server whose functions fail at some of their calls, as the kernel might let them. SIGWINCH makes libfuse fail.
SERVER = """
import errno, io, os, signal, sys
from itertools import count

import pyfuse3, trio
from virtfs.fuse import libfuse_pair, trace

os.environ["VIRTFS_COMPILED"] = "no"  # the compiled loop reads without a Device
reads = count(1)

class Device(io.FileIO):
    def readinto(self, room):
        number = next(reads)
        if number in (120, 200):
            raise OSError(errno.ENOMEM, "no memory for a request")
        if number == 160:
            raise ZeroDivisionError("a fault in the loop")
        return super().readinto(room)

trace.FileIO = Device
replies, libfuse, tries = libfuse_pair.Pair.replies, pyfuse3.main, count(1)

async def failing(pair):
    if next(tries) < 3:
        raise OSError(errno.ENOBUFS, "no memory for an answer")
    await replies(pair)

libfuse_pair.Pair.replies = failing

async def fail():
    with trio.open_signal_receiver(signal.SIGWINCH) as signals:
        async for _ in signals:
            raise OSError(errno.ENOMEM, "no memory for libfuse")

async def main(max_tasks):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        await libfuse(max_tasks=max_tasks)
        nursery.cancel_scope.cancel()

pyfuse3.main = main
from virtfs.cli.main import main
sys.argv = ["virtfs", *sys.argv[4:]]
raise SystemExit(main())
"""


def test_loops_that_fail(alone: Alone) -> None:
    mount = alone("", (sys.executable, "-c", SERVER))
    virt = Virt(mount, 3)

    def logged(what: str) -> bool:
        return any(what in line for line in mount.log)

    reader = virt.open(os.O_RDWR)
    for number in range(100):
        virt.host_sends(frame(60, number))
        assert reader.read() == frame(60, number)
    for fault in ("no memory for a request", "a fault in the loop", "no memory for an answer"):
        assert logged(fault), fault
    assert logged("answering requests: ")
    assert logged("forwarding the answers of libfuse: ")
    os.kill(mount.server.pid, signal.SIGWINCH)
    until(lambda: logged("requests for names and texts: [Errno 12] no memory for libfuse; retrying"), "it is logged")
    virt.write("mtu", "1400")
    assert virt.read("mtu") == "1400"
    mount.ctl("destroy 3")
    assert mount.units() == []
    mount.log.clear()  # the complaints that the test has caused
