"""A cable: every frame out of one virt goes into another, and back, in user space.

While nobody looks on, the taps' hosts may leave segmentation and checksums undone (TUNSETOFFLOAD): what one host leaves
undone the other need not do either, so TCP crosses in pieces of up to 64 KiB. A reader of frame, an impairment, or
antispoof needs frames as on a real wire: offload goes off then, and what still lies in the tap's queue undone is done
here (`core.offload`). A capture sees large segments as they are.
"""

import errno
import logging
from io import FileIO

import trio

from virtfs.core.errors import VirtError
from virtfs.core.impairment import Impairment
from virtfs.core.offload import whole
from virtfs.core.pcapng import INBOUND, OUTBOUND
from virtfs.forward.impaired import ImpairedWay
from virtfs.forward.wire import Wire
from virtfs.host.device import OFFLOAD_NONE, OFFLOAD_TCP, VNET_HEADER

log = logging.getLogger(__name__)

BURST = 64  # frames carried before others have their turn
LONGEST = 70000  # bytes of the largest segment and its headers
PLAIN = bytes(2)  # the flags and gso_type of a virtio_net_hdr with nothing undone


class OneWay:
    """One direction: out of one wire's tap, into the other's."""

    def __init__(self, source: Wire, sink: Wire) -> None:
        self.source = source
        self.sink = sink
        self.way: ImpairedWay | None = None
        self._single = False  # frames one by one, as on a real wire
        self._gone = False
        self._scope = trio.CancelScope()
        self._buffer = memoryview(bytearray(LONGEST))
        self._read = FileIO(source.tap.fd, "r+b", closefd=False).readinto
        self._write = FileIO(sink.tap.fd, "r+b", closefd=False).write
        source.take_over(self._onward)
        source.listeners.append(self.look)
        sink.listeners.append(self.look)
        self._offload(not self._needs_single())

    def _needs_single(self) -> bool:
        source, sink = self.source, self.sink
        impaired = self.way is not None or source.inlet is not None or sink.outlet is not None
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

    def impair(self, impairment: Impairment, stream: str) -> ImpairedWay | None:
        """This direction's own impairment from now on; the way whose task is to be run."""
        if self.way is not None:
            self.way.stop()
        self.way = None
        if not impairment.harmless:
            self.way = ImpairedWay(impairment, stream, self._passed, self.source.lose)
        self.look()
        return self.way

    async def run(self) -> None:
        """Carry until `stop`, or a tap is gone."""
        with self._scope:
            while not (self._gone or self.source.virt.lost):
                await trio.lowlevel.wait_readable(self.source.tap.fd)
                if self._burst():
                    await trio.lowlevel.checkpoint()

    def stop(self) -> None:
        """Take the cable out."""
        self._scope.cancel()
        self.source.listeners.remove(self.look)
        self.sink.listeners.remove(self.look)
        if self.way is not None:
            self.way.stop()
        self._offload(False)
        for _ in range(self.source.virt.host.queue // BURST + 1):  # what still lies there undone
            if not self._single_burst():
                break
        self.source.give_back()

    def _burst(self) -> bool:
        return self._single_burst() if self._single or self.source.watched or self.sink.watched else self._fast_burst()

    def _fast_burst(self) -> bool:
        """Whole packets, with their virtio_net_hdr, from tap to tap."""
        read, write, buffer = self._read, self._write, self._buffer
        frames = size = 0
        refused = [0, 0, 0]  # frames, their bytes, and how many because the sink is down
        try:
            for _ in range(BURST):
                length = read(buffer)
                if not length:
                    if length is not None:
                        self._lose_source()
                    break
                frames += 1
                size += length
                try:
                    write(buffer[:length])
                except OSError as error:
                    refused[0] += 1
                    refused[1] += length - VNET_HEADER
                    refused[2] += error.errno == errno.EIO
                    if error.errno not in (errno.EIO, errno.EINVAL, errno.ENOBUFS, errno.ENOMEM):
                        self.sink.vanished()
        except OSError:
            self._lose_source()
            return False
        finally:
            size -= frames * VNET_HEADER
            self.source.count_in(frames, size)
            self.sink.count_out(frames - refused[0], size - refused[1])
            self.sink.count_refused(refused[0], refused[2])
        return frames == BURST

    def _lose_source(self) -> None:
        self._gone = True
        self.source.vanished()

    def _single_burst(self) -> bool:
        """Frames one by one, seen by who looks on."""
        buffer = self._buffer
        for _ in range(BURST):
            try:
                length = self._read(buffer)
            except OSError:
                self._lose_source()
                return False
            if not length:
                if length is not None:
                    self._lose_source()
                return False
            header, frame = buffer[:VNET_HEADER], buffer[VNET_HEADER:length]
            if self._single and header[:2] != PLAIN:
                try:
                    pieces = whole(header, frame)
                except ValueError:  # of a kind nobody has allowed the host
                    self.source.lose(1)
                    continue
                for piece in pieces:
                    self._carry(bytes(VNET_HEADER), piece)
            else:
                self._carry(header, frame)
        return True

    def _carry(self, header: memoryview | bytes, frame: memoryview | bytes) -> None:
        source, sink = self.source, self.sink
        source.show(INBOUND, frame)
        if self._single:
            source.receive(bytes(frame))
            return
        source.count_in(1, len(frame))
        try:
            self._write(b"".join((header, frame)))
        except OSError as error:
            sink.count_refused(1, int(error.errno == errno.EIO))
        else:
            sink.show(OUTBOUND, frame)
            sink.count_out(1, len(frame))

    def _onward(self, frame: bytes) -> None:
        """What has come out of the source, behind its own impairment."""
        if self.way is not None:
            self.way.push(frame)
        else:
            self._passed(frame)

    def _passed(self, frame: bytes) -> None:
        """At the far end."""
        self.source.count_in(1, len(frame))
        self.sink.pass_on(frame)


class Cable:
    """Both directions. near and far: the impairments out of the first interface, and out of the second."""

    def __init__(self, first: Wire, second: Wire) -> None:
        self.ends = first, second
        self.ways = OneWay(first, second), OneWay(second, first)

    def stop(self) -> None:
        """Take it out."""
        for way in self.ways:
            way.stop()
