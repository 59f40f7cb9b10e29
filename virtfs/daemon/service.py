"""One mount, served: everything is built here, run in one nursery, and taken down in the right order."""

import errno
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path

import trio

from virtfs import __version__
from virtfs.core.errors import VirtError
from virtfs.core.limits import Limits
from virtfs.daemon.commands import Commander
from virtfs.daemon.follow import Follower
from virtfs.daemon.interface import Interface
from virtfs.daemon.interfaces import Interfaces
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.runtime import Runtime
from virtfs.daemon.statefile import StateFile
from virtfs.files.device import Opens
from virtfs.files.events import Events
from virtfs.files.node import ROOT, Directory
from virtfs.files.tree import root_directory
from virtfs.forward.tasks import lasting
from virtfs.fuse import names
from virtfs.fuse.channel import Channel
from virtfs.fuse.numbers import Handles, Inodes
from virtfs.fuse.pair import SLOW_REPLY
from virtfs.fuse.protocol import LONGEST_REQUEST

log = logging.getLogger(__name__)

# asm-generic/socket.h: as SO_SNDBUF and SO_RCVBUF, beyond net.core.wmem_max for who has CAP_NET_ADMIN
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
BUFFER = 8 << 20
AGAIN = 2  # seconds until a state that could not be saved is tried again


async def serve(
    fuse_fd: int,
    limits: Limits,
    ready: Callable[[], None],
    stop: trio.Event,
    state: Path | None = None,
    options: str = "",
) -> None:
    """Serve a FUSE connection until the kernel ends it (unmounted) or `stop` is set.

    options: the mount's, as status.json tells them.
    state: a file that always holds what reading ctl gives, and from which the interfaces are made first.
    Nobody is answered before all of them are made. ready is called once, when the mount works. On return every waiting
    reader has been answered ENXIO and the taps are gone or as they were found; fuse_fd is the caller's to close.
    VirtError: EPROTO, the kernel's FUSE is too old; what opening netlink sockets gives.
    """
    os.set_blocking(fuse_fd, False)
    kernel = Kernel()
    try:
        root = Directory(ROOT)
        events = Events(Opens())
        interfaces = Interfaces(kernel, root, limits, events.emit)
        commander = Commander(interfaces)
        root.children.update(root_directory(commander, __version__, events, interfaces.pcap).children)
        root.children["bridge"] = commander.bridges.directory
        commander.bridges.tell = events.emit
        events.told = lambda: commander.changed()  # clients, for instance
        commander.state_file = StateFile(state) if state else None
        commander.options = options
        await _Mount(fuse_fd, root, kernel, interfaces, commander).run(ready, stop)
    finally:
        kernel.close()


class _Mount:
    """The parts of one mount, joined."""

    def __init__(
        self, fuse_fd: int, root: Directory, kernel: Kernel, interfaces: Interfaces, commander: Commander
    ) -> None:
        self._interfaces = interfaces
        self._commander = commander
        self._follower = Follower(kernel, interfaces)
        self._ours, theirs, self._longest = _pair()
        inodes, handles = Inodes(root), Handles()
        self._channel = Channel(fuse_fd, self._ours, self._longest, inodes, handles)
        self._channel.refused = commander.refused
        names.serve_on(root, inodes, handles, commander, self._channel.grow, theirs.detach())
        interfaces.gone = self._follower.doubt
        interfaces.catch_up = self._follower.catch_up
        commander.caught_up = self._follower.caught_up
        self._follower.heard = commander.bridges.hear
        interfaces.look_for = self._follower.look_for
        commander.changed = self._follower.changed = self._changed
        self._stale = trio.Event()
        self._runtime = Runtime(interfaces)  # the last, as a directory stays where something fails
        interfaces.mount = replace(interfaces.mount, rx=lambda virt: str(self._runtime.path(virt)))
        interfaces.appeared, interfaces.given = self._runtime.appear, self._runtime.follow
        interfaces.leaving = self._leaving

    async def run(self, ready: Callable[[], None], stop: trio.Event) -> None:
        """Serve, then end: taps and with them their readers, other streams, then libfuse."""
        async with trio.open_nursery() as libfuse:
            libfuse.start_soon(names.run, _workers(self._longest))
            try:
                async with trio.open_nursery() as nursery:
                    self._interfaces.run_in(nursery)
                    nursery.start_soon(self._follower.run)
                    nursery.start_soon(lasting, "looking for readers of rx", self._runtime.run)
                    nursery.start_soon(lasting, "looking at bridges", self._follow_bridges)
                    nursery.start_soon(self._channel.pair.requests)
                    nursery.start_soon(self._channel.pair.replies)
                    nursery.start_soon(self._begin, nursery, ready)
                    nursery.start_soon(self._until, stop, nursery)
                    try:
                        await self._channel.run(nursery)
                    finally:
                        with trio.CancelScope(shield=True):
                            await self._end()
                        nursery.cancel_scope.cancel()
            finally:
                names.end()
        names.close()
        self._ours.close()
        self._runtime.remove()

    def _leaving(self, interface: Interface) -> None:
        self._commander.cables.remove(interface)
        self._runtime.vanish(interface)

    async def _begin(self, nursery: trio.Nursery, ready: Callable[[], None]) -> None:
        await self._channel.pair.negotiated.wait()
        state_file = self._commander.state_file
        if state_file is not None and not await self._commander.replay(await state_file.load()):
            return  # it ends
        self._channel.pair.admit()
        nursery.start_soon(lasting, "saving the state", self._react)
        ready()

    async def _follow_bridges(self) -> None:
        await self._commander.bridges.follow(self._changed)

    def _changed(self) -> None:
        """Something is other than it was, by a command or by the kernel's report."""
        self._commander.changed_times += 1
        self._stale.set()

    async def _react(self) -> None:
        """Wake who polls a text, and save what changed by others' hands; a command saves before it is answered."""
        while True:
            kept = await self._commander.keep()
            await self._channel.texts_changed()
            with trio.move_on_after(inf if kept else AGAIN):
                await self._stale.wait()
            self._stale = trio.Event()

    async def _until(self, stop: trio.Event, nursery: trio.Nursery) -> None:
        """The channel goes on while the taps go, so that whoever asks meanwhile is answered."""
        await stop.wait()
        await self._end()
        nursery.cancel_scope.cancel()

    async def _end(self) -> None:
        await self._commander.end()
        self._channel.end()


def _pair() -> tuple[trio.socket.SocketType, socket.socket, int]:
    """Our end, libfuse's end (blocking), and the largest message in bytes they carry."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        try:
            end.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
            end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        except PermissionError:  # in a user namespace the system's limit holds
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    size = ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    if size < 4 * SLOW_REPLY:
        raise VirtError(errno.ENOBUFS, f"net.core.wmem_max is too small: {size} bytes for a socket's buffer")
    # net/unix/af_unix.c: a message takes the buffer less its own overhead
    return trio.socket.from_stdlib_socket(ours), theirs, min(size // 2, LONGEST_REQUEST)


def _workers(longest: int) -> int:
    """As many as can answer at once, each with SLOW_REPLY bytes, without filling the pair.

    libfuse writes its answers blocking, in the one thread that would have to empty the pair.
    """
    return max(2, longest // SLOW_REPLY)
