"""The host's end of a tap: state UP, MTU, MAC, queue length and addresses, over rtnetlink(7).

Every call asks the descriptor of the tap for the current namespace and name of the interface. So calls still work
after the interface has been renamed or moved. A Links object keeps one socket open, in the namespace of the thread
that created the object. In other namespaces each request opens a socket of its own, because an open socket would keep
a dead namespace alive.

A call blocks for about 0.1 to 0.3 ms, and longer while other programs configure the network, because the kernel has one
lock for all network configuration (rtnl_mutex). Make calls in a worker thread, one at a time.
"""

import errno
import logging
import os
import socket
import struct
from collections.abc import Callable
from typing import Self, TypeVar

from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL
from pyroute2.netlink.rtnl import RTM_DELADDR, RTM_GETADDR, RTM_GETLINK, RTM_GETSTATS, RTM_NEWADDR, RTM_SETLINK
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ifstatsmsg import ifstatsmsg

from virtfs.core.errors import VirtError
from virtfs.core.ip import IpAddress, IpInterface
from virtfs.host import ipconfig, marks, netns
from virtfs.host.descriptors import NONE_LEFT
from virtfs.host.netlink_values import Link, address_of, link_of
from virtfs.host.rtnl import Message, Rtnl
from virtfs.host.tap_protocol import Placed
from virtfs.host.textfiles import write_text

_log = logging.getLogger(__name__)

_IFF_UP = 0x1  # linux/if.h
_IFF_PROMISC = 0x100
# linux/rtnetlink.h: omit the per-protocol statistics from answers, which makes the answers a quarter shorter
_RTEXT_FILTER_SKIP_STATS = 8
_IFLA_STATS_LINK_64 = 1  # linux/if_link.h
_IF_STATS = struct.Struct("<4xI4x")  # struct if_stats_msg, linux/if_link.h: ifindex
_ATTRIBUTE = struct.Struct("<HH")  # struct nlattr, linux/netlink.h: length, type
_TX_DROPPED = struct.Struct("<56xQ")  # struct rtnl_link_stats64, linux/if_link.h: the eighth number
_IN6_ADDR_GEN_MODE_NONE = 1  # linux/if_link.h
_RT_SCOPE_HOST = 254  # linux/rtnetlink.h

T = TypeVar("T")


class Links:
    """rtnetlink requests about taps. Methods that take a tap raise VirtError ENXIO if its interface is gone."""

    def __init__(self) -> None:
        self._home = netns.own_identity()
        self._rtnl = Rtnl()

    def close(self) -> None:
        """Close the socket. A second call does nothing."""
        self._rtnl.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def get(self, tap: Placed) -> Link:
        """Return the current state of the tap's interface."""

        def ask(rtnl: Rtnl, index: int) -> Link:
            question = ifinfmsg()
            question["index"] = index
            question["attrs"] = [("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS)]
            (answer,) = rtnl.ask(RTM_GETLINK, question)
            return link_of(answer)

        return self._at(tap, ask)

    def dropped(self) -> dict[int, int]:
        """Return Link.tx_dropped by interface index, for all interfaces of the namespace in which Links was created.

        All counters come from one request, which takes 2 ms for 1000 interfaces. Calling get() for each takes 260 ms.
        """
        question = ifstatsmsg()
        question["filter_mask"] = 1 << (_IFLA_STATS_LINK_64 - 1)
        return dict(map(_dropped, self._rtnl.dump_raw(RTM_GETSTATS, question)))

    def set(
        self,
        tap: Placed,
        *,
        up: bool | None = None,
        mtu: int | None = None,
        address: bytes | None = None,
        txqlen: int | None = None,
        promisc: bool | None = None,
    ) -> None:
        """Change the given properties, in the order address, txqlen, mtu, promisc, up.

        If a change fails, the changes before it stay in effect. address: the MAC, 6 bytes. txqlen: the queue length in
        frames. VirtError: ERANGE, the MTU or queue length is out of the device's range; EADDRNOTAVAIL, the MAC is
        multicast or zero; EINVAL, the MAC is not 6 bytes long; ENOMEM, a queue of this length needs too much memory.
        """
        if address is not None:
            self._set_address(tap, address)
        if txqlen is not None:
            self._set_number(tap, "IFLA_TXQLEN", "queue length", txqlen)
        if mtu is not None:
            self._set_number(tap, "IFLA_MTU", "MTU", mtu)
        if promisc is not None:
            self._set_flag(tap, _IFF_PROMISC, promisc, "promisc")
        if up is not None:
            self._set_flag(tap, _IFF_UP, up, "up")

    def quiet(self, tap: Placed) -> None:
        """Stop a new tap from sending IPv6 packets of its own, and make it keep its IPv6 addresses while down.

        If the kernel has no IPv6, or /proc is read-only (in a container), log this and raise no error.
        """
        change = ifinfmsg()
        inet6 = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _IN6_ADDR_GEN_MODE_NONE)]}
        change["attrs"] = [("IFLA_AF_SPEC", {"attrs": [("AF_INET6", inet6)]})]
        try:
            self._change(tap, change, "addrgenmode none")
        except VirtError as refusal:
            if refusal.errno == errno.ENXIO or refusal.errno in NONE_LEFT:
                raise
            _log.info("cannot turn off automatic IPv6 addresses: %s", refusal.strerror)
            return
        self._at(tap, lambda _rtnl, _index: _keep_addresses(tap.name()))

    def mark(self, tap: Placed, mark: str) -> None:
        """Give the interface a mark as its alias (host.marks)."""
        self._change(tap, marks.marking(mark, 0), "alias")

    def move(self, tap: Placed, namespace: int) -> None:
        """Move the interface to another network namespace. It arrives down and without addresses (net/core/dev.c).

        namespace: a descriptor of the namespace. VirtError: EEXIST, the namespace already has an interface of that
        name; EPERM, this process lacks the permission for that namespace.
        """
        change = ifinfmsg()
        change["attrs"] = [("IFLA_NET_NS_FD", namespace)]
        self._change(tap, change, "netns")

    def addresses(self, tap: Placed) -> tuple[IpInterface, ...]:
        """Return all addresses in the kernel's order, IPv4 first, including those that the kernel made (fe80::)."""
        return self._at(tap, _addresses)

    def add_address(self, tap: Placed, interface: IpInterface) -> None:
        """Add an address, as `ip address add A/n brd + dev TAP` does.

        VirtError: EEXIST, the interface already has the address; EINVAL, the kernel refuses the address; EACCES, IPv6
        is disabled.
        """
        # A /31 has no broadcast address (RFC 3021).
        broadcast = interface.version == 4 and interface.network.prefixlen < 31

        def ask(rtnl: Rtnl, index: int) -> None:
            request = _address_message(interface, index)
            if broadcast:
                request["attrs"].append(("IFA_BROADCAST", str(interface.network.broadcast_address)))
            if interface.version == 4 and interface.ip.is_loopback:
                request["scope"] = _RT_SCOPE_HOST
            rtnl.ask(RTM_NEWADDR, request, NLM_F_CREATE | NLM_F_EXCL)

        self._at(tap, ask, f'address "{interface}"')

    def remove_address(self, tap: Placed, address: IpInterface | IpAddress) -> None:
        """Remove an address, as `ip address del` does. If `address` has no prefix length, remove the first match.

        As always on Linux, removing the first IPv4 address of a subnet also removes the others of that subnet, unless
        the sysctl net.ipv4.conf.*.promote_secondaries is set. VirtError EADDRNOTAVAIL: there is no such address.
        """

        def ask(rtnl: Rtnl, index: int) -> None:
            known = _addresses(rtnl, index)
            matching = [one for one in known if address in (one, one.ip)]
            if not matching:
                raise VirtError(errno.EADDRNOTAVAIL, "the interface does not have this address")
            rtnl.ask(RTM_DELADDR, _address_message(matching[0], index))

        self._at(tap, ask, f'address "{address}"')

    def addresses_in_full(self, tap: Placed) -> tuple[ipconfig.AddressRecord, ...]:
        """Return the addresses with all their attributes, to pass to restore_addresses() later."""
        return self._at(tap, lambda rtnl, index: tuple(ipconfig.addresses(rtnl, index)))

    def restore_addresses(self, tap: Placed, held: tuple[ipconfig.AddressRecord, ...], name: str) -> None:
        """Restore addresses that addresses_in_full() returned, and remove all others.

        held: the addresses to restore. name: the name of the interface when they were recorded. VirtError: errors from
        the kernel.
        """

        def ask(rtnl: Rtnl, index: int) -> None:
            ipconfig.restore(rtnl, index, tap.name(), held, name)

        self._at(tap, ask, "restoring addresses")

    def _set_address(self, tap: Placed, address: bytes) -> None:
        """Set the MAC if it differs from the current one.

        Setting the same MAC again would make the kernel drop all neighbours (net/core/neighbour.c neigh_changeaddr).
        """
        if self.get(tap).address == address:
            return
        text = address.hex(":")
        if len(address) != 6:
            raise VirtError(errno.EINVAL, f'MAC "{text}" is not 6 bytes long')
        change = ifinfmsg()
        change["attrs"] = [("IFLA_ADDRESS", text)]
        self._change(tap, change, f'MAC "{text}"')

    def _set_flag(self, tap: Placed, flag: int, on: bool, what: str) -> None:
        change = ifinfmsg()
        change["flags"] = flag if on else 0
        change["change"] = flag
        self._change(tap, change, what if on else f'clearing the flag "{what}"')

    def _set_number(self, tap: Placed, attribute: str, what: str, number: int) -> None:
        """Set a numeric attribute. VirtError ERANGE: the number is out of range.

        For an MTU out of range the kernel reports EINVAL (net/core/dev.c dev_validate_mtu), which becomes ERANGE.
        """
        if not 0 <= number < 1 << 32:
            raise VirtError(errno.ERANGE, f'{what} "{number}" is out of range')
        change = ifinfmsg()
        change["attrs"] = [(attribute, number)]
        try:
            self._change(tap, change, f'{what} "{number}"')
        except VirtError as refusal:
            if refusal.errno == errno.EINVAL:
                raise VirtError(errno.ERANGE, str(refusal.strerror)) from refusal
            raise

    def _change(self, tap: Placed, change: Message, what: str) -> None:
        def ask(rtnl: Rtnl, index: int) -> None:
            change["index"] = index
            rtnl.ask(RTM_SETLINK, change)

        self._at(tap, ask, what)

    def _at(self, tap: Placed, request: Callable[[Rtnl, int], T], what: str = "") -> T:
        """Call `request` with a socket in the tap's namespace and the index of the tap's interface there.

        what: the name of the request, which starts the sentence of an error.
        """
        try:
            return self._once(tap, request)
        except OSError as refusal:
            if refusal.errno not in (errno.ENODEV, errno.ENXIO):
                raise _named(refusal, tap, what) from refusal
        # The tap was renamed or moved during the request, or it is gone. Try once more; a second failure is final.
        return self._once(tap, request)

    def _once(self, tap: Placed, request: Callable[[Rtnl, int], T]) -> T:
        namespace = tap.netns()
        try:
            if netns.identity(namespace) == self._home:
                return request(self._rtnl, self._rtnl.index(tap.name()))
            return netns.inside(namespace, lambda: _with_socket(lambda rtnl: request(rtnl, rtnl.index(tap.name()))))
        finally:
            os.close(namespace)


def _dropped(answer: bytes) -> tuple[int, int]:
    """Return the index and the tx_dropped of a message RTM_NEWSTATS: struct if_stats_msg, then attributes."""
    (index,) = _IF_STATS.unpack_from(answer)
    at = _IF_STATS.size
    while at + _ATTRIBUTE.size <= len(answer):
        length, kind = _ATTRIBUTE.unpack_from(answer, at)
        if kind == _IFLA_STATS_LINK_64:
            return index, _TX_DROPPED.unpack_from(answer, at + _ATTRIBUTE.size)[0]
        at += max(-(-length // 4) * 4, _ATTRIBUTE.size)
    return index, 0


def _addresses(rtnl: Rtnl, index: int) -> tuple[IpInterface, ...]:
    question = ifaddrmsg()
    question["index"] = index
    return tuple(address_of(answer) for answer in rtnl.dump(RTM_GETADDR, question))


def _address_message(interface: IpInterface, index: int) -> Message:
    message = ifaddrmsg()
    message["family"] = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    message["prefixlen"] = interface.network.prefixlen
    message["index"] = index
    message["attrs"] = [("IFA_LOCAL", str(interface.ip)), ("IFA_ADDRESS", str(interface.ip))]
    return message


def _with_socket(request: Callable[[Rtnl], T]) -> T:
    with Rtnl() as rtnl:
        return request(rtnl)


def _keep_addresses(name: str) -> None:
    """Set the sysctl net.ipv6.conf.NAME.keep_addr_on_down (ip-sysctl.rst) in the calling thread's namespace."""
    try:
        write_text(f"/proc/sys/net/ipv6/conf/{name}/keep_addr_on_down", "1")
    except OSError as refusal:
        if refusal.errno in NONE_LEFT:
            raise
        _log.info(
            "cannot set keep_addr_on_down, so %s will lose its IPv6 addresses when it is set down: %s", name, refusal
        )


def _named(refusal: OSError, tap: Placed, what: str) -> VirtError:
    """Return a VirtError whose sentence names the failed request and the tap. The kernel reports only the reason."""
    reason = refusal.strerror or str(refusal)
    sentence = f"{what} on {tap.name()}: {reason}" if what else f"{tap.name()}: {reason}"
    return VirtError(refusal.errno or errno.EIO, sentence)
