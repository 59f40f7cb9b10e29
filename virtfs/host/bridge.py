"""Configure a host bridge over rtnetlink (net/bridge/br_netlink.c, br_fdb.c; ip-link(8), bridge(8)).

The bridge is in the network namespace of the thread that created the Rtnl socket. Every call blocks briefly, so make
calls in a worker thread.
"""

import errno
import logging
from dataclasses import dataclass, field
from typing import Final

from virtfs.core.bridge import BridgeState, FdbEntry, Member
from virtfs.core.errors import VirtError
from virtfs.core.ids import BridgeName
from virtfs.core.ip import IpInterface
from virtfs.host import bridge_adopt
from virtfs.host.bridgeinfo import NEVER, ask_link, details, state_of
from virtfs.host.bridgeports import AF_BRIDGE, Settings, entries_of, known_of, members_of, ports_of, settings_of
from virtfs.host.links import Links
from virtfs.host.netlink_messages import (
    RTM_DELLINK,
    RTM_DELNEIGH,
    RTM_GETADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_SETLINK,
    addresses,
)
from virtfs.host.netlink_parts import ifinfmsg, ndmsg
from virtfs.host.netlink_values import address_of
from virtfs.host.netns import own_netns
from virtfs.host.rtnl import NLM_F_CREATE, NLM_F_REPLACE, Message, Rtnl, name_of

log = logging.getLogger(__name__)

_ARPHRD_ETHER = 1  # linux/if_arp.h
_IFF_LOOPBACK = 0x8  # linux/if.h
_ONLY_ETHERNET = "only an Ethernet interface can be in a bridge"  # the kernel gives EINVAL without a reason
_NUD_NOARP = 0x40  # linux/neighbour.h: a static entry, which never ages
_NTF_MASTER = 0x04
_NTF_STICKY = 0x40  # a frame that arrives at another port does not move the entry there

# For each verb: the attribute that it sets, and the factor by which the verb's value is multiplied. Verbs take times in
# seconds, attributes in 1/100 s.
_PARAMETERS: Final = {
    "maxage": ("IFLA_BR_MAX_AGE", 100),
    "fwddelay": ("IFLA_BR_FORWARD_DELAY", 100),
    "hellotime": ("IFLA_BR_HELLO_TIME", 100),
    "priority": ("IFLA_BR_PRIORITY", 1),
    "maxaddr": ("IFLA_BR_FDB_MAX_LEARNED", 1),
    "groupfwd": ("IFLA_BR_GROUP_FWD_MASK", 1),
}


@dataclass(slots=True)
class HostBridge:
    """A bridge of the host. Methods raise VirtError ENXIO if the bridge is gone or was renamed."""

    rtnl: Rtnl
    links: Links
    called: BridgeName
    index: int
    adoptions: bridge_adopt.Adoptions = field(default_factory=bridge_adopt.Adoptions)

    # The methods of tap_protocol.Placed, which host.links needs

    def name(self) -> str:
        """Return the bridge's name, after checking that the bridge still has this name."""
        self._link()
        return self.called

    def netns(self) -> int:
        """Return a new descriptor of the calling thread's network namespace, which contains the bridge."""
        return own_netns()

    # Queries

    def look(self) -> BridgeState:
        """Return the bridge's current state."""
        link = self._link()
        return state_of(link, *self.ports(), self.links.addresses(self))

    def expect(self) -> None:
        """Check that the bridge exists. VirtError: ENXIO, it does not, or another program has renamed it."""
        self._link()

    def ports(self) -> tuple[tuple[Member, ...], tuple[FdbEntry, ...]]:
        """Return the members, sorted by port number, and the address table."""
        try:
            ports, entries = ports_of(self.rtnl, self.index), entries_of(self.rtnl, self.index)
        except VirtError as refusal:
            if refusal.errno != errno.ENODEV:
                raise
            raise VirtError(errno.ENXIO, f'bridge "{self.called}" no longer exists') from refusal
        return members_of(ports, frozenset(self.adoptions.brought)), known_of(ports, entries)

    def settings(self) -> dict[str, Settings]:
        """Return the port settings that no verb sets, keyed by member name. Other programs may have changed them."""
        return {port.name: settings_of(port) for port in ports_of(self.rtnl, self.index)}

    def addresses_of(self, name: str) -> tuple[IpInterface, ...]:
        """Return the addresses of the interface with that name, or () if there is no such interface."""
        link = ask_link(self.rtnl, name)
        if link is None:
            return ()
        try:
            return tuple(address_of(answer.body) for answer in self.rtnl.dump(RTM_GETADDR, addresses(link["index"])))
        except VirtError as refusal:
            if refusal.errno != errno.ENODEV:
                raise
            return ()

    def _link(self) -> Message:
        link = ask_link(self.rtnl, self.index)
        if link is None or name_of(link) != self.called or details(link) is None:
            raise VirtError(errno.ENXIO, f'bridge "{self.called}" no longer exists')
        return link

    # Changes

    def set_parameter(self, verb: str, value: int) -> None:
        """Set a parameter of the bridge: maxage, fwddelay, hellotime, priority, maxaddr or groupfwd.

        value: the new value, in the unit that the verb takes. VirtError EOPNOTSUPP: this kernel has no such parameter.
        """
        attribute, unit = _PARAMETERS[verb]
        self._set(attribute, value * unit, f'{verb} "{value}"')
        # Linux reports success for attributes that it does not know, so read the value back.
        if verb == "maxaddr" and self.look().maxaddr != value:
            raise VirtError(
                errno.EOPNOTSUPP, "maxaddr: this kernel cannot limit learned addresses; Linux 6.7 and newer can"
            )

    def set_timeout(self, seconds: int) -> None:
        """Set the ageing time in seconds; 0 means that addresses never expire.

        On Linux an ageing time of 0 disables learning, so 0 sets the maximum ageing time instead.
        """
        self._set("IFLA_BR_AGEING_TIME", seconds * 100 or NEVER, f'timeout "{seconds}"')

    def set_stp(self, on: bool) -> None:
        """Turn the spanning tree protocol on or off, for all members."""
        self._set("IFLA_BR_STP_STATE", int(on), "stp" if on else "-stp")

    def _set(self, attribute: str, value: int | None, what: str) -> None:
        change = _change(self.index)
        data = {"attrs": [(attribute, value)]}
        change["attrs"] = [("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", data)]})]
        self._ask(RTM_NEWLINK, change, what)

    def add(self, name: str) -> None:
        """Make an interface a member.

        The interface must not be in another bridge, because Linux would silently remove it from that bridge.
        """
        try:
            self._set_master(name, self.index, f'add "{name}"')
        except VirtError as refusal:
            if refusal.errno == errno.EINVAL and not self._is_ethernet(name):
                raise VirtError(errno.EINVAL, f'add "{name}" on {self.called}: {_ONLY_ETHERNET}') from refusal
            raise

    def remove(self, name: str) -> None:
        """Remove a member. Addresses and routes that the bridge adopted from the member move back to the member.

        If this fails, they are moved to the bridge again, and the interface stays a member.
        """
        index, what = self._index(name), f'delete "{name}"'
        if index not in self.adoptions.brought:
            self._set_master(name, 0, what)
            return
        try:
            staying = self.adoptions.staying(self.rtnl, self.index, index)
            for _step in bridge_adopt.give_back(self.rtnl, self.index, index, staying):
                pass
        except VirtError as refusal:
            self._check_present(index, what)
            self._adopt_again(index)
            raise VirtError(refusal.errno, f"{what}: {refusal.strerror}") from refusal
        self.adoptions.forget(index)

    def _adopt_again(self, port: int) -> None:
        """Move to the bridge what a removal that has failed had already moved back to a member."""
        try:
            for _step in bridge_adopt.adopt(self.rtnl, self.index, port):
                pass
        except VirtError as refusal:
            log.warning("%s: cannot restore the addresses of the bridge: %s", self.called, refusal.strerror)

    def adopt(self, name: str) -> None:
        """Make an interface a member, if it is not one yet, and move its addresses and routes to the bridge.

        If this fails, the interface is removed from the bridge.
        """
        index, what = self._index(name), f'add "{name}" adopt'
        if not self._is_ethernet(name):
            raise VirtError(errno.EINVAL, f"{what} on {self.called}: {_ONLY_ETHERNET}")
        try:
            self.adoptions.note(self.rtnl, self.index, index)
            for _step in bridge_adopt.adopt(self.rtnl, self.index, index):
                pass
        except VirtError as refusal:
            self._check_present(index, what)
            self.remove(name)
            raise VirtError(refusal.errno, f"{what}: {refusal.strerror}") from refusal

    def _is_ethernet(self, name: str) -> bool:
        """Return whether an interface is not of another kind, with which br_add_if fails (net/bridge/br_if.c)."""
        link = ask_link(self.rtnl, name)
        return link is None or (link["ifi_type"] == _ARPHRD_ETHER and not link["flags"] & _IFF_LOOPBACK)

    def _check_present(self, port: int, what: str) -> None:
        """Raise VirtError ENXIO if the bridge or the port has vanished during the steps of a move.

        Call this when a step has failed, because the step may have reported an errno other than ENXIO. For example,
        adding a route via a gateway then fails with ENETUNREACH (fib_semantics.c fib_check_nh_gw). The bridge keeps the
        addresses and routes that have already moved to it.
        """
        self._link()
        if ask_link(self.rtnl, port) is None:
            self.adoptions.forget(port)
            raise VirtError(errno.ENXIO, f"{what}: the interface is gone")

    def _set_master(self, name: str, master: int, what: str) -> None:
        change = _change(self._index(name))
        change["attrs"] = [("IFLA_MASTER", master)]
        self._ask(RTM_SETLINK, change, what)

    def set_port(self, name: str, attribute: str, value: int) -> None:
        """Set one port attribute (IFLA_BRPORT_…) of a member."""
        self.set_settings(name, ((attribute, value),))

    def set_settings(self, name: str, settings: Settings) -> None:
        """Set several port attributes of a member in one request."""
        change = _change(self._index(name))
        data = {"attrs": list(settings)}
        kind = ("IFLA_INFO_SLAVE_KIND", "bridge")
        change["attrs"] = [("IFLA_LINKINFO", {"attrs": [kind, ("IFLA_INFO_SLAVE_DATA", data)]})]
        self._ask(RTM_NEWLINK, change, f'"{name}"')

    def set_static(self, name: str, address: bytes) -> None:
        """Add a static entry for an address. It replaces any existing entry.

        A static entry never expires and never moves to another port.
        """
        entry = _entry(self._index(name), address)
        entry["state"] = _NUD_NOARP
        entry["flags"] = _NTF_MASTER | _NTF_STICKY
        self._ask(RTM_NEWNEIGH, entry, "static", NLM_F_CREATE | NLM_F_REPLACE)

    def forget(self, address: bytes) -> None:
        """Remove the static and learned entries for an address. The ports' own addresses stay."""
        for known in [known for known in self.look().known if known.address == address]:
            self._ask(RTM_DELNEIGH, _entry(self._index(known.member), address), "deladdr")

    def flush(self) -> None:
        """Remove the learned addresses. Static addresses and the ports' own addresses stay (br_fdb.c br_fdb_flush)."""
        self._set("IFLA_BR_FDB_FLUSH", None, "flush")

    def flush_all(self) -> None:
        """Remove the learned and static addresses. The ports' own addresses stay."""
        self.flush()
        for known in self.look().known:
            self._ask(RTM_DELNEIGH, _entry(self._index(known.member), known.address), "flushall")

    def delete(self) -> None:
        """Delete the bridge. Do nothing if it is gone, or if another program has renamed it and so may be using it."""
        link = ask_link(self.rtnl, self.index)
        if link is not None and details(link) is not None and name_of(link) == self.called:
            self._ask(RTM_DELLINK, _change(self.index), "destroy")

    def _index(self, name: str) -> int:
        return interface_index(self.rtnl, name)

    def _ask(self, kind: int, message: Message, what: str, flags: int = 0) -> None:
        try:
            self.rtnl.ask(kind, message, flags)
        except VirtError as refusal:
            gone = refusal.errno == errno.ENODEV
            number = errno.ENXIO if gone else refusal.errno
            raise VirtError(number, f"{what} on {self.called}: {refusal.strerror}") from refusal


def find(rtnl: Rtnl, name: BridgeName) -> int | None:
    """Return the index of the host's bridge of that name, or None if no interface has the name.

    VirtError EBUSY: another kind of interface has that name.
    """
    link = ask_link(rtnl, name)
    if link is None:
        return None
    if details(link) is None:
        raise VirtError(errno.EBUSY, f'"{name}" exists but is not a bridge')
    index: int = link["index"]
    return index


def interface_index(rtnl: Rtnl, name: str) -> int:
    """Return the index of an interface in the network namespace of `rtnl`. VirtError ENXIO: no such interface."""
    try:
        return rtnl.index(name)
    except VirtError as refusal:
        if refusal.errno != errno.ENODEV:
            raise
        raise VirtError(errno.ENXIO, f'there is no interface "{name}"') from refusal


def master_of(rtnl: Rtnl, name: str) -> str | None:
    """Return the name of the bridge or other master that an interface belongs to.

    Return "" if the interface has no master, and None if the interface does not exist.
    """
    link = ask_link(rtnl, name)
    if link is None:
        return None
    master = ask_link(rtnl, link.get_attr("IFLA_MASTER")) if link.get_attr("IFLA_MASTER") else None
    return "" if master is None else name_of(master)


def _change(index: int) -> Message:
    change = ifinfmsg()
    change["index"] = index
    return change


def _entry(port: int, address: bytes) -> Message:
    entry = ndmsg()
    entry["family"] = AF_BRIDGE
    entry["ifindex"] = port
    entry["flags"] = _NTF_MASTER
    entry["attrs"] = [("NDA_LLADDR", address.hex(":"))]
    return entry
