"""The verbs bridge and -bridge of a virt: its tap in and out of a bridge of the host."""

from collections.abc import Awaitable, Callable

from virtfs.daemon.interface import Interface
from virtfs.daemon.interfaces import Interfaces
from virtfs.host.membership import join, leave, membership, restore

Undo = Callable[[], Awaitable[None]]


async def set_bridge(interfaces: Interfaces, interface: Interface, name: str = "") -> Undo:
    """Put the tap into that bridge, out of any other; without a name out of its bridge. Saying it twice is once."""
    call, links, tap = interfaces.kernel.call, interfaces.kernel.links, interface.tap
    before = await call(membership, tap, links)
    changes = name != ("" if before is None else before.bridge)
    if changes and name:
        await call(join, tap, links, name)
    elif changes:
        await call(leave, tap, links)
    await interfaces.look_after(interface)

    async def undo() -> None:
        if changes:
            await call(restore, tap, links, before)
            await interfaces.look_after(interface)

    return undo
