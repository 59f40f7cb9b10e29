"""The wire between a tap and its virt.

    a frame from the tap → filter (in the kernel) → impairment → queue

`wire_out` is the other direction.

The tap's queue in the kernel is virt's receive queue. A frame stays there until it is read, so it is copied only
once, from the tap into the reply to the read. The wire reads ahead only for three purposes: `peek`, which returns the
length of a frame before the frame is read; `backlog`, which keeps the last frames while there is no reader; and
an impairment. Frames that are read ahead wait in a second queue of the same length. Captures do not use the wire: they
get their frames from `recorder`.

Frames that arrive in the tap while the interface has no reader count as dropped, as on a closed tap(4). `settle` counts
them at the next open, when the counters are read, and once a second while a program reads `events`.
"""

import errno
import select
from collections.abc import Callable
from io import FileIO
from time import time_ns

from virtfs.core.counters import Counts
from virtfs.core.errors import VirtError
from virtfs.core.framequeue import Copy, FrameQueue
from virtfs.core.memory import Kind, Memory
from virtfs.core.virt import Virt
from virtfs.forward.tapwatch import TapWatch
from virtfs.forward.wire_out import Given, Outward, Path
from virtfs.host.tap_protocol import VNET_HEADER, TapDevice

HEADROOM = 16  # bytes that a reader leaves free before the frame
LONGEST = 65536 + 32  # maximum bytes of a frame from a tap: the largest MTU, and space for any link header
# Holds a frame only while it is read and copied, so one buffer serves all wires.
_ROOM = memoryview(bytearray(LONGEST + VNET_HEADER))
# FUSE splits a readv(2) or writev(2) of more than 256 buffers. Each buffer has at least one byte, so the first piece of
# a split call has at least this many bytes (fuse/split_calls.py).
SPLIT = 256


class Wire:
    """Takes frames out of one tap, and never waits. Its attribute `out` puts frames into the tap.

    watch: calls ready_to_read() when the tap may have a frame for a waiting reader.
    gone: called when the tap turns out to have vanished.
    catch_up: processes pending notifications from the kernel; called before a frame is rejected as too long.
    dropped: called with the number of frames that nobody will read.
    listeners: functions that are called when a frame may have arrived, when virt has changed, and when a reader opens
    or closes. Each returns whether anyone is still waiting for a frame from the tap.
    changed: functions that are called when virt has changed, and when a reader opens or closes.
    memory: the memory accounts of the mount. Frames that are read ahead are charged to the owner of the interface.
    path: the impairment of frames towards virt, or None.
    counted: whether `take` counted the last frame that it returned. It does not count copies of a cable's frames.
    rest: the end of a frame that did not fit into a read of at least SPLIT bytes. The frame file clears it after use.
    """

    def __init__(
        self,
        virt: Virt,
        tap: TapDevice,
        *,
        watch: TapWatch,
        gone: Callable[[], None],
        catch_up: Callable[[], None],
        dropped: Callable[[int], None],
        memory: Memory,
    ) -> None:
        self.virt = virt
        self.tap = tap
        self.listeners: list[Callable[[], bool]] = []
        self.changed: list[Callable[[], None]] = []
        self.readers = 0
        self.coming = False  # whether the only reader cannot read yet
        self.taken_at = time_ns()
        self.counted = True
        self.path: Path | None = None
        self.catch_up = catch_up
        self.memory = memory
        self.out = Outward(virt, tap, catch_up, gone)
        self._dropped = dropped
        self._onward: Callable[[bytes], None] | None = None  # takes the frames while a cable reads the tap
        self._given = False  # whether a program has the tap, and reads it instead of this wire
        self._counters = virt.counters
        self._fd = tap.fd
        self._tap_read = FileIO(tap.fd, "r+b", closefd=False).readinto  # returns None where os.read raises EAGAIN
        self._kept = FrameQueue(memory.hold(Kind.FRAMES, lambda: virt.owner))
        self.rest = b""
        self._refusal: tuple[int, str] | None = None  # errno and message of the error that reads raise, or None
        self.watch = watch
        self._watched = False  # whether `watch` calls ready_to_read()
        self._wanted = False  # whether a reader or an impairment is waiting for frames
        self._missed = False  # whether ready_to_read() was called while nobody was waiting
        watch.add(self._fd, self.ready_to_read)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._poll_out = select.poll()
        self._poll_out.register(self._fd, select.POLLOUT)
        self.update()
        virt.listeners.append(self.update)
        virt.line_listeners.append(self._lines_changed)

    # Frames for readers

    def take(self, room: memoryview, size: int) -> int | None:
        """Put the next frame, truncated to `size` bytes, into `room` at offset HEADROOM.

        Return the number of bytes put there, or None if there is no frame. The rest of a truncated frame is lost, as
        with tap(4). The tap's virtio_net_hdr is read into the headroom. `room` must have space for the largest frame,
        whatever `size` is. VirtError: EHOSTDOWN, the interface is down; ENXIO, its tap has vanished.
        """
        if self._refusal is not None and not self._up_already():
            raise VirtError(*self._refusal)
        if self._kept:
            frame = self._kept.take()
            length = len(frame)
            room[HEADROOM : HEADROOM + length] = frame
            self.counted = counted = type(frame) is not Copy
        elif self._fed:
            return None
        else:
            try:
                length = self._tap_read(room[HEADROOM - VNET_HEADER :])
            except OSError as error:
                raise self.vanished() from error
            if not length:
                if length is None:
                    return None
                raise self.vanished()
            length -= VNET_HEADER
            self.counted = counted = True
        if counted:
            counters = self._counters
            counters.rx_frames += 1
            counters.rx_bytes += length
        self.taken_at = time_ns()
        if length <= size:
            return length
        if size >= SPLIT:
            self.rest = bytes(room[HEADROOM + size : HEADROOM + length])
        return size

    def expect_up(self) -> None:
        """Raise the error that a read would get now: EHOSTDOWN, the interface is down; ENXIO, its tap has vanished."""
        if self._refusal is not None and not self._up_already():
            raise VirtError(*self._refusal)

    def sources(self) -> tuple[FrameQueue, int]:
        """Return the queue of frames that were read ahead, and the tap's descriptor.

        A reader takes the queued frames first. It then reads from the descriptor, where a virtio_net_hdr precedes
        each frame. The descriptor is -1 if an impairment or a cable reads the tap.
        """
        return self._kept, -1 if self._fed else self._fd

    def source(self) -> int:
        """Return the descriptor to read the next frame from, or -1 if the reader must call `take` instead."""
        return -1 if self._fed or self._kept or self._refusal is not None else self._fd

    def put_back(self, frame: bytes) -> None:
        """Queue a frame that was taken from `source`, so that `take` returns it next."""
        self.lose(self._kept.add(frame, 1))

    def count(self, frames: int, size: int, ago: int = 0) -> None:
        """Count frames that a reader has taken from `sources` or `source`. The caller leaves out copies.

        size: the total length of the frames in bytes. ago: ns since the last one was taken.
        """
        self._counters.rx_frames += frames
        self._counters.rx_bytes += size
        self.taken_at = time_ns() - ago

    def _up_already(self) -> bool:
        """Return whether the interface is up, even if the kernel has not reported this yet. If so, enable reads."""
        if self.virt.lost or self._given or not self._writable():
            return False
        self._refusal = None
        return True

    def _writable(self) -> bool:
        """Return whether the tap is writable, which means that its interface is up (drivers/net/tun.c tun_chr_poll)."""
        return bool(self._poll_out.poll(0))

    def ready(self) -> int:
        """Return POLLIN if `take` would return a frame, POLLIN|POLLERR if it would fail, or 0 if there is no frame."""
        if self._refusal is not None and not self._up_already():
            return select.POLLIN | select.POLLERR
        if self._kept or self._fed:
            return select.POLLIN if self._kept else 0
        for _, events in self._poll.poll(0):
            gone = events & (select.POLLERR | select.POLLHUP)
            return select.POLLIN | select.POLLERR if gone else select.POLLIN
        return 0

    def waiting(self) -> bool:
        """Return whether a frame can be taken now."""
        return self.ready() == select.POLLIN

    def disown(self, length: int) -> None:
        """Move one frame from the count of received frames to that of dropped frames. length: bytes in the frame.

        Call this for a `counted` frame that cannot be passed to the reader.
        """
        self._counters.rx_frames -= 1
        self._counters.rx_bytes -= length
        self.lose(1)

    def peek(self) -> int:
        """Return the length of the next frame in bytes, or 0 if there is none."""
        if self._ahead():
            self._read_ahead()
        elif not self.readers:
            self.settle()
        elif self._refusal is None and not self._fed and not self._kept and (frame := self._read()) is not None:
            self._kept.add(frame, 1)
            # Wake pollers here: if the tap is empty now, epoll does not report this frame.
            self._tell()
        return self._kept.next_length()

    def want(self) -> None:
        """Watch the tap, because a reader is waiting."""
        self._wanted = True
        if not self._watched or self._missed:
            self._watched, self._missed = True, False
            self.watch.watch(self._fd)

    # State

    def update(self) -> None:
        """React to a change to virt, the impairment or the cable."""
        virt = self.virt
        self.out.update()
        # With an impairment or a cable, or while a program has the tap, `take` does not read the tap itself. It takes
        # frames only from _kept.
        self._fed = self.path is not None or self._onward is not None or self._given
        if virt.lost:
            self._refusal = (errno.ENXIO, f"{virt.name} is gone")
        elif not virt.host.up and (self._given or not self._writable()):
            self._refusal = (errno.EHOSTDOWN, f"{virt.name} is down")
        else:
            self._refusal = None
        if self._refusal is not None:
            self._empty()
        elif self._ahead():
            self._trim()
            self._read_ahead()
            self.want()
        else:
            self.settle()
        self._tell_change()

    def settle(self) -> None:
        """Drop the frames that nobody will read, and count them."""
        if not self.readers and not self._ahead():
            if self._onward is None and not self._given:
                self._empty()
            else:
                # The cable, or the program that has the tap, takes all frames, so there is no backlog.
                self.lose(self._kept.trim(0))

    def finish(self) -> None:
        """Drop the frames that wait, and count them, because the interface is about to be destroyed."""
        if not self.virt.lost:
            self._empty()

    def opened(self, coming: bool = False) -> None:
        """Count a new reader. The first reader gets the backlog and all frames from now on.

        coming: whether the reader cannot read yet. `wait/reader` does not see it before arrived() is called.
        """
        self.coming = coming
        if not self.readers:
            self._read_ahead() if self._ahead() else self.settle()
        self.readers += 1
        self._tell_change()

    def arrived(self) -> None:
        """Record that the new reader can read."""
        self.coming = False
        self._tell_change()

    def closed(self) -> None:
        """Remove a closed reader from the count. After the last one, drop all queued frames except the backlog."""
        self.readers -= 1
        if not self.readers:
            self.update()
            if self._watched and not self._wanted:
                self._watched = self._missed = False
                self.watch.rest(self._fd)
        else:
            self._tell_change()

    def _tell(self) -> bool:
        return True in [listener() for listener in self.listeners]  # a list, so that every listener is called

    def _tell_change(self) -> None:
        self._tell()
        self._lines_changed()

    def _lines_changed(self) -> None:
        for listener in self.changed:
            listener()

    def _ahead(self) -> bool:
        """Return whether frames are read from the tap before a reader asks for them."""
        if self._refusal is not None or self._onward is not None or self._given:
            return False
        return self.path is not None or (bool(self.virt.backlog) and not self.readers)

    def _read_ahead(self) -> bool:
        """Move frames from the tap into the impairment or the second queue. Return whether the tap may hold more."""
        dropped = 0
        for _ in range(self._burst()):
            if (frame := self._read()) is None:
                self.lose(dropped)
                return False
            if self.path is not None:
                self.path.push(frame)
            else:
                dropped += self._queue(frame)
        self.lose(dropped)
        return True

    def arrive(self, frame: bytes) -> None:
        """Take a frame for virt, after the impairment if there is one.

        Without a cable, queue the frame. With a cable, pass the frame to it, and queue a copy only for readers.
        """
        if self._onward is None:
            self.lose(self._queue(frame))
            self._tell()
            return
        if self.readers:
            self._queue(Copy(frame))
            self._tell()
        self._onward(frame)

    # Frames for a cable

    def set_path(self, path: Path | None) -> None:
        """Send frames towards virt through an impairment from now on. If `path` is None, queue them at once."""
        self.path = path
        self.update()

    def ignore(self, listener: Callable[[], bool]) -> None:
        """Remove a listener. Do nothing if the wire is closed."""
        if listener in self.listeners:
            self.listeners.remove(listener)

    def take_over(self, onward: Callable[[bytes], None]) -> None:
        """Let a cable read the tap from now on, instead of this wire.

        The cable passes each frame to `receive`. The wire applies its impairment, if any, and then passes the frame to
        `onward`.
        """
        self._onward = onward
        self.update()

    def give_back(self) -> None:
        """Let this wire read the tap again, because the cable is removed."""
        self._onward = None
        self.update()

    # A program that has the tap

    def give(self, way: Given) -> None:
        """Stop reading the tap, because a program gets it. Frames that were read ahead are dropped and counted.

        way: how frames from other programs reach the host in the meantime.
        """
        self._given = True
        # A watched tap wakes its watcher for each frame, which delays the program.
        self.watch.remove(self._fd, self.ready_to_read)
        self.out.give(way)
        self.update()
        self.lose(self._kept.trim(0))

    def regain(self) -> None:
        """Read the tap again. Its descriptor has the same number, but may refer to another open file description."""
        self.watch.add(self._fd, self.ready_to_read)
        self._given = self._watched = self._missed = False
        if self._wanted:
            self.want()
        self.out.regain()
        self.update()

    def receive(self, frame: bytes) -> None:
        """Take one complete frame that the cable has read from the tap. Large segments must have been split."""
        if self.path is not None:
            self.path.push(frame)
        else:
            self.arrive(frame)

    def shorten(self, queue: int) -> None:
        """Prepare the tap for a shorter queue. Read the frames that it holds, and drop those beyond `queue` frames.

        Otherwise the kernel would drop the frames that do not fit into the new queue, without counting them
        (drivers/net/tun.c tun_queue_resize).
        """
        if self._refusal is not None or self._onward is not None or self._given or queue >= self.virt.host.queue:
            return
        if self._ahead():
            self._read_ahead()
        elif not self.readers:
            self.settle()
        else:
            for _ in range(self._burst()):
                if (frame := self._read()) is None:
                    break
                self.lose(self._kept.add(frame, queue))

    def count_in(self, frames: int, size: int) -> None:
        """Count frames that a cable has read from the tap. size: their total length in bytes."""
        self._counters.rx_frames += frames
        self._counters.rx_bytes += size

    def count_impaired(self, counts: Counts) -> None:
        """Add the counts of this direction's impairment to the counters."""
        counters = self._counters
        counters.rx_lost += counts.lost
        counters.rx_overlimit += counts.overlimit
        counters.rx_duplicated += counts.duplicated
        counters.rx_reordered += counts.reordered
        counters.rx_corrupted += counts.corrupted
        self.lose(counts.lost + counts.overlimit)

    def _queue(self, frame: bytes) -> int:
        """Put a frame into the second queue, and return the number of frames to count as dropped.

        A full queue drops this frame; a full backlog drops its oldest frame.
        """
        if self._refusal is not None:
            return type(frame) is not Copy
        if self.readers:
            return self._kept.add(frame, self.virt.host.queue)
        return self._kept.keep(frame, self.virt.backlog)

    def _trim(self) -> None:
        """If there is no reader, drop all queued frames except the backlog."""
        if not self.readers:
            self.lose(self._kept.trim(self.virt.backlog))

    def _empty(self) -> None:
        dropped = self._kept.trim(0)
        if self._refusal is not None:
            dropped += 0 if self.path is None else self.path.clear()
            self.out.clear()
        for _ in range(0 if self.virt.lost or self._given else self._burst()):
            if self._read() is None:
                break
            dropped += 1
        self.lose(dropped)

    def lose(self, frames: int) -> None:
        """Count frames as dropped."""
        if frames > 0:
            self._counters.rx_dropped += frames
            self._dropped(frames)

    def _burst(self) -> int:
        """Return the maximum number of frames to read before other tasks run: a little more than the tap's queue holds.

        The limit keeps a busy host from starving other tasks.
        """
        return self.virt.host.queue + 16

    def _read(self) -> bytes | None:
        try:
            length = self._tap_read(_ROOM)
        except OSError:
            return None
        return bytes(_ROOM[VNET_HEADER:length]) if length else None

    def vanished(self) -> VirtError:
        """Report that the tap has vanished. Return the error that a read must raise."""
        return self.out.vanished()

    # Called by the watch

    def ready_to_read(self, events: int) -> bool:
        """Wake waiting readers, or read ahead, because the tap has become readable.

        Return whether the tap may hold more frames to read ahead. events: those of epoll(7).
        """
        if not self._wanted:
            self._missed = True
            return False
        if events & (select.EPOLLERR | select.EPOLLHUP) and not self.tap.alive():
            self.vanished()
        if self._ahead() and self._read_ahead():
            self._tell()
            return True
        if not self._tell() and not self._ahead():
            self._wanted = False
        return False

    def close(self) -> None:
        """Stop using the tap, because the interface is destroyed. The owner of the tap closes it.

        The wire forgets everything that refers to it, so that it is freed when the last open file is closed.
        """
        self.watch.remove(self._fd, self.ready_to_read)
        self._fd = -1
        self.listeners.clear()
        self.changed.clear()
        self.path = self.out.path = self._onward = None
