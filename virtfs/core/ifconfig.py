"""The file ifconfig: interfaces as NetBSD's ifconfig(8) shows them.

    virt3: flags=0x8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> mtu 1500
            description: "the printer"
            address: b2:0a:7f:0b:0e:03
            status: active
            inet 10.0.3.1/24 broadcast 10.0.3.255 flags 0
            inet6 fe80::3%virt3/64 flags 0 scopeid 0x7

Every line except the first begins with a tab (sbin/ifconfig: ifconfig.c status(), af_inet.c, af_inet6.c).

NetBSD shows virt3 and tap3 as two interfaces. Here a single entry, under the name of the virt, shows both ends of the
wire. `address` is the MAC address of the virt, which the verb `link` sets. Flags, mtu, status and the inet lines belong
to the tap; the verbs `up`, `mtu`, `inet` and `inet6` set them, and so does ip(8). The MAC address of the tap is not
shown; it is in the file tap/address. A scope id is the interface index of the tap: on the host, the link-local address
above is written fe80::3%7.

BROADCAST, SIMPLEX and MULTICAST are always set. RUNNING is set whenever UP is. PROMISC is set while the tap is in a
bridge, and while the verb `promisc` or another program has made the tap promiscuous. A capture does not set PROMISC. An
empty description is left out. The broadcast address is left out if the prefix is too long to have one (RFC 3021). A
virt that has lost its tap is shown as down and without addresses.
"""

from collections.abc import Iterable, Iterator

from virtfs.core.ethernet import format_mac
from virtfs.core.ip import IpInterface
from virtfs.core.virt import Virt

# The flags of NetBSD's sys/net/if.h, from the lowest bit to the highest, as snprintb(3) prints them.
_UP = 0x1
_BROADCAST = 0x2
_RUNNING = 0x40
_PROMISC = 0x100
_SIMPLEX = 0x800  # does not receive its own frames
_MULTICAST = 0x8000
_NAMES = {
    _UP: "UP",
    _BROADCAST: "BROADCAST",
    _RUNNING: "RUNNING",
    _PROMISC: "PROMISC",
    _SIMPLEX: "SIMPLEX",
    _MULTICAST: "MULTICAST",
}


def ifconfig(virts: Iterable[Virt]) -> Iterator[str]:
    """Yield the text of the file, one piece for each interface, in the given order.

    All values in a piece are from the same moment.
    """
    for virt in virts:
        yield "".join(f"{line}\n" for line in _lines(virt))


def _lines(virt: Virt) -> Iterator[str]:
    host = virt.host
    yield f"{virt.name}: flags={_flags(virt)} mtu {host.mtu}"
    if virt.description:
        yield f'\tdescription: "{virt.description}"'
    yield f"\taddress: {format_mac(virt.address)}"
    yield f"\tstatus: {'active' if host.carrier else 'no carrier'}"
    if not virt.lost:
        yield from (f"\t{_address(virt, address)}" for address in host.addresses)


def _flags(virt: Virt) -> str:
    flags = _BROADCAST | _SIMPLEX | _MULTICAST
    if virt.host.up:
        flags |= _UP | _RUNNING
    # The bridge is checked too, because the kernel does not report IFF_PROMISC for a port that a bridge has made
    # promiscuous.
    if (virt.host.promisc or virt.host.bridge) and not virt.lost:
        flags |= _PROMISC
    return f"{flags:#x}<{','.join(name for bit, name in _NAMES.items() if flags & bit)}>"


def _address(virt: Virt, address: IpInterface) -> str:
    """Return an inet or inet6 line.

    The flags are always 0: `address` carries none of the flags that NetBSD shows (tentative, detached and so on).
    """
    ip, network = address.ip, address.network
    if ip.version == 4:
        broadcast = f" broadcast {network.broadcast_address}" if network.prefixlen < 31 else ""
        return f"inet {ip}/{network.prefixlen}{broadcast} flags 0"
    if ip.is_link_local:
        return f"inet6 {ip}%{virt.name}/{network.prefixlen} flags 0 scopeid {virt.host.index:#x}"
    return f"inet6 {ip}/{network.prefixlen} flags 0"
