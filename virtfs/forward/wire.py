"""The wire between a tap and its virt.

The kernel's queue of the tap is virt's receive queue: a frame stays there until somebody takes it, so a frame is
copied once, from the tap into the answer of the read. The wire reads ahead only where it must: to tell a frame's
length before it is read (`peek`), and for `backlog`, which keeps the last frames while nobody reads.

What lies in the tap while nobody has the file open counts as dropped, as on a closed tap(4). That is settled when
somebody looks (`settle`): at the next open, or when the counters are read.
"""

import errno
import select
from collections import deque
from collections.abc import Callable
from io import FileIO
from os import readv, writev
from time import time_ns

import trio

from virtfs.core.errors import VirtError
from virtfs.core.virt import Virt
from virtfs.host.device import NO_HEADER, VNET_HEADER, TapDevice

HEADROOM = 16  # what a reader leaves free before the frame
LONGEST = 65536 + 32  # bytes of a frame out of a tap: the largest MTU and any link header


class Wire:
    """Takes frames out of one tap and puts frames into it, never waiting.

    listeners: called when a frame may have come, the wire has gone up, down or away, or a reader has come or gone; each
    says whether somebody still waits for a frame.
    dropped: called with how many frames nobody will read.
    gone: called once, when the tap turns out to have vanished.
    """

    def __init__(self, virt: Virt, tap: TapDevice) -> None:
        self.virt = virt
        self.tap = tap
        self.listeners: list[Callable[[], bool]] = []
        self.gone: Callable[[], None] = lambda: None
        self.dropped: Callable[[int], None] = lambda frames: None
        self.readers = 0
        self.taken_at = self.put_at = time_ns()
        self._counters = virt.counters
        self._fd = tap.fd
        self._tap_read = FileIO(tap.fd, "r+b", closefd=False).readinto  # says None where os.read raises
        self._kept: deque[bytes] = deque()
        self._head = bytearray(VNET_HEADER)
        self._rest = bytearray(LONGEST)
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
            frame = self._kept.popleft()
            length = len(frame)
            room[HEADROOM : HEADROOM + length] = frame
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
        self.update()
        return True

    def waiting(self) -> bool:
        """A frame can be taken now."""
        return self._refusal is None and (bool(self._kept) or bool(self._poll.poll(0)))

    def peek(self) -> int:
        """The next frame's length in bytes, 0 when there is none."""
        self.settle()
        if self._refusal is None and not self._kept and self.readers and (frame := self._read()) is not None:
            self._kept.append(frame)
        return len(self._kept[0]) if self._kept else 0

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
        if self._shortest <= length <= self._longest and (self._source is None or frame[6:12] == self._source):
            try:
                writev(self._fd, (NO_HEADER, frame))
            except OSError as error:
                self._not_sent(error)
            else:
                counters = self._counters
                counters.tx_frames += 1
                counters.tx_bytes += length
        else:
            self._not_allowed(length)
        return length

    def _not_allowed(self, length: int) -> None:
        virt, counters = self.virt, self._counters
        if virt.lost:
            raise self._vanished()
        counters.tx_dropped += 1
        if self._shortest <= length <= self._longest:
            counters.tx_spoofed += 1
            refusal = VirtError(errno.EPERM, f"a frame from another address than {virt.name}'s")
        elif length < self._shortest:
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
        """virt.host, virt.lost or a setting is another now."""
        virt = self.virt
        self._shortest, self._longest = virt.bounds
        self._source = virt.address if virt.antispoof else None
        if virt.lost:
            self._longest = 0  # so that no frame is tried
            self._refusal = (errno.ENXIO, f"{virt.name} is gone")
        elif not virt.host.up:
            self._refusal = (errno.EHOSTDOWN, f"{virt.name} is down")
        else:
            self._refusal = None
        if self._refusal is not None:
            self._empty()
        elif self._recording():
            self._record()
            self.want()
        else:
            self.settle()
        self._tell()

    def _tell(self) -> bool:
        return True in [listener() for listener in self.listeners]  # each is to be told

    def settle(self) -> None:
        """Count as dropped what nobody will read."""
        if not self.readers and not self.virt.backlog:
            self._empty()

    def opened(self) -> None:
        """One more reads; the first gets only what comes from now on, and the backlog."""
        if not self.readers:
            self._record() if self._recording() else self.settle()
        self.readers += 1
        self._tell()

    def closed(self) -> None:
        """One less reads."""
        self.readers -= 1
        if not self.readers:
            self.update()
        else:
            self._tell()

    def _recording(self) -> bool:
        return bool(self.virt.backlog) and not self.readers and self._refusal is None

    def _record(self) -> None:
        """Keep the last `backlog` of what is in the tap."""
        for _ in range(self._burst()):
            if (frame := self._read()) is None:
                break
            self._kept.append(frame)
        excess = len(self._kept) - self.virt.backlog
        for _ in range(excess):
            self._kept.popleft()
        self._drop(excess)

    def _empty(self) -> None:
        dropped = len(self._kept)
        self._kept.clear()
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
            length = readv(self._fd, (self._head, self._rest)) - VNET_HEADER
        except OSError:
            return None
        return bytes(memoryview(self._rest)[:length])

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
            if self._recording():
                self._record()
            if not self._tell() and not self._recording():
                self._wanted = trio.Event()

    def close(self) -> None:
        """Let go of the tap, which is its owner's to close; the pump must have ended and virt be lost."""
        self._edge.close()
        self._fd = -1
