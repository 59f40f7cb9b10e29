"""The interfaces of a mount: how one comes to be, and how it goes."""

import errno
import logging
import os
import random
import socket
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import count
from typing import NamedTuple

import trio

from virtfs import __version__
from virtfs.core.errors import VirtError
from virtfs.core.ethernet import new_mac
from virtfs.core.ids import UNIT_MAX, Unit
from virtfs.core.ip import IpInterface
from virtfs.core.limits import Limits
from virtfs.core.virt import QUEUE, Virt
from virtfs.daemon.interface import Interface, Place, Tell, host_end
from virtfs.daemon.kernel import Kernel
from virtfs.files.capture import Budget, Capture
from virtfs.files.device import Opens
from virtfs.files.node import ROOT, Directory
from virtfs.files.ports import Mount
from virtfs.files.tree import Commands, interface_names
from virtfs.forward.recorder import Recorder, Rings
from virtfs.forward.wire import Wire
from virtfs.host import descriptors
from virtfs.host.ipconfig import AddressRecord
from virtfs.host.link import Link
from virtfs.host.links import Links
from virtfs.host.membership import bridge_of, join, leave, membership, restore
from virtfs.host.netnames import open_netns
from virtfs.host.netns import inside
from virtfs.host.tap import Tap

log = logging.getLogger(__name__)

ATTEMPTS = 5  # at asking for what is reported of meanwhile


class _Opened(NamedTuple):
    """A tap and how it is; held: the addresses of one that was there, with all that belongs to them."""

    tap: Tap
    link: Link
    addresses: tuple[IpInterface, ...]
    held: tuple[AddressRecord, ...]


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
        self.mount = Mount(application, captures, Rings(), self.later, lambda error, user: None, lambda virt: "")
        self.pcap = Capture(ROOT, "pcap", Opens(), self.recorders, captures, application, self.later, alone=False)
        self._root = root
        self._tell = tell
        self._all: dict[Unit, Interface] = {}
        self._nursery: trio.Nursery | None = None

    def __iter__(self) -> Iterator[Interface]:
        return iter([self._all[unit] for unit in sorted(self._all)])

    def wires(self) -> list[Wire]:
        """Every interface's wire, by unit."""
        return [interface.wire for interface in self]

    def recorders(self) -> list[Recorder]:
        """Every interface's recorder, by unit."""
        return [interface.recorder for interface in self if not interface.virt.lost]

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
        """Do it soon, in a task of its own. What goes wrong there ends only that."""
        assert self._nursery is not None

        async def guarded() -> None:
            try:
                await work()
            except Exception:
                log.exception("a task has failed")

        self._nursery.start_soon(guarded)

    def run_in(self, nursery: trio.Nursery) -> None:
        """Forwarders run in this nursery from now on."""
        self._nursery = nursery

    def room(self) -> None:
        """ENOSPC when the mount has as many as it may, EMFILE when it has as many as there are descriptors for."""
        most = self.limits.virts
        if len(self._all) < most:
            return
        files = descriptors.limit()
        if descriptors.interfaces(files) <= most:
            raise VirtError(errno.EMFILE, f"{files} open files (RLIMIT_NOFILE) are enough for {most} interfaces")
        raise VirtError(errno.ENOSPC, f"this mount allows {most} interfaces")

    async def create(self, unit: Unit | None, commands: Commands, made: bool = False, netns: str = "") -> Interface:
        """Make virt<unit>, or the lowest free one, down, with its tap made or attached to.

        made: a tap that is there was made by virtfs, in an earlier life, and `destroy` is to remove it.
        netns: look there for a tap to attach to first; one that has to be made is made at home. What fails leaves
        nothing behind.
        """
        assert self._nursery is not None
        self.room()
        if unit is None:
            unit, (tap, link, addresses, held) = await self._lowest()
        else:
            tap, link, addresses, held = await self.kernel.call(self._open, unit, netns)
        try:
            member = None if link.master is None else await self.kernel.call(membership, tap, self.kernel.links)
            bridge = "" if link.master is None else await self.kernel.call(bridge_of, tap)
            found = None if tap.made or made else host_end(link, addresses, bridge)
            host = host_end(link, addresses, bridge)
            virt = Virt(unit, new_mac(unit, random.randrange(256)), host, persist=not tap.made)
            interface = Interface(virt, tap, found, self._tell, self.mount)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.kernel.close_tap(tap)
            raise
        interface.held = held
        interface.member = member
        interface.master = link.master
        interface.wire.gone = lambda: self.gone(interface)
        interface.wire.news = lambda: self.catch_up()
        self._all[unit] = interface
        self.catch_up()
        self._nursery.start_soon(interface.run, name=virt.name)
        self._root.children.update(interface_names(interface.ports, commands))
        interface.captures += (self.pcap,)
        try:
            await self.pcap.appear(interface.recorder)
            self.appeared(interface)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.destroy(interface)
            raise
        self._tell("create", virt.name)
        return interface

    async def _lowest(self) -> tuple[Unit, _Opened]:
        """The lowest unit that neither a virt nor any interface of the host has."""
        for number in count():
            if number > UNIT_MAX:
                raise VirtError(errno.ENOSPC, "every unit is taken")
            if Unit(number) in self._all:
                continue
            try:
                opened = await self.kernel.call(self._open, Unit(number), "")
            except VirtError as refusal:
                if refusal.errno != errno.EBUSY:
                    raise
                continue
            if opened.tap.made:
                break
            await self.kernel.close_tap(opened.tap)  # somebody keeps it for a purpose; it is had by its number
        return Unit(number), opened

    def _open(self, unit: Unit, netns: str) -> _Opened:
        """In the thread: a tap as it is to be."""
        links = self.kernel.links
        tap = (_attach_in(netns, unit) if netns else None) or Tap.open(unit)
        try:
            if tap.made:
                links.quiet(tap)
                links.set(tap, txqlen=QUEUE)
                return _Opened(tap, links.get(tap), (), ())
            return _Opened(tap, links.get(tap), links.addresses(tap), links.addresses_in_full(tap))
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

    async def look_after(self, interface: Interface) -> None:
        """Look at the host's end after a change. The change holds, so where that fails it is done later."""
        try:
            await self.refresh(interface)
        except OSError as refusal:
            log.info("%s: %s", interface.virt.name, refusal.strerror)
            self.gone(interface)

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
                await self.kernel.call(_put_back, self.kernel.links, interface)
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
    except VirtError as refusal:
        if refusal.errno not in (errno.ENXIO, errno.EINVAL):
            raise
        return None  # the verb netns will say so
    try:
        return inside(namespace, attach)
    finally:
        os.close(namespace)


def look(links: Links, tap: Tap) -> tuple[Link, tuple[IpInterface, ...], str]:
    """In the thread: all of the host's end, as Interface.set_host takes it."""
    link = links.get(tap)
    return link, links.addresses(tap), "" if link.master is None else bridge_of(tap)


def _put_back(links: Links, interface: Interface) -> None:
    """Make an attached tap what it was before virtfs; what somebody else did meanwhile to it goes too.

    But of what no verb changes (features, queueing disciplines, settings of a port that has stayed) all is left alone.
    """
    tap, found = interface.tap, interface.found
    assert found is not None
    try:
        tap.set_carrier(True)
        tap.set_persist(True)
        links.set(
            tap,
            address=found.address,
            txqlen=found.queue,
            mtu=found.mtu,
            promisc=found.promisc,
            up=found.up,
        )
        links.restore_addresses(tap, interface.held, found.name)  # behind the MTU: a small one takes IPv6 away
        if found.bridge and bridge_of(tap) != found.bridge:
            if interface.member is None:
                join(tap, links, found.bridge)
            else:
                restore(tap, links, interface.member)
        elif not found.bridge:
            leave(tap, links)
    except VirtError as refusal:
        if refusal.errno != errno.ENXIO:
            raise
