"""rtnetlink requests and their answers, over a plain socket and with pyroute2's message classes.

pyroute2's own IPRoute is not used. An IPRoute keeps an asyncio loop and a socket for the thread that created it. Each
call from another thread creates a new loop and a new socket. A plain socket takes half the time and works in any
thread.
"""

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, Self

from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from virtfs.core.bytestext import to_bytes, to_text
from virtfs.core.errors import VirtError

SOL_NETLINK = 270  # linux/socket.h; the options are in linux/netlink.h
_NETLINK_EXT_ACK = 11  # extended ACKs: an error carries a message
_NETLINK_GET_STRICT_CHK = 12  # dumps respect the filter in the request's header (Linux 4.20)

_NLM_F_DUMP_INTR = 16  # linux/netlink.h: a change interrupted the dump
ATTEMPTS = 10  # maximum number of attempts at a dump, or at a request whose answers are lost

# Size of the receive buffer in bytes. A dump's messages are at most 32 KiB (netlink(7), af_netlink.c netlink_dump).
ROOM = 1 << 16

_HEADER = struct.Struct("<IHHI4x")  # struct nlmsghdr, linux/netlink.h: length, type, flags, sequence number
_SIOCGIFINDEX = 0x8933  # linux/sockios.h
_IFREQ = struct.Struct("16si20x")  # struct ifreq, linux/if.h: name and index
_NAME_MAX = 15  # IFNAMSIZ - 1

Message = Any  # a pyroute2 message: a dict with get_attr(name); pyroute2 has no type annotations
Request = tuple[int, Message, int]  # the arguments of Rtnl.ask


def text_of(value: str | bytes) -> str:
    """Return a string attribute as text. pyroute2 returns a value that is not UTF-8 as bytes, with its NUL."""
    return value if isinstance(value, str) else to_text(value.rstrip(b"\0"))


def name_of(link: Message) -> str:
    """Return the interface name in a link message."""
    return text_of(link.get_attr("IFLA_IFNAME") or "")


class Rtnl:
    """A request socket in the network namespace of the thread that opens it, for one request at a time.

    An open socket keeps its namespace alive.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._sequence = 0
        self._marshal = MarshalRtnl()
        try:
            for option in (_NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
                self._socket.setsockopt(SOL_NETLINK, option, 1)
            self._socket.bind((0, 0))
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the socket. A second call does nothing."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def index(self, name: str) -> int:
        """Return the index of the interface of that name. VirtError ENODEV: there is none.

        if_nametoindex(3) is not used, because it opens a socket and also reports ENODEV if opening the socket fails.
        """
        encoded = to_bytes(name)
        if len(encoded) > _NAME_MAX:
            raise VirtError(errno.ENODEV, os.strerror(errno.ENODEV))
        try:
            answer = fcntl.ioctl(self._socket.fileno(), _SIOCGIFINDEX, _IFREQ.pack(encoded, 0))
        except OSError as refusal:
            raise VirtError(refusal.errno or errno.EIO, str(refusal.strerror)) from refusal
        index: int = _IFREQ.unpack(answer)[1]
        return index

    def ask(self, kind: int, message: Message, flags: int = 0) -> list[Message]:
        """Send one request and return the messages of the answer.

        The list is empty if the kernel only acknowledges the request. kind: RTM_…. flags: NLM_F_….
        If the kernel loses its answer, the request is sent again.
        VirtError: the error that the kernel reported, with the kernel's message if there is one.
        """
        return self._ask(kind, message, flags, lost=False)

    def _ask(
        self,
        kind: int,
        message: Message,
        flags: int,
        *,
        lost: bool,
        answer: "Callable[[Rtnl], Iterator[Any]] | None" = None,
    ) -> list[Any]:
        """Implement ask(). lost: whether the same request was sent before and its answer was lost.

        answer: the method that receives the answer, _answer() if None.
        """
        for _ in range(ATTEMPTS):
            try:
                self._send(self._encoded(kind, message, flags))
                return list(self._answer() if answer is None else answer(self))
            except VirtError as refusal:
                if lost and refusal.errno in _done_before(kind, flags):
                    return []
                raise
            except OSError as failure:
                # The kernel has handled the request, but had no memory for the answer (af_netlink.c netlink_ack).
                # Send it again: the new answer shows whether the first request succeeded.
                if failure.errno != errno.ENOBUFS:
                    raise
                lost = True
        raise VirtError(errno.ENOBUFS, "the kernel has no memory for its answer")

    def ask_both(self, first: Request, second: Request) -> None:
        """Send two requests in one system call, so that SIGKILL cannot end this process between them.

        The kernel handles the second request even if it refuses the first (af_netlink.c netlink_rcv_skb). VirtError:
        the error of the first request, or of the second if only that was refused.
        """
        data = [self._encoded(*request) for request in (first, second)]
        sequence = self._sequence
        self._send(b"".join(one.ljust(-(-len(one) // 4) * 4, b"\0") for one in data))
        failures = []
        try:
            for self._sequence in (sequence - 1, sequence):
                try:
                    list(self._answer())
                except VirtError as failure:
                    failures.append(failure)
        except OSError as failure:
            # An answer was lost, as in _ask(). The other one may be lost too, so do not wait for it.
            if failure.errno != errno.ENOBUFS:
                raise
            self._sequence, failures = sequence, []
            for request in (first, second):
                try:
                    self._ask(*request, lost=True)
                except VirtError as refusal:
                    failures.append(refusal)
        if failures:
            raise failures[0]

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendto(data, (0, 0))
        except OSError as failure:
            raise VirtError(failure.errno or errno.EIO, str(failure.strerror)) from failure

    def _encoded(self, kind: int, message: Message, flags: int) -> bytes:
        self._sequence += 1
        header = message["header"]
        header["type"] = kind
        header["flags"] = NLM_F_REQUEST | NLM_F_ACK | flags
        header["sequence_number"] = self._sequence
        message.encode()
        return bytes(message.data)

    def dump(self, kind: int, message: Message) -> list[Message]:
        """Return all objects of a kind (NLM_F_DUMP) that match the message's header.

        A change during a dump can hide objects. The kernel reports this (NLM_F_DUMP_INTR), and the dump is repeated, up
        to ATTEMPTS times in all. The last answer is returned even if objects may be missing.
        """
        for _ in range(ATTEMPTS):
            answer = self.ask(kind, message, NLM_F_DUMP)
            if not any(one["header"]["flags"] & _NLM_F_DUMP_INTR for one in answer):
                break
        return answer

    def dump_raw(self, kind: int, message: Message) -> list[bytes]:
        """Return what dump() returns as bytes, without the struct nlmsghdr.

        pyroute2 takes 18 µs for each message, during which no other thread runs Python code.
        """
        for _ in range(ATTEMPTS):
            answer = self._ask(kind, message, NLM_F_DUMP, lost=False, answer=Rtnl._raw)
            if not any(flags & _NLM_F_DUMP_INTR for flags, _ in answer):
                break
        return [body for _, body in answer]

    def _raw(self) -> Iterator[tuple[int, bytes]]:
        """Yield the flags and the body of each message of the answer."""
        while True:
            data, (sender, _groups) = self._socket.recvfrom(ROOM)
            at = 0
            while sender == 0 and at + _HEADER.size <= len(data):
                length, kind, flags, sequence = _HEADER.unpack_from(data, at)
                end = at + max(length, _HEADER.size)
                if sequence == self._sequence:
                    if kind in (NLMSG_ERROR, NLMSG_DONE):
                        for message in self._marshal.parse(data[at:end]):
                            if message["header"]["error"] is not None:
                                raise _refusal(message["header"]["error"])
                        return
                    yield flags, data[at + _HEADER.size : end]
                at = -(-end // 4) * 4

    def _answer(self) -> Iterator[Message]:
        """Yield the messages of the answer. This never blocks, because the kernel answers during sendto(2)."""
        while True:
            data, (sender, _groups) = self._socket.recvfrom(ROOM)
            if sender != 0:
                continue  # sent by another process, not the kernel
            for message in self._marshal.parse(data):
                header = message["header"]
                if header["sequence_number"] != self._sequence:
                    continue  # the answer to an earlier request that was interrupted
                if header["error"] is not None:
                    raise _refusal(header["error"])
                if header["type"] in (NLMSG_ERROR, NLMSG_DONE):
                    return
                yield message


def _done_before(kind: int, flags: int) -> frozenset[int]:
    """Return the errors that a repeated request gets if the first, identical one was carried out."""
    if flags & NLM_F_EXCL:
        return frozenset((errno.EEXIST,))
    deletes = kind % 4 == 1  # each object has four consecutive types: RTM_NEW…, RTM_DEL…, RTM_GET…, RTM_SET…
    return frozenset((errno.ENODEV, errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT) if deletes else ())


def _refusal(error: Exception) -> VirtError:
    """Return the error that the kernel reported, or EIO if pyroute2 cannot decode the message."""
    if isinstance(error, NetlinkError):
        return VirtError(error.code, str(error.args[1]))
    if isinstance(error, OSError) and error.errno is not None:
        return VirtError(error.errno, error.strerror or os.strerror(error.errno))
    return VirtError(errno.EIO, f"cannot decode the kernel's answer: {error!r}")
