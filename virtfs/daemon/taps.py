"""Open, read and restore the host's end of an interface. The functions block, so call them in a thread."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from errno import EINVAL, ENXIO

from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit
from virtfs.core.ip import IpInterface
from virtfs.core.virt import HostEnd
from virtfs.host.ipconfig import AddressRecord
from virtfs.host.links import Links
from virtfs.host.membership import Membership, bridge_of, join, leave, membership, restore
from virtfs.host.netlink_values import Link
from virtfs.host.netnames import open_netns
from virtfs.host.netns import inside
from virtfs.host.tap import Tap
from virtfs.host.tap_found import exists
from virtfs.host.tap_protocol import TapDevice

OpenTap = Callable[[Unit], Tap]


@dataclass(frozen=True, slots=True)
class Found:
    """A tap as it was when virtfs opened it.

    records: the addresses with all their attributes.
    bridge: the name of the tap's bridge, or "".
    membership: the tap's membership in a bridge, with the settings of the port; None if the tap has no master.
    """

    link: Link
    addresses: tuple[IpInterface, ...] = ()
    records: tuple[AddressRecord, ...] = ()
    bridge: str = ""
    membership: Membership | None = None


def open_tap(open_here: OpenTap, links: Links, unit: Unit, netns: str, queue: int) -> tuple[Tap, Found]:
    """Attach to tap<unit>, or make it if it does not exist.

    netns: the network namespace that is searched first for an existing tap, or "". queue: the queue of a new tap.
    VirtError: EBUSY, another program is using the tap; EMFILE, ENFILE or ENOMEM. A failure leaves nothing behind.
    """
    tap = (_attach_in(open_here, netns, unit) if netns else None) or open_here(unit)
    try:
        if tap.made:
            return tap, Found(links.begin(tap, queue))
        return tap, find(links, tap)
    except BaseException:
        tap.close()
        raise


def find(links: Links, tap: TapDevice) -> Found:
    """Return the current state of an attached tap."""
    link, addresses, bridge = look(links, tap)
    member = None if link.master is None else membership(tap, links)
    return Found(link, addresses, links.addresses_in_full(tap), bridge, member)


def _attach_in(open_here: OpenTap, name: str, unit: Unit) -> Tap | None:
    """Attach to tap<unit> in a network namespace. Return None if there is no such tap or no such namespace."""

    def attach() -> Tap | None:
        # if_nameindex(3) is not used: it does not notice that a change has interrupted its dump.
        return open_here(unit) if exists(f"tap{unit}") else None

    try:
        namespace = open_netns(name)
    except VirtError as refusal:
        if refusal.errno not in (ENXIO, EINVAL):
            raise
        return None  # the verb `netns`, which runs later, reports the error
    try:
        return inside(namespace, attach)
    finally:
        os.close(namespace)


def look(links: Links, tap: TapDevice) -> tuple[Link, tuple[IpInterface, ...], str]:
    """Query the kernel for the arguments of Interface.set_host: the link, its addresses and the name of its bridge.

    VirtError: ENXIO, the tap is gone, or was deleted during the query. The answer never shows a deletion in part: the
    ioctl behind name() waits for the lock that the kernel holds during a deletion (drivers/net/tun.c __tun_chr_ioctl).
    """
    link = links.get(tap)
    addresses, bridge = links.addresses(tap), "" if link.master is None else bridge_of(tap)
    tap.name()
    return link, addresses, bridge


def host_end(link: Link, addresses: tuple[IpInterface, ...], bridge: str = "") -> HostEnd:
    """Convert a link, its addresses and the name of its bridge into a HostEnd."""
    return HostEnd(
        name=link.name,
        index=link.index,
        up=link.up,
        mtu=link.mtu,
        address=link.address,
        carrier=link.carrier,
        promisc=link.promisc,
        queue=link.txqlen,
        dropped=link.tx_dropped,
        addresses=addresses,
        bridge=bridge,
    )


def put_back(links: Links, tap: TapDevice, found: Found) -> None:
    """Restore those settings of an attached tap that verbs can change, even if another program changed them.

    Features, queueing disciplines, and the port settings of a tap that has stayed in its bridge are not restored.
    VirtError: errors from the kernel. It is not an error if the tap is gone.
    """
    link = found.link
    try:
        tap.set_carrier(True)
        tap.set_persist(True)
        links.set(tap, address=link.address, txqlen=link.txqlen, mtu=link.mtu, promisc=link.promisc, up=link.up)
        # Restore the addresses after the MTU, because a small MTU makes the kernel remove the IPv6 addresses.
        links.restore_addresses(tap, found.records, link.name)
        if found.bridge and bridge_of(tap) != found.bridge:
            if found.membership is None:
                join(tap, links, found.bridge)
            else:
                restore(tap, links, found.membership)
        elif not found.bridge:
            leave(tap, links)
    except VirtError as refusal:
        if refusal.errno != ENXIO:
            raise
