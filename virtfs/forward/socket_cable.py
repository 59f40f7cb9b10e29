"""A cable between a virt and a socket, for programs and hosts that carry Ethernet over a socket.

The cable connects, or accepts one connection at a time. When the connection ends, the cable reconnects or accepts the
next one. While there is no connection, the interface works as it does without a cable.
"""

import errno
import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from time import monotonic_ns
from typing import Literal, Protocol

import trio

from virtfs.core.counters import Way
from virtfs.core.errors import VirtError, refused
from virtfs.core.impairment import Direction, Impairment
from virtfs.core.memory import Kind
from virtfs.core.socketname import SocketName
from virtfs.forward.impaired_path import ImpairedPath
from virtfs.forward.socket_ways import (
    BURST,
    Entrance,
    Exit,
    MessageReceiver,
    MessageSender,
    Room,
    Sender,
    StreamReceiver,
    StreamSender,
    take,
)
from virtfs.forward.supervisor import together
from virtfs.forward.tasks import FIRST, LONGEST, Task, in_thread, lasting, surely_in_thread
from virtfs.forward.wire import Wire
from virtfs.host import sockets
from virtfs.host.sockets import OwnSocket

log = logging.getLogger(__name__)

TURN = 1_000_000  # maximum time in ns that one direction carries frames before other tasks run
CONNECTING = 10  # maximum seconds to establish a TCP connection
LOOK = 1  # seconds between two checks of the path of a datagram socket
# Name lookups and calls on paths, which can hang, occupy at most this many threads of the pool.
THREADS = trio.CapacityLimiter(8)

State = Literal["connecting", "listening", "connected"]


class Told(Protocol):
    """Receives reports about a cable's connection."""

    def connected(self, peer: str) -> None:
        """Report a new connection. peer: the address of a TCP peer, or ""."""

    def disconnected(self, reason: VirtError | None) -> None:
        """Report the end of a connection. reason: None if the cable has been removed."""

    def cannot_connect(self, reason: VirtError) -> None:
        """Report a failed attempt to connect."""


class SocketCable:
    """A cable between a virt and a socket.

    ways: the direction to the socket and the opposite direction, with their counters.
    state, connections: the state of the connection, and the number of connections so far.
    peer: the address of the TCP peer, or "".
    error: why the last connection ended or the last attempt to connect failed, as a sentence; None while there is a
    connection, and before the first failure.
    """

    def __init__(self, wire: Wire, name: SocketName, own: OwnSocket | None, room: Room, told: Told) -> None:
        """Make a cable, which carries frames once `run` is called.

        own: the cable's own bound socket if `name` listens or exchanges datagrams, else None. The cable closes it.
        """
        self.wire = wire
        self.name = name
        self.state: State
        self.peer: str
        self._idle()
        self.error: str | None = None
        self.connections = 0
        self._own = own
        self._room = room
        self._told = told
        virt = wire.virt.name
        self.ways = Way(virt, str(name)), Way(str(name), virt)
        self._out_path: ImpairedPath | None = None  # the impairment towards the socket
        self._exit = Exit(self.ways[0].counters)
        self._entrance = Entrance(wire.out, self.ways[1].counters)
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    def impair(self, impairment: Impairment, direction: Direction) -> ImpairedPath | None:
        """Impair one direction; "out" is the direction to the socket. Call this at most once for each direction.

        Return the new ImpairedPath, whose `run` the caller must start, or None if the impairment is harmless. The
        errors are those of ImpairedPath.
        """
        if impairment.harmless:
            return None
        hold = self.wire.memory.hold(Kind.DELAYED, lambda: self.wire.virt.owner)
        if direction == "out":
            path = self._out_path = ImpairedPath(impairment, direction, self._exit, hold)
        else:
            path = self._entrance.path = ImpairedPath(impairment, direction, self._entrance, hold)
        return path

    async def run(self) -> None:
        """Connect, and carry frames, until `stop` is called."""
        try:
            with self._scope:
                await lasting(f"{self.wire.virt.name}: the cable to {self.name}", self._keep_connected)
        finally:
            with trio.CancelScope(shield=True):
                await self._close()
            self._ended.set()

    async def stop(self) -> None:
        """End `run`, which must have been started. Frames that the cable's impairment delays are dropped."""
        self._scope.cancel()
        await self._ended.wait()
        for path in (self._out_path, self._entrance.path):
            if path is not None:
                path.stop()
        self._out_path = self._entrance.path = None

    async def _close(self) -> None:
        if self._own is not None:
            await surely_in_thread(self._own.close)

    async def _keep_connected(self) -> None:
        pause = FIRST
        while True:
            try:
                connected = await self._connect()
            except VirtError as failure:
                self.error = failure.strerror
                self._told.cannot_connect(failure)
            else:
                began = trio.current_time()
                reason = await self._serve(connected)
                if trio.current_time() - began > 2 * LONGEST:
                    pause = FIRST
                if reason.errno == errno.EPIPE and self.name.listens:
                    continue
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST)

    # Connecting

    async def _connect(self) -> socket.socket:
        """Return a connected socket, which is `self._own` for datagrams. VirtError: the attempt failed."""
        name, own = self.name, self._own
        if name.kind == "dgram" and own is not None:
            await self._in_thread(partial(sockets.connect_to, own.socket, name))
            return own.socket
        if own is not None:
            return await self._accept(own.socket)
        if name.kind == "tcp":
            return await self._connect_tcp()
        return await in_thread(sockets.connect_path, name, limiter=THREADS, abandon=True)

    async def _in_thread(self, call: Callable[[], None]) -> None:
        await in_thread(call, limiter=THREADS, abandon=True)

    async def _accept(self, listening: socket.socket) -> socket.socket:
        while True:
            await trio.lowlevel.wait_readable(listening)
            if (connected := sockets.accept(listening)) is not None:
                return connected

    async def _connect_tcp(self) -> socket.socket:
        reason = VirtError(errno.EHOSTUNREACH, f"{self.name.host} has no address")
        for family, kind, address in await in_thread(sockets.look_up, self.name, limiter=THREADS, abandon=True):
            made = sockets.open_socket(family, kind)
            try:
                number = made.connect_ex(address)
                if number == errno.EINPROGRESS:
                    number = errno.ETIMEDOUT
                    with trio.move_on_after(CONNECTING):
                        await trio.lowlevel.wait_writable(made)
                        number = sockets.outcome(made)
            except BaseException:
                made.close()
                raise
            if not number:
                return made
            made.close()
            reason = VirtError(number, f"cannot connect to {self.name} at {address[0]}: {os.strerror(number)}")
        raise reason

    # A connection

    async def _serve(self, connected: socket.socket) -> VirtError:
        """Carry frames until the connection ends, and return the reason. Cancellation ends the connection too."""
        reason: VirtError | None = None
        scope = trio.CancelScope()

        def fail(why: VirtError) -> None:
            nonlocal reason
            # A copy, because a local variable must not refer to a traceback that leads to its own frame.
            reason = reason or VirtError(why.errno, why.strerror)
            scope.cancel()

        wire, before = self.wire, self.ways[1].counters.frames
        try:
            sockets.prepare(connected)
            self.peer = sockets.peer_of(connected)
            sender, receiver = self._ways(connected, fail)
            self.state, self.error = "connected", None
            self.connections += 1
            self._told.connected(self.peer)
            wire.settle()
            self._exit.sender = sender
            wire.take_over(self._onward)
            try:
                with scope:
                    works: list[Task] = [
                        partial(self._outward, sender),
                        partial(self._resume, sender, connected),
                        partial(self._inward, receiver, connected),
                    ]
                    if self.name.kind == "dgram":
                        works.append(partial(self._follow, connected))
                    elif self._own is not None:
                        works.append(partial(self._turn_away, self._own.socket))
                    await together(*(partial(self._until_failure, work, fail) for work in works))
            finally:
                self._exit.sender = None
                sender.end()
                receiver.end()
                wire.give_back()
        finally:
            if self._own is None or connected is not self._own.socket:
                connected.close()
            if reason is not None and self._turned_away(reason, before):
                reason = VirtError(reason.errno, f"{reason.strerror} without a frame; it may have another peer")
            self.error = None if reason is None else reason.strerror
            self._idle()
            self._told.disconnected(reason)
        return reason or VirtError(errno.ECANCELED, "the cable has been removed")

    def _turned_away(self, reason: VirtError, before: int) -> bool:
        """Return whether the peer has closed a connection on which no frame arrived, as _turn_away() does.

        before: the number of frames that had arrived before this connection.
        """
        closed = reason.errno in (errno.EPIPE, errno.ECONNRESET)
        return closed and self._own is None and self.ways[1].counters.frames == before

    def _idle(self) -> None:
        self.state, self.peer = "listening" if self.name.listens else "connecting", ""

    def _ways(
        self, connected: socket.socket, fail: Callable[[VirtError], None]
    ) -> tuple[Sender, StreamReceiver | MessageReceiver]:
        """Return both directions of a connection."""
        wire, room, entrance, counters = self.wire, self._room, self._entrance, self.ways[0].counters
        if self.name.stream:
            return (
                StreamSender(wire, counters, connected, room, fail),
                StreamReceiver(wire, entrance, connected, room),
            )
        datagrams = self.name.kind == "dgram"
        return (
            MessageSender(wire, counters, connected, room, fail),
            MessageReceiver(entrance, connected, room, datagrams),
        )

    async def _until_failure(self, work: Task, fail: Callable[[VirtError], None]) -> None:
        """Run one task of a connection. If it fails, end the connection."""
        try:
            await work()
        except OSError as failure:
            fail(refused(failure))
        except Exception as failure:
            log.exception("%s: the cable to %s failed", self.wire.virt.name, self.name)
            fail(VirtError(errno.EIO, f"{type(failure).__name__}: {failure}"))

    async def _outward(self, sender: Sender) -> None:
        """Carry frames from the tap to the socket."""
        wire, until = self.wire, monotonic_ns() + TURN
        while not wire.virt.lost:
            if not sender.writable.is_set():
                await sender.writable.wait()
                until = monotonic_ns() + TURN
                continue
            try:
                carried = self._single_burst(sender) if self._needs_single() else sender.burst()
            except OSError:
                wire.vanished()
                break
            if not carried:
                await trio.lowlevel.wait_readable(wire.tap.fd)
                until = monotonic_ns() + TURN
            elif monotonic_ns() > until:
                await trio.lowlevel.checkpoint()
                until = monotonic_ns() + TURN
        await trio.sleep_forever()  # the tap has vanished, but the peer may still send

    def _needs_single(self) -> bool:
        """Return whether each frame must pass through the wire, because of a reader or an impairment."""
        return bool(self.wire.readers) or self.wire.path is not None or self._out_path is not None

    def _single_burst(self, sender: Sender) -> int:
        for frames in range(BURST):
            if not sender.writable.is_set():
                return max(frames, 1)
            frame = take(self.wire.tap.fd, self._room)
            if frame is None:
                return frames
            self.wire.receive(bytes(frame))
        return BURST

    def _onward(self, frame: bytes) -> None:
        """Carry a frame that the wire hands over. Apply the impairment of this direction first, if any."""
        self.wire.count_in(1, len(frame))
        if self._out_path is not None:
            self._out_path.push(frame)
        else:
            self._exit.arrive(frame)

    async def _resume(self, sender: Sender, connected: socket.socket) -> None:
        """Send the waiting frames each time a full socket becomes writable again."""
        while True:
            await sender.full.wait()
            await trio.lowlevel.wait_writable(connected)
            sender.resume()

    async def _inward(self, receiver: StreamReceiver | MessageReceiver, connected: socket.socket) -> None:
        """Carry frames from the socket to the tap."""
        until = monotonic_ns() + TURN
        while True:
            try:
                receiver.receive()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(connected)
                until = monotonic_ns() + TURN
            if monotonic_ns() > until:
                await trio.lowlevel.checkpoint()
                until = monotonic_ns() + TURN

    async def _turn_away(self, listening: socket.socket) -> None:
        """Accept further connections, and close them at once."""
        while True:
            try:
                second = await self._accept(listening)
            except VirtError:  # too many files are open
                await trio.sleep(LOOK)
                continue
            second.close()
            log.info("%s: refused a second connection to %s", self.wire.virt.name, self.name)

    async def _follow(self, connected: socket.socket) -> None:
        """Reconnect to the peer's path every LOOK seconds, because a new socket may have replaced the old one.

        If there is no socket at the path, the error ends the connection. The kernel does not report that a datagram
        peer has closed its socket. A new socket at the path cannot send to this cable until the cable connects to it
        (EPERM, net/unix/af_unix.c unix_may_send).
        """
        while True:
            await trio.sleep(LOOK)
            await self._in_thread(partial(sockets.connect_to, connected, self.name))
