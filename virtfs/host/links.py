"""The host's end of a tap: state UP, MTU, MAC, queue length and addresses, over rtnetlink(7).

Every call asks the descriptor of the tap for the current namespace and name of the interface. So calls still work
after the interface has been renamed or moved. A Links object keeps one socket open, in the namespace of the thread
that created the object. In other namespaces each request opens a socket of its own, because an open socket would keep
the namespace alive.

A call blocks for about 0.1 to 0.3 ms, and longer while other programs configure the network, because the kernel has one
lock for all network configuration (rtnl_mutex). Make calls in a worker thread, one at a time.
"""

import errno
import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Self, TypeVar

from virtfs.core.errors import VirtError
from virtfs.core.ip import IpAddress, IpInterface
from virtfs.host import ipconfig, marks, netns
from virtfs.host import netlink_messages as m
from virtfs.host.descriptors import NONE_LEFT
from virtfs.host.netlink_attributes import nested, parse
from virtfs.host.netlink_values import Link, address_of, link_of
from virtfs.host.rtnl import NLM_F_CREATE, NLM_F_EXCL, Reply, Request, Rtnl
from virtfs.host.tap_protocol import Placed
from virtfs.host.textfiles import write_text

_log = logging.getLogger(__name__)

# linux/rtnetlink.h: omit the per-protocol statistics from replies, which makes the replies a quarter shorter
_SKIP_STATS = m.IFLA_EXT_MASK, m.U32.pack(8)  # RTEXT_FILTER_SKIP_STATS
# IN6_ADDR_GEN_MODE_NONE, linux/if_link.h
_QUIET = nested(m.IFLA_AF_SPEC, nested(socket.AF_INET6, (m.IFLA_INET6_ADDR_GEN_MODE, b"\1")))
_NO_GROUP = m.IFLA_GROUP, m.U32.pack(0)
# Maximum number of links that one request deletes. The notifications about them fit into the receive buffer of
# host.monitor, and other programs can configure the network between two requests.
DELETED_AT_ONCE = 512
_ASKED_AT_ONCE = 64  # maximum number of requests in one system call; their replies fit into the receive buffer
_RT_SCOPE_HOST = 254  # linux/rtnetlink.h

T = TypeVar("T")


class Links:
    """rtnetlink requests about taps. Methods that take a tap raise VirtError ENXIO if its interface is gone."""

    def __init__(self) -> None:
        self._home = netns.own_identity()
        self._rtnl = Rtnl()
        self._has_told = False  # whether the log says that IPv6 addresses are not kept

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
            return _look(rtnl, index)

        return self._at(tap, ask)

    def begin(self, tap: Placed, txqlen: int) -> Link:
        """Make a new tap quiet, as quiet() does, set its queue length, and return its state.

        One request changes both settings, because a mount may create thousands of taps.
        """

        def ask(rtnl: Rtnl, index: int) -> Link | None:
            try:
                rtnl.ask(m.RTM_SETLINK, m.link(index, _QUIET, (m.IFLA_TXQLEN, m.U32.pack(txqlen))))
            except VirtError as refusal:
                if refusal.errno in (errno.ENODEV, errno.ENXIO, *NONE_LEFT):
                    raise
                return None  # a kernel without IPv6 refuses the whole message
            self._keep_addresses(tap.name())
            return _look(rtnl, index)

        link = self._at(tap, ask, f'queue length "{txqlen}"')
        if link is None:
            self.quiet(tap)
            self.set(tap, txqlen=txqlen)
            link = self.get(tap)
        return link

    def dropped(self) -> dict[int, int]:
        """Return Link.tx_dropped by interface index, for all interfaces of the namespace that Links was created in.

        All counters come from one request, which takes 2 ms for 1000 interfaces. 1000 calls to get() take 260 ms.
        """
        return dict(map(_dropped, self._rtnl.dump(m.RTM_GETSTATS, _statistics(0))))

    def dropped_by(self, index: int) -> int:
        """Return Link.tx_dropped of one interface of the namespace in which Links was created.

        index: the interface index. get(), which returns the whole state, makes eight more system calls.
        VirtError ENODEV: there is no such interface.
        """
        (answer,) = self._rtnl.ask(m.RTM_GETSTATS, _statistics(index))
        return _dropped(answer)[1]

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
            self._set_number(tap, m.IFLA_TXQLEN, "queue length", txqlen)
        if mtu is not None:
            self._set_number(tap, m.IFLA_MTU, "MTU", mtu)
        if promisc is not None:
            self._set_flag(tap, m.IFF_PROMISC, promisc, "promisc")
        if up is not None:
            self._set_flag(tap, m.IFF_UP, up, "up")

    def quiet(self, tap: Placed) -> None:
        """Stop a new tap from sending IPv6 packets of its own, and make it keep its IPv6 addresses while down.

        If the kernel has no IPv6, or /proc is read-only (in a container), log this and raise no error.
        """
        try:
            self._change(tap, "addrgenmode none", _QUIET)
        except VirtError as refusal:
            if refusal.errno == errno.ENXIO or refusal.errno in NONE_LEFT:
                raise
            _log.info("cannot turn off automatic IPv6 addresses: %s", refusal.strerror)
            return
        self._at(tap, lambda _rtnl, _index: self._keep_addresses(tap.name()))

    def _keep_addresses(self, name: str) -> None:
        """Set the sysctl net.ipv6.conf.NAME.keep_addr_on_down (ip-sysctl.rst) in the calling thread's namespace.

        A failure is logged once, because it has the same reason for all taps.
        """
        try:
            write_text(f"/proc/sys/net/ipv6/conf/{name}/keep_addr_on_down", "1")
        except OSError as refusal:
            if refusal.errno in NONE_LEFT:
                raise
            if not self._has_told:
                self._has_told = True
                lost = f"{name} and later taps will lose their IPv6 addresses when they are set down"
                _log.info("cannot set keep_addr_on_down, so %s: %s", lost, refusal)

    def mark(self, tap: Placed, mark: str) -> None:
        """Set the interface's alias to a mark (host.marks)."""
        self._change(tap, "alias", marks.alias(mark))

    def move(self, tap: Placed, namespace: int) -> None:
        """Move the interface to another network namespace. It arrives down and without addresses (net/core/dev.c).

        namespace: a descriptor of the namespace. VirtError: EEXIST, the namespace already has an interface of that
        name; EPERM, this process lacks the permission for that namespace.
        """
        self._change(tap, "netns", (m.IFLA_NET_NS_FD, m.U32.pack(namespace)))

    def delete(self, taps: Sequence[Placed]) -> None:
        """Delete the interfaces of taps, many in one request. Skip taps that are gone or in another namespace.

        Deleting one link waits 16 ms for RCU. Deleting a group of links takes no longer (net/core/rtnetlink.c
        rtnl_group_dellink). The group is a random number. The chance that another link has this number is 1 in 2^31.
        VirtError: errors from the kernel.
        """
        for start in range(0, len(taps), DELETED_AT_ONCE):
            self._delete_group(taps[start : start + DELETED_AT_ONCE])

    def _delete_group(self, taps: Sequence[Placed]) -> None:
        group = m.IFLA_GROUP, m.U32.pack(secrets.randbits(31) | 1 << 31)
        found = {tap: index for tap in taps if (index := self._index_here(tap)) is not None}
        self._set_all(found.values(), group)
        # Another program may have deleted a tap before its index was looked up, and given the name of the tap to an
        # interface of its own. Take such an interface out of the group again.
        self._set_all([index for tap, index in found.items() if not self._is(tap, index)], _NO_GROUP)
        try:
            self._rtnl.ask(m.RTM_DELLINK, m.link(0, group))
        except VirtError as refusal:
            if refusal.errno != errno.ENODEV:  # ENODEV: the group has no links
                raise

    def _index_here(self, tap: Placed) -> int | None:
        """Return the interface index of a tap, or None if it is gone or in another namespace."""
        try:
            namespace = tap.netns()
            try:
                return self._rtnl.index(tap.name()) if netns.identity(namespace) == self._home else None
            finally:
                os.close(namespace)
        except VirtError as refusal:
            if refusal.errno in (errno.ENODEV, errno.ENXIO):
                return None
            raise

    def _is(self, tap: Placed, index: int) -> bool:
        try:
            return self._rtnl.index(tap.name()) == index
        except VirtError:
            return False

    def _set_all(self, indices: Iterable[int], attribute: tuple[int, bytes]) -> None:
        """Set an attribute of several interfaces. Ignore errors."""
        requests: list[Request] = [(m.RTM_SETLINK, m.link(index, attribute), 0) for index in indices]
        for start in range(0, len(requests), _ASKED_AT_ONCE):
            self._rtnl.ask_all(requests[start : start + _ASKED_AT_ONCE])

    def delete_one(self, tap: Placed) -> None:
        """Delete the interface in any namespace, even if another process has it open."""

        def ask(rtnl: Rtnl, index: int) -> None:
            rtnl.ask(m.RTM_DELLINK, m.link(index))

        self._at(tap, ask, "deleting")

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
            more = [(m.IFA_BROADCAST, interface.network.broadcast_address.packed)] if broadcast else []
            scope = _RT_SCOPE_HOST if interface.version == 4 and interface.ip.is_loopback else 0
            request = m.address(interface, index, *more, scope=scope)
            rtnl.ask(m.RTM_NEWADDR, request, NLM_F_CREATE | NLM_F_EXCL)

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
            rtnl.ask(m.RTM_DELADDR, m.address(matching[0], index))

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
        self._change(tap, f'MAC "{text}"', (m.IFLA_ADDRESS, address))

    def _set_flag(self, tap: Placed, flag: int, on: bool, what: str) -> None:
        what = what if on else f'clearing the flag "{what}"'
        self._change(tap, what, flags=flag if on else 0, change=flag)

    def _set_number(self, tap: Placed, attribute: int, what: str, number: int) -> None:
        """Set a numeric attribute. VirtError ERANGE: the number is out of range.

        For an MTU out of range the kernel reports EINVAL (net/core/dev.c dev_validate_mtu), which becomes ERANGE.
        """
        if not 0 <= number < 1 << 32:
            raise VirtError(errno.ERANGE, f'{what} "{number}" is out of range')
        try:
            self._change(tap, f'{what} "{number}"', (attribute, m.U32.pack(number)))
        except VirtError as refusal:
            if refusal.errno == errno.EINVAL:
                raise VirtError(errno.ERANGE, str(refusal.strerror)) from refusal
            raise

    def _change(self, tap: Placed, what: str, *attributes: tuple[int, bytes], flags: int = 0, change: int = 0) -> None:
        def ask(rtnl: Rtnl, index: int) -> None:
            rtnl.ask(m.RTM_SETLINK, m.link(index, *attributes, flags=flags, change=change))

        self._at(tap, ask, what)

    def _at(self, tap: Placed, request: Callable[[Rtnl, int], T], what: str = "") -> T:
        """Call `request` with a socket in the tap's namespace and the index of the tap's interface there.

        what: the name of the request, which begins the error message.
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


def _addresses(rtnl: Rtnl, index: int) -> tuple[IpInterface, ...]:
    return tuple(address_of(answer.body) for answer in rtnl.dump(m.RTM_GETADDR, m.addresses(index)))


def _look(rtnl: Rtnl, index: int) -> Link:
    answer = rtnl.ask_one(m.RTM_GETLINK, m.link(index, _SKIP_STATS))
    return link_of(answer.body)


def _statistics(index: int) -> bytes:
    """Return the body of an RTM_GETSTATS request for struct rtnl_link_stats64. index: 0 for all interfaces."""
    return m.STATSMSG.pack(socket.AF_UNSPEC, index, 1 << (m.IFLA_STATS_LINK_64 - 1))


def _dropped(answer: Reply) -> tuple[int, int]:
    """Return the interface index and tx_dropped from the reply to an RTM_GETSTATS request."""
    _family, index, _filter = m.STATSMSG.unpack_from(answer.body)
    statistics = parse(answer.body, m.STATSMSG.size)[m.IFLA_STATS_LINK_64]
    return index, m.U64.unpack_from(statistics, m.STATS_TX_DROPPED)[0]


def _with_socket(request: Callable[[Rtnl], T]) -> T:
    with Rtnl() as rtnl:
        return request(rtnl)


def _named(refusal: OSError, tap: Placed, what: str) -> VirtError:
    """Return a VirtError whose message names the failed request and the tap. The kernel reports only the reason."""
    reason = refusal.strerror or str(refusal)
    sentence = f"{what} on {tap.name()}: {reason}" if what else f"{tap.name()}: {reason}"
    return VirtError(refusal.errno or errno.EIO, sentence)
