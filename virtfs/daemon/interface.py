"""One interface: its virt, tap, wire and device files, and how they change together."""

import errno
import logging
from collections.abc import Sequence
from dataclasses import replace

from virtfs.core.errors import VirtError
from virtfs.core.ip import IpInterface
from virtfs.core.loan import Meter
from virtfs.core.quoting import quoted
from virtfs.core.virt import HostEnd, Origin, Virt
from virtfs.daemon.drops import Drops
from virtfs.daemon.earlier import existed
from virtfs.daemon.taps import Found, host_end
from virtfs.daemon.upopen import HostFollowsOpens
from virtfs.files.capture import Capture
from virtfs.files.events import Events
from virtfs.files.ports import Ports
from virtfs.forward.recorder import Recorder
from virtfs.forward.tasks import Start
from virtfs.forward.wire import Wire
from virtfs.forward.wire_impairments import WireImpairments
from virtfs.host.netlink_values import Link
from virtfs.host.tap import Tap

log = logging.getLogger(__name__)

# Identifies a network interface in reports from the kernel: the nsid of its network namespace, or None for the daemon's
# own namespace, and the interface index in that namespace.
Place = tuple[int | None, int]


class Interface:
    """One virt, with everything that belongs to it."""

    def __init__(
        self,
        virt: Virt,
        tap: Tap,
        found: Found,
        wire: Wire,
        recorder: Recorder,
        ports: Ports,
        opening: HostFollowsOpens,
        captures: Sequence[Capture],
        drops: Drops,
        events: Events,
        start: Start,
    ) -> None:
        """Store the parts of the interface.

        found: the tap as it was when virtfs opened it.
        opening: applies the verbs upopen and carrier when `frame`, `hex` or `stream` is opened or closed.
        captures: the pcap files that show this interface.
        drops: reports the frames that `wire` and the kernel drop.
        events: publishes changes of the host's end.
        start: runs a task until the mount ends.
        """
        self.virt = virt
        self.tap = tap
        self.found = found
        self.wire = wire
        self.recorder = recorder
        self.ports = ports
        self.opening = opening
        self.impairments = WireImpairments(wire, start)
        self.place: Place = (None, virt.host.index)
        # The interface index of the tap's master (for example a bridge) in the tap's namespace, or None.
        self.master = found.link.master
        self.reports = 0  # number of reports from the kernel about the host's end
        # Whether virtfs is detached from the tap. If the tap vanishes during that time, `loans` recreates it.
        self.away = False
        self.meter: Meter | None = None  # counts the frames of a program that has the tap
        self._captures = captures
        self._drops = drops
        self._events = events
        self._start = start

    def set_host(self, link: Link, addresses: tuple[IpInterface, ...], bridge: str | None = None) -> None:
        """Apply the state of the host's end that the kernel reports. For a lost interface, do nothing.

        bridge: the name of the tap's bridge, or "" if the tap is in no bridge. None means that the state was not
        queried, but comes from a notification, which may be a part of the tap's deletion. In that case the known name
        stays if the master is unchanged.
        The number of dropped frames never decreases: an outdated message has a lower one, or none.
        """
        if self.virt.lost:
            return
        sure = bridge is not None
        if self.meter is not None and link.traffic is not None:
            self.meter.update(link.traffic)
        before = self.virt.host
        if bridge is None:
            bridge = before.bridge if link.master == self.master else ""
        self.master = link.master
        now = host_end(link, addresses, bridge)
        now = replace(now, dropped=max(before.dropped, now.dropped - self.found.link.tx_dropped))
        if now != before or (sure and self.doubtful):
            self.virt.set_host(now, sure=sure)
            self._report(before, now)
            self._drops.add(now.dropped - before.dropped)

    @property
    def doubtful(self) -> bool:
        """Whether the kernel has reported changes that may be a part of the tap's deletion. A query shows which."""
        return not self.virt.lost and self.virt.kept != self.virt.host

    def change_address(self, address: IpInterface, added: bool) -> None:
        """Apply a report from the kernel that an address was added to the host's end or removed from it."""
        addresses = self.virt.host.addresses
        if added and address not in addresses:
            self._set_addresses((*addresses, address))
        elif not added:
            self._set_addresses(tuple(a for a in addresses if a != address))

    def _set_addresses(self, addresses: tuple[IpInterface, ...]) -> None:
        self.virt.set_host(replace(self.virt.host, addresses=addresses), sure=False)

    def set_dropped(self, total: int) -> None:
        """Update the number of dropped frames. total: the kernel's count since the tap was made.

        A lower number comes from an outdated reply of the kernel. It is ignored, because counters never decrease.
        """
        dropped = total - self.found.link.tx_dropped
        if (more := dropped - self.virt.host.dropped) > 0:
            self.virt.set_host(replace(self.virt.host, dropped=dropped), sure=False)
            self._drops.add(more)

    def _report(self, before: HostEnd, now: HostEnd) -> None:
        name, emit = self.virt.name, self._events.emit
        if now.up != before.up:
            emit("up" if now.up else "down", name)
        if now.mtu != before.mtu:
            emit("mtu", name, mtu=now.mtu)
        if now.bridge != before.bridge:
            emit("bridge", name, bridge=now.bridge)
        if now.carrier != before.carrier:
            emit("carrier", name, carrier=int(now.carrier))

    def lose(self) -> None:
        """Record that the tap has vanished. Readers get ENXIO, and no more frames are sent. Idempotent.

        While virtfs is detached from the tap, do nothing.
        """
        if not self.virt.lost and not self.away:
            self.virt.lose()
            said = "%s is lost: its tap %s has vanished; another program has deleted it or its network namespace: %s"
            log.warning(said, self.virt.name, quoted(self.virt.host.name), self.remedy)
            self._start(self._end_captures, name=f"{self.virt.name}: ending its captures")
            self._events.emit("lost", self.virt.name)

    def expect_tap(self) -> None:
        """Raise VirtError ENXIO if the interface has lost its tap."""
        if self.virt.lost:
            raise VirtError(errno.ENXIO, f"{self.virt.name} has lost its tap: {self.remedy}")

    @property
    def remedy(self) -> str:
        """What to do about a lost interface, as the end of an error message."""
        unit = self.virt.unit
        return f'"ensure {unit}" makes it again' if self.virt.saved else f'"destroy {unit}" removes it'

    @property
    def existed(self) -> str:
        """The sentence that the tap existed before virtfs used it, or "" if virtfs made the tap."""
        return existed(self.virt.tap) if self.virt.origin is Origin.FOUND else ""

    def expect_no_holder(self) -> None:
        """Raise VirtError EBUSY if a program has the tap, through the file fd."""
        self.ports.frame.seats.expect_no_holder(self.virt.name)

    async def _end_captures(self) -> None:
        """Deliver the remaining frames to the captures, then remove the interface from them."""
        await self.recorder.flush()
        for capture in self._captures:
            capture.vanish(self.recorder)
        await self.recorder.end()

    async def stop(self) -> None:
        """End the interface. Blocked readers get ENXIO."""
        self.wire.finish()
        self.virt.destroy()
        await self._end_captures()
        self.ports.history.end()
        self.impairments.stop()
        self.wire.close()
        self._drops.end()
