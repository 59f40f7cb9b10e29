"""Warn about a cable that does not carry what its user expects, because of the hosts at its two ends.

The line itself is accepted: the next line may move one end or change its MTU, and `cat ctl >ctl` has to work.
"""

from virtfs.core.quoting import quoted
from virtfs.daemon.interface import Interface

# The verbs after which the ends of a cable are compared, as they are after the command `cable`.
COMPARED = frozenset(("inet", "inet6", "mtu", "netns"))


def unlike_ends(interface: Interface, other: Interface) -> list[str]:
    """Return warnings about the two ends of a cable. interface: the end that the line has changed."""
    if interface.virt.lost or other.virt.lost:
        return []
    return [*_in_one_namespace(interface, other), *_different_mtu(interface, other)]


def _in_one_namespace(interface: Interface, other: Interface) -> list[str]:
    """Return a warning if both taps have addresses in one network namespace.

    The kernel delivers packets for an address of its own by the table `local`, over lo (net/ipv4/route.c).
    """
    if interface.place[0] != other.place[0] or not _versions(interface) & _versions(other):
        return []
    one, two = quoted(interface.virt.host.name), quoted(other.virt.host.name)
    sentence = f"{one} and {two}, the ends of a cable, have IP addresses in the same network namespace"
    effect = "the kernel sends packets between them over lo, and none through the cable"
    remedy = f'"{interface.virt.name} netns NAME" moves one of them'
    return [f"{sentence}: {effect}: {remedy}"]


def _versions(interface: Interface) -> set[int]:
    """Return the versions of IP of which the tap has an address, apart from link-local addresses."""
    return {one.version for one in interface.virt.host.addresses if not one.ip.is_link_local}


def _different_mtu(interface: Interface, other: Interface) -> list[str]:
    """Return a warning if the MTUs of the ends differ, since the smaller end drops longer frames."""
    if interface.virt.host.mtu == other.virt.host.mtu:
        return []
    large, small = sorted((interface.virt, other.virt), key=lambda virt: -virt.host.mtu)
    sentence = f"{large.name} has mtu {large.host.mtu}, {small.name} at the other end of its cable"
    effect = f"longer frames are dropped, and counted in {small.name}/stats/tx_oversize"
    remedy = f'"{small.name} mtu {large.host.mtu}" lets them pass'
    return [f"{sentence} {small.host.mtu}: {effect}: {remedy}"]
