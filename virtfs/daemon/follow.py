"""Follows reports from the kernel, so that files show changes that other programs, such as ip(8), make to taps."""

import errno
import logging
import os
from collections import deque

import trio

from virtfs.core.errors import VirtError
from virtfs.core.ip import IpInterface
from virtfs.core.virt import Origin
from virtfs.daemon.bridge_follow import BridgeFollower
from virtfs.daemon.changes import Changes
from virtfs.daemon.interface import Interface, Place
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.registry import Registry
from virtfs.daemon.taps import look
from virtfs.forward.slices import Slices
from virtfs.host.monitor import AddressChanged, Event, LinkChanged, LinkGone, NamespaceGone, Overflow
from virtfs.host.netlink_values import Link
from virtfs.host.netnames import name_of

log = logging.getLogger(__name__)

STORM = 256  # maximum number of reports that a caller waits for, if reports keep coming
# A query is repeated if the kernel sent reports during it, because a report may be newer than the answer.
ATTEMPTS = 10  # maximum number of queries for the place of a tap (interface.Place)
STALE = 0.1  # seconds between checks of an interface that changed during every query
REFRESHES = 5  # maximum number of queries for the state of a tap
FEW = 8  # maximum number of reports that are applied in one step; each takes up to 0.2 ms
# Maximum number of reports that are applied before a frame is written or a name is read, where no other task can run.
# They are about a few interfaces that have just changed, so each takes 25 µs.
MORE = 64
_FAILED = "cannot apply the reports from the kernel, checking all interfaces: %s"
PATIENCE = 1  # maximum number of seconds that caught_up() waits, even if reports keep coming


class Follower:
    """Applies reports from the kernel. If a report is not complete, a task queries the kernel for the rest."""

    def __init__(self, kernel: Kernel, registry: Registry, bridges: BridgeFollower, changes: Changes) -> None:
        self._kernel = kernel
        self._registry = registry
        self._bridges = bridges
        self._changes = changes
        self._doubtful: dict[Interface, None] = {}
        self._doubt = trio.Event()
        # The interfaces whose taps are in a namespace that was destroyed, with its nsid. There may be thousands.
        self._doomed: deque[tuple[Interface, int]] = deque()
        self._others = 0  # number of reports about network interfaces not in the registry
        self._certain = trio.Event()  # set while no check is pending, and when a check has failed
        self._certain.set()

    def doubt(self, interface: Interface) -> None:
        """Schedule a check of an interface whose tap may have vanished or moved."""
        self._doubtful[interface] = None
        self._begin_check()

    def _begin_check(self) -> None:
        if self._certain.is_set():
            self._certain = trio.Event()
        self._doubt.set()

    def catch_up(self) -> None:
        """Apply up to MORE pending reports from the kernel, without letting other tasks run.

        If this fails, all interfaces are checked later. The caller's request does not fail, since it may already have
        changed something.
        """
        try:
            self._apply_reports(MORE)
        except Exception as failure:
            log.warning(_FAILED, failure)

    def _apply_reports(self, most: int) -> int:
        """Apply the pending reports from the kernel, up to `most` of them. Return how many there were.

        The result is `most` or more if others may be pending. If this fails, schedule a check of all interfaces.

        Of several reports about the state of one link, only the last is applied. An earlier report may be older than
        the answer to a query, and that answer may already have been applied.
        """
        events: list[Event] = []
        try:
            while len(events) < most and (more := self._kernel.monitor.drain()):
                events.extend(more)
            last = {(event.nsid, event.index): event for event in events if isinstance(event, LinkChanged)}
            for event in events:
                if not isinstance(event, LinkChanged) or last[event.nsid, event.index] is event:
                    self._take(event)
        except BaseException:
            self._take(Overflow())  # the remaining reports are lost
            raise
        finally:
            if events:
                self._changes.publish()
        return len(events)

    def up_to_date(self) -> bool:
        """Apply up to FEW pending reports. Return whether nothing is left to do, so that caught_up() would not wait."""
        try:
            return self._apply_reports(FEW) < FEW and self._certain.is_set()
        except Exception as failure:
            log.warning(_FAILED, failure)
            return self._certain.is_set()

    async def reported(self) -> None:
        """Apply the pending reports, up to about STORM of them. Other tasks can run after every FEW reports.

        If this fails, all interfaces are checked later, as in catch_up().
        """
        rounds = STORM // FEW
        try:
            while rounds and self._apply_reports(FEW) >= FEW:
                rounds -= 1
                await trio.lowlevel.checkpoint()
        except Exception as failure:
            log.warning(_FAILED, failure)

    async def caught_up(self) -> None:
        """Apply the pending reports as reported() does. Wait up to PATIENCE seconds for pending checks to finish."""
        await self.reported()
        with trio.move_on_after(PATIENCE):
            await self._certain.wait()

    def _take(self, event: Event) -> None:
        self._bridges.hear(event)
        match event:
            case LinkChanged(nsid, index):
                if (interface := self._registry.at((nsid, index))) is not None:
                    link = event.link
                    if link.master != interface.master:
                        # The report contains only the index of the new bridge, so its name must be queried.
                        self.doubt(interface)
                    interface.reports += 1
                    interface.set_host(link, interface.virt.host.addresses)
                    self._ask(interface)
                else:
                    self._others += 1
                    if event.kind == "bridge":
                        self._look_for_new_name(nsid, event.link)
            case AddressChanged(nsid, index, address, added):
                if (interface := self._registry.at((nsid, index))) is not None:
                    interface.reports += 1
                    interface.change_address(address, added)
                    self._ask(interface)
                else:
                    self._others += 1
            case LinkGone(nsid, index):
                if (interface := self._registry.at((nsid, index))) is not None:
                    self._left(interface)
                else:
                    self._others += 1
            case NamespaceGone(nsid):
                # The kernel will delete the taps of this namespace shortly.
                self._doomed.extend((one, nsid) for one in self._registry if one.place[0] == nsid)
                self._begin_check()
            case Overflow():
                for interface in self._registry:
                    self.doubt(interface)

    def _look_for_new_name(self, nsid: int | None, bridge: Link) -> None:
        """Schedule a check of the taps in a bridge if it has another name now, which they show."""
        for interface in self._registry:
            member = interface.master == bridge.index and interface.place[0] == nsid
            if member and interface.virt.host.bridge != bridge.name:
                self.doubt(interface)

    def _ask(self, interface: Interface) -> None:
        """Schedule a check if a report may be a part of the tap's deletion. The check shows whether the tap exists."""
        if interface.doubtful:
            self.doubt(interface)

    def _left(self, interface: Interface) -> None:
        """Handle a report that a tap has left its namespace.

        The tap's descriptor shows whether the tap was deleted or moved to another namespace.
        """
        if interface.tap.alive():
            self.doubt(interface)
        else:
            interface.lose()

    async def refresh(self, interface: Interface) -> None:
        """Query the kernel for the state of the host's end.

        OSError: errors from the kernel. If the tap is gone, a check is scheduled instead. A check is also scheduled if
        reports about the interface arrive during every query. The state then remains as the reports describe it.
        """
        for _ in range(REFRESHES):
            reports = interface.reports
            try:
                host = await self._kernel.call(look, self._kernel.links, interface.tap)
            except VirtError as refusal:
                if refusal.errno != errno.ENXIO:
                    raise
                self.doubt(interface)
                return
            # A report that arrived during the query may be newer than the answer.
            if interface.reports == reports:
                interface.set_host(*host)
                break
        else:
            self.doubt(interface)
        await self.reported()

    async def look_after(self, interface: Interface) -> None:
        """Refresh an interface after a change. If this fails, the change stays, and a check is scheduled."""
        try:
            await self.refresh(interface)
        except OSError as refusal:
            log.info("%s: cannot query the host's end: %s; trying again", interface.virt.name, refusal.strerror)
            self.doubt(interface)

    async def count(self, interface: Interface) -> None:
        """Update the drop counter of a tap. Errors: as for refresh().

        In the daemon's own namespace nothing else is queried, since the kernel reports all other changes.
        """
        nsid, index = interface.place
        if nsid is None and interface.meter is None:
            try:
                dropped = await self._kernel.call(self._kernel.links.dropped_by, index)
                if not interface.virt.lost:
                    interface.set_dropped(dropped)
                return
            except VirtError as refusal:
                if refusal.errno != errno.ENODEV:
                    raise
        await self.refresh(interface)

    async def refresh_all(self, only_up: bool = False) -> None:
        """Update the drop counter of every tap, and the whole state of taps in other namespaces.

        In the daemon's own namespace, the kernel reports all changes except those to the drop counter.
        only_up: whether to leave out interfaces that are down, which get no frames.
        OSError: some could not be queried, and this is the first error. The others are up to date.
        """
        dropped, slices = await self._kernel.call(self._kernel.links.dropped), Slices()
        failures: list[OSError] = []
        for interface in self._registry:
            if interface.virt.lost or (only_up and not interface.virt.host.up):
                continue
            nsid, index = interface.place
            if nsid is None and index in dropped and interface.meter is None:
                interface.set_dropped(dropped[index])
            else:
                try:
                    await self.refresh(interface)
                except OSError as failure:
                    failures.append(failure)
            interface.wire.settle()
            await slices.pause()
        if failures:
            raise failures[0]

    async def listen(self) -> None:
        """Apply reports from the kernel until cancelled. May be called again after a failure."""
        while True:
            await trio.lowlevel.wait_readable(self._kernel.monitor.fileno())
            self._apply_reports(FEW)

    async def clear_doubts(self) -> None:
        """Check the interfaces passed to doubt(), until cancelled. May be called again after a failure."""
        while True:
            await self._doubt.wait()
            self._doubt = trio.Event()
            failures: dict[Interface, Exception] = {}
            stale: list[Interface] = []  # interfaces that changed during every query
            slices = Slices()  # lost interfaces need no query, and there may be thousands
            try:
                while self._doomed or self._doubtful:
                    await self._lose_doomed(failures)
                    if not self._doubtful:
                        break
                    interface, _ = self._doubtful.popitem()
                    try:
                        if not await self._look_for(interface):
                            stale.append(interface)
                    except Exception as failure:
                        failures[interface] = failure  # check the remaining interfaces first
                    await slices.pause()
            finally:
                self._certain.set()  # callers of caught_up() must not wait for the next attempt
                if failures or stale:
                    self._doubtful |= dict.fromkeys((*failures, *stale))
                    self._doubt.set()
            self._changes.publish()
            if failures:
                raise next(iter(failures.values()))
            if stale:
                await trio.sleep(STALE)

    async def _lose_doomed(self, failures: dict[Interface, Exception]) -> None:
        """Lose the interfaces whose taps are in a destroyed namespace, in slices. Add failures to `failures`."""
        slices = Slices()
        while self._doomed:
            interface, nsid = self._doomed.popleft()
            try:
                if interface.place[0] == nsid:
                    interface.lose()
            except Exception as failure:
                failures[interface] = failure
            await slices.pause()

    async def look_for(self, interface: Interface) -> None:
        """Query the kernel for the place and the state of a tap. If the tap is gone, mark the interface as lost.

        If reports arrive during every query, the answer may be stale, and a check is scheduled.
        OSError: the query failed; the place and the state are then unknown.
        """
        if not await self._look_for(interface):
            self.doubt(interface)

    async def _look_for(self, interface: Interface) -> bool:
        """Implement look_for(). Return False if the answer may be stale.

        If the tap has moved, reports about it that arrive during the query are not yet attributed to it, but counted in
        _others. If that counter changes during the query, the query is repeated. A stale answer is applied only if the
        tap has moved, because nothing better is known then. Later reports are attributed to the tap.
        """
        certain = False
        for _ in range(ATTEMPTS):
            if interface.virt.lost:
                return True
            others, reports = self._others, interface.reports
            try:
                place, name, host = await self._kernel.call(self._find, interface)
            except OSError as refusal:
                if refusal.errno != errno.ENXIO:
                    raise
                interface.lose()
                return True
            # If a report that may be about the tap has arrived since the query, the answer may be stale.
            certain = (interface.reports == reports) if place == interface.place else (self._others == others)
            if certain:
                break
        if interface.virt.lost:
            return True
        moved = place != interface.place
        self._registry.move(interface, place)
        if name != interface.virt.netns:
            interface.virt.move(name)
        # Do not `await` between setting interface.place and calling set_host(). Once the place is set, reports about
        # the tap are applied. They are newer than the answer in `host`, and set_host() would overwrite them.
        if certain or moved:
            interface.set_host(*host)
        await self.reported()
        # The recorder must move with the tap. If another task noticed the move first, that task moves the recorder,
        # and this task waits until it has.
        await (interface.recorder.moved() if moved else interface.recorder.settled())
        return certain

    def _find(self, interface: Interface) -> tuple[Place, str, tuple[Link, tuple[IpInterface, ...], str]]:
        """Return the tap's place, the name of its network namespace, and the tap's state. Blocks."""
        namespace = interface.tap.netns()
        try:
            nsid = self._kernel.monitor.watch(namespace)
            name = "" if nsid is None else name_of(namespace) or interface.virt.netns or f"nsid-{nsid}"
        finally:
            os.close(namespace)
        if interface.virt.origin is not Origin.FOUND and nsid != interface.place[0]:
            self._kernel.links.quiet(interface.tap)  # the new namespace has applied its own defaults
        host = look(self._kernel.links, interface.tap)
        return (nsid, host[0].index), name, host
