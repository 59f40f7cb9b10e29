"""The interfaces of a mount: how one comes to be, and how it goes."""

import errno
import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import trio

from virtfs.core.errors import VirtError
from virtfs.core.ethernet import new_mac
from virtfs.core.ids import UNIT_MAX, Unit
from virtfs.core.limits import Limits
from virtfs.core.virt import QUEUE, Address, HostEnd, Virt
from virtfs.daemon.kernel import Kernel
from virtfs.files.node import Directory
from virtfs.files.tree import Commands, interface_names
from virtfs.forward.wire import Wire
from virtfs.host.link import Link
from virtfs.host.links import Links
from virtfs.host.tap import Tap

# Where the kernel reports an interface: its namespace's nsid (None: the daemon's own), its index there.
Place = tuple[int | None, int]


class Interface:
    """One virt, with all that it holds."""

    def __init__(self, virt: Virt, tap: Tap, found: HostEnd | None) -> None:
        self.virt = virt
        self.tap = tap
        self.found = found  # the tap as it was before virtfs, None when virtfs made it
        self.dropped_before = virt.host.dropped
        virt.host.dropped = 0
        self.wire = Wire(virt, tap)
        self.place: Place = (None, virt.host.index)
        self._pump = trio.CancelScope()
        self._ended = trio.Event()

    async def run(self) -> None:
        """Forward until `stop`."""
        try:
            with self._pump:
                await self.wire.pump()
        finally:
            self._ended.set()

    def set_host(self, link: Link, addresses: tuple[Address, ...]) -> None:
        """What the kernel says of the host's end now."""
        self.virt.host = host_end(link, addresses)
        self.virt.host.dropped -= self.dropped_before
        self.wire.update()

    def lose(self) -> None:
        """The tap is gone, or about to be: readers are answered ENXIO, nothing is written any more."""
        self.virt.lost = True
        self.virt.host.up = self.virt.host.carrier = False
        self.wire.update()

    async def stop(self) -> None:
        """End the forwarding."""
        self._pump.cancel()
        await self._ended.wait()
        self.wire.close()


def host_end(link: Link, addresses: tuple[Address, ...]) -> HostEnd:
    """A link and its addresses as core sees them."""
    return HostEnd(
        link.name, link.index, link.up, link.mtu, link.address, link.carrier, link.txqlen, link.tx_dropped, addresses
    )


class Interfaces:
    """All of a mount, by unit."""

    def __init__(self, kernel: Kernel, root: Directory, limits: Limits) -> None:
        self.kernel = kernel
        self.limits = limits
        self.gone: Callable[[Interface], None] = lambda interface: None
        self.catch_up: Callable[[], None] = lambda: None
        self._root = root
        self._all: dict[Unit, Interface] = {}
        self._nursery: trio.Nursery | None = None

    def __iter__(self) -> Iterator[Interface]:
        return iter([self._all[unit] for unit in sorted(self._all)])

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

    def run_in(self, nursery: trio.Nursery) -> None:
        """Forwarders run in this nursery from now on."""
        self._nursery = nursery

    def room(self) -> None:
        """ENOSPC when the mount has as many as it may."""
        if len(self._all) >= self.limits.virts:
            raise VirtError(errno.ENOSPC, f"this mount allows {self.limits.virts} interfaces")

    async def create(self, unit: Unit | None, commands: Commands) -> Interface:
        """Make virt<unit>, or the lowest free one, down, with its tap made or attached to."""
        assert self._nursery is not None
        self.room()
        tap, link, addresses = await self._lowest() if unit is None else await self.kernel.call(self._open, unit)
        unit = Unit(int(link.name.removeprefix("tap")))
        found = None if tap.made else host_end(link, addresses)
        virt = Virt(unit, new_mac(unit, random.randrange(256)), host_end(link, addresses))
        interface = Interface(virt, tap, found)
        interface.wire.gone = lambda: self.gone(interface)
        self._all[unit] = interface
        self.catch_up()
        self._nursery.start_soon(interface.run, name=virt.name)
        self._root.children.update(interface_names(virt, interface.wire, commands))
        return interface

    async def _lowest(self) -> tuple[Tap, Link, tuple[Address, ...]]:
        """The lowest unit that neither a virt nor any interface of the host has."""
        for number in count():
            if number > UNIT_MAX:
                raise VirtError(errno.ENOSPC, "every unit is taken")
            if Unit(number) in self._all:
                continue
            try:
                tap, link, addresses = await self.kernel.call(self._open, Unit(number))
            except VirtError as refusal:
                if refusal.errno != errno.EBUSY:
                    raise
                continue
            if tap.made:
                break
            await self.kernel.call(tap.close)  # somebody keeps it for a purpose; it is had by its number
        return tap, link, addresses

    def _open(self, unit: Unit) -> tuple[Tap, Link, tuple[Address, ...]]:
        """In the thread: a tap as it is to be."""
        links = self.kernel.links
        tap = Tap.open(unit)
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
        try:
            link, addresses = await self.kernel.call(partial(_look, self.kernel.links, interface.tap))
        except VirtError as refusal:
            if refusal.errno != errno.ENXIO:
                raise
            self.gone(interface)
        else:
            interface.set_host(link, addresses)
            self.catch_up()

    async def destroy(self, interface: Interface) -> None:
        """Take it out of the tree, answer its readers, put the tap back as it was found or remove it."""
        virt = interface.virt
        was_lost = virt.lost
        interface.lose()
        for name in (virt.name, virt.tap):
            self._root.children.pop(name, None)
        await interface.stop()
        if interface.found is not None and not was_lost:
            await self.kernel.call(_put_back, self.kernel.links, interface.tap, interface.found)
        await self.kernel.call(interface.tap.close)
        del self._all[virt.unit]

    async def destroy_all(self) -> None:
        """At the end of the mount."""
        for interface in self:
            await self.destroy(interface)


def _look(links: Links, tap: Tap) -> tuple[Link, tuple[Address, ...]]:
    return links.get(tap), links.addresses(tap)


def _put_back(links: Links, tap: Tap, found: HostEnd) -> None:
    """Make an attached tap what it was before virtfs; what somebody else did meanwhile to it goes too."""
    try:
        now = links.addresses(tap)
        for address in now:
            if address not in found.addresses:
                links.remove_address(tap, address)
        links.set(tap, address=found.address, txqlen=found.queue, mtu=found.mtu, up=found.up)
        for address in found.addresses:
            if address not in links.addresses(tap):
                links.add_address(tap, address)
    except VirtError as refusal:
        if refusal.errno != errno.ENXIO:
            raise
