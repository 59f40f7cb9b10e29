"""rtnetlink notifications: changes to interfaces and addresses, in this namespace and in watched ones.

One socket receives the notifications of all these namespaces (NETLINK_LISTEN_ALL_NSID, netlink(7)). A message from
another namespace carries an nsid, the number by which our namespace knows the other one. A socket in each
namespace would keep these namespaces alive. An nsid does not.
"""

import errno
import logging
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from virtfs.core.ip import IpInterface
from virtfs.host import netlink_messages as m
from virtfs.host import netns
from virtfs.host.netlink_attributes import find, parse, text
from virtfs.host.netlink_values import Link, address_of, kind_of, link_of
from virtfs.host.nsid import nsid_of
from virtfs.host.rtnl import ROOM, SOL_NETLINK, replies

_log = logging.getLogger(__name__)

_NETLINK_ADD_MEMBERSHIP = 1  # linux/netlink.h
_NETLINK_LISTEN_ALL_NSID = 8
_GROUPS = {"LINK": 1, "IPV4_IFADDR": 5, "IPV6_IFADDR": 9, "NSID": 28}  # RTNLGRP_…, linux/rtnetlink.h
# asm-generic/socket.h: sets a size that may exceed net.core.rmem_max, but needs CAP_NET_ADMIN.
_SO_RCVBUFFORCE = 33
_BUFFER = 4 << 20  # bytes; room for about 2000 messages that describe an interface

_INT = struct.Struct("i")
_NSID_ROOM = socket.CMSG_SPACE(_INT.size)


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """An interface appeared, or one of its properties may have changed."""

    nsid: int | None  # None for the namespace of the thread that created the Monitor
    index: int
    body: bytes = field(repr=False)  # the message

    @property
    def link(self) -> Link:
        """The new state, decoded from `body` at each access.

        Most notifications in a burst are superseded by later ones, or are about interfaces of other programs. So they
        are decoded only if they are needed.
        """
        return link_of(self.body)

    @property
    def kind(self) -> str:
        """The kind of interface, such as "tun" or "bridge", decoded as `link` is."""
        return kind_of(self.body)


@dataclass(frozen=True, slots=True)
class LinkGone:
    """An interface was deleted or was moved to another namespace.

    The kernel sends the same message for both. Only the descriptor of the tap shows which of the two happened.
    """

    nsid: int | None
    index: int
    name: str


@dataclass(frozen=True, slots=True)
class AddressChanged:
    """An address was added to an interface or removed from it, or its state changed."""

    nsid: int | None
    index: int
    address: IpInterface
    added: bool  # False if the address was removed


@dataclass(frozen=True, slots=True)
class NamespaceGone:
    """A namespace was destroyed, and its nsid may be assigned to another namespace.

    The taps in the namespace vanish a few milliseconds later, without a LinkGone.
    """

    nsid: int


@dataclass(frozen=True, slots=True)
class Overflow:
    """Notifications were lost (ENOBUFS). The receiver must reread the state of all interfaces."""


Event = LinkChanged | LinkGone | AddressChanged | NamespaceGone | Overflow


class Monitor:
    """A socket for notifications from the namespace of the thread that creates it, and from namespaces with an nsid."""

    def __init__(self) -> None:
        self._home = netns.own_identity()
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        try:
            _enlarge(self._socket)
            self._socket.setsockopt(SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID, 1)
            self._socket.bind((0, 0))
            for group in _GROUPS.values():
                self._socket.setsockopt(SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
            # The server calls drain() before it answers a request. An epoll descriptor tells that nothing has arrived
            # in a third of the time that a failed recvmsg(2) takes in Python.
            self._arrivals = select.epoll(flags=select.EPOLL_CLOEXEC)
        except BaseException:
            self._socket.close()
            raise
        self._arrivals.register(self._socket, select.EPOLLIN)

    def fileno(self) -> int:
        """Return the descriptor, which becomes readable when notifications arrive; -1 once closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the descriptors. A second call does nothing."""
        self._socket.close()
        self._arrivals.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def drain(self, limit: int = 8) -> list[Event]:
        """Return the notifications that have arrived, oldest first, without waiting.

        Reads at most `limit` messages; each takes about 20 µs. Call drain() again while the descriptor is readable.
        """
        events: list[Event] = []
        if not self._arrivals.poll(0, 1):
            return events
        for _ in range(limit):
            try:
                data, ancillary, flags, (sender, _groups) = self._socket.recvmsg(ROOM, _NSID_ROOM)
            except BlockingIOError:
                break
            except OSError as refusal:
                if refusal.errno != errno.ENOBUFS:
                    raise
                self._skip()
                events.append(Overflow())
                continue
            if flags & socket.MSG_TRUNC:
                events.append(Overflow())
            elif sender == 0:  # sent by the kernel
                events.extend(events_in(data, _nsid(ancillary)))
        return events

    def watch(self, namespace: int) -> int | None:
        """Start watching a namespace, and return its nsid, or None for the monitor's own namespace.

        Earlier changes are not reported, so the caller must read the state of the namespace afterwards. The nsid is
        valid until the namespace is destroyed. Blocks briefly. namespace: a descriptor. VirtError: as in nsid_of().
        """
        return None if netns.identity(namespace) == self._home else nsid_of(namespace)

    def _skip(self) -> None:
        """Discard the queued messages.

        After an overflow the kernel silently drops all notifications until the receive queue has been empty once
        (af_netlink.c netlink_rcv_wake). So only state that is read after this call is certain to be current.
        """
        while True:
            try:
                self._socket.recv(1)
            except BlockingIOError:
                return
            except OSError as refusal:
                if refusal.errno != errno.ENOBUFS:
                    raise


def events_in(data: bytes, nsid: int | None) -> list[Event]:
    """Return the notifications in a datagram from rtnetlink.

    If a message cannot be decoded, it and the rest of the datagram count as lost, and the last event is an Overflow.
    nsid: the id of the namespace that the datagram comes from.
    """
    events: list[Event] = []
    try:
        for kind, _flags, _sequence, body in replies(data):
            if (reader := _READERS.get(kind)) is not None and (event := reader(kind, body, nsid)) is not None:
                events.append(event)
    except (struct.error, ValueError) as failure:
        _log.warning("cannot decode an rtnetlink message: %.200r", failure)
        events.append(Overflow())
    return events


def _link_changed(_kind: int, body: bytes, nsid: int | None) -> Event | None:
    """Return the event, or None for a message about a bridge port (AF_BRIDGE) or a wireless event (without an MTU)."""
    family, _type, index, *_ = m.IFINFOMSG.unpack_from(body)
    if family != socket.AF_UNSPEC or find(body, m.IFINFOMSG.size, m.IFLA_MTU) is None:
        return None
    return LinkChanged(nsid, index, body)


def _link_gone(_kind: int, body: bytes, nsid: int | None) -> Event | None:
    """Return the event, or None for family AF_BRIDGE: the interface has left its bridge, but still exists."""
    family, _type, index, *_ = m.IFINFOMSG.unpack_from(body)
    if family != socket.AF_UNSPEC:
        return None
    return LinkGone(nsid, index, text(find(body, m.IFINFOMSG.size, m.IFLA_IFNAME) or b""))


def _address_changed(kind: int, body: bytes, nsid: int | None) -> Event | None:
    *_, index = m.IFADDRMSG.unpack_from(body)
    return AddressChanged(nsid, index, address_of(body), kind == m.RTM_NEWADDR)


def _namespace_gone(_kind: int, body: bytes, nsid: int | None) -> Event | None:
    """Return the event, or None for a message from another namespace, whose nsids differ from ours."""
    if nsid is not None:
        return None
    value = parse(body, m.RTGENMSG.size).get(m.NETNSA_NSID, b"")
    return NamespaceGone(m.U32.unpack(value)[0])


_READERS: dict[int, Callable[[int, bytes, int | None], Event | None]] = {
    m.RTM_NEWLINK: _link_changed,
    m.RTM_DELLINK: _link_gone,
    m.RTM_NEWADDR: _address_changed,
    m.RTM_DELADDR: _address_changed,
    m.RTM_DELNSID: _namespace_gone,
}


def _nsid(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """Return the nsid of the namespace that a message comes from, or None if it is the namespace of the socket."""
    for level, kind, data in ancillary:
        if (level, kind) == (SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID):
            number: int = _INT.unpack(data)[0]
            return number
    return None


def _enlarge(listener: socket.socket) -> None:
    """Enlarge the receive buffer. Only with CAP_NET_ADMIN can its size exceed net.core.rmem_max."""
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    except PermissionError:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
