"""What each verb of core.verbs does to an interface, and how it is taken back.

An effect is a function of the interfaces, one of them and the verb's arguments. It does its work whole or raises, and
returns what undoes it. What can be known beforehand is asked in `check`, before anything of a line is done.
"""

import errno
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from virtfs.core.arguments import Impairments
from virtfs.core.errors import VirtError
from virtfs.core.grammar import Action
from virtfs.core.ids import User
from virtfs.core.impairment import LIMIT_DEFAULT, UNIMPAIRED
from virtfs.core.ip import IpInterface
from virtfs.core.limits import Limits
from virtfs.core.verbs import VIRT, find
from virtfs.core.virt import MODE_GROUP, MODE_NEW, Carrier
from virtfs.daemon.accounts import group_id, user_id
from virtfs.daemon.interface import Interface
from virtfs.daemon.interfaces import Interfaces
from virtfs.daemon.membership import set_bridge
from virtfs.daemon.moves import move
from virtfs.host.bpf import Program, compile_filter
from virtfs.host.links import Links
from virtfs.host.tap import Tap

log = logging.getLogger(__name__)

IPV6_MTU_MIN = 1280

Undo = Callable[[], Awaitable[None]]
Effect = Callable[..., Awaitable[Undo]]


async def _set(interfaces: Interfaces, interface: Interface, name: str, value: object) -> Undo:
    """A setting of virt's own."""
    before = getattr(interface.virt, name)
    setattr(interface.virt, name, value)
    interface.wire.update()
    if name in ("owner", "group", "mode"):
        try:
            interfaces.given(interface)
        except BaseException:
            setattr(interface.virt, name, before)
            raise

    async def undo() -> None:
        await _set(interfaces, interface, name, before)

    return undo


async def _link(interfaces: Interfaces, interface: Interface, **change: Any) -> Undo:
    """A property of the host's end, named as Links.set names it."""
    host = interface.virt.host
    known = {"up": host.up, "mtu": host.mtu, "address": host.address, "txqlen": host.queue, "promisc": host.promisc}
    before = {name: known[name] for name in change}
    await interfaces.kernel.call(partial(interfaces.kernel.links.set, interface.tap, **change))
    await interfaces.look_after(interface)

    async def undo() -> None:
        await _link(interfaces, interface, **before)

    return undo


async def _mtu(interfaces: Interfaces, interface: Interface, mtu: int) -> Undo:
    """Below IPv6's smallest MTU (RFC 8200) the kernel takes the addresses and settings of IPv6 away."""
    addresses, before = interface.virt.host.addresses, interface.virt.host.mtu
    await _link(interfaces, interface, mtu=mtu)

    async def undo() -> None:
        await _mtu(interfaces, interface, before)
        for address in addresses:
            await _add_address(interfaces, interface, address)

    if before < IPV6_MTU_MIN <= mtu and interface.found is None:
        try:
            await interfaces.kernel.call(_quieten, interfaces.kernel.links, interface.tap, addresses)
        except OSError:
            await undo()
            raise
        await interfaces.look_after(interface)
    return undo


def _quieten(links: Links, tap: Tap, addresses: tuple[IpInterface, ...]) -> None:
    """In the thread: IPv6 has begun anew with defaults of its own, among them an address that nobody has asked for."""
    links.quiet(tap)
    for address in links.addresses(tap):
        if address.ip.is_link_local and address.version == 6 and address not in addresses:
            links.remove_address(tap, address)


async def _add_address(interfaces: Interfaces, interface: Interface, address: IpInterface) -> Undo:
    if address in interface.virt.host.addresses:
        return _nothing  # saying it twice is once
    await interfaces.kernel.call(interfaces.kernel.links.add_address, interface.tap, address)
    await interfaces.look_after(interface)

    async def undo() -> None:
        await _remove_address(interfaces, interface, address)

    return undo


async def _remove_address(interfaces: Interfaces, interface: Interface, address: Any) -> Undo:
    removed = _matching(interface, address)
    await interfaces.kernel.call(interfaces.kernel.links.remove_address, interface.tap, address)
    await interfaces.look_after(interface)

    async def undo() -> None:
        if removed is not None:
            await _add_address(interfaces, interface, removed)

    return undo


async def _impair(interfaces: Interfaces, interface: Interface, impairments: Impairments) -> Undo:
    virt = interface.virt
    before: Impairments = (("in", virt.impairment_in), ("out", virt.impairment_out))

    async def undo() -> None:
        await _impair(interfaces, interface, before)

    # Only a new way can fail: such come first, and the last can be undone without another.
    for direction, impairment in sorted(impairments, key=lambda one: one[1].harmless):
        try:
            way = interface.impair(direction, impairment)
        except BaseException:
            await undo()
            raise
        if way is not None:
            interfaces.later(way.run)
    return undo


async def _filter(interfaces: Interfaces, interface: Interface, expression: str) -> Undo:
    before, program_before = interface.virt.filter, interface.recorder.program
    program = await interfaces.kernel.call(compile_filter, expression)
    await _attach(interfaces, interface, program)
    interface.virt.filter = expression.strip()

    async def undo() -> None:
        await _attach(interfaces, interface, program_before)
        interface.virt.filter = before

    return undo


async def _attach(interfaces: Interfaces, interface: Interface, program: Program | None) -> None:
    """To the tap and to what captures it, or to neither."""
    before = interface.recorder.program
    await interfaces.kernel.call(interface.tap.set_filter, program)
    try:
        await interface.recorder.refilter(program)
    except OSError:
        await interfaces.kernel.call(interface.tap.set_filter, before)
        raise


async def _history(interfaces: Interfaces, interface: Interface, size: int) -> Undo:
    before = interface.virt.history_size
    interface.virt.history_size = size
    try:
        await interface.ports.history.update()
    except OSError:
        interface.virt.history_size = before
        raise

    async def undo() -> None:
        await _history(interfaces, interface, before)

    return undo


async def _persist(interfaces: Interfaces, interface: Interface, on: bool) -> Undo:
    before = interface.virt.persist
    interface.tap.set_persist(on)
    interface.virt.persist = on

    async def undo() -> None:
        await _persist(interfaces, interface, before)

    return undo


async def _carrier(interfaces: Interfaces, interface: Interface, when: Carrier) -> Undo:
    return await _following(interfaces, interface, "carrier", when)


async def _upopen(interfaces: Interfaces, interface: Interface, on: bool) -> Undo:
    return await _following(interfaces, interface, "upopen", on)


async def _following(interfaces: Interfaces, interface: Interface, name: str, value: object) -> Undo:
    before, was_up = getattr(interface.virt, name), interface.virt.host.up
    setattr(interface.virt, name, value)

    async def undo() -> None:
        await _following(interfaces, interface, name, before)
        if interface.virt.host.up != was_up and not interface.virt.lost:
            await _link(interfaces, interface, up=was_up)

    try:
        await follow_opens(interfaces, interface)
    except OSError:
        await undo()
        raise
    return undo


async def follow_opens(interfaces: Interfaces, interface: Interface) -> None:
    """upopen and carrier: the host's end is as frame's being open says. For a lost interface nothing."""
    virt, is_open = interface.virt, not interface.ports.frame.seats.empty()
    if virt.lost:
        return
    carrier = is_open or virt.carrier == "always"
    if carrier != interface.carrier:
        await interfaces.kernel.call(interface.tap.set_carrier, carrier)
        interface.carrier = carrier
    if virt.upopen and virt.host.up != is_open:
        await interfaces.kernel.call(partial(interfaces.kernel.links.set, interface.tap, up=is_open))
    await interfaces.look_after(interface)


async def _nothing() -> None:
    """Undoes what has changed nothing, or what cannot be undone."""


def _matching(interface: Interface, address: Any) -> IpInterface | None:
    """The interface's address that A or A/n names."""
    ip = getattr(address, "ip", address)
    return next((a for a in interface.virt.host.addresses if a == address or a.ip == ip), None)


async def _group(interfaces: Interfaces, interface: Interface, name: str) -> Undo:
    """Its members can then use the interface: the mode a new one has opens to them, one that was said stays."""
    virt, gid = interface.virt, group_id(name)
    modes = {MODE_NEW: MODE_GROUP} if gid else {MODE_GROUP: MODE_NEW}
    undo_mode = await _set(interfaces, interface, "mode", modes.get(virt.mode, virt.mode))
    try:
        undo_group = await _set(interfaces, interface, "group", gid)
    except BaseException:
        await undo_mode()
        raise

    async def undo() -> None:
        await undo_group()
        await undo_mode()

    return undo


def _setting(name: str, value: object) -> Effect:
    async def effect(interfaces: Interfaces, interface: Interface) -> Undo:
        return await _set(interfaces, interface, name, value)

    return effect


def _assigned(name: str, convert: Callable[[Any], object] = lambda value: value) -> Effect:
    async def effect(interfaces: Interfaces, interface: Interface, value: object) -> Undo:
        return await _set(interfaces, interface, name, convert(value))

    return effect


def _of_link(name: str) -> Effect:
    async def effect(interfaces: Interfaces, interface: Interface, value: object) -> Undo:
        return await _link(interfaces, interface, **{name: value})

    return effect


EFFECTS: Final[dict[str, Effect]] = {
    "up": partial(_link, up=True),
    "down": partial(_link, up=False),
    "mtu": _mtu,
    "queue": _of_link("txqlen"),
    "taplink": _of_link("address"),
    "inet": _add_address,
    "inet6": _add_address,
    "-inet": _remove_address,
    "-inet6": _remove_address,
    "link": _assigned("address"),
    "owner": _assigned("owner", user_id),
    "group": _group,
    "mode": _assigned("mode"),
    "backlog": _assigned("backlog"),
    "exclusive": _assigned("exclusive"),
    "description": _assigned("description"),
    "promisc": partial(_link, promisc=True),
    "-promisc": partial(_link, promisc=False),
    "netns": move,
    "bridge": set_bridge,
    "-bridge": set_bridge,
    "persist": partial(_persist, on=True),
    "-persist": partial(_persist, on=False),
    "upopen": partial(_upopen, on=True),
    "-upopen": partial(_upopen, on=False),
    "carrier": _carrier,
    "impair": _impair,
    "-impair": partial(_impair, impairments=(("in", UNIMPAIRED), ("out", UNIMPAIRED))),
    "filter": _filter,
    "-filter": partial(_filter, expression=""),
    "pace": _assigned("pace"),
    "history": _history,
    "-history": partial(_history, size=0),
    "antispoof": _setting("antispoof", True),
    "-antispoof": _setting("antispoof", False),
    "strict": _setting("strict", True),
    "-strict": _setting("strict", False),
}

# Verbs about the host's end, which a lost interface no longer has.
_OF_HOST = (
    "up down mtu queue taplink inet inet6 -inet -inet6 promisc -promisc bridge -bridge netns persist -persist"
    " upopen -upopen carrier filter -filter"
)
OF_HOST: Final = frozenset(_OF_HOST.split())


def check(limits: Limits, interface: Interface | None, action: Action, user: User) -> None:
    """Refuse what can be known to fail before it is tried. interface: None when it is yet to be made.

    Errors: EPERM, the verb is root's; ENXIO, the tap is gone; ERANGE, beyond the mount's limits; EINVAL, no such
    user or group.
    """
    verb = find(VIRT, action.verb)
    if verb is None or action.verb not in EFFECTS:
        raise VirtError(errno.EINVAL, f'unknown verb "{action.verb}"')
    if verb.root_only and not user.root:
        raise VirtError(errno.EPERM, f'"{action.verb}" is for root alone')
    if action.verb == "mode" and not user.root and interface is not None and user.uid != interface.virt.owner:
        raise VirtError(errno.EPERM, '"mode" is for root and for the owner')
    if action.verb == "link" and not user.root and interface is not None and interface.virt.antispoof:
        raise VirtError(errno.EPERM, '"link" is for root alone while antispoof is on')
    if interface is not None and interface.virt.lost and action.verb in OF_HOST:
        raise VirtError(errno.ENXIO, f"{interface.virt.name} has lost its tap: destroy it")
    match action:
        case Action("owner", (str(name),)):
            user_id(name)
        case Action("group", (str(name),)):
            group_id(name)
        case Action("queue", (int(frames),)):
            _within("queue", frames, limits.queue)
        case Action("backlog", (int(frames),)):
            _within("backlog", frames, limits.backlog)
        case Action("impair", (tuple(impairments),)):
            for _, impairment in impairments:
                _within("limit", impairment.limit, max(limits.queue, LIMIT_DEFAULT))
        case Action("history", (int(size),)):
            _within("history", size, limits.history)


def _within(what: str, value: int, most: int) -> None:
    if value > most:
        raise VirtError(errno.ERANGE, f'{what}: "{value}" is more than the {most} that this mount allows')


async def carry_out(interfaces: Interfaces, interface: Interface, actions: tuple[Action, ...]) -> None:
    """Do the verbs in order; when one is refused, take back those before it and raise."""
    undone: list[Undo] = []
    try:
        for action in actions:
            undone.append(await EFFECTS[action.verb](interfaces, interface, *action.args))
    except BaseException:
        for undo in reversed(undone):
            try:
                await undo()
            except (OSError, MemoryError) as refusal:  # the first refusal is the one to tell; go on with the others
                log.warning("%s: cannot be put back: %s", interface.virt.name, refusal)
        raise
