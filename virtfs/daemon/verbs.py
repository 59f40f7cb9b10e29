"""What each verb of core.verbs does to an interface, and how it is taken back.

An effect is a function of the interfaces, one of them and the verb's arguments. It does its work whole or raises, and
returns what undoes it. What can be known beforehand is asked in `check`, before anything of a line is done.
"""

import errno
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from virtfs.core.errors import VirtError
from virtfs.core.grammar import Action
from virtfs.core.ids import User
from virtfs.core.limits import Limits
from virtfs.core.verbs import VIRT, find
from virtfs.core.virt import Address
from virtfs.daemon.accounts import group_id, user_id
from virtfs.daemon.interfaces import Interface, Interfaces

Undo = Callable[[], Awaitable[None]]
Effect = Callable[..., Awaitable[Undo]]


async def _set(interfaces: Interfaces, interface: Interface, name: str, value: object) -> Undo:
    """A setting of virt's own."""
    before = getattr(interface.virt, name)
    setattr(interface.virt, name, value)
    interface.wire.update()

    async def undo() -> None:
        await _set(interfaces, interface, name, before)

    return undo


async def _link(interfaces: Interfaces, interface: Interface, **change: Any) -> Undo:
    """A property of the host's end, named as Links.set names it."""
    host = interface.virt.host
    known = {"up": host.up, "mtu": host.mtu, "address": host.address, "txqlen": host.queue}
    before = {name: known[name] for name in change}
    await interfaces.kernel.call(partial(interfaces.kernel.links.set, interface.tap, **change))
    await interfaces.refresh(interface)

    async def undo() -> None:
        await _link(interfaces, interface, **before)

    return undo


async def _add_address(interfaces: Interfaces, interface: Interface, address: Address) -> Undo:
    if address in interface.virt.host.addresses:

        async def nothing() -> None:
            pass

        return nothing  # saying it twice is once
    await interfaces.kernel.call(interfaces.kernel.links.add_address, interface.tap, address)
    await interfaces.refresh(interface)

    async def undo() -> None:
        await _remove_address(interfaces, interface, address)

    return undo


async def _remove_address(interfaces: Interfaces, interface: Interface, address: Any) -> Undo:
    removed = _matching(interface, address)
    await interfaces.kernel.call(interfaces.kernel.links.remove_address, interface.tap, address)
    await interfaces.refresh(interface)

    async def undo() -> None:
        if removed is not None:
            await _add_address(interfaces, interface, removed)

    return undo


def _matching(interface: Interface, address: Any) -> Address | None:
    """The interface's address that A or A/n names."""
    ip = getattr(address, "ip", address)
    return next((a for a in interface.virt.host.addresses if a == address or a.ip == ip), None)


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
    "mtu": _of_link("mtu"),
    "queue": _of_link("txqlen"),
    "taplink": _of_link("address"),
    "inet": _add_address,
    "inet6": _add_address,
    "-inet": _remove_address,
    "-inet6": _remove_address,
    "link": _assigned("address"),
    "owner": _assigned("owner", user_id),
    "group": _assigned("group", group_id),
    "mode": _assigned("mode"),
    "backlog": _assigned("backlog"),
    "exclusive": _assigned("exclusive"),
    "description": _assigned("description"),
    "strict": _setting("strict", True),
    "-strict": _setting("strict", False),
}

# Verbs about the host's end, which a lost interface no longer has.
OF_HOST: Final = frozenset({"up", "down", "mtu", "queue", "taplink", "inet", "inet6", "-inet", "-inet6"})


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
            await undo()
        raise
