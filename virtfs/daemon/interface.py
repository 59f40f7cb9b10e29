"""One interface: its virt, its tap, its wire and its streams, and what becomes of them."""

from collections.abc import Callable

import trio

from virtfs.core.impairment import Direction, Impairment
from virtfs.core.ip import IpInterface
from virtfs.core.virt import HostEnd, Virt
from virtfs.files.capture import Capture
from virtfs.files.device import DeviceHandle
from virtfs.files.ports import Mount, Ports
from virtfs.forward.impaired import ImpairedWay
from virtfs.forward.recorder import Recorder
from virtfs.forward.tasks import lasting
from virtfs.forward.wire import Wire
from virtfs.host.ipconfig import AddressRecord
from virtfs.host.link import Link
from virtfs.host.membership import Membership
from virtfs.host.tap import Tap

BETWEEN_DROPS = 1  # seconds from one event about drops to the next

Tell = Callable[..., None]  # what, the interface's name, key=value …: as files.events.Events.emit

# Where the kernel reports an interface: its namespace's nsid (None: the daemon's own), its index there.
Place = tuple[int | None, int]


class Interface:
    """One virt, with all that it holds."""

    def __init__(self, virt: Virt, tap: Tap, found: HostEnd | None, tell: Tell, mount: Mount) -> None:
        self.virt = virt
        self.tap = tap
        self.found = found  # the tap as it was before virtfs, None when virtfs made it
        self.held: tuple[AddressRecord, ...] = ()  # its addresses then, with all that belongs to them
        self.member: Membership | None = None  # of the bridge it was in then
        self.carrier = True  # as it was last set
        self.reports = 0  # of its host's end, by the kernel
        self.cloned = False  # made by an open of clone, and gone with it
        self.place: Place = (None, virt.host.index)
        self.master: int | None = None  # the index there of what the tap is part of
        self.wire = Wire(virt, tap)
        self.recorder = Recorder(virt, tap, mount.rings, mount.start)
        try:
            self.ports = Ports(self.wire, self.recorder, mount)
        except BaseException:
            self.wire.close()
            raise
        self.captures: tuple[Capture, ...] = (self.ports.pcap,)
        self._ways: dict[Direction, ImpairedWay] = {}
        self._dropped_before = virt.host.dropped
        virt.host.dropped = 0
        self._tell = tell
        self._start = mount.start
        self._untold = 0  # frames dropped that no event has told of
        self._telling = False
        self._pump = trio.CancelScope()
        self._ended = trio.Event()
        self.wire.dropped = self._dropped
        self.ports.opens.tell = self._opens

    def _dropped(self, frames: int) -> None:
        self._untold += frames
        if not self._telling:
            self._telling = True
            self._start(self._tell_drops)

    async def _tell_drops(self) -> None:
        """At once, and then once in a while: a host that sends to nobody is no news for each frame."""
        while self._untold:
            frames, self._untold = self._untold, 0
            self._tell("drop", self.virt.name, frames=frames)
            await trio.sleep(BETWEEN_DROPS)
        self._telling = False

    def _opens(self, what: str, handle: DeviceHandle) -> None:
        user = handle.user
        self._tell(what, self.virt.name, file=handle.stream.label, uid=user.uid, pid=user.pid)

    async def run(self) -> None:
        """Forward until `stop`."""
        try:
            with self._pump:
                await lasting(self.virt.name, self.wire.pump)
        finally:
            self._ended.set()

    def set_host(self, link: Link, addresses: tuple[IpInterface, ...], bridge: str | None = None) -> None:
        """What the kernel says of the host's end now. bridge: the name of its bridge; None: nobody asked for it."""
        before = self.virt.host
        if bridge is None:
            bridge = before.bridge if link.master == self.master else ""
        self.master = link.master
        now = host_end(link, addresses, bridge)
        now.dropped -= self._dropped_before
        self.virt.host = now
        self.wire.update()
        if now.up != before.up:
            self._tell("up" if now.up else "down", self.virt.name)
        if now.mtu != before.mtu:
            self._tell("mtu", self.virt.name, mtu=now.mtu)
        if now.bridge != before.bridge:
            self._tell("bridge", self.virt.name, bridge=now.bridge)
        if now.carrier != before.carrier:
            self._tell("carrier", self.virt.name, carrier=int(now.carrier))

    def impair(self, direction: Direction, impairment: Impairment) -> ImpairedWay | None:
        """Treat frames so on their way in or out from now on; the task of a new way is to be run.

        What is on its way keeps its time. Errors, with nothing changed: EMFILE, ENFILE, ENOMEM.
        """
        wire, virt = self.wire, self.virt
        way, new = self._ways.get(direction), None
        if way is None and not impairment.harmless:
            deliver, lost = (wire.arrive, wire.lose) if direction == "in" else (wire.out.send, wire.out.lose)
            new = ImpairedWay(impairment, f"{virt.name} {direction}", deliver, lost)
        if direction == "in":
            virt.impairment_in = impairment
        else:
            virt.impairment_out = impairment
        if new is not None:
            self._set_way(direction, new)
        elif way is not None and impairment.harmless:
            way.retire(lambda: self._set_way(direction, None))
        elif way is not None:
            way.change(impairment)
        return new

    def _set_way(self, direction: Direction, way: ImpairedWay | None) -> None:
        old = self._ways.pop(direction, None)
        if way is not None:
            self._ways[direction] = way
        if direction == "in":
            self.wire.inlet = way
        else:
            self.wire.out.way = way
        if old is not None:
            old.stop()
        self.wire.update()

    def set_dropped(self, total: int) -> None:
        """The tap's own count of what it dropped, as it is now."""
        self.virt.host.dropped = total - self._dropped_before

    def lose(self) -> None:
        """The tap is gone: readers are answered ENXIO, nothing is written any more."""
        if not self.virt.lost:
            self._leave()
            self._start(self._end_captures)
            self._tell("lost", self.virt.name)

    def _leave(self) -> None:
        self.virt.lost = True
        self.virt.host.up = self.virt.host.carrier = False
        self.wire.update()

    async def _end_captures(self) -> None:
        """Once they have shown all that has passed."""
        await self.recorder.flush()
        for capture in self.captures:
            capture.vanish(self.recorder)
        await self.recorder.end()

    async def stop(self) -> None:
        """End the forwarding; who reads is answered ENXIO."""
        self._leave()
        await self._end_captures()
        for way in self._ways.values():
            way.stop()
        self._pump.cancel()
        await self._ended.wait()
        self.wire.close()


def host_end(link: Link, addresses: tuple[IpInterface, ...], bridge: str = "") -> HostEnd:
    """A link, its addresses and its bridge's name as core sees them."""
    return HostEnd(
        name=link.name,
        index=link.index,
        up=link.up,
        mtu=link.mtu,
        address=link.address,
        carrier=link.carrier,
        promisc=link.promisc,
        queue=link.txqlen,
        dropped=link.tx_dropped,
        addresses=addresses,
        bridge=bridge,
    )
