"""Calls to the kernel in threads, and the taps that they use."""

import select
import socket
import threading

import trio
from harness.in_trio import in_trio, until
from harness.nets import fresh, need_taps

from virtfs.core.ids import Unit
from virtfs.daemon.kernel import Kernel
from virtfs.host.tap import Tap


@in_trio
async def test_a_closed_tap_is_gone_though_a_call_was_using_it() -> None:
    """A thread in poll(2) holds the tap's file open, as one does that waits for the kernel's rtnl_mutex."""
    need_taps()
    with fresh():
        kernel, tap = Kernel(), Tap.open(Unit(3))
        uses = threading.Event()

        def use() -> None:
            poll = select.poll()
            poll.register(tap.fd, 0)
            uses.set()
            poll.poll(300)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kernel.call, use)
            await until(uses.is_set)
            await kernel.close_taps([tap])
            assert "tap3" not in [name for _, name in socket.if_nameindex()]
        kernel.close()
