"""Create and destroy interfaces: make the parts of an interface bottom-up, and end them in a safe order."""

import errno
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Literal

import trio

from virtfs.core.errors import VirtError
from virtfs.core.ethernet import new_mac
from virtfs.core.ids import UNIT_MAX, Unit, User
from virtfs.core.limits import Limits
from virtfs.core.quoting import quoted
from virtfs.core.virt import Origin, Virt
from virtfs.daemon.bridge_follow import BridgeFollower
from virtfs.daemon.cables import Cables
from virtfs.daemon.drops import Drops
from virtfs.daemon.earlier import NOTHING, Earlier, vanished_from_host
from virtfs.daemon.fifos import Fifos
from virtfs.daemon.follow import Follower
from virtfs.daemon.garbage import FILES, INTERFACE, Garbage
from virtfs.daemon.interface import Interface
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.loan_sockets import LoanSockets
from virtfs.daemon.loans import Loans
from virtfs.daemon.registry import Registry
from virtfs.daemon.taps import Found, host_end, open_tap, put_back
from virtfs.daemon.upopen import HostFollowsOpens
from virtfs.files.capture import Capture
from virtfs.files.device import DeviceHandle, Opens
from virtfs.files.events import Events
from virtfs.files.frame import Seats
from virtfs.files.node import Directory, Node
from virtfs.files.ports import Ports
from virtfs.forward.recorder import Recorder, Rings
from virtfs.forward.supervisor import together
from virtfs.forward.tasks import Start, in_thread
from virtfs.forward.wire import Wire
from virtfs.host import descriptors
from virtfs.host.holders import holding_tap
from virtfs.host.marks import is_left
from virtfs.host.processes import command_line_of
from virtfs.host.tap import Tap, TapHeld, TapTaken
from virtfs.host.tap_protocol import TapDevice

log = logging.getLogger(__name__)

EVENTS_AT_ONCE = 64  # maximum number of events `destroy` that are emitted in one step; each takes 10 µs

Names = Callable[[Ports], Mapping[str, Node]]


class Lifecycle:
    """Creates and destroys the interfaces of a mount. The caller holds `lock`."""

    def __init__(
        self,
        kernel: Kernel,
        registry: Registry,
        follower: Follower,
        bridge_follower: BridgeFollower,
        cables: Cables,
        fifos: Fifos,
        loans: Loans,
        sockets: LoanSockets,
        events: Events,
        root: Directory,
        pcap: Capture,
        limits: Limits,
        lock: trio.Lock,
        report: Callable[[VirtError, User], None],
        start: Start,
        garbage: Garbage,
        internet: Unit | None,
    ) -> None:
        """Store the parts of the mount that interfaces need.

        root: the directory of the mount point. pcap: the capture of all interfaces. lock: held while interfaces
        change. report: sets a user's last_error. start: runs a task until the mount ends.
        garbage: exempts the objects of interfaces from garbage collection.
        internet: the unit of the interface that virtfs shell --net will create, or None.
        """
        self._kernel = kernel
        self._registry = registry
        self._follower = follower
        self._bridge_follower = bridge_follower
        self._cables = cables
        self._fifos = fifos
        self._loans = loans
        self._sockets = sockets
        self._events = events
        self._root = root
        self._pcap = pcap
        self._limits = limits
        self.new_queue = limits.new_queue
        self._lock = lock
        self._report = report
        self._garbage = garbage
        self._internet = internet
        self._start = start
        self._rings = Rings(pcap.budget.memory)
        # The retired interfaces: the name, the tap, and whether the tap is to be deleted.
        self._retired: list[tuple[str, TapDevice, bool]] = []

    def check_room(self) -> None:
        """Raise VirtError if no further interface can be created.

        ENOSPC: the mount has the maximum number of interfaces. EMFILE: RLIMIT_NOFILE allows no more.
        """
        most = self._limits.virts
        if len(self._registry) < most:
            return
        number = f"{most} interface{'s' * (most != 1)}"
        files = descriptors.limit()
        if descriptors.interfaces(files) <= most:
            raise VirtError(
                errno.EMFILE,
                f"the limit of {files} open files (RLIMIT_NOFILE) allows only {number}: destroy one first",
            )
        raise VirtError(errno.ENOSPC, f"this mount allows at most {number} (mount option max_virts): destroy one first")

    async def create(
        self, unit: Unit | None, names: Names, earlier: Earlier = NOTHING, netns: str = "", cloned: bool = False
    ) -> Interface:
        """Create virt<unit>. Create its tap, or attach to an existing tap. A failure leaves nothing behind.

        unit: None for the lowest free unit.
        names: a function that takes the interface's ports and returns the entries to add to the root directory.
        earlier: what the state file lists. `destroy` removes a tap that an earlier run made. A tap that an earlier run
        found on the host is not made: VirtError ENXIO.
        netns: the network namespace that is searched first for an existing tap, or "". A new tap is made in the
        namespace of the daemon.
        cloned: whether the interface is created by an open(2) of the file clone.
        """
        self.check_room()
        await self.reap()
        if unit is None:
            unit, tap, found = await self._lowest()
        else:
            try:
                tap, found = await self._open(unit, netns)
            except TapHeld as refusal:
                raise VirtError(refusal.errno, await in_thread(_who_holds, f"tap{unit}")) from refusal
        try:
            if tap.made and f"tap{unit}" in earlier.found:
                raise vanished_from_host(f"tap{unit}", unit)
            interface = self._assemble(unit, tap, found, f"tap{unit}" in earlier.made, cloned)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._kernel.close_taps([tap])
            raise
        self._registry.add(interface)
        self._garbage.grown(INTERFACE)
        self._root.add(names(interface.ports))
        try:
            await self._follower.reported()
            await self._pcap.appear(interface.recorder)
            self._fifos.appear(interface)
            if netns:
                await self._follower.look_for(interface)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.destroy(interface)
            raise
        self._events.emit("create", interface.virt.name)
        if sentence := interface.existed:
            if interface.virt.tap in earlier.found:
                log.info("%s", sentence)
            else:
                log.warning("%s", sentence)
                self._events.emit("warning", interface.virt.name, text=sentence)
        return interface

    def files_made(self) -> None:
        """Record that the files of an interface have been made, because a program looks at them for the first time."""
        self._garbage.grown(FILES)

    async def _open(self, unit: Unit, netns: str) -> tuple[Tap, Found]:
        return await self._kernel.call(open_tap, self._kernel.open_tap, self._kernel.links, unit, netns, self.new_queue)

    async def _lowest(self) -> tuple[Unit, Tap, Found]:
        """Make the tap of the lowest unit that neither a virt nor an interface of the host uses."""
        for unit in map(Unit, count()):
            if unit > UNIT_MAX:
                break
            if self._registry.find(unit) is not None:
                continue
            try:
                tap, found = await self._open(unit, "")
            except TapTaken:
                continue
            if tap.made:
                return unit, tap, found
            # This is an existing persistent tap. It is used only if the command names its unit.
            await self._kernel.close_taps([tap])
        raise VirtError(errno.ENOSPC, "every unit is taken: destroy an interface first")

    def _assemble(self, unit: Unit, tap: Tap, found: Found, made: bool, cloned: bool) -> Interface:
        ours = tap.made or is_left(found.link.alias, self._kernel.mark, made)
        if unit == self._internet:
            origin, self._internet = Origin.SHELL, None
        else:
            origin = Origin.CLONED if cloned else Origin.MADE if ours else Origin.FOUND
        host = replace(host_end(found.link, found.addresses, found.bridge), dropped=0)
        virt = Virt(
            unit, new_mac(unit, random.randrange(256)), host, persist=not tap.made, origin=origin
        )  # fmt: skip
        drops = Drops(virt.name, self._events, self._start)
        wire = Wire(
            virt,
            tap,
            watch=self._kernel.watch,
            gone=partial(self._doubt, unit),
            catch_up=self._follower.catch_up,
            dropped=drops.add,
            memory=self._pcap.budget.memory,
        )
        try:
            recorder = Recorder(virt, tap, self._rings, self._start)
            seats = Seats()
            look = partial(self._look_after, unit)
            opening = HostFollowsOpens(virt, tap, seats, self._kernel, look, self._lock, self._start)
            ports = Ports(
                wire,
                recorder,
                opens=Opens(partial(self._report_open, virt.name)),
                seats=seats,
                opening=opening,
                budget=self._pcap.budget,
                application=self._pcap.application,
                fifo=str(self._fifos.path(virt)),
                followed=partial(self._fifos.followed, unit),
                look=partial(self._fifos.look, unit),
                socket=str(self._sockets.path(virt)),
                listen=partial(self._sockets.listen, virt),
                report=self._report,
                start=self._start,
            )
            captures = ports.pcap, self._pcap
            return Interface(
                virt, tap, found, wire, recorder, ports, opening, captures, drops, self._events, self._start
            )  # fmt: skip
        except BaseException:
            wire.close()
            raise

    def _report_open(self, name: str, event: Literal["open", "close"], handle: DeviceHandle) -> None:
        self._events.emit(event, name, file=handle.node.label, uid=handle.user.uid, pid=handle.user.pid)

    def _doubt(self, unit: Unit) -> None:
        if (interface := self._registry.find(unit)) is not None:
            self._follower.doubt(interface)

    async def _look_after(self, unit: Unit) -> None:
        if (interface := self._registry.find(unit)) is not None:
            await self._follower.look_after(interface)

    async def destroy(self, interface: Interface, keep: bool = False) -> None:
        """Destroy an interface: remove its files, end blocked reads with ENXIO, and remove or restore its tap.

        keep: whether a tap with `persist` stays for the next mount.
        """
        await self.retire(interface, keep)
        await self.reap()

    async def retire(self, interface: Interface, keep: bool = False) -> None:
        """Destroy an interface, but leave the removal of its tap to reap(), which must follow.

        Removing a tap waits 16 ms for RCU in the kernel. reap() waits only once for many taps.
        """
        if self._events.is_read and not interface.virt.lost:
            try:
                await self._follower.count(interface)
            except OSError as refusal:
                log.info("%s: cannot count the frames that were dropped: %s", interface.virt.name, refusal.strerror)
        await self._retire(interface, keep)

    async def _retire(self, interface: Interface, keep: bool) -> None:
        """Retire an interface whose dropped frames have been counted."""
        virt = interface.virt
        for name in (virt.name, virt.tap):
            self._root.remove(name)
        self._sockets.close(virt)
        await self._loans.end(interface, keep)
        was_lost, found = virt.lost, virt.origin is Origin.FOUND
        stays = was_lost or found or (virt.persist and keep) or interface.place[0] is not None
        await self._cables.remove(interface)
        self._fifos.vanish(interface)
        try:
            await interface.stop()
            if not was_lost and found:
                await self._kernel.call(put_back, self._kernel.links, interface.tap, interface.found)
            elif not was_lost and virt.persist and not keep:
                await self._kernel.call(interface.tap.set_persist, False)
        except OSError as refusal:
            log.warning("%s: cannot restore the tap to its earlier state: %s", virt.tap, refusal.strerror)
        finally:
            self._registry.remove(interface)
            nsid, index = interface.place
            if nsid is None and not found and not (virt.persist and keep):
                self._bridge_follower.leave(index, interface.tap)
            self._retired.append((virt.name, interface.tap, not stays))

    async def reap(self) -> None:
        """Remove the taps of retired interfaces.

        Taps that virtfs found on the host stay, and so do persistent taps that retire() was told to keep.
        """
        if not (retired := self._retired):
            return
        self._retired = []
        doomed = [tap for _name, tap, deleted in retired if deleted]
        try:
            if len(doomed) > 1:
                await self._kernel.delete_taps(doomed)
        except (OSError, MemoryError) as refusal:
            log.warning("cannot remove %d taps together (%s), removing them one by one", len(doomed), refusal)
        finally:
            # Closing a tap that is not persistent removes it, too.
            await self._kernel.close_taps([tap for _name, tap, _deleted in retired if tap.fd >= 0])
            for number, (name, _tap, _deleted) in enumerate(retired, start=1):
                self._events.emit("destroy", name)
                if not number % EVENTS_AT_ONCE:
                    await trio.lowlevel.cancel_shielded_checkpoint()

    @property
    def retired(self) -> bool:
        """Whether reap() has taps of retired interfaces to remove."""
        return bool(self._retired)

    async def destroy_all(self, end: bool) -> None:
        """Destroy every interface.

        end: whether the mount ends. If so, taps with `persist` stay for the next mount. If not, the interface of
        virtfs shell --net stays, since nothing but a new shell could make it again.
        """
        if self._events.is_read:
            try:
                await self._follower.refresh_all()
            except OSError as refusal:
                log.info("cannot count the frames that were dropped: %s", refusal.strerror)
        # Restoring a tap that virtfs found takes a long time, so restore such taps concurrently. No list of them stays
        # here, which would free all of them in one step at its end.
        await together(
            *(
                partial(self._retire, interface, keep=end)
                for interface in self._registry
                if end or interface.virt.origin is not Origin.SHELL
            )
        )
        await self.reap()


def _who_holds(name: str) -> str:
    """Return the sentence that a tap is held, with the processes that hold it if they can be found. Blocks."""
    holders = [f"process {pid} ({quoted(command_line_of(pid))})" for pid in holding_tap(name)]
    if not holders:
        return f'"{name}" is held by another program, perhaps by another mount: virtfs ls lists the mounts'
    return f'"{name}" is held by {" and ".join(holders)}'
