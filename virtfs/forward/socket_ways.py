"""The two directions of one connection between a virt and a socket.

A Sender takes frames from the tap and passes them to the socket; a Receiver does the opposite. Neither ever waits. Each
exists in two forms: for byte streams, in which a frame follows its length (core.framestream), and for sockets whose
messages are frames.

While the socket is full, frames wait in the tap's queue, so that the kernel counts those that do not fit. Only frames
that an impairment has delayed, and copies of frames for readers, need a queue of their own.
"""

import errno
from collections import deque
from collections.abc import Callable
from os import readv
from socket import MSG_TRUNC, socket

import trio

from virtfs.core.counters import CableCounters, Counts
from virtfs.core.errors import VirtError, refused
from virtfs.core.framequeue import FrameQueue
from virtfs.core.framestream import FRAME_MAX, PREFIX
from virtfs.core.memory import Kind
from virtfs.forward.impaired_path import ImpairedPath
from virtfs.forward.records import RecordWriter
from virtfs.forward.wire import LONGEST, Wire
from virtfs.forward.wire_out import Outward
from virtfs.host.tap_protocol import VNET_HEADER

BURST = 128  # maximum number of frames moved by one call
CHUNK = 64 << 10  # bytes; frames are added to a write until it has this size. Also the maximum size of a read
FULL = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM}  # errnos of a socket that may accept the same data later


class Room:
    """Memory for frames while they are moved. It is used only during a call, so all socket cables share one."""

    def __init__(self) -> None:
        self.out = memoryview(bytearray(CHUNK + PREFIX.size + LONGEST))
        self.back = memoryview(bytearray(CHUNK + LONGEST))
        self.header = bytearray(VNET_HEADER)


def take(tap: int, room: Room) -> memoryview | None:
    """Take the next frame out of a tap, and return it. Return None if there is none.

    The frame is valid until the next use of `room`. OSError: the tap has vanished.
    """
    try:
        length = readv(tap, (room.header, room.out)) - VNET_HEADER
    except BlockingIOError:
        return None
    if length <= 0:
        raise OSError(errno.ENXIO, "the tap is gone")
    return room.out[:length]


class Sender:
    """Sends the frames of a wire to a connected socket.

    counters: those of the direction to the socket. A frame counts in `frames` once it has been offered to the socket.
    If the connection ends before the socket has taken the whole frame, end() counts the frame as dropped instead.
    full: an event that is set while the socket accepts no data; `resume` must then be called once the socket
    is writable.
    writable: an event that is set while the socket accepts data.
    fail: called with the error that ends the connection. It must not raise an exception.
    """

    _overhead = 0  # bytes before each frame

    def __init__(
        self, wire: Wire, counters: CableCounters, to: socket, room: Room, fail: Callable[[VirtError], None]
    ) -> None:
        self.wire = wire
        self._counters = counters
        self.full = trio.Event()
        self.writable = trio.Event()
        self.writable.set()
        self._room = room
        self._send = to.send
        self._fail = fail
        self._queue = FrameQueue(wire.memory.hold(Kind.FRAMES, lambda: wire.virt.owner))
        self._hold = wire.memory.hold(Kind.FRAMES, lambda: wire.virt.owner)
        # _rest: the data that the socket has not taken yet. _lengths: the lengths of the frames in _rest.
        # _into: how many bytes of the first of these frames, including its overhead, have already been sent.
        self._rest = b""
        self._lengths: deque[int] = deque()
        self._into = 0
        self._ended = False

    def burst(self) -> int:
        """Send the frames that wait in the tap, at most one burst, and return their number.

        OSError: the tap has vanished.
        """
        raise NotImplementedError

    def deliver(self, frame: bytes) -> None:
        """Send one frame after the waiting frames. If too many frames wait, drop this one and count the drop."""
        if self._rest or len(self._queue):
            self._counters.lose(self._queue.add(frame, self.wire.virt.host.queue))
        else:
            self._deliver(frame)

    def _deliver(self, frame: bytes) -> None:
        raise NotImplementedError

    def resume(self) -> None:
        """Send the waiting data. Called when a full socket has become writable."""
        self.full = trio.Event()
        if rest := self._rest:
            sent = self._offer(rest)
            self._rest = rest[sent:]
            self._advance(sent)
            if self._rest:
                self._wait()
                return
            self._hold.release()
        while len(self._queue) and not self._rest and not self._ended:
            self._deliver(self._queue.take())
        if not self._rest:
            self.writable.set()

    def end(self) -> None:
        """Drop the waiting frames, and count the drops. After this call, every frame is dropped."""
        self._ended = True
        self._counters.count(-len(self._lengths), -sum(self._lengths))
        self._counters.lose(len(self._lengths))
        self._rest = b""
        self._lengths.clear()
        self._hold.release()
        self._counters.lose(self._queue.trim(0))

    def _pass(self, data: memoryview | bytes, lengths: list[int]) -> None:
        """Send frames, and keep what the socket does not take.

        data: the frames, each with its overhead. lengths: the lengths of the frames, without the overhead.
        """
        self._counters.count(len(lengths), sum(lengths))
        sent = self._offer(data)
        if sent == len(data):
            return
        self._rest = bytes(data[sent:])
        self._lengths.extend(lengths)
        self._advance(sent)
        self._wait()
        try:
            self._hold.resize(len(self._rest))
        except VirtError as refusal:
            self._fail(refusal)

    def _wait(self) -> None:
        self.full.set()
        if self.writable.is_set():
            self.writable = trio.Event()

    def _offer(self, data: memoryview | bytes) -> int:
        """Send as much of the data as the socket takes now. Return the number of bytes sent."""
        if self._ended:
            return 0
        try:
            return self._send(data)
        except OSError as error:
            if error.errno not in FULL:
                self._fail(refused(error))
            return 0

    def _advance(self, sent: int) -> None:
        """Forget the frames that have been sent completely. sent: the number of bytes sent."""
        self._into += sent
        while self._lengths and self._into >= self._lengths[0] + self._overhead:
            self._into -= self._lengths.popleft() + self._overhead


class StreamSender(Sender):
    """Sends frames as records of a byte stream."""

    _overhead = PREFIX.size

    def burst(self) -> int:
        room, header, fd, pack = self._room.out, self._room.header, self.wire.tap.fd, PREFIX.pack_into
        lengths: list[int] = []
        at = 0
        try:
            while at < CHUNK and len(lengths) < 4 * BURST:
                length = readv(fd, (header, room[at + 4 :])) - VNET_HEADER
                if length <= 0:
                    raise OSError(errno.ENXIO, "the tap is gone")
                pack(room, at, length)
                at += 4 + length
                lengths.append(length)
        except BlockingIOError:
            pass
        finally:
            if lengths:
                self.wire.count_in(len(lengths), sum(lengths))
                self._pass(room[:at], lengths)
        return len(lengths)

    def _deliver(self, frame: bytes) -> None:
        self._pass(PREFIX.pack(len(frame)) + frame, [len(frame)])


class MessageSender(Sender):
    """Sends each frame as a message."""

    def burst(self) -> int:
        fd, room, send = self.wire.tap.fd, self._room, self._send
        sent = size = 0
        try:
            while sent < BURST:
                frame = take(fd, room)
                if frame is None:
                    break
                try:
                    send(frame)
                except OSError:
                    self.wire.count_in(1, len(frame))
                    self._pass(frame, [len(frame)])
                    return sent + 1
                sent += 1
                size += len(frame)
        finally:
            self.wire.count_in(sent, size)
            self._counters.count(sent, size)
        return sent

    def _deliver(self, frame: bytes) -> None:
        self._pass(frame, [len(frame)])


class Exit:
    """Hands frames for the socket to the Sender. Implements impaired_path.End.

    sender: the Sender, or None while there is no connection.
    """

    def __init__(self, counters: CableCounters) -> None:
        self.sender: Sender | None = None
        self._counters = counters

    def arrive(self, frame: bytes) -> None:
        """Send a frame, or drop it and count the drop if there is no connection."""
        if self.sender is not None:
            self.sender.deliver(frame)
        else:
            self.lose(1)

    def lose(self, frames: int) -> None:
        """Count frames that this direction has dropped."""
        self._counters.lose(frames)

    def count_impaired(self, counts: Counts) -> None:
        """Add the counts of this direction's impairment to the counters."""
        self._counters.count_impaired(counts)


class Entrance:
    """Hands frames that come from the socket to the interface.

    Implements records.Sink for frames from the socket, and impaired_path.End for frames from the impairment.

    path: the impairment of the cable in this direction, or None.
    """

    def __init__(self, out: Outward, counters: CableCounters) -> None:
        self.path: ImpairedPath | None = None
        self.tap_fd = out.tap_fd
        self._counters = counters
        self._out = out

    def bounds(self) -> tuple[int, int]:
        """Return the minimum and maximum length of a frame that may bypass `put`; (1, 0) if no frame may."""
        return self._out.bounds() if self.path is None else (1, 0)

    def put(self, frame: memoryview) -> None:
        """Send one frame, or drop it and count the drop."""
        if self.path is not None and 0 < len(frame) <= FRAME_MAX:
            self.path.push(bytes(frame))
        else:
            self.arrive(frame)

    def arrive(self, frame: bytes | memoryview) -> None:
        """Count a frame, and pass it to the interface."""
        self._counters.count(1, len(frame))
        self._out.pass_on(frame)

    def count(self, frames: int, size: int) -> None:
        """Count frames that were written straight to the tap. size: their total length in bytes."""
        self._counters.count(frames, size)
        self._out.count(frames, size)

    def refused(self, error: OSError, length: int) -> None:
        """Count a frame that the tap has refused. error: the error of write(2). length: bytes in the frame."""
        self._counters.count(1, length)
        self._out.not_passed_on(error)

    def lose(self, frames: int) -> None:
        """Count frames that this direction has dropped."""
        self._counters.lose(frames)

    def count_impaired(self, counts: Counts) -> None:
        """Add the counts of this direction's impairment to the counters."""
        self._counters.count_impaired(counts)


class StreamReceiver:
    """Receives frames as records of a byte stream."""

    def __init__(self, wire: Wire, entrance: Entrance, connected: socket, room: Room) -> None:
        self._receive = connected.recv_into
        self._room = room.back
        self._writer = RecordWriter(entrance)
        self._hold = wire.memory.hold(Kind.INPUT, lambda: wire.virt.owner)
        self._left = memoryview(b"")  # data that was received but not passed on yet

    def receive(self) -> None:
        """Pass on frames that have arrived, at most as many as one call of RecordWriter.write() sends.

        BlockingIOError: no data has arrived. VirtError: EPIPE, the peer has closed the connection; EINVAL, a record has
        a length that no frame can have; ENOBUFS, a memory limit is reached. Other errors are those of recv(2).
        """
        writer = self._writer
        if self._left:
            self._left = self._left[writer.write(self._left) :]
        else:
            length = self._receive(self._room, CHUNK)
            if not length:
                raise closed()
            used = writer.write(self._room[:length])
            if used < length:  # there are many small frames, and other tasks must run between them
                self._left = memoryview(bytearray(self._room[used:length]))
        if self._hold.size != (held := writer.unfinished() + len(self._left)):
            self._hold.resize(held)

    def end(self) -> None:
        """Drop the data that has not been passed on."""
        self._left = memoryview(b"")
        self._hold.release()


class MessageReceiver:
    """Receives messages, each of which is a frame.

    datagrams: whether the messages are datagrams. A datagram that is not a frame is dropped and counted. Otherwise a
    message that is not a frame is an error, which ends the connection.
    """

    def __init__(self, entrance: Entrance, connected: socket, room: Room, datagrams: bool) -> None:
        self._receive = connected.recv_into
        self._room = room.back
        self._put = entrance.put
        self._datagrams = datagrams

    def receive(self) -> None:
        """Pass on the frames that have arrived, at most one burst. The errors are those of StreamReceiver.receive()."""
        room, datagrams = self._room, self._datagrams
        for _ in range(BURST):
            length = self._receive(room, 0, MSG_TRUNC)
            if not length and not datagrams:
                raise closed()
            if length > FRAME_MAX and not datagrams:
                raise VirtError(errno.EINVAL, f"the message has {length} bytes; a frame has at most {FRAME_MAX}")
            self._put(room[:length])

    def end(self) -> None:
        """Do nothing, because messages are complete."""


def closed() -> VirtError:
    """Return the error for a connection that the peer has closed."""
    return VirtError(errno.EPIPE, "the peer has closed the connection")
