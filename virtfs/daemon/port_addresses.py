"""Warn about addresses that stop working because their interface has become a bridge port.

The bridge takes all frames that a port receives (net/bridge/br_input.c), so the addresses of the port get no answers.
The line itself is accepted: an administrator may remove the addresses later, and `cat ctl >ctl` has to work.
"""

from collections.abc import Container
from contextlib import suppress

from virtfs.core.bridgeplan import renamed
from virtfs.core.grammar import Action
from virtfs.core.ids import BridgeName
from virtfs.core.quoting import quoted
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.registry import Registry
from virtfs.host.bridge import HostBridge, find, master_of
from virtfs.host.rtnl import Rtnl


async def idle_addresses(
    kernel: Kernel, registry: Registry, bridges: Container[object], target: object, actions: tuple[Action, ...]
) -> list[str]:
    """Return a warning if a line has left interfaces with addresses on a bridge port.

    bridges: the names of the bridges that lines can change.
    target: the name of the bridge, or the unit of the interface, that the line has changed.
    Never fails: if the kernel cannot be queried, there is no warning.
    """
    ports: list[str] = []
    bridge = None
    adopts = True  # whether a line of the bridge can adopt the addresses
    if isinstance(target, str):
        bridge = BridgeName(target)
        added = tuple(action for action in actions if action.verb == "add" and len(action.args) == 1)
        names = [str(action.args[0]) for action in renamed(added, registry.taps().names)]
        if names:
            with suppress(OSError, MemoryError):
                ports = await kernel.call(_with_addresses, kernel, bridge, names)
    elif any(action.verb in ("bridge", "inet", "inet6") for action in actions):
        virt = next((one.virt for one in registry if one.virt.unit == target), None)
        if virt is not None and virt.host.bridge and any(not one.ip.is_link_local for one in virt.host.addresses):
            ports, bridge = [virt.host.name], BridgeName(virt.host.bridge)
            adopts = not virt.netns and bridge in bridges
    if not ports:
        return []
    subject, verb, pronoun = _joined([quoted(port) for port in ports]), "have", "they are"
    if len(ports) == 1:
        verb, pronoun = "has", "it is"
    sentence = f"{subject} {verb} IP addresses, which do not work while {pronoun} in {quoted(str(bridge))}"
    line = " ".join([str(bridge), *(f"add {port} adopt" for port in ports)])
    remedy = f"{quoted(line)} moves them to the bridge" if adopts else "give them to the bridge"
    return [f"{sentence}: {remedy}"]


def _joined(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _with_addresses(kernel: Kernel, bridge: BridgeName, names: list[str]) -> list[str]:
    """Return those of these interfaces that are in the bridge and have an address. Blocks."""
    found = []
    with Rtnl() as rtnl:
        index = find(rtnl, bridge)
        if index is None:
            return []
        host = HostBridge(rtnl, kernel.links, bridge, index)
        for name in names:
            addresses = host.addresses_of(name)
            if master_of(rtnl, name) == bridge and any(not address.ip.is_link_local for address in addresses):
                found.append(name)
    return found
