"""The frames of a wire as a byte stream of records (core.framestream). One call transfers many frames."""

import errno
import os
from collections.abc import Callable
from os import readv, write
from typing import Protocol

from virtfs.core.compiled import compiled
from virtfs.core.errors import VirtError, located
from virtfs.core.framequeue import Copy
from virtfs.core.framestream import FRAME_MAX, PREFIX, Records
from virtfs.core.memory import Hold
from virtfs.forward.wire import HEADROOM, LONGEST, Wire
from virtfs.host.tap_protocol import NO_HEADER, VNET_HEADER

MOST = 512  # maximum number of frames per call; they take less than 1 ms
_BEFORE = VNET_HEADER - PREFIX.size  # bytes by which a virtio_net_hdr is longer than the prefix of a record


class RecordReader:
    """Takes frames out of a wire, as records.

    rest: the part of a record that did not fit into the last read. hold: the Hold that is charged for this part.
    """

    __slots__ = ("_hold", "_read_records", "_wire", "rest")

    def __init__(self, wire: Wire, hold: Hold) -> None:
        self._wire = wire
        self._hold = hold
        self._read_records: Callable[[int, memoryview, int, int, int], tuple[int, int, int, int]]
        self._read_records = compiled("virtfs.forward.tapframes", "read_records") or _read_records
        self.rest = b""

    def read(self, room: memoryview, size: int) -> tuple[int, int]:
        """Write waiting frames as records into `room`, at offset HEADROOM: at most MOST frames and `size` bytes.

        Only whole records are written, unless the first one is longer than `size`. The next read continues that record.
        Return the number of bytes written, and the number of frames taken from the wire. (0, 0): no frame is waiting.
        VirtError: EHOSTDOWN, the interface is down; ENXIO, its tap has vanished; ENOBUFS, there is no memory for the
        rest of a record that is longer than `size`. That record is dropped.
        """
        # After each record, the room must have space for one more frame of any length.
        end = min(HEADROOM + size, len(room) - LONGEST - PREFIX.size)
        at, frames = HEADROOM, 0
        if rest := self.rest:
            at = min(at + len(rest), end)
            room[HEADROOM:at] = rest[: at - HEADROOM]
            self._keep(rest[at - HEADROOM :])
            if self.rest:
                return at - HEADROOM, 0
        wire, first, last = self._wire, at, at
        copies = copied = 0
        counted = True  # false if the last frame is a Copy
        try:
            wire.expect_up()
            kept, fd = wire.sources()
            while frames < MOST and at < end and kept:
                frame = kept.take()
                PREFIX.pack_into(room, at, len(frame))
                begin = at + PREFIX.size
                stop = begin + len(frame)
                room[begin:stop] = frame
                counted = type(frame) is not Copy
                if not counted:
                    copies += 1
                    copied += len(frame)
                frames += 1
                last, at = at, stop
            if frames < MOST and at < end and fd >= 0:
                at, found, more, error = self._read_records(fd, room, at, end, MOST - frames)
                if more:
                    frames, last, counted = frames + more, found, True
                if error and error != errno.EAGAIN:
                    raise OSError(error, os.strerror(error))
        except VirtError:
            if at == HEADROOM:
                raise
        except OSError as error:
            if at == HEADROOM:
                raise wire.vanished() from error
        wire.count(frames - copies, at - first - copied - frames * PREFIX.size)
        if at <= end:
            return at - HEADROOM, frames
        fits = end if last == HEADROOM else last
        try:
            self._keep(bytes(room[fits:at]))
        except VirtError:
            if counted:
                wire.disown(at - last - PREFIX.size)
            if last == HEADROOM:
                raise
            fits, frames = last, frames - 1
        return fits - HEADROOM, frames

    def _keep(self, rest: bytes) -> None:
        self._hold.resize(len(rest))
        self.rest = rest


class Sink(Protocol):
    """Takes the frames of a byte stream. wire_out.Outward and socket_ways.Entrance implement it."""

    @property
    def tap_fd(self) -> int:
        """The descriptor of the tap. Frames within bounds() may be written to it, each after a virtio_net_hdr."""

    def put(self, frame: memoryview) -> object:
        """Send one frame, or drop it and count the drop."""

    def bounds(self) -> tuple[int, int]:
        """Return the minimum and the maximum length, in bytes, of a frame that may be written straight to the tap."""

    def refused(self, error: OSError, length: int) -> None:
        """Count a frame that the tap has refused. error: the error of write(2). length: bytes in the frame."""

    def count(self, frames: int, size: int) -> None:
        """Count frames that were written straight to the tap."""


class RecordWriter:
    """Sends the frames in a byte stream of records. The stream arrives in pieces, which may end anywhere."""

    __slots__ = ("_out", "_records", "_write_records", "frames")

    def __init__(self, out: Sink) -> None:
        self._out = out
        self._records = Records()
        self._write_records: Callable[[int, memoryview, int, int, int, int], tuple[int, int, int, int]]
        self._write_records = compiled("virtfs.forward.tapframes", "write_records") or _write_records
        self.frames = 0  # number of frames sent or dropped so far

    def unfinished(self) -> int:
        """Return how many bytes of an incomplete record have arrived; 0 if there is none."""
        return self._records.unfinished()

    @property
    def position(self) -> int:
        """The number of bytes of the stream so far."""
        return self._records.position

    def begin_again(self, position: int) -> None:
        """Drop the unfinished record, because a write has failed. position: the `position` before that write."""
        self._records.forget()
        self._records.offset = position

    def write(self, data: memoryview) -> int:
        """Send the frames of the records that `data` completes. Return the number of bytes used.

        One call completes the unfinished record, if any, and then sends at most MOST more frames. If the result is
        less than the length of the data, call again with the rest.
        data: must be writable, because the virtio_net_hdr of a frame overwrites the bytes before the frame.
        VirtError EINVAL: a record has a length that no frame can have. Other errors are those of Outward.put. The
        frames before the record have been sent. The message gives the record's offset in the stream.
        """
        records = self._records
        frame, at = records.first(data)
        if frame is not None:
            self.frames += 1
            try:
                self._out.put(memoryview(frame))
            except VirtError as refusal:
                raise located(refusal, f"byte {records.offset - PREFIX.size - len(frame)}") from None
        if records.unfinished():
            return at
        begin, at = at, self._send(data, at)
        records.offset += at - begin
        left = len(data) - at
        if left >= PREFIX.size and PREFIX.size + records.length(data, at) <= left:
            return at  # MOST frames were sent, and there are more
        records.keep(data[at:])
        return len(data)

    def _send(self, data: memoryview, at: int) -> int:
        """Send the complete records, starting at offset `at`. Return the offset of the first record not sent.

        Stop at an incomplete or invalid record, or after `MOST` frames.
        """
        out, end, first = self._out, len(data), at
        shortest, longest = out.bounds()
        sent = others = size = 0
        try:
            while True:
                most = MOST - sent - others
                at, frames, written, error = self._write_records(out.tap_fd, data, at, most, shortest, longest)
                sent += frames
                size += written
                if frames == most or at > end - PREFIX.size:
                    break
                (length,) = PREFIX.unpack_from(data, at)
                begin = at + PREFIX.size
                stop = begin + length
                if stop > end or not 0 < length <= FRAME_MAX:
                    break
                others += 1
                at = stop
                if error:
                    out.refused(OSError(error, os.strerror(error)), length)
                else:
                    out.put(data[begin:stop])
        except VirtError as refusal:
            raise located(refusal, f"byte {self._records.offset + begin - PREFIX.size - first}") from None
        finally:
            out.count(sent, size)
            self.frames += sent + others
        return at


def _write_records(
    fd: int, data: memoryview, at: int, most: int, shortest: int, longest: int
) -> tuple[int, int, int, int]:
    """Do the same as tapframes.write_records(), for installations without compiled modules."""
    unpack, end, last, frames, size = PREFIX.unpack_from, len(data), len(data) - PREFIX.size, 0, 0
    while _BEFORE <= at <= last and frames < most:
        (length,) = unpack(data, at)
        begin = at + 4
        stop = begin + length
        if not shortest <= length <= longest or stop > end:
            break
        packet = at - _BEFORE
        data[packet:begin] = NO_HEADER
        try:
            write(fd, data[packet:stop])
        except OSError as error:
            PREFIX.pack_into(data, at, length)
            return at, frames, size, error.errno or errno.EIO
        frames += 1
        size += length
        at = stop
    return at, frames, size, 0


def _read_records(fd: int, room: memoryview, at: int, end: int, most: int) -> tuple[int, int, int, int]:
    """Do the same as tapframes.read_records(), for installations without compiled modules."""
    header, pack, last, frames = bytearray(VNET_HEADER), PREFIX.pack_into, at, 0
    while frames < most and at < end:
        begin = at + 4
        try:
            stop = begin + readv(fd, (header, room[begin:])) - VNET_HEADER
        except OSError as error:
            return at, last, frames, error.errno or errno.EIO
        if stop <= begin:
            return at, last, frames, errno.ENXIO
        pack(room, at, stop - begin)
        last, at = at, stop
        frames += 1
    return at, last, frames, 0
