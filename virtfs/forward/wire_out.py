"""Frames from virt into the tap, which is the host's end.

written frame → length check → impairment → antispoof → tap
"""

import errno
import os
from collections.abc import Callable, Iterable
from enum import Enum
from io import FileIO
from operator import length_hint
from os import RWF_NOWAIT, pwritev, writev
from time import time_ns
from typing import Protocol

from virtfs.core.compiled import compiled
from virtfs.core.counters import Counts
from virtfs.core.errors import VirtError
from virtfs.core.framestream import FRAME_MAX
from virtfs.core.savefile import Group, Run, Spans
from virtfs.core.virt import Virt
from virtfs.forward.frame_runs import Rows
from virtfs.host.tap_protocol import NO_HEADER, TapDevice


class Given(Enum):
    """How frames reach the host while a program has the tap."""

    SHARED = "through the same tap, with a virtio_net_hdr before each frame"
    PLAIN = "through the same tap, without this header"
    AWAY = "not at all: virtfs is not attached to the tap, and the frames are dropped"


class Path(Protocol):
    """An impaired path. It delays, drops or alters frames, and delivers those that it does not drop."""

    def push(self, frame: bytes) -> None:
        """Accept one more frame."""

    def clear(self) -> int:
        """Drop the frames that are delayed now, and return their number."""


class Outward:
    """Puts frames into one tap, and never waits.

    catch_up: processes pending notifications from the kernel; called before a frame is rejected as too long.
    gone: called when the tap turns out to have vanished.
    path: the impairment of frames towards the tap, or None.
    tap_fd: the tap's descriptor.
    tap_write: calls write(2) on the tap with a virtio_net_hdr and a frame. Returns None instead of raising EAGAIN.
    """

    def __init__(self, virt: Virt, tap: TapDevice, catch_up: Callable[[], None], gone: Callable[[], None]) -> None:
        self.virt = virt
        self.path: Path | None = None
        self._given: Given | None = None  # None while no program has the tap
        self.put_at = time_ns()
        self._catch_up = catch_up
        self._gone = gone
        self._counters = virt.counters
        self.tap_fd = tap.fd
        self.tap_write = FileIO(tap.fd, "r+b", closefd=False).write  # returns None where os.write raises EAGAIN
        self.update()

    def update(self) -> None:
        """React to a change in the state of virt or in the impairment."""
        virt = self.virt
        self._shortest, self._longest = virt.bounds
        if virt.lost:
            self._longest = 0  # makes every frame too long, so that none is written to the tap
        self._unplugged = virt.carrier == "off"
        if self._unplugged:
            self._longest = 0
        self._source = virt.address if virt.antispoof else None
        self._plain = self._source is None and self.path is None and self._given is None

    def set_path(self, path: Path | None) -> None:
        """Send frames through an impairment from now on. If `path` is None, send them straight to the tap."""
        self.path = path
        self.update()

    def give(self, way: Given) -> None:
        """Record that a program has the tap."""
        self._given = way
        self.update()

    def regain(self) -> None:
        """Record that virtfs alone has the tap again."""
        self._given = None
        self.update()

    def vanished(self) -> VirtError:
        """Report that the tap has vanished. Return the error to raise."""
        if not self.virt.lost:
            self._gone()
        return VirtError(errno.ENXIO, f"{self.virt.name} is gone")

    def clear(self) -> None:
        """Drop the frames that are delayed by an impairment."""
        if self.path is not None:
            self.lose(self.path.clear())

    def put(self, frame: memoryview) -> int:
        """Send one frame, or drop it and count the drop, as tap(4) does. Return the length of the frame in both cases.

        VirtError: ENXIO, the tap has vanished. With `strict`, a dropped frame also raises: ENETDOWN, the interface is
        down or unplugged; EMSGSIZE, the frame is too short or too long; EPERM, antispoof rejects its source address.
        """
        length = len(frame)
        self.put_at = time_ns()
        if self._plain and self._shortest <= length <= self._longest:
            try:
                writev(self.tap_fd, (NO_HEADER, frame))
            except OSError as error:
                self.not_sent(error)
            else:
                counters = self._counters
                counters.tx_frames += 1
                counters.tx_bytes += length
        elif not self._fits(length):
            self._not_fitting(length)
        elif self.path is not None:
            if not self.virt.host.up:
                self._catch_up()  # the interface may just have come up
            if not self.virt.host.up:
                self.not_sent(OSError(errno.EIO, "down"))
            else:
                self.path.push(bytes(frame))
        else:
            self._send(frame)
        return length

    def put_all(self, groups: Iterable[Group], rows: Rows, most: int) -> int:
        """Send frames as `put` does, but without a call for each frame. Return the number of frames.

        rows: the buffer for the packets of a run.
        most: stop once at least this many frames have been sent. The last group is sent completely.
        """
        frames = 0
        for group in groups:
            if isinstance(group, Spans):
                frames += self._put_spans(group)
            else:
                frames += self._put_run(group, rows) if isinstance(group, Run) else self._put_singles(group)
            if frames >= most:
                break
        self.put_at = time_ns()
        return frames

    def bounds(self) -> tuple[int, int]:
        """Return the minimum and the maximum length, in bytes, of a frame that may be written straight to the tap.

        All other frames must go through `put`. The result is (1, 0), which no length satisfies, while an impairment
        or antispoof is in use, or a program has the tap.
        """
        return (self._shortest, self._longest) if self._plain else (1, 0)

    def plain(self) -> tuple[int, int, int]:
        """Return the tap's descriptor, followed by `bounds`."""
        return self.tap_fd, *self.bounds()

    def _put_singles(self, frames: Iterable[bytes]) -> int:
        """Send frames of any length, and return their number. Frames that fit are counted together, for speed."""
        write, head = self.tap_write, NO_HEADER
        shortest, longest = self.bounds()
        sent = others = size = 0
        try:
            for frame in frames:
                length = len(frame)
                if shortest <= length <= longest:
                    try:
                        if write(head + frame):
                            sent += 1
                            size += length
                            continue
                        self.not_sent(BlockingIOError(errno.EAGAIN, "full"))
                    except OSError as error:
                        self.not_sent(error)
                else:
                    self.put(memoryview(frame))
                others += 1
        finally:
            self.count(sent, size)
        return sent + others

    def _put_spans(self, group: Spans) -> int:
        """Send frames with the compiled module `tapframes`, and return their number."""
        write_frames = compiled("virtfs.forward.tapframes", "write_frames")
        if write_frames is None:
            return self._put_singles(group.singly())
        number, frames = 0, group.frames
        while number < frames:
            first = number
            number, size, error = write_frames(self.tap_fd, group.data, group.spans, first, *self.bounds())
            self.count(number - first, size)
            if error:
                self.not_sent(OSError(error, os.strerror(error)))
            elif number < frames:
                self.put(memoryview(group.frame(number)))
            number += 1
        return frames

    def _put_run(self, run: Run, rows: Rows) -> int:
        """Send a run of frames of equal length, and return their number.

        For speed, the loop only writes; the frames are counted afterwards.
        """
        shortest, longest = self.bounds()
        packets = iter(rows.packets(run) if shortest <= run.length <= longest else ())
        count, failed, write = length_hint(packets), 0, self.tap_write
        if not count:
            return self._put_singles(run.singly())
        try:
            for packet in packets:
                try:
                    if write(packet):
                        continue
                    error: OSError = BlockingIOError(errno.EAGAIN, "full")
                except OSError as refusal:
                    error = refusal
                failed += 1
                self.not_sent(error)
        finally:
            sent = count - length_hint(packets) - failed
            self.count(sent, sent * run.length)
        return count

    def arrive(self, frame: bytes) -> None:
        """Send a frame after its impairment. If it cannot be sent, it is dropped and counted.

        The program's write of this frame has already succeeded, so an error can no longer be reported to that program.
        """
        try:
            self._send(frame)
        except VirtError as error:
            self._count_unless_counted(error)

    def _count_unless_counted(self, error: VirtError) -> None:
        """Count a frame as dropped if its error is ENXIO. After any other error, the frame has already been counted."""
        if error.errno == errno.ENXIO:
            self._counters.tx_dropped += 1

    def _send(self, frame: memoryview | bytes) -> None:
        if self._source is not None and frame[6:12] != self._source:
            self._counters.tx_dropped += 1
            self._counters.tx_spoofed += 1
            if self.virt.strict and self.path is None:
                raise VirtError(errno.EPERM, f"the frame's source is not the address of {self.virt.name}")
            return
        if self._unplugged:  # unplugged while an impairment delayed the frame
            self.not_sent(OSError(errno.EIO, "unplugged"))
            return
        try:
            self._write(frame)
        except OSError as error:
            self.not_sent(error)
            return
        self._counters.tx_frames += 1
        self._counters.tx_bytes += len(frame)

    def _write(self, frame: memoryview | bytes) -> None:
        """Write a frame to the tap. OSError: the error of write(2); the frame was not sent."""
        if self._given is None:
            writev(self.tap_fd, (NO_HEADER, frame))
        elif self._given is Given.AWAY:
            raise BlockingIOError(errno.EAGAIN, "the tap is lent")
        else:
            try:
                # The program can make the shared open file description blocking. RWF_NOWAIT needs Linux 6.4
                # (drivers/net/tun.c sets FMODE_NOWAIT); older kernels reject it.
                pwritev(self.tap_fd, (b"" if self._given is Given.PLAIN else NO_HEADER, frame), -1, RWF_NOWAIT)
            except OSError as refusal:
                if refusal.errno != errno.EOPNOTSUPP:
                    raise
                raise BlockingIOError(errno.EAGAIN, "the kernel cannot write without waiting") from refusal

    def _fits(self, length: int) -> bool:
        if length > self._longest and not self.virt.lost and not self._unplugged:
            self._catch_up()
        return self._shortest <= length <= self._longest

    def _not_fitting(self, length: int) -> None:
        virt, counters = self.virt, self._counters
        if virt.lost:
            raise self.vanished()
        if self._unplugged:
            self.not_sent(OSError(errno.EIO, "unplugged"))
            return
        counters.tx_dropped += 1
        if length < self._shortest:
            counters.tx_short += 1
            sentence = f"a frame of {length} bytes is too short: the minimum is {self._shortest}"
        else:
            counters.tx_oversize += 1
            # The kernel may have cut a write that is longer than any frame (fuse/split_calls.py).
            size = f"{length} bytes" if length <= FRAME_MAX else f"more than {FRAME_MAX} bytes"
            sentence = f"a frame of {size} is too long: the maximum is {self._longest}"
        if virt.strict:
            raise VirtError(errno.EMSGSIZE, sentence)

    def not_sent(self, error: OSError) -> None:
        """Count a frame that the tap has refused. error: the error of write(2) to the tap.

        VirtError: ENXIO, the tap has vanished; with `strict`, ENETDOWN, the interface is down or unplugged.
        """
        if error.errno not in (errno.EIO, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EINVAL):
            raise self.vanished() from error
        self.virt.counters.tx_dropped += 1
        if error.errno == errno.EIO:  # the interface is not up (drivers/net/tun.c)
            self.virt.counters.tx_down += 1
            if self.virt.strict:
                state = "unplugged" if self._unplugged else "down"
                raise VirtError(errno.ENETDOWN, f"{self.virt.name} is {state}") from error

    def refused(self, error: OSError, length: int) -> None:
        """Count a frame that the tap has refused, as `not_sent` does. length: bytes in the frame; not used here."""
        self.not_sent(error)

    def pass_on(self, frame: bytes | memoryview) -> None:
        """Send a frame from a cable. If it cannot be sent, it is dropped and counted."""
        try:
            self.put(memoryview(frame))
        except VirtError as error:
            self._count_unless_counted(error)

    def not_passed_on(self, error: OSError) -> None:
        """Count a frame from a cable that the tap has refused. error: the error of write(2) to the tap."""
        try:
            self.not_sent(error)
        except VirtError as refusal:
            self._count_unless_counted(refusal)

    def count(self, frames: int, size: int) -> None:
        """Count frames that have been written into the tap. size: their total length in bytes."""
        self._counters.tx_frames += frames
        self._counters.tx_bytes += size

    def count_put(self, frames: int, size: int, ago: int) -> None:
        """Count frames that a program has written into the tap. ago: ns since the last one was written."""
        self.count(frames, size)
        self.put_at = time_ns() - ago

    def count_refused(self, frames: int, down: int) -> None:
        """Count frames from a cable that the tap rejected. down: the number rejected because the interface is down."""
        self._counters.tx_dropped += frames
        self._counters.tx_down += down

    def cut(self) -> None:
        """Record that only the beginning of a frame was sent: count the frame as dropped and as oversize."""
        self._counters.tx_dropped += 1
        self._counters.tx_oversize += 1

    def lose(self, frames: int) -> None:
        """Count frames as dropped."""
        self._counters.tx_dropped += frames

    def count_impaired(self, counts: Counts) -> None:
        """Add the counts of this direction's impairment to the counters."""
        counters = self._counters
        counters.tx_lost += counts.lost
        counters.tx_overlimit += counts.overlimit
        counters.tx_duplicated += counts.duplicated
        counters.tx_reordered += counts.reordered
        counters.tx_corrupted += counts.corrupted
        self.lose(counts.lost + counts.overlimit)
