"""The interfaces of a mount: how one comes to be, and how it goes."""

import errno
import logging
import os
import random
import socket
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import count

import trio

from virtfs import __version__
from virtfs.core.errors import VirtError
from virtfs.core.ethernet import new_mac
from virtfs.core.ids import UNIT_MAX, Unit
from virtfs.core.impairment import Direction, Impairment
from virtfs.core.limits import Limits
from virtfs.core.virt import QUEUE, Address, HostEnd, Virt
from virtfs.daemon.kernel import Kernel
from virtfs.files.capture import Budget, Capture
from virtfs.files.node import ROOT, Directory
from virtfs.files.ports import Mount, Ports
from virtfs.files.stream import Opens, StreamHandle
from virtfs.files.tree import Commands, interface_names
from virtfs.forward.impaired import ImpairedWay
from virtfs.forward.wire import Wire
from virtfs.host.link import Link
from virtfs.host.links import Links
from virtfs.host.membership import bridge_of, join, leave
from virtfs.host.netnames import open_netns
from virtfs.host.netns import inside
from virtfs.host.tap import Tap

log = logging.getLogger(__name__)

BETWEEN_DROPS = 1  # seconds from one event about drops to the next
ATTEMPTS = 5  # at asking for what is reported of meanwhile

Tell = Callable[..., None]  # what, the interface's name, key=value …: as files.events.Events.emit

# Where the kernel reports an interface: its namespace's nsid (None: the daemon's own), its index there.
Place = tuple[int | None, int]


class Interface:
    """One virt, with all that it holds."""

    def __init__(self, virt: Virt, tap: Tap, found: HostEnd | None, tell: Tell, mount: Mount) -> None:
        self.virt = virt
        self.tap = tap
        self.found = found  # the tap as it was before virtfs, None when virtfs made it
        self.carrier = True  # as it was last set
        self.reports = 0  # of its host's end, by the kernel
        self.cloned = False  # made by an open of clone, and gone with it
        self.place: Place = (None, virt.host.index)
        self.master: int | None = None  # the index there of what the tap is part of
        self.wire = Wire(virt, tap)
        self.ports = Ports(self.wire, mount)
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

    def _opens(self, what: str, handle: StreamHandle) -> None:
        user = handle.user
        self._tell(what, self.virt.name, file=handle.stream.label, uid=user.uid, pid=user.pid)

    async def run(self) -> None:
        """Forward until `stop`."""
        try:
            with self._pump:
                await self.wire.pump()
        finally:
            self._ended.set()

    def set_host(self, link: Link, addresses: tuple[Address, ...], bridge: str | None = None) -> None:
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

        What is on its way keeps its time.
        """
        wire, virt = self.wire, self.virt
        if direction == "in":
            virt.impair_in = impairment
        else:
            virt.impair_out = impairment
        way = self._ways.get(direction)
        if way is not None and impairment.harmless:
            way.retire(lambda: self._set_way(direction, None))
        elif way is not None:
            way.change(impairment)
        elif not impairment.harmless:
            deliver, lost = (wire.arrive, wire.lose) if direction == "in" else (wire.send, wire.lose_out)
            new = ImpairedWay(impairment, f"{virt.name} {direction}", deliver, lost)
            self._set_way(direction, new)
            return new
        return None

    def _set_way(self, direction: Direction, way: ImpairedWay | None) -> None:
        old = self._ways.pop(direction, None)
        if way is not None:
            self._ways[direction] = way
        if direction == "in":
            self.wire.inlet = way
        else:
            self.wire.outlet = way
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
            self._tell("lost", self.virt.name)

    def _leave(self) -> None:
        self.virt.lost = True
        self.virt.host.up = self.virt.host.carrier = False
        self.wire.update()
        for capture in self.captures:
            capture.vanish(self.wire)

    async def stop(self) -> None:
        """End the forwarding; who reads is answered ENXIO."""
        self._leave()
        for way in self._ways.values():
            way.stop()
        self._pump.cancel()
        await self._ended.wait()
        self.wire.close()


def host_end(link: Link, addresses: tuple[Address, ...], bridge: str = "") -> HostEnd:
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


class Interfaces:
    """All of a mount, by unit."""

    def __init__(self, kernel: Kernel, root: Directory, limits: Limits, tell: Tell) -> None:
        self.kernel = kernel
        self.limits = limits
        self.gone: Callable[[Interface], None] = lambda interface: None
        self.appeared: Callable[[Interface], None] = lambda interface: None
        self.given: Callable[[Interface], None] = lambda interface: None  # its owner, group or mode is another
        self.leaving: Callable[[Interface], None] = lambda interface: None  # told before one is destroyed
        self.catch_up: Callable[[], None] = lambda: None
        self.look_for: Callable[[Interface], Awaitable[None]] = self.refresh  # where is it now, and how?
        application, captures = f"virtfs {__version__}", Budget(limits.capture)
        self.mount = Mount(application, captures, self.later, lambda error, user: None, lambda virt: "")
        self.pcap = Capture(ROOT, "pcap", Opens(), self.wires, captures, application, ends=False)
        self._root = root
        self._tell = tell
        self._all: dict[Unit, Interface] = {}
        self._nursery: trio.Nursery | None = None

    def __iter__(self) -> Iterator[Interface]:
        return iter([self._all[unit] for unit in sorted(self._all)])

    def wires(self) -> list[Wire]:
        """Every interface's wire, by unit."""
        return [interface.wire for interface in self]

    def find(self, unit: Unit) -> Interface | None:
        """The interface of that unit."""
        return self._all.get(unit)

    def get(self, unit: Unit) -> Interface:
        """The interface of that unit, or ENXIO."""
        interface = self._all.get(unit)
        if interface is None:
            raise VirtError(errno.ENXIO, f'there is no "virt{unit}"')
        return interface

    def at(self, place: Place) -> Interface | None:
        """The interface whose tap is there."""
        return next((i for i in self._all.values() if i.place == place and not i.virt.lost), None)

    def tap_names(self) -> dict[str, str]:
        """What each virtN and tapN is called in our network namespace now; not those that are elsewhere."""
        here = [i.virt for i in self._all.values() if i.place[0] is None and not i.virt.lost]
        return {name: virt.host.name for virt in here for name in (virt.name, virt.tap)}

    def later(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it soon, in a task of its own."""
        assert self._nursery is not None
        self._nursery.start_soon(work)

    def run_in(self, nursery: trio.Nursery) -> None:
        """Forwarders run in this nursery from now on."""
        self._nursery = nursery

    def room(self) -> None:
        """ENOSPC when the mount has as many as it may."""
        if len(self._all) >= self.limits.virts:
            raise VirtError(errno.ENOSPC, f"this mount allows {self.limits.virts} interfaces")

    async def create(self, unit: Unit | None, commands: Commands, made: bool = False, netns: str = "") -> Interface:
        """Make virt<unit>, or the lowest free one, down, with its tap made or attached to.

        made: a tap that is there was made by virtfs, in an earlier life, and `destroy` is to remove it.
        netns: look there for a tap to attach to first; one that has to be made is made at home.
        """
        assert self._nursery is not None
        self.room()
        if unit is None:
            unit, tap, link, addresses = await self._lowest()
        else:
            tap, link, addresses = await self.kernel.call(self._open, unit, netns)
        bridge = "" if link.master is None else await self.kernel.call(bridge_of, tap)
        found = None if tap.made or made else host_end(link, addresses, bridge)
        host = host_end(link, addresses, bridge)
        virt = Virt(unit, new_mac(unit, random.randrange(256)), host, persist=not tap.made)
        interface = Interface(virt, tap, found, self._tell, self.mount)
        interface.master = link.master
        interface.wire.gone = lambda: self.gone(interface)
        interface.wire.news = lambda: self.catch_up()
        self._all[unit] = interface
        self.catch_up()
        self._nursery.start_soon(interface.run, name=virt.name)
        self._root.children.update(interface_names(interface.ports, commands))
        interface.captures += (self.pcap,)
        self.pcap.appear(interface.wire)
        self.appeared(interface)
        self._tell("create", virt.name)
        return interface

    async def _lowest(self) -> tuple[Unit, Tap, Link, tuple[Address, ...]]:
        """The lowest unit that neither a virt nor any interface of the host has."""
        for number in count():
            if number > UNIT_MAX:
                raise VirtError(errno.ENOSPC, "every unit is taken")
            if Unit(number) in self._all:
                continue
            try:
                tap, link, addresses = await self.kernel.call(self._open, Unit(number), "")
            except VirtError as refusal:
                if refusal.errno != errno.EBUSY:
                    raise
                continue
            if tap.made:
                break
            await self.kernel.close_tap(tap)  # somebody keeps it for a purpose; it is had by its number
        return Unit(number), tap, link, addresses

    def _open(self, unit: Unit, netns: str) -> tuple[Tap, Link, tuple[Address, ...]]:
        """In the thread: a tap as it is to be."""
        links = self.kernel.links
        tap = (_attach_in(netns, unit) if netns else None) or Tap.open(unit)
        try:
            if tap.made:
                links.quiet(tap)
                links.set(tap, txqlen=QUEUE)
                return tap, links.get(tap), ()
            return tap, links.get(tap), links.addresses(tap)
        except BaseException:
            tap.close()
            raise

    async def refresh(self, interface: Interface) -> None:
        """Look at the host's end; a tap that is gone is lost."""
        for _ in range(ATTEMPTS):
            reports = interface.reports
            try:
                host = await self.kernel.call(partial(look, self.kernel.links, interface.tap))
            except VirtError as refusal:
                if refusal.errno != errno.ENXIO:
                    raise
                self.gone(interface)
                return
            if interface.reports == reports:
                break  # else the answer may be older than what has been reported since it was asked for
        interface.set_host(*host)
        self.catch_up()

    async def refresh_all(self) -> None:
        """Count what every tap has dropped: in our namespace all else is reported by the kernel."""
        dropped = await self.kernel.call(self.kernel.links.dropped)
        for interface in self:
            if interface.virt.lost:
                continue
            nsid, index = interface.place
            if nsid is None and index in dropped:
                interface.set_dropped(dropped[index])
            else:
                await self.refresh(interface)
            interface.wire.settle()

    async def destroy(self, interface: Interface, keep: bool = False) -> None:
        """Take it out of the tree, answer its readers, put the tap back as it was found or remove it.

        keep: leave a tap that was made with `persist` to the next mount.
        """
        virt = interface.virt
        was_lost = virt.lost
        for name in (virt.name, virt.tap):
            self._root.children.pop(name, None)
        self.leaving(interface)
        await interface.stop()
        try:
            if not was_lost and interface.found is not None:
                await self.kernel.call(_put_back, self.kernel.links, interface.tap, interface.found)
            elif not was_lost and virt.persist and not keep:
                interface.tap.set_persist(False)
        except OSError as refusal:
            log.warning("%s: cannot be left as it was found: %s", virt.tap, refusal.strerror)
        finally:
            await self.kernel.close_tap(interface.tap)
            del self._all[virt.unit]
            self._tell("destroy", virt.name)

    async def destroy_all(self) -> None:
        """At the end of the mount; what persists stays."""
        async with trio.open_nursery() as nursery:  # closing a tap takes 16 ms, of many at once no longer
            for interface in self:
                nursery.start_soon(partial(self.destroy, interface, keep=True))

    def has(self, interface: Interface) -> bool:
        """Whether it is still one of these: not destroyed, and not followed by another of its unit."""
        return self._all.get(interface.virt.unit) is interface


def _attach_in(name: str, unit: Unit) -> Tap | None:
    """In the thread: attach to the tap of that unit that was left in a network namespace."""

    def attach() -> Tap | None:
        return Tap.open(unit) if f"tap{unit}" in dict(socket.if_nameindex()).values() else None

    try:
        namespace = open_netns(name)
    except VirtError:
        return None  # the verb netns will say so
    try:
        return inside(namespace, attach)
    finally:
        os.close(namespace)


def look(links: Links, tap: Tap) -> tuple[Link, tuple[Address, ...], str]:
    """In the thread: all of the host's end, as Interface.set_host takes it."""
    link = links.get(tap)
    return link, links.addresses(tap), "" if link.master is None else bridge_of(tap)


def _put_back(links: Links, tap: Tap, found: HostEnd) -> None:
    """Make an attached tap what it was before virtfs; what somebody else did meanwhile to it goes too."""
    try:
        tap.set_carrier(True)
        tap.set_persist(True)
        now = links.addresses(tap)
        for address in now:
            if address not in found.addresses:
                links.remove_address(tap, address)
        links.set(
            tap,
            address=found.address,
            txqlen=found.queue,
            mtu=found.mtu,
            promisc=found.promisc,
            up=found.up,
        )
        for address in found.addresses:
            if address not in links.addresses(tap):
                links.add_address(tap, address)
        if found.bridge and bridge_of(tap) != found.bridge:
            join(tap, links, found.bridge)
        elif not found.bridge:
            leave(tap, links)
    except VirtError as refusal:
        if refusal.errno != errno.ENXIO:
            raise
