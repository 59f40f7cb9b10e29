"""Following the kernel: what others do to the taps, with ip(8) for instance, shows in the files."""

import errno
import logging
import os
from collections.abc import Callable

import trio

from virtfs.core.ip import IpInterface
from virtfs.daemon.interface import Interface, Place
from virtfs.daemon.interfaces import Interfaces, look
from virtfs.daemon.kernel import Kernel
from virtfs.forward.tasks import lasting
from virtfs.host.descriptors import NONE_LEFT
from virtfs.host.link import Link
from virtfs.host.monitor import AddressChanged, Event, LinkChanged, LinkGone, NamespaceGone, Overflow
from virtfs.host.netnames import name_of

log = logging.getLogger(__name__)

STORM = 256  # reports taken in at once; what follows waits until others had their turn
ATTEMPTS = 10  # at finding a tap while other interfaces are reported of
PATIENCE = 1  # seconds that an answer is held back for news that do not stop


class Follower:
    """Takes in the kernel's reports, at once where no question has to be asked, else in its task."""

    def __init__(self, kernel: Kernel, interfaces: Interfaces) -> None:
        self._kernel = kernel
        self._interfaces = interfaces
        self.changed: Callable[[], None] = lambda: None
        self.heard: Callable[[Event], None] = lambda event: None
        self._doubtful: dict[Interface, None] = {}
        self._doubt = trio.Event()
        self._others = 0  # reports of what is none of ours, or not yet where we know it
        self._certain = trio.Event()  # set while there is no doubt
        self._certain.set()

    def doubt(self, interface: Interface) -> None:
        """Its tap may have vanished or moved: look."""
        self._doubtful[interface] = None
        if self._certain.is_set():
            self._certain = trio.Event()
        self._doubt.set()

    def catch_up(self) -> None:
        """Take in what has been reported, without waiting.

        Of several reports of one link only the last counts: an older one may be older than what has been asked since.
        """
        events: list[Event] = []
        while (more := self._kernel.monitor.drain()) and len(events) < STORM:
            events.extend(more)
        last = {(event.nsid, event.link.index): event for event in events if isinstance(event, LinkChanged)}
        for event in events:
            if not isinstance(event, LinkChanged) or last[event.nsid, event.link.index] is event:
                self._take(event)
        if events:
            self.changed()

    async def caught_up(self) -> None:
        """The same, and wait until what had to be asked is known."""
        self.catch_up()
        with trio.move_on_after(PATIENCE):
            await self._certain.wait()

    def _take(self, event: Event) -> None:
        self.heard(event)
        match event:
            case LinkChanged(nsid, link):
                if (interface := self._interfaces.at((nsid, link.index))) is not None:
                    if link.master != interface.master:
                        self.doubt(interface)  # by what name is its bridge known?
                    interface.reports += 1
                    interface.set_host(link, interface.virt.host.addresses)
                else:
                    self._others += 1
            case AddressChanged(nsid, index, address, added):
                if (interface := self._interfaces.at((nsid, index))) is not None:
                    interface.reports += 1
                    _change_address(interface, address, added)
                else:
                    self._others += 1
            case LinkGone(nsid, index):
                if (interface := self._interfaces.at((nsid, index))) is not None:
                    self._left(interface)
                else:
                    self._others += 1
            case NamespaceGone(nsid):
                for interface in self._interfaces:
                    if interface.place[0] == nsid:
                        interface.lose()  # the kernel deletes its taps with it, a moment later
            case Overflow():
                for interface in self._interfaces:
                    self.doubt(interface)

    def _left(self, interface: Interface) -> None:
        """It is deleted, or is in another namespace now: only its descriptor tells."""
        if interface.tap.alive():
            self.doubt(interface)
        else:
            interface.lose()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lasting, "listening to rtnetlink", self._listen)
            nursery.start_soon(lasting, "looking for taps", self._clear_doubts)

    async def _listen(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._kernel.monitor.fileno())
            self.catch_up()

    async def _clear_doubts(self) -> None:
        while True:
            await self._doubt.wait()
            self._doubt = trio.Event()
            while self._doubtful:
                interface, _ = self._doubtful.popitem()
                try:
                    await self.look_for(interface)
                except BaseException:
                    self._doubtful[interface] = None
                    self._doubt.set()
                    self._certain.set()  # answers are not held back till then
                    raise
            self._certain.set()
            self.changed()

    async def look_for(self, interface: Interface) -> None:
        """Ask where its tap is now, and how; one that is gone is lost.

        What is reported of the new place while it is not known yet goes by unnoticed: then it is asked again.
        OSError: EMFILE, ENFILE, ENOMEM; it is not known.
        """
        for _ in range(ATTEMPTS):
            if interface.virt.lost:
                return
            others, reports = self._others, interface.reports
            try:
                place, name, host = await self._kernel.call(self._find, interface)
            except OSError as refusal:
                if refusal.errno in NONE_LEFT:
                    raise
                log.info("%s: %s", interface.virt.name, refusal.strerror)
                if refusal.errno == errno.ENXIO:
                    interface.lose()
                return
            # An answer is stale if the kernel has reported of the tap since it was asked.
            if (interface.reports == reports) if place == interface.place else (self._others == others):
                break
        moved, interface.place = place != interface.place, place
        interface.virt.netns = name
        # Before anything is awaited: reports of the new place are taken in from now on, and are newer than this answer.
        interface.set_host(*host)
        self.catch_up()
        # Captures follow. Where somebody else has seen the move, theirs are about to.
        await (interface.recorder.moved() if moved else interface.recorder.settled())

    def _find(self, interface: Interface) -> tuple[Place, str, tuple[Link, tuple[IpInterface, ...], str]]:
        """In the thread: where the tap is now, and how it is."""
        namespace = interface.tap.netns()
        try:
            nsid = self._kernel.monitor.watch(namespace)
            name = "" if nsid is None else name_of(namespace) or interface.virt.netns or f"nsid-{nsid}"
        finally:
            os.close(namespace)
        if interface.found is None and nsid != interface.place[0]:
            self._kernel.links.quiet(interface.tap)  # the namespace began it with its own defaults
        host = look(self._kernel.links, interface.tap)
        return (nsid, host[0].index), name, host


def _change_address(interface: Interface, address: IpInterface, added: bool) -> None:
    host = interface.virt.host
    if added and address not in host.addresses:
        host.addresses = (*host.addresses, address)
    elif not added:
        host.addresses = tuple(a for a in host.addresses if a != address)
