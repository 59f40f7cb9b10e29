"""Warn about a bridge that does not carry all frames from one port to another.

The line itself is accepted: the next line may change another MTU, and `cat ctl >ctl` has to work.
"""

import errno
import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

from virtfs.core.errors import VirtError
from virtfs.core.grammar import Action
from virtfs.core.ids import BridgeName, Unit
from virtfs.core.quoting import quoted
from virtfs.daemon.bridge_registry import BridgeRegistry, Managed
from virtfs.daemon.interface import Interface
from virtfs.daemon.registry import Registry
from virtfs.host.bridge_filter import filtering

log = logging.getLogger(__name__)

# The verbs that make an interface a port.
_JOINING: Final = frozenset(("add", "bridge"))


class _Mtu(NamedTuple):
    """The MTU of a port, or of the bridge itself. own: whether virtfs has verbs for it."""

    mtu: int
    name: str
    own: bool

    @property
    def shown(self) -> str:
        return self.name if self.own else quoted(self.name)

    def line(self, mtu: int) -> str:
        """Return the line that sets this MTU, in quotes."""
        return quoted(f"{self.name} mtu {mtu}" if self.own else f"ip link set {self.name} mtu {mtu}")


class BridgeWarnings:
    """Compares the ports of the mount's bridges after a line, and looks at the packet filter."""

    def __init__(self, registry: Registry, bridges: BridgeRegistry) -> None:
        """registry: the interfaces whose taps may be ports."""
        self._registry = registry
        self._bridges = bridges

    def after(self, target: object, actions: tuple[Action, ...]) -> VirtError | None:
        """Return a warning about the bridge that a line has changed, or None.

        target: the name of the bridge, or the unit of the interface, that the line has changed.
        """
        verbs = {action.verb for action in actions}
        joins = not verbs.isdisjoint(_JOINING)
        if not joins and "mtu" not in verbs:
            return None
        managed = self._bridge_of(target)
        if managed is None or managed.bridge.lost:
            return None
        ports = self._ports(managed)
        warning = _filtered(managed) if joins and len(ports) > 1 else None
        return warning or _different_mtu(managed, ports, isinstance(target, str))

    def _bridge_of(self, target: object) -> Managed | None:
        if isinstance(target, str):
            return self._bridges.find(BridgeName(target))
        interface = self._registry.find(Unit(target)) if isinstance(target, int) else None
        if interface is None or not interface.virt.host.bridge:
            return None
        managed = self._bridges.find(BridgeName(interface.virt.host.bridge))
        return managed if managed is not None and _is_in(interface, managed) else None

    def _ports(self, managed: Managed) -> list[_Mtu]:
        """Return the MTUs of the ports.

        Those of taps come from their interfaces, because the state of the bridge may not yet have what a line has
        changed.
        """
        taps = [interface.virt for interface in self._registry if _is_in(interface, managed)]
        others = (m for m in managed.bridge.state.members if self._registry.last_at((None, m.index)) is None)
        return [
            *(_Mtu(virt.host.mtu, virt.name, own=True) for virt in taps),
            *(_Mtu(member.mtu, member.name, own=False) for member in others),
        ]


def _is_in(interface: Interface, managed: Managed) -> bool:
    return interface.master == managed.index and interface.place[0] is None and not interface.virt.lost


def _filtered(managed: Managed) -> VirtError | None:
    """Return a warning if frames between ports pass the packet filter. A bridge gets it once."""
    if managed.filter_told or not (sysctls := filtering()):
        return None
    managed.filter_told = True
    sentence = f"frames between the ports of {managed.bridge.name} pass the packet filter of the host (br_netfilter)"
    effect = "its rules may drop them, packets with wrong headers vanish uncounted, and long ones are fragmented"
    remedy = f'"sysctl -w {" ".join(f"{sysctl}=0" for sysctl in sysctls)}" lets all frames pass unchanged'
    log.warning("%s: %s: %s", sentence, effect, remedy)  # for tests whose fixture has made the bridge
    return VirtError(errno.EPERM, f"warning: {sentence}: {effect}: {remedy}")


def _different_mtu(managed: Managed, ports: Sequence[_Mtu], whole: bool) -> VirtError | None:
    """Return a warning if the MTUs differ: the bridge drops frames that are too long for a port (br_forward.c).

    whole: whether to compare the MTU of the bridge itself, too. The host sends frames up to this length.
    """
    name = managed.bridge.name
    senders = [*ports, _Mtu(managed.bridge.state.mtu, name, own=True)] if whole else ports
    small = min(ports, key=lambda port: port.mtu, default=None)
    large = max(senders, key=lambda sender: sender.mtu, default=None)
    if small is None or large is None or large.mtu <= small.mtu:
        return None
    port = f"its port {small.shown}" if large.name == name else f"{small.shown} in the same bridge"
    sentence = f"warning: {large.shown} has mtu {large.mtu}, {port} {small.mtu}"
    effect = f"{name} drops longer frames to {small.shown}, and no counter shows them"
    remedy = large.line(small.mtu) if large.own and not small.own else small.line(large.mtu)
    return VirtError(errno.EMSGSIZE, f"{sentence}: {effect}: give all ports the same mtu, as in {remedy}")
