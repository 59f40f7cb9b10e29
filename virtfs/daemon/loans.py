"""Gives the tap of an interface to a program, and takes it back when the program's connection closes.

A program that has the descriptor of a tap can change the tap, and can keep a copy of the descriptor. So virtfs
never uses this descriptor again: it reattaches to the tap (Tap.renew). If that fails because a copy exists, it
recreates the tap (Tap.make_again), and the copy becomes useless.
"""

import errno
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from itertools import count

import trio

from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.core.loan import Meter, Request, Traffic, check_rights, granted
from virtfs.core.virt import Origin
from virtfs.daemon.follow import Follower
from virtfs.daemon.interface import Interface
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.registry import Registry
from virtfs.daemon.taps import Found, find, put_back
from virtfs.files.clients import follow_forks
from virtfs.files.fd import Held
from virtfs.files.frame import Holder, TapReturning
from virtfs.forward.tasks import LONGEST
from virtfs.forward.wire_out import Given
from virtfs.host.bpf import REJECT_ALL
from virtfs.host.links import Links
from virtfs.host.peers import Peer
from virtfs.host.tap import Tap, TapTaken
from virtfs.host.tap_loan import Before, before, restore

log = logging.getLogger(__name__)

# The first attempts may fail: a killed process closes its descriptors one by one, and its children may end later.
TRIES, PAUSE = 20, 0.025  # attempts to reattach to a tap before it is recreated, and seconds between them


class Loan:
    """A loan of a tap. answer: the message for the program. was, found: the state of the tap before the loan."""

    def __init__(
        self,
        interface: Interface,
        request: Request,
        way: Given,
        holder: Holder,
        user: User,
        was: Before,
        found: Found,
    ) -> None:
        self.answer = granted(interface.virt, request)
        self.interface = interface
        self.way = way
        self.was = was
        self.found = found
        meter = Meter(interface.virt.counters, found.link.traffic or Traffic())
        self.held = Held(interface.virt, interface.ports.opens, user, meter, holder)
        self.over = False
        self.ended = trio.CancelScope()  # cancelled when the interface is destroyed


class Loans:
    """The taps that are lent to programs.

    has_cable: returns whether an interface has a cable. rx_is_read: looks whether a program reads the `rx` of an
    interface. lock: held while interfaces change. directory: the path of the mount point.
    """

    def __init__(
        self,
        kernel: Kernel,
        registry: Registry,
        follower: Follower,
        has_cable: Callable[[Interface], bool],
        rx_is_read: Callable[[Interface], Awaitable[bool]],
        lock: trio.Lock,
        directory: str,
    ) -> None:
        self._kernel = kernel
        self._registry = registry
        self._follower = follower
        self._has_cable = has_cable
        self._rx_is_read = rx_is_read
        self._lock = lock
        self._directory = directory
        self._all: dict[Interface, Loan] = {}

    async def give(
        self,
        interface: Interface,
        request: Request,
        peer: Peer,
        ended: Callable[[], bool],
        find: Callable[[int], int],
    ) -> Loan:
        """Lend the tap to a program. The caller must then send the descriptor to the program, unless Loan.way is AWAY.

        ended: returns whether the program has closed its connection. find: returns the process that has it, as in
        Holder.
        VirtError: ENXIO, the interface is gone; EACCES, EPERM, the user lacks permission; EBUSY, another program is
        reading the interface or holds its tap, or the interface has a cable or an impairment; EOPNOTSUPP, the tap has
        several queues. After an error, nothing has changed.
        """
        way = Given.AWAY if request.lend else Given.SHARED if request.header else Given.PLAIN
        holder = Holder(peer.pid, peer.uid, way is Given.AWAY, ended, find)
        if not interface.ports.frame.seats.empty():  # the tap is probably refused, with the number of a process
            await follow_forks(interface.ports.opens, self._directory)
        try:
            return await self._give(interface, request, way, holder, peer)
        except TapReturning as refusal:
            await refusal.regained()
            return await self._give(interface, request, way, holder, peer)

    async def _give(self, interface: Interface, request: Request, way: Given, holder: Holder, peer: Peer) -> Loan:
        async with self._lock:
            rx = await self._rx_is_read(interface)
            self._check(interface, peer)
            seats, wire = interface.ports.frame.seats, interface.wire
            seats.give(interface.virt.name, holder, interface.ports.opens, rx=rx)
            wire.opened(coming=True)
            with trio.CancelScope(shield=True):
                try:
                    loan = await self._part(interface, request, way, holder, peer)
                except BaseException:
                    self._leave(interface)
                    raise
            wire.arrived()
        return loan

    def _check(self, interface: Interface, peer: Peer) -> None:
        virt, wire = interface.virt, interface.wire
        if virt.lost or interface not in self._registry:
            raise VirtError(errno.ENXIO, f"{virt.name} is gone")
        check_rights(virt, peer.uid, peer.groups)
        interface.ports.frame.seats.expect_no_holder(f"{virt.name}/fd")
        if self._has_cable(interface):
            raise VirtError(errno.EBUSY, f"{virt.name}/fd: {virt.name} has a cable: uncable {virt.unit} first")
        if wire.path is not None or wire.out.path is not None:
            raise VirtError(errno.EBUSY, f"{virt.name}/fd: {virt.name} has an impairment: {virt.name} -impair first")
        if interface.tap.multi_queue:
            raise VirtError(errno.EOPNOTSUPP, f"{virt.name}/fd: {virt.host.name} has several queues and cannot be lent")

    async def _part(self, interface: Interface, request: Request, way: Given, holder: Holder, peer: Peer) -> Loan:
        call, tap, links = self._kernel.call, interface.tap, self._kernel.links
        if interface.ports.frame.followed:
            await interface.opening.follow()
        was, found = await call(before, tap, links), await call(find, links, tap)
        if self._kernel.mark and interface.virt.origin is not Origin.FOUND:
            # A loan can make the tap persistent. It then outlives a killed server, and the mark identifies it.
            await call(links.mark, tap, self._kernel.mark)
        loan = Loan(interface, request, way, holder, User(peer.uid, peer.gid, peer.pid), was, found)
        interface.wire.give(way)
        interface.away = way is not Given.SHARED
        try:
            if way is Given.AWAY:
                await call(tap.let_go, peer.uid)
            elif way is Given.PLAIN:
                await call(_attach_plain, tap, interface.virt.persist, interface.opening.carrier)
                interface.away = False
            if way is not Given.AWAY:
                os.set_blocking(tap.fd, True)  # as open(2) of /dev/net/tun returns it
        except BaseException:
            if tap.attached:
                interface.away = False
                interface.wire.regain()
            else:
                if not await self._attach(loan, force=True):
                    interface.away = False
                    interface.lose()
                await self._restore(loan)
            raise
        self._all[interface] = loan
        interface.meter = loan.held.meter
        loan.held.node.opens.add(loan.held)
        return loan

    async def take_back(self, loan: Loan) -> None:
        """Take the tap back and restore it. If the interface has been destroyed in the meantime, do nothing."""
        with trio.CancelScope(shield=True):
            for attempt in count():
                async with self._lock:
                    if loan.over:
                        return
                    if not attempt and not loan.interface.virt.lost:
                        await self._follower.look_after(loan.interface)  # counts the frames of the holder
                        loan.interface.meter = None
                    if await self._attach(loan, force=attempt >= TRIES):
                        await self._end(loan)
                        return
                await trio.sleep(PAUSE if attempt < TRIES else LONGEST)

    async def _attach(self, loan: Loan, force: bool) -> bool:
        """Reattach to the tap. Return False if that fails, for example because another process still has the tap.

        force: whether to recreate the tap if reattaching fails.
        """
        interface, call = loan.interface, self._kernel.call
        if interface.virt.lost:
            return True
        interface.away = True  # the tap may vanish for a moment
        try:
            await call(interface.tap.renew)
            return True
        except TapTaken:
            if not force:
                return False
            log.warning("%s: a process has kept a descriptor of the tap; recreating the tap", interface.virt.tap)
        except OSError as refusal:
            gone = refusal.errno == errno.ENXIO
            if interface.tap.attached:
                interface.away = False
                if gone:
                    interface.lose()
                return gone
            if not (force or gone):
                return False
            log.info("%s: cannot attach to the tap, recreating it: %s", interface.virt.tap, refusal.strerror)
        try:
            await call(_make_again, interface, self._kernel.links, loan)
        except OSError as refusal:
            log.warning("%s: cannot recreate the tap: %s; trying again", interface.virt.tap, refusal.strerror)
            return False
        self._follower.catch_up()  # reports about the old tap, with its counter, must not be taken for the new one's
        # The new tap's counter starts at 0. A negative start lets host.dropped continue from its old value.
        link = replace(interface.found.link, tx_dropped=-interface.virt.host.dropped)
        interface.found = replace(interface.found, link=link)
        await interface.recorder.moved()
        return True

    async def _restore(self, loan: Loan) -> None:
        """Restore the settings of a tap after virtfs has reattached to it, and let the wire read from it again."""
        interface = loan.interface
        interface.away = False
        virt = interface.virt
        program = REJECT_ALL if virt.carrier == "off" else interface.recorder.program
        try:
            if not virt.lost:
                await self._kernel.call(
                    partial(
                        restore,
                        interface.tap,
                        self._kernel.links,
                        loan.was,
                        carrier=interface.opening.carrier,
                        persist=virt.persist,
                        program=program,
                    )
                )
        except OSError as refusal:
            log.warning("%s: cannot restore the tap: %s", virt.tap, refusal.strerror)
        interface.wire.regain()

    async def _end(self, loan: Loan) -> None:
        loan.over = True
        interface = loan.interface
        del self._all[interface]
        await self._restore(loan)
        loan.held.release()
        self._leave(interface)
        self._follower.doubt(interface)

    def _leave(self, interface: Interface) -> None:
        interface.ports.frame.seats.regain()
        interface.wire.closed()
        if interface.ports.frame.followed:
            interface.opening.last_close()

    async def end(self, interface: Interface, keep: bool) -> None:
        """End the loan of a tap whose interface is being destroyed. The caller holds the lock.

        The program's descriptor becomes useless unless the tap stays. A tap stays if virtfs found it on the host,
        or if it is persistent and `keep` is true.
        """
        loan = self._all.pop(interface, None)
        if loan is None:
            return
        loan.over = True
        interface.meter = None
        loan.ended.cancel()
        virt, call, tap, links = interface.virt, self._kernel.call, interface.tap, self._kernel.links
        try:
            if virt.lost:
                pass
            elif virt.origin is not Origin.FOUND and not (keep and virt.persist):
                interface.away = True
                await call(links.delete_one, tap)
                virt.lose()
            elif loan.way is Given.AWAY:
                await call(tap.renew)
            else:
                os.set_blocking(tap.fd, False)
        except OSError as refusal:
            log.info("%s: cannot take the tap back from its holder: %s", virt.tap, refusal.strerror)
        await self._restore(loan)
        loan.held.release()
        interface.ports.frame.seats.regain()
        interface.wire.closed()


def _attach_plain(tap: Tap, persist: bool, carrier: bool) -> None:
    tap.renew(header=False)
    tap.set_persist(persist)
    tap.set_carrier(carrier)  # attaching switches it on


def _make_again(interface: Interface, links: Links, loan: Loan) -> None:
    """Recreate a tap with its previous settings. Blocks."""
    tap, host = interface.tap, interface.virt.host
    try:
        found = find(links, tap)
    except VirtError:  # the tap is gone
        # Use the flag `up` from before the loan, because the kernel sets a tap down before it deletes the tap.
        link = replace(loan.found.link, mtu=host.mtu, txqlen=host.queue)
        found = replace(loan.found, link=link)
    tap.make_again()
    links.quiet(tap)
    if found.link.alias:
        links.mark(tap, found.link.alias)
    put_back(links, tap, found)
    links.set(tap, address=loan.was.address)
