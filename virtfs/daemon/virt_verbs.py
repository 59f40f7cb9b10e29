"""The effect of each verb of core.verbs on an interface, and how a line is undone.

An effect is a method that takes an interface and the verb's arguments. Effects contain no code for undoing a line. If a
line fails, the interface is compared with its state before the line ran, and the verbs that restore that state are
carried out (core.virt_steps).
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from virtfs.core.arguments import Impairments
from virtfs.core.grammar import Action
from virtfs.core.ids import User
from virtfs.core.impairment import BOTH, UNIMPAIRED, Direction
from virtfs.core.ip import IpInterface
from virtfs.core.leftover import virt_before
from virtfs.core.virt import MODE_GROUP, MODE_NEW, Carrier, Origin, Virt
from virtfs.core.virt_steps import steps
from virtfs.daemon.fifos import Fifos
from virtfs.daemon.follow import Follower
from virtfs.daemon.interface import Interface
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.netns_verb import move
from virtfs.daemon.socket_cables import SocketCables
from virtfs.daemon.userdb import Accounts
from virtfs.files.events import Events
from virtfs.forward.recorder import Mark
from virtfs.forward.slices import Slices
from virtfs.host.bpf import REJECT_ALL, Program, compile_filter
from virtfs.host.ipconfig import AddressRecord
from virtfs.host.links import Links
from virtfs.host.membership import Membership, join, leave, membership, restore
from virtfs.host.tap_protocol import TapDevice

log = logging.getLogger(__name__)

IPV6_MTU_MIN = 1280

Effect = Callable[..., Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Before:
    """The part of an interface's state that is needed to undo a line, as it was before the line ran.

    records: the addresses with all their attributes, or None if undoing the line does not need them.
    member: the tap's membership in a bridge, or None if the tap is in no bridge. It is queried only if `rejoin` is set.
    rejoin: whether the line may take the tap out of its bridge.
    """

    virt: Virt
    records: tuple[AddressRecord, ...] | None
    member: Membership | None
    rejoin: bool


class VirtVerbs:
    """The effects of the verbs on an interface. EFFECTS maps each verb to its effect."""

    def __init__(
        self,
        kernel: Kernel,
        follower: Follower,
        fifos: Fifos,
        sockets: SocketCables,
        accounts: Accounts,
        events: Events,
    ) -> None:
        self._kernel = kernel
        self._follower = follower
        self._fifos = fifos
        self._sockets = sockets
        self._accounts = accounts
        self._events = events

    async def carry_out(self, interface: Interface, actions: tuple[Action, ...]) -> None:
        """Carry out the verbs in order. If one fails, undo the verbs carried out so far and raise its error."""
        before, slices = await self._look(interface, actions), Slices()
        try:
            for action in actions:
                await self._act(interface, action)
                await slices.pause()
        except BaseException:
            await self._undo(interface, before)
            raise

    async def renew(self, interface: Interface, actions: tuple[Action, ...], queue: int) -> None:
        """Reset the settings that a killed server left on a tap, except those that its line of the state file sets.

        actions: the verbs of the line. queue: the queue of a new interface, in frames.
        """
        for action in steps(interface.virt, virt_before(interface.virt, actions, queue)):
            await self._act(interface, action)

    async def _act(self, interface: Interface, action: Action) -> None:
        await EFFECTS[action.verb](self, interface, *action.args)

    async def _look(self, interface: Interface, actions: tuple[Action, ...]) -> _Before:
        tap, links = interface.tap, self._kernel.links
        verbs = {action.verb for action in actions}
        records = member = None
        # A verb that fails has removed no address, so a line with a single verb needs no records.
        if len(actions) > 1 and any(_removes_addresses(action) for action in actions):
            records = await self._kernel.call(links.addresses_in_full, tap)
        if rejoin := bool(verbs & _BRIDGE):
            member = await self._kernel.call(membership, tap, links)
        return _Before(interface.virt.snapshot(), records, member, rejoin)

    async def _undo(self, interface: Interface, before: _Before) -> None:
        """Carry out the verbs that undo a line. Then restore addresses and bridge. Run `up` or `down` last."""
        way_back = steps(interface.virt, before.virt)
        apart = _UP | _BRIDGE | (set() if before.records is None else _ADDRESSES)
        for action in way_back:
            if action.verb not in apart:
                await self._attempt(interface, f"undo {action.verb}", self._act(interface, action))
        if not interface.virt.lost:
            await self._attempt(interface, "restore its addresses", self._restore_addresses(interface, before))
            await self._attempt(interface, "restore its bridge", self._restore_membership(interface, before))
        for action in way_back:
            if action.verb in _UP:
                await self._attempt(interface, f"undo {action.verb}", self._act(interface, action))

    async def _attempt(self, interface: Interface, what: str, undo: Awaitable[None]) -> None:
        """Await `undo`. If it fails, only log the error, because the user gets the error of the line.

        what: the phrase that follows "cannot" in the log message.
        """
        try:
            await undo
        except (OSError, MemoryError) as refusal:
            log.warning("%s: cannot %s: %s", interface.virt.name, what, refusal)

    async def _restore_addresses(self, interface: Interface, before: _Before) -> None:
        if before.records is not None:
            links, name = self._kernel.links, before.virt.host.name
            await self._kernel.call(links.restore_addresses, interface.tap, before.records, name)
            await self._follower.look_after(interface)

    async def _restore_membership(self, interface: Interface, before: _Before) -> None:
        call, links, tap = self._kernel.call, self._kernel.links, interface.tap
        if before.rejoin and await call(membership, tap, links) != before.member:
            await call(restore, tap, links, before.member)
            await self._follower.look_after(interface)

    async def give(self, interface: Interface, user: User) -> None:
        """Give a new interface to the user who opened `clone`, and to the user's group."""
        interface.virt.set(owner=user.uid, group=user.gid)
        await self._accounts.learn([user.uid], [user.gid])
        await self._set_rights(interface)

    async def _set_rights(self, interface: Interface) -> None:
        """Give all that programs open for this interface outside the mount the rights of `frame`."""
        self._fifos.set_rights(interface)
        await self._sockets.set_rights(interface)

    # The effects

    async def _set(self, interface: Interface, value: Any, *, field: str) -> None:
        """Set a field of the Virt that concerns only virtfs, not the kernel."""
        interface.virt.set(**{field: value})

    async def _owner(self, interface: Interface, name: str) -> None:
        interface.virt.set(owner=await self._accounts.user_id(name))
        await self._set_rights(interface)

    async def _group(self, interface: Interface, name: str) -> None:
        """Set the group. If the mode is a default, replace it with the default for the new group.

        The default is MODE_GROUP, or MODE_NEW for group 0, whose members get no access. Any other mode stays unchanged.
        """
        virt, gid = interface.virt, await self._accounts.group_id(name)
        modes = {MODE_NEW: MODE_GROUP} if gid else {MODE_GROUP: MODE_NEW}
        virt.set(group=gid, mode=modes.get(virt.mode, virt.mode))
        await self._set_rights(interface)

    async def _mode(self, interface: Interface, mode: int) -> None:
        interface.virt.set(mode=mode)
        await self._set_rights(interface)

    async def _set_link(self, interface: Interface, value: Any, *, name: str) -> None:
        """Set a property of the host's end. name: the parameter of Links.set() for this property."""
        await self._kernel.call(partial(self._kernel.links.set, interface.tap, **{name: value}))
        await self._follower.look_after(interface)

    async def _queue(self, interface: Interface, queue: int) -> None:
        interface.wire.shorten(queue)
        await self._set_link(interface, queue, name="txqlen")

    async def _mtu(self, interface: Interface, mtu: int) -> None:
        """Set the MTU.

        Below the minimum MTU of IPv6 (RFC 8200) the kernel removes the interface's IPv6 addresses and settings. When
        the MTU grows again, the kernel starts IPv6 with its default settings, which `_quieten` changes.
        """
        host = interface.virt.host
        await self._set_link(interface, mtu, name="mtu")
        if host.mtu < IPV6_MTU_MIN <= mtu and interface.virt.origin is not Origin.FOUND:
            await self._kernel.call(_quieten, self._kernel.links, interface.tap, host.addresses)
            await self._follower.look_after(interface)

    async def _add_address(self, interface: Interface, address: IpInterface) -> None:
        """Add an address. Idempotent."""
        if address not in interface.virt.host.addresses:
            await self._kernel.call(self._kernel.links.add_address, interface.tap, address)
            await self._follower.look_after(interface)

    async def _remove_address(self, interface: Interface, address: Any) -> None:
        await self._kernel.call(self._kernel.links.remove_address, interface.tap, address)
        await self._follower.look_after(interface)

    async def _move(self, interface: Interface, netns: str) -> None:
        await move(self._kernel, self._follower, interface, netns)

    async def _bridge(self, interface: Interface, name: str = "") -> None:
        """Move the tap into a bridge. Without a name, take it out of its bridge. Idempotent."""
        call, links, tap = self._kernel.call, self._kernel.links, interface.tap
        now = await call(membership, tap, links)
        if name != ("" if now is None else now.bridge):
            await (call(join, tap, links, name) if name else call(leave, tap, links))
        await self._follower.look_after(interface)

    async def _persist(self, interface: Interface, on: bool) -> None:
        if on and self._kernel.mark and interface.virt.origin is not Origin.FOUND:
            await self._kernel.call(self._kernel.links.mark, interface.tap, self._kernel.mark)
        await self._kernel.call(interface.tap.set_persist, on)
        interface.virt.set(persist=on)

    async def _carrier(self, interface: Interface, when: Carrier) -> None:
        """Store the condition for a carrier (`when`), and plug or unplug the tap accordingly.

        After a loss of carrier, the kernel still sends frames to the tap for up to a second (net/core/link_watch.c). So
        the filter of an unplugged tap rejects all of them.
        """
        if (when == "off") != (interface.virt.carrier == "off"):
            program = REJECT_ALL if when == "off" else interface.recorder.program
            await self._kernel.call(interface.tap.set_filter, program)
        interface.virt.set(carrier=when)
        await interface.opening.follow()

    async def _upopen(self, interface: Interface, on: bool) -> None:
        interface.virt.set(upopen=on)
        await interface.opening.follow()

    async def _impair(self, interface: Interface, impairments: Impairments) -> None:
        # Only creating a path can fail. So create paths before removing any: then an undo never has to create one.
        for direction, impairment in sorted(impairments, key=lambda one: one[1].harmless):
            interface.impairments.set(direction, impairment)

    async def _unimpair(self, interface: Interface, *directions: Direction) -> None:
        """directions: one, or none for both."""
        await self._impair(interface, tuple((direction, UNIMPAIRED) for direction in directions or BOTH))

    async def _filter(self, interface: Interface, expression: str) -> None:
        program = await self._kernel.call(compile_filter, expression)
        await self._attach(interface, program)
        interface.virt.set(filter=expression.strip())

    async def _attach(self, interface: Interface, program: Program | None) -> None:
        """Attach a filter to the tap and to its recorder. If either step fails, both keep their earlier filter."""
        before = interface.recorder.program
        if interface.virt.carrier == "off":
            await interface.recorder.refilter(program)  # keep the tap's own filter, which rejects all frames
            return
        await self._kernel.call(interface.tap.set_filter, program)
        try:
            await interface.recorder.refilter(program)
        except OSError:
            await self._kernel.call(interface.tap.set_filter, before)
            raise

    async def _mark(self, interface: Interface, text: str) -> None:
        await interface.recorder.mark(Mark(text))
        self._events.emit("mark", interface.virt.name, text=text)

    async def _history(self, interface: Interface, size: int) -> None:
        interface.virt.set(history_size=size)
        await interface.ports.history.update()


def _removes_addresses(action: Action) -> bool:
    """Return whether a verb can remove addresses.

    Before such a verb runs, the kernel's records of the addresses must be saved, so that an undo can restore all
    attributes.
    """
    match action:
        case Action("-inet" | "-inet6"):
            return True
        case Action("mtu", (int(mtu),)):
            return mtu < IPV6_MTU_MIN
    return False


def _quieten(links: Links, tap: TapDevice, addresses: tuple[IpInterface, ...]) -> None:
    """Turn off automatic IPv6 configuration, and remove the link-local address that it has added. Blocks.

    The kernel starts IPv6 with the default settings whenever the MTU becomes large enough for IPv6 again.
    addresses: the addresses to keep.
    """
    links.quiet(tap)
    for address in links.addresses(tap):
        if address.ip.is_link_local and address.version == 6 and address not in addresses:
            links.remove_address(tap, address)


_set, _set_link = VirtVerbs._set, VirtVerbs._set_link

_ADDRESSES: Final = {"inet", "inet6", "-inet", "-inet6"}
_BRIDGE: Final = {"bridge", "-bridge"}
_UP: Final = {"up", "down"}

EFFECTS: Final[dict[str, Effect]] = {
    "up": partial(_set_link, value=True, name="up"),
    "down": partial(_set_link, value=False, name="up"),
    "mtu": VirtVerbs._mtu,
    "queue": VirtVerbs._queue,
    "taplink": partial(_set_link, name="address"),
    "inet": VirtVerbs._add_address,
    "inet6": VirtVerbs._add_address,
    "-inet": VirtVerbs._remove_address,
    "-inet6": VirtVerbs._remove_address,
    "link": partial(_set, field="address"),
    "owner": VirtVerbs._owner,
    "group": VirtVerbs._group,
    "mode": VirtVerbs._mode,
    "backlog": partial(_set, field="backlog"),
    "exclusive": partial(_set, field="exclusive"),
    "description": partial(_set, field="description"),
    "promisc": partial(_set_link, value=True, name="promisc"),
    "-promisc": partial(_set_link, value=False, name="promisc"),
    "netns": VirtVerbs._move,
    "bridge": VirtVerbs._bridge,
    "-bridge": VirtVerbs._bridge,
    "persist": partial(VirtVerbs._persist, on=True),
    "-persist": partial(VirtVerbs._persist, on=False),
    "upopen": partial(VirtVerbs._upopen, on=True),
    "-upopen": partial(VirtVerbs._upopen, on=False),
    "carrier": VirtVerbs._carrier,
    "impair": VirtVerbs._impair,
    "-impair": VirtVerbs._unimpair,
    "filter": VirtVerbs._filter,
    "-filter": partial(VirtVerbs._filter, expression=""),
    "mark": VirtVerbs._mark,
    "pace": partial(_set, field="pace"),
    "history": VirtVerbs._history,
    "-history": partial(VirtVerbs._history, size=0),
    "antispoof": partial(_set, value=True, field="antispoof"),
    "-antispoof": partial(_set, value=False, field="antispoof"),
    "strict": partial(_set, value=True, field="strict"),
    "-strict": partial(_set, value=False, field="strict"),
}
