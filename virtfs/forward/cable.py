"""A cable: every frame out of one virt goes into another, and back, in user space.

While nobody looks on, the taps' hosts may leave segmentation and checksums undone (TUNSETOFFLOAD): what one host leaves
undone the other need not do either, so TCP crosses in pieces of up to 64 KiB. A reader of frame, an impairment, or
antispoof needs frames as on a real wire: offload goes off then, and what still lies in the tap's queue undone is done
here (`core.offload`). A capture sees large segments as they are.
"""

import errno
import logging
import select
from io import FileIO
from time import monotonic_ns

import trio

from virtfs.core.errors import VirtError
from virtfs.core.impairment import Impairment
from virtfs.core.offload import whole
from virtfs.forward.impaired import ImpairedPath
from virtfs.forward.tasks import lasting
from virtfs.forward.wire import Wire
from virtfs.host.descriptors import keep_spare
from virtfs.host.relay import LONGEST, BatchRelay, Load, Relay, Room
from virtfs.host.tapdevice import OFFLOAD_NONE, OFFLOAD_TCP, VNET_HEADER

log = logging.getLogger(__name__)

BURST = 128  # single frames of one direction before the other has its turn
TURN = 1_000_000  # ns that a cable carries before other tasks have theirs
LOOKS = 5  # at empty taps before it waits
PAUSE = 30_000  # ns at least from one of them to the next
SINK_LIVES = {errno.EIO, errno.EINVAL, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN}  # a tap that refuses a packet
PLAIN = bytes(2)  # the flags and gso_type of a virtio_net_hdr with nothing undone


class OneWay:
    """One direction: out of one wire's tap, into the other's."""

    def __init__(self, source: Wire, sink: Wire, room: Room) -> None:
        self.source = source
        self.sink = sink
        self.path: ImpairedPath | None = None
        self._single = False  # frames one by one, as on a real wire
        self._gone = False
        self._buffer = room.view[:LONGEST]
        self._read = FileIO(source.tap.fd, "r+b", closefd=False).readinto
        self._relay: Relay = BatchRelay(source.tap.fd, sink.tap.fd, room)
        source.take_over(self._onward)
        source.listeners.append(self.look)
        sink.listeners.append(self.look)
        self._offload(not self._needs_single())

    def _needs_single(self) -> bool:
        source, sink = self.source, self.sink
        impaired = self.path is not None or source.path is not None or sink.out.path is not None
        narrower = source.virt.host.mtu > sink.virt.host.mtu  # what is too long for it must not pass in a large piece
        return bool(source.readers) or impaired or sink.virt.antispoof or narrower

    def look(self) -> bool:
        """Somebody looks on, or no longer: offload off or on. Nobody waits for a frame here."""
        if self._needs_single() != self._single:
            self._offload(self._single)
        return False

    def _offload(self, on: bool) -> None:
        self._single = not on
        if self.source.virt.lost:
            return
        try:
            self.source.tap.set_offload(OFFLOAD_TCP if on else OFFLOAD_NONE)
        except VirtError as refusal:
            log.info("%s: %s", self.source.virt.name, refusal.strerror)

    def impair(self, impairment: Impairment, stream: str) -> ImpairedPath | None:
        """This direction's own impairment from now on; the way whose task is to be run."""
        way = None if impairment.harmless else ImpairedPath(impairment, stream, self._passed, self.source.lose)
        if self.path is not None:
            self.path.stop()
        self.path = way
        self.look()
        return way

    def gone(self) -> bool:
        """Nothing will come any more."""
        return self._gone or self.source.virt.lost

    def stop(self) -> None:
        """Take this direction out."""
        self.source.listeners.remove(self.look)
        self.sink.listeners.remove(self.look)
        if self.path is not None:
            self.path.stop()
        self._offload(False)
        for _ in range(self.source.virt.host.queue // BURST + 1):  # what still lies there undone
            if not self._single_burst():
                break
        self._relay.close()
        self.source.give_back()

    def burst(self) -> int:
        """Carry what is there, BURST frames at most; how many were."""
        return self._single_burst() if self._single else self._fast_burst()

    def _fast_burst(self) -> int:
        """Whole packets, with their virtio_net_hdr, from tap to tap."""
        load = self._relay.carry()
        if load.packets:
            size = load.size - load.packets * VNET_HEADER
            self.source.count_in(load.packets, size)
            if load.refused:
                size -= self._refused(load)
            self.sink.out.count(load.packets - len(load.refused), size)
        if load.gone:
            self._lose_source()
        return load.packets

    def _refused(self, load: Load) -> int:
        """Count what the sink did not take; of how many bytes that was."""
        errors = [number for _, number in load.refused]
        self.sink.out.count_refused(len(errors), errors.count(errno.EIO))
        if set(errors) - SINK_LIVES:
            self.sink.vanished()
        return sum(length - VNET_HEADER for length, _ in load.refused)

    def _lose_source(self) -> None:
        self._gone = True
        self.source.vanished()

    def _single_burst(self) -> int:
        """Frames one by one."""
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
                pieces = whole(header, frame)
            except ValueError:  # of a kind nobody has allowed the host
                self.source.lose(1)
                continue
            for piece in pieces:
                self.source.receive(piece)
        return BURST

    def _onward(self, frame: bytes) -> None:
        """What has come out of the source, behind its own impairment."""
        if self.path is not None:
            self.path.push(frame)
        else:
            self._passed(frame)

    def _passed(self, frame: bytes) -> None:
        """At the far end."""
        self.source.count_in(1, len(frame))
        self.sink.out.pass_on(frame)


class Cable:
    """Both directions. ways: out of the first interface, and out of the second."""

    def __init__(self, first: Wire, second: Wire) -> None:
        """Lay it: frames wait for `run` from now on. VirtError: EMFILE, ENFILE, ENOMEM; then nothing has changed."""
        self.ends = first, second
        room = Room()
        self._taps = _watching(first.tap.fd, second.tap.fd)
        out = None
        try:
            out = OneWay(first, second, room)
            self.directions = out, OneWay(second, first, room)
        except BaseException:
            if out is not None:
                out.stop()
            self._taps.close()
            raise
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Carry until `stop`, or both taps are gone.

        A cable looks again before it waits: to be woken takes as long as many frames do. It does not look at once, but
        lets some frames gather: each time it writes again after a pause, however short, it wakes who receives, and that
        takes longer than to copy a large segment. A cable that nothing comes through waits.
        """
        try:
            with self._scope:
                await trio.lowlevel.checkpoint()  # it may have been stopped already
                await lasting("a cable", self._carry)
        finally:
            self._taps.close()

    async def _carry(self) -> None:
        taps, ways = self._taps, [way for way in self.directions if not way.gone()]
        looks = until = 0
        while ways:
            if not looks:
                await trio.lowlevel.wait_readable(taps.fileno())
                looks, until = LOOKS, monotonic_ns() + TURN
            elif monotonic_ns() > until:
                await trio.lowlevel.checkpoint()
                until = monotonic_ns() + TURN
            carried = 0
            for way in tuple(ways):
                carried += way.burst()
                if way.gone():
                    ways.remove(way)
                    taps.unregister(way.source.tap.fd)
            if carried:
                looks = LOOKS
                continue
            looks -= 1
            again = monotonic_ns() + PAUSE
            while monotonic_ns() < again:
                await trio.lowlevel.checkpoint()
            until = again + TURN

    def stop(self) -> None:
        """Take it out."""
        self._scope.cancel()
        for way in self.directions:
            way.stop()

    def discard(self) -> None:
        """Take out one that has not been run."""
        self.stop()
        self._taps.close()


def _watching(*taps: int) -> select.epoll:
    """A descriptor that is readable while one of these is."""
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
        raise VirtError(refusal.errno or errno.EIO, f"no descriptor for a cable: {refusal.strerror}") from refusal
    return watching
