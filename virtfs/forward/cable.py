"""A cable: connects two interfaces in user space, and carries the frames of each to the other.

Where possible, both taps offer segmentation and checksum offload (TUNSETOFFLOAD). Then the sending host neither
segments TCP nor computes checksums, and the receiving host accepts such packets. So TCP crosses the cable in segments
of up to 64 KiB.

Offload is off while something needs the frames that a real wire would carry: a reader of the interface, an impairment,
antispoof, or a smaller MTU at the far end. The cable splits the large segments that are still in the tap's queue when
offload goes off (core.offload). Captures contain them unsplit.
"""

import errno
import logging
import select
from functools import partial
from io import FileIO
from time import monotonic_ns

import trio

from virtfs.core.counters import Counts, Way
from virtfs.core.errors import VirtError
from virtfs.core.impairment import Impairment
from virtfs.core.memory import Kind
from virtfs.core.offload import complete_frames
from virtfs.forward.impaired_path import ImpairedPath
from virtfs.forward.tasks import Start, lasting, surely_in_thread
from virtfs.forward.wire import Wire
from virtfs.host.descriptors import keep_spare
from virtfs.host.relay import LONGEST, BatchRelay, Load, Relay, Room
from virtfs.host.tap_protocol import OFFLOAD_ALL, OFFLOAD_NONE, VNET_HEADER

log = logging.getLogger(__name__)

BURST = 128  # maximum number of single frames carried in one direction before the other direction is served
TURN = 1_000_000  # maximum time in ns that the cable carries frames before other tasks run
LOOKS = 5  # polls of empty taps before the cable waits
PAUSE = 30_000  # minimum ns between two polls
# Errnos with which a tap rejects one packet. Any other errno means that the tap has vanished.
SINK_LIVES = {errno.EIO, errno.EINVAL, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN}
PLAIN = bytes(2)  # flags and gso_type of a virtio_net_hdr without offload


class OneWay:
    """One direction of a cable, from the tap of the source to the tap of the sink.

    room: the buffer, which all cables share. It holds packets only while they are carried.
    start: starts a background task, which is cancelled when the mount ends.
    """

    def __init__(self, source: Wire, sink: Wire, room: Room, start: Start) -> None:
        self.source = source
        self.sink = sink
        self.path: ImpairedPath | None = None
        self.way = Way(source.virt.name, sink.virt.name)
        self.counters = self.way.counters
        self._start = start
        self._single = True  # whether to carry frames one by one, because offload is off or being turned off
        self._offload = False  # whether the last request to the source's tap turned offload on
        self._setting = trio.Lock()
        self._followed = False
        self._gone = False
        self._buffer = room.view[:LONGEST]
        self._read = FileIO(source.tap.fd, "r+b", closefd=False).readinto
        self._relay: Relay = BatchRelay(source.tap.fd, sink.tap.fd, room)
        source.take_over(self._onward)

    def _needs_single(self) -> bool:
        source, sink = self.source, self.sink
        impaired = self.path is not None or source.path is not None or sink.out.path is not None
        # A large segment consists of frames that fit the source's MTU. These frames may be too long for the sink.
        narrower = source.virt.host.mtu > sink.virt.host.mtu
        sink_checks = sink.virt.antispoof or sink.virt.carrier == "off"
        return bool(source.readers) or impaired or sink_checks or narrower

    def begin(self) -> None:
        """Adapt offload to readers, impairments and settings now, and whenever they change."""
        self.source.changed.append(self.update_offload)
        self.sink.changed.append(self.update_offload)
        self._followed = True
        self.update_offload()

    def update_offload(self) -> None:
        """Start turning offload on or off, as readers, impairments and settings require.

        The change takes a few ms, because it needs the kernel's rtnl_mutex. Large segments that are already
        queued, or that arrive before offload is off, are split by _single_burst().
        """
        if self._followed and self._needs_single() != self._single:
            self._single = not self._single
            self._start(self._set_offload, name=f"{self.source.virt.name}: setting offload")

    async def _set_offload(self) -> None:
        """Turn offload of the source's tap on or off, as currently needed."""
        async with self._setting:
            wanted = not self._single
            if wanted == self._offload or self.source.virt.lost:
                return
            self._offload = wanted
            set_it = partial(self.source.tap.set_offload, OFFLOAD_ALL if wanted else OFFLOAD_NONE)
            try:
                await surely_in_thread(set_it)
            except VirtError as refusal:
                log.info("%s: cannot change offload: %s", self.source.virt.name, refusal.strerror)

    def impair(self, impairment: Impairment, stream: str) -> ImpairedPath | None:
        """Impair this direction. Return the new ImpairedPath, or None if the impairment is harmless.

        The caller must start the new path's `run`. The parameter `stream` and the errors are those of ImpairedPath.
        """
        source, path = self.source, None
        if not impairment.harmless:
            hold = source.memory.hold(Kind.DELAYED, lambda: source.virt.owner)
            path = ImpairedPath(impairment, stream, self, hold)
        if self.path is not None:
            self.path.stop()
        self.path = path
        self.update_offload()
        return path

    def gone(self) -> bool:
        """Return whether the source has vanished, so that no more frames come from it."""
        return self._gone or self.source.virt.lost

    async def quiesce(self) -> None:
        """Turn offload off for good, so that the wire gets single frames once it reads the tap again."""
        if self._followed:
            self.source.changed.remove(self.update_offload)
            self.sink.changed.remove(self.update_offload)
            self._followed = False
        self._single = True
        await self._set_offload()

    def stop(self) -> None:
        """Remove this direction. `quiesce` must have been called.

        Carry the frames that the source's tap has queued, then let the source's wire read the tap again. Frames that
        the cable's impairment delays are dropped.
        """
        for _ in range(self.source.virt.host.queue // BURST + 1):  # enough to empty the tap's queue
            if not self._single_burst():
                break
        if self.path is not None:
            self.path.stop()
            self.path = None
        self._relay.close()
        self.source.give_back()

    def burst(self) -> int:
        """Carry the waiting frames, at most one burst, and return their number. Never blocks."""
        return self._single_burst() if self._single else self._fast_burst()

    def _fast_burst(self) -> int:
        """Carry packets with their virtio_net_hdr from tap to tap, without parsing them."""
        load = self._relay.carry()
        if load.packets:
            size = load.size - load.packets * VNET_HEADER
            self.source.count_in(load.packets, size)
            self.counters.count(load.packets, size)
            if load.refused:
                size -= self._refused(load)
            self.sink.out.count(load.packets - len(load.refused), size)
        if load.gone:
            self._lose_source()
        return load.packets

    def _refused(self, load: Load) -> int:
        """Count the packets that the sink rejected. Return their total length in bytes, without virtio_net_hdr."""
        errors = [number for _, number in load.refused]
        self.sink.out.count_refused(len(errors), errors.count(errno.EIO))
        if set(errors) - SINK_LIVES:
            self.sink.vanished()
        return sum(length - VNET_HEADER for length, _ in load.refused)

    def _lose_source(self) -> None:
        self._gone = True
        self.source.vanished()

    def _single_burst(self) -> int:
        """Carry single frames, splitting offloaded segments."""
        buffer = self._buffer
        for frames in range(BURST):
            try:
                length = self._read(buffer)
            except OSError:
                self._lose_source()
                return frames
            if not length:
                if length is not None:
                    self._lose_source()
                return frames
            header, frame = buffer[:VNET_HEADER], buffer[VNET_HEADER:length]
            if header[:2] == PLAIN:
                self.source.receive(bytes(frame))
                continue
            try:
                pieces = complete_frames(header, frame)
            except ValueError:  # the header asks for an offload that was never enabled
                self.source.lose(1)
                continue
            for piece in pieces:
                self.source.receive(piece)
        return BURST

    def _onward(self, frame: bytes) -> None:
        """Carry a frame that the source's wire hands over. Apply this direction's impairment first, if any."""
        self.source.count_in(1, len(frame))
        if self.path is not None:
            self.path.push(frame)
        else:
            self.arrive(frame)

    # The methods of impaired_path.End

    def arrive(self, frame: bytes) -> None:
        """Deliver a frame to the sink."""
        self.counters.count(1, len(frame))
        self.sink.out.pass_on(frame)

    def lose(self, frames: int) -> None:
        """Count the frames that an impairment dropped when it was removed from this direction."""
        self.counters.lose(frames)

    def count_impaired(self, counts: Counts) -> None:
        """Add the counts of this direction's impairment to the counters."""
        self.counters.count_impaired(counts)


class Cable:
    """A cable between two interfaces.

    directions: the direction from the first interface to the second, and the opposite direction.
    """

    def __init__(self, first: Wire, second: Wire, room: Room, start: Start) -> None:
        """Connect two wires. Frames are carried once `run` is called.

        room: the buffer that all cables share.
        start: starts a background task, which is cancelled when the mount ends.
        VirtError: EMFILE, ENFILE, ENOMEM. After an error, nothing has changed.
        """
        self.ends = first, second
        self._taps = _epoll_of(first.tap.fd, second.tap.fd)
        out = None
        try:
            out = OneWay(first, second, room, start)
            self.directions = out, OneWay(second, first, room, start)
        except BaseException:
            if out is not None:
                out.stop()
            self._taps.close()
            raise
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Carry frames until `stop` is called, or until both taps are gone.

        Waking this task costs as much as carrying many frames, so a cable polls empty taps LOOKS times before it waits.
        There is a PAUSE between polls, so that several frames gather and are written together. The first write after a
        pause wakes the receiver, and this costs more than copying a large segment. An idle cable waits without polling.
        """
        try:
            with self._scope:
                await trio.lowlevel.checkpoint()  # `stop` may have been called before this task started
                for direction in self.directions:
                    direction.begin()
                await lasting("a cable", self._carry)
        finally:
            self._taps.close()

    async def _carry(self) -> None:
        taps, directions = self._taps, [direction for direction in self.directions if not direction.gone()]
        looks = until = 0
        while directions:
            if not looks:
                await trio.lowlevel.wait_readable(taps.fileno())
                looks, until = LOOKS, monotonic_ns() + TURN
            elif monotonic_ns() > until:
                await trio.lowlevel.checkpoint()
                until = monotonic_ns() + TURN
            carried = 0
            for direction in tuple(directions):
                carried += direction.burst()
                if direction.gone():
                    directions.remove(direction)
                    taps.unregister(direction.source.tap.fd)
            if carried:
                looks = LOOKS
                continue
            looks -= 1
            again = monotonic_ns() + PAUSE
            while monotonic_ns() < again:
                await trio.lowlevel.checkpoint()
            until = again + TURN

    async def stop(self) -> None:
        """Remove the cable. This ends `run`."""
        for direction in self.directions:
            await direction.quiesce()
        self._remove()

    def discard(self) -> None:
        """Remove a cable whose `run` has not been started."""
        self._remove()
        self._taps.close()

    def _remove(self) -> None:
        self._scope.cancel()
        for direction in self.directions:
            direction.stop()


def _epoll_of(*taps: int) -> select.epoll:
    """Return an epoll object that is readable while any of the taps is. VirtError: EMFILE, ENFILE, ENOMEM."""
    try:
        watching = select.epoll(flags=select.EPOLL_CLOEXEC)
        try:
            keep_spare(watching.fileno())
            for tap in taps:
                watching.register(tap, select.EPOLLIN)
        except BaseException:
            watching.close()
            raise
    except OSError as refusal:
        raise VirtError(refusal.errno or errno.EIO, f"cannot create the cable: {refusal.strerror}") from refusal
    return watching
