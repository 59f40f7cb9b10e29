"""The wire between a tap and its virt.

    a frame written → impair out → antispoof → tap
    a frame from the tap → (filter, in the kernel) → impair in → queue

The kernel's queue of the tap is virt's receive queue: a frame stays there until somebody takes it, so a frame is
copied once, from the tap into the answer of the read. The wire reads ahead only where it must: to tell a frame's
length before it is read (`peek`), for `backlog`, which keeps the last frames while nobody reads, and for an impairment.
What is read ahead waits in a second queue of the same length. Captures look at the tap themselves (`recorder`).

What lies in the tap while nobody has the file open counts as dropped, as on a closed tap(4). That is settled when
somebody looks (`settle`): at the next open, or when the counters are read.
"""

import errno
import select
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import FileIO
from operator import length_hint
from os import writev
from time import time_ns
from typing import Protocol

import trio

from virtfs.core.errors import VirtError
from virtfs.core.framequeue import FrameQueue
from virtfs.core.savefile import Run
from virtfs.core.virt import Virt
from virtfs.forward.rows import Rows
from virtfs.host.device import NO_HEADER, VNET_HEADER, TapDevice

HEADROOM = 16  # bytes a reader leaves free before the frame
LONGEST = 65536 + 32  # bytes of a frame out of a tap: the largest MTU and any link header


class Way(Protocol):
    """What holds frames up, or loses them, on their way in or out. It gives them on by itself."""

    def push(self, frame: bytes) -> None:
        """One more frame sets out."""

    def clear(self) -> int:
        """Drop what is on its way; how many frames that was."""


class Wire:
    """Takes frames out of one tap and puts frames into it, never waiting.

    listeners: called when a frame may have come, the wire has gone up, down or away, or a reader has come or gone; each
    says whether somebody still waits for a frame.
    dropped: called with how many frames nobody will read.
    news: takes in what the kernel has reported, asked before a frame is found too long for the MTU.
    gone: called once, when the tap turns out to have vanished.
    """

    def __init__(self, virt: Virt, tap: TapDevice) -> None:
        self.virt = virt
        self.tap = tap
        self.listeners: list[Callable[[], bool]] = []
        self.gone: Callable[[], None] = lambda: None
        self.dropped: Callable[[int], None] = lambda frames: None
        self.news: Callable[[], None] = lambda: None
        self.readers = 0
        self.taken_at = self.put_at = time_ns()
        self.inlet: Way | None = None
        self.onward: Callable[[bytes], None] | None = None  # a cable, which reads the tap in our place
        self.outlet: Way | None = None
        self._counters = virt.counters
        self._fd = tap.fd
        device = FileIO(tap.fd, "r+b", closefd=False)
        self._tap_read = device.readinto  # says None where os.read raises
        self._tap_write = device.write
        self._kept = FrameQueue()
        self._rest = memoryview(bytearray(LONGEST + VNET_HEADER))
        self._refusal: tuple[int, str] | None = None  # what a read fails with, EHOSTDOWN or ENXIO
        self._wanted = trio.Event()
        # Edge-triggered: poll(2) on a frame file must tell of a new frame also when an older one still waits.
        self._edge = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._edge.register(self._fd, select.EPOLLIN | select.EPOLLET)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._poll_out = select.poll()
        self._poll_out.register(self._fd, select.POLLOUT)
        self.update()

    # Towards the reader

    def take(self, room: memoryview, size: int) -> int | None:
        """The next frame, cut to `size` bytes as tap(4) cuts it, into `room` at HEADROOM; how many bytes it is.

        None when there is none, EHOSTDOWN while the interface is down, ENXIO when its tap has vanished. The tap's
        virtio_net_hdr is read into the headroom, so `room` is as large as the largest frame in any case.
        """
        if self._refusal is not None and not self._up_already():
            raise VirtError(*self._refusal)
        if self._kept:
            frame = self._kept.take()
            length = len(frame)
            room[HEADROOM : HEADROOM + length] = frame
        elif self._fed:
            return None
        else:
            try:
                length = self._tap_read(room[HEADROOM - VNET_HEADER :])
            except OSError as error:
                raise self._vanished() from error
            if not length:
                if length is None:
                    return None
                raise self._vanished()
            length -= VNET_HEADER
        if self.onward is None:  # a cable has counted it
            counters = self._counters
            counters.rx_frames += 1
            counters.rx_bytes += length
        self.taken_at = time_ns()
        return length if length < size else size

    def _up_already(self) -> bool:
        """The interface is up, only the kernel's report of it is still to come (drivers/net/tun.c: EPOLLOUT)."""
        if self.virt.lost or not self._poll_out.poll(0):
            return False
        self.virt.host.up = True
        self._refusal = None  # the rest with the report
        return True

    def waiting(self) -> bool:
        """A frame can be taken now."""
        if self._refusal is not None:
            return False
        if self._kept or self._fed:
            return bool(self._kept)
        return any(events & select.POLLERR == 0 for _, events in self._poll.poll(0))  # POLLERR: it is gone

    def disown(self, length: int) -> None:
        """A frame just taken cannot be given to the reader: it counts as dropped."""
        self._counters.rx_frames -= 1
        self._counters.rx_bytes -= length
        self._drop(1)

    def peek(self) -> int:
        """The next frame's length in bytes, 0 when there is none."""
        if self._ahead():
            self._read_ahead()
        elif not self.readers:
            self.settle()
        elif self._refusal is None and not self._fed and not self._kept and (frame := self._read()) is not None:
            self._kept.add(frame, 1)
            self._tell()  # whoever waits for the tap to become readable would wait on
        return self._kept.next_length()

    def want(self) -> None:
        """Somebody waits for a frame: look out for it."""
        self._wanted.set()

    # Towards the host

    def put(self, frame: memoryview) -> int:
        """Send one frame, or drop and count it as tap(4) does; its length, for both.

        With `strict` a dropped frame is ENETDOWN (the interface is down), EMSGSIZE, or EPERM (antispoof). ENXIO when
        the tap has vanished.
        """
        length = len(frame)
        self.put_at = time_ns()
        if self._plain and self._shortest <= length <= self._longest:
            try:
                writev(self._fd, (NO_HEADER, frame))
            except OSError as error:
                self._not_sent(error)
            else:
                counters = self._counters
                counters.tx_frames += 1
                counters.tx_bytes += length
        elif not self._fits(length):
            self._not_fitting(length)
        elif self.outlet is not None:
            if not self.virt.host.up:
                self._not_sent(OSError(errno.EIO, "down"))
            else:
                self.outlet.push(bytes(frame))
        else:
            self.send(frame)
        return length

    def put_all(self, frames: Iterable[bytes | Run], rows: Rows, most: int) -> int:
        """As `put`, one after the other without a call for each; how many.

        rows: room for the packets of a run. It ends after the run with which `most` frames in runs are reached.
        """
        write, head, shortest, longest = self._tap_write, NO_HEADER, self._shortest, self._longest
        sent = others = size = in_runs = 0
        try:
            for frame in frames:
                if isinstance(frame, Run):
                    self._put_run(frame, rows)
                    in_runs += frame.frames
                    if in_runs >= most:
                        break
                    continue
                length = len(frame)
                if self._plain and shortest <= length <= longest:
                    try:
                        if write(head + frame):
                            sent += 1
                            size += length
                            continue
                        self._not_sent(BlockingIOError(errno.EAGAIN, "full"))
                    except OSError as error:
                        self._not_sent(error)
                else:
                    self.put(memoryview(frame))
                others += 1
        finally:
            self._counters.tx_frames += sent
            self._counters.tx_bytes += size
        self.put_at = time_ns()
        return sent + others + in_runs

    def _put_run(self, run: Run, rows: Rows) -> None:
        """As `put_all`; here nothing but the write itself is done for each frame."""
        fits = self._plain and self._shortest <= run.length <= self._longest
        packets = iter(rows.packets(run) if fits else ())
        count, failed, write = length_hint(packets), 0, self._tap_write
        try:
            for packet in packets:
                try:
                    if write(packet):
                        continue
                    error: OSError = BlockingIOError(errno.EAGAIN, "full")
                except OSError as refusal:
                    error = refusal
                failed += 1
                self._not_sent(error)
        finally:
            sent = count - length_hint(packets) - failed
            self._counters.tx_frames += sent
            self._counters.tx_bytes += sent * run.length
        if not count:
            for frame in run.singly():
                self.put(memoryview(frame))

    def send(self, frame: memoryview | bytes) -> None:
        """The way out behind an impairment."""
        if self._source is not None and frame[6:12] != self._source:
            self._counters.tx_dropped += 1
            self._counters.tx_spoofed += 1
            if self.virt.strict and self.outlet is None:
                raise VirtError(errno.EPERM, f"a frame from another address than {self.virt.name}'s")
            return
        try:
            writev(self._fd, (NO_HEADER, frame))
        except OSError as error:
            self._not_sent(error)
            return
        self._counters.tx_frames += 1
        self._counters.tx_bytes += len(frame)

    def _fits(self, length: int) -> bool:
        if length > self._longest and not self.virt.lost:
            self.news()
        return self._shortest <= length <= self._longest

    def _not_fitting(self, length: int) -> None:
        virt, counters = self.virt, self._counters
        if virt.lost:
            raise self._vanished()
        counters.tx_dropped += 1
        if length < self._shortest:
            counters.tx_short += 1
            refusal = VirtError(errno.EMSGSIZE, f"a frame of {length} bytes: at least {self._shortest}")
        else:
            counters.tx_oversize += 1
            refusal = VirtError(errno.EMSGSIZE, f"a frame of {length} bytes: at most {self._longest}")
        if virt.strict:
            raise refusal

    def _not_sent(self, error: OSError) -> None:
        if error.errno not in (errno.EIO, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EINVAL):
            raise self._vanished() from error
        self.virt.counters.tx_dropped += 1
        if error.errno == errno.EIO:  # drivers/net/tun.c: the interface is not up
            self.virt.counters.tx_down += 1
            if self.virt.strict:
                raise VirtError(errno.ENETDOWN, f"{self.virt.name} is down") from error

    # Its state

    def update(self) -> None:
        """virt.host, virt.lost, a setting or an impairment is another now."""
        virt = self.virt
        self._shortest, self._longest = virt.bounds
        self._source = virt.address if virt.antispoof else None
        self._fed = self.inlet is not None or self.onward is not None  # frames do not come straight from the tap
        self._plain = self._source is None and self.outlet is None
        if virt.lost:
            self._longest = 0  # so that no frame is tried
            self._refusal = (errno.ENXIO, f"{virt.name} is gone")
        elif not virt.host.up:
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
        self._tell()

    def settle(self) -> None:
        """Count as dropped what nobody will read."""
        if not self.readers and not self._ahead() and self.onward is None:
            self._empty()

    def opened(self) -> None:
        """One more reads; the first gets only what comes from now on, and the backlog."""
        if not self.readers:
            self._read_ahead() if self._ahead() else self.settle()
        self.readers += 1
        self._tell()

    def closed(self) -> None:
        """One less reads; what it left in the queue nobody will read, unless the backlog keeps it."""
        self.readers -= 1
        if not self.readers:
            self.update()
        else:
            self._tell()

    def _tell(self) -> bool:
        return True in [listener() for listener in self.listeners]  # each is to be told

    def _ahead(self) -> bool:
        """Frames are to be read from the tap though nobody asks for one."""
        if self._refusal is not None or self.onward is not None:
            return False
        return self.inlet is not None or (bool(self.virt.backlog) and not self.readers)

    def _read_ahead(self) -> bool:
        """Take what is in the tap to where it belongs. True: there may be more."""
        dropped = 0
        for _ in range(self._burst()):
            if (frame := self._read()) is None:
                self._drop(dropped)
                return False
            if self.inlet is not None:
                self.inlet.push(frame)
            else:
                dropped += self._queue(frame)
        self._drop(dropped)
        return True

    def arrive(self, frame: bytes) -> None:
        """The way in behind an impairment."""
        if self.onward is None:
            self._drop(self._queue(frame))
            self._tell()
            return
        if self.readers:
            self._drop(self._queue(frame))
            self._tell()
        self.onward(frame)

    # Towards a cable

    def take_over(self, onward: Callable[[bytes], None]) -> None:
        """A cable reads the tap from now on; what `receive` is given comes to `onward` in the end."""
        self.onward = onward
        self.update()

    def give_back(self) -> None:
        """The cable is out."""
        self.onward = None
        self.update()

    def receive(self, frame: bytes) -> None:
        """A frame that the cable has read from the tap, single and complete."""
        if self.inlet is not None:
            self.inlet.push(frame)
        else:
            self.arrive(frame)

    def pass_on(self, frame: bytes) -> None:
        """A frame out of a cable sets out to the tap; what cannot be sent is dropped and counted."""
        with suppress(VirtError):
            self.put(memoryview(frame))

    def count_in(self, frames: int, size: int) -> None:
        """Frames, and their bytes, that a cable has read from the tap."""
        self._counters.rx_frames += frames
        self._counters.rx_bytes += size

    def count_out(self, frames: int, size: int) -> None:
        """Frames, and their bytes, that a cable has written into the tap."""
        self._counters.tx_frames += frames
        self._counters.tx_bytes += size

    def count_refused(self, frames: int, down: int) -> None:
        """Frames that the tap did not take, and for how many of them because it is down."""
        self._counters.tx_dropped += frames
        self._counters.tx_down += down

    def lose(self, frames: int) -> None:
        """An impairment has lost frames on their way in."""
        self._drop(frames)

    def lose_out(self, frames: int) -> None:
        """The same on their way out."""
        self._counters.tx_dropped += frames

    def vanished(self) -> None:
        """The tap turned out to be gone."""
        self._vanished()

    def _queue(self, frame: bytes) -> int:
        """Into the second queue; how many frames that costs: this one, or of a backlog the oldest."""
        if self._refusal is not None:
            return 1
        if self.readers:
            return self._kept.add(frame, self.virt.host.queue)
        return self._kept.keep(frame, self.virt.backlog)

    def _trim(self) -> None:
        """Nobody reads: of what waits only the backlog is kept."""
        if not self.readers:
            self._drop(self._kept.trim(self.virt.backlog))

    def _empty(self) -> None:
        dropped = self._kept.trim(0)
        if self._refusal is not None:
            dropped += 0 if self.inlet is None else self.inlet.clear()
            self.lose_out(0 if self.outlet is None else self.outlet.clear())
        for _ in range(0 if self.virt.lost else self._burst()):
            if self._read() is None:
                break
            dropped += 1
        self._drop(dropped)

    def _drop(self, frames: int) -> None:
        if frames > 0:
            self._counters.rx_dropped += frames
            self.dropped(frames)

    def _burst(self) -> int:
        """As much as can lie in the tap, so that a host that never stops sending holds nobody up."""
        return self.virt.host.queue + 16

    def _read(self) -> bytes | None:
        try:
            length = self._tap_read(self._rest)
        except OSError:
            return None
        return bytes(self._rest[VNET_HEADER:length]) if length else None

    def _vanished(self) -> VirtError:
        if not self.virt.lost:
            self.gone()
        return VirtError(errno.ENXIO, f"{self.virt.name} is gone")

    # Its task

    async def pump(self) -> None:
        """Look out for frames while somebody waits for them, as long as the wire lives; it can be cancelled."""
        while True:
            await self._wanted.wait()
            await trio.lowlevel.wait_readable(self._edge.fileno())
            events = self._edge.poll(0)
            if any(event & (select.EPOLLERR | select.EPOLLHUP) for _, event in events) and not self.tap.alive():
                self._vanished()
            while self._ahead() and self._read_ahead():
                self._tell()
                await trio.lowlevel.checkpoint()
            if not self._tell() and not self._ahead():
                self._wanted = trio.Event()

    def close(self) -> None:
        """Let go of the tap, which is its owner's to close; the pump must have ended and virt be lost."""
        self._edge.close()
        self._fd = -1
