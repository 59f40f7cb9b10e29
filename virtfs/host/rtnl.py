"""rtnetlink requests and their answers, over a plain socket.

A request is either raw bytes (host.netlink_messages) or a pyroute2 message. Only bridges use pyroute2 messages. The
requests that every interface needs are raw, because pyroute2 takes 0.1 s to import and 0.2 ms to decode a link.

pyroute2's own IPRoute is not used. An IPRoute keeps an asyncio loop and a socket for the thread that created it. Each
call from another thread creates a new loop and a new socket. A plain socket takes half the time and works in any
thread.
"""

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self, overload

from virtfs.core.bytestext import to_bytes, to_text
from virtfs.core.errors import VirtError
from virtfs.host import netlink_parts
from virtfs.host.netlink_attributes import parse, text

SOL_NETLINK = 270  # linux/socket.h; the options are in linux/netlink.h
_NETLINK_EXT_ACK = 11  # extended ACKs: an error carries a message
_NETLINK_GET_STRICT_CHK = 12  # dumps respect the filter in the request's header (Linux 4.20)

# linux/netlink.h
NLM_F_REQUEST, NLM_F_ACK = 0x1, 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
_NLM_F_DUMP_INTR = 0x10  # a change interrupted the dump
_NLM_F_CAPPED = 0x100  # an error repeats only the header of the request
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_HEADER = struct.Struct("IHHII")  # struct nlmsghdr: length, type, flags, sequence number, port
_ERROR = struct.Struct("i")  # the first member of struct nlmsgerr: the negative errno
_NLMSGERR_ATTR_MSG = 1
ATTEMPTS = 10  # maximum number of attempts at a dump, or at a request whose answers are lost

# Size of the receive buffer in bytes. A dump's messages are at most 32 KiB (netlink(7), af_netlink.c netlink_dump).
ROOM = 1 << 16

_SIOCGIFINDEX = 0x8933  # linux/sockios.h
_IFREQ = struct.Struct("16si20x")  # struct ifreq, linux/if.h: name and index
_NAME_MAX = 15  # IFNAMSIZ - 1

Message = Any  # a pyroute2 message: a dict with get_attr(name); pyroute2 has no type annotations
Request = tuple[int, bytes | Message, int]  # the arguments of Rtnl.ask


class Reply(NamedTuple):
    """One message from the kernel. body: the bytes that follow struct nlmsghdr."""

    kind: int
    flags: int
    sequence: int
    body: bytes


def replies(data: bytes) -> Iterator[Reply]:
    """Yield the messages of a datagram from the kernel. ValueError: a message is cut short."""
    at = 0
    while len(data) - at >= _HEADER.size:
        length, kind, flags, sequence, _port = _HEADER.unpack_from(data, at)
        if not _HEADER.size <= length <= len(data) - at:
            raise ValueError("a netlink message is cut short")
        yield Reply(kind, flags, sequence, data[at + _HEADER.size : at + length])
        at += -(-length // 4) * 4


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

    @overload
    def ask(self, kind: int, message: bytes, flags: int = 0) -> list[Reply]: ...

    @overload
    def ask(self, kind: int, message: Message, flags: int = 0) -> list[Message]: ...

    def ask(self, kind: int, message: bytes | Message, flags: int = 0) -> list[Reply] | list[Message]:
        """Send one request and return the messages of the answer.

        The messages are Replies if the request is raw, and pyroute2 messages otherwise.
        The list is empty if the kernel only acknowledges the request. kind: RTM_…. flags: NLM_F_….
        If the answer is lost, the request is repeated.
        VirtError: the error that the kernel reported, with the kernel's message if there is one.
        """
        answer = self._ask(kind, message, flags, lost=False)
        return answer if isinstance(message, bytes) else [_decoded(reply) for reply in answer]

    def _ask(self, kind: int, message: bytes | Message, flags: int, *, lost: bool) -> list[Reply]:
        """Implement ask(). lost: whether the same request was sent before, but the answer was lost."""
        for _ in range(ATTEMPTS):
            try:
                self._send(self._encoded(kind, message, flags))
                return list(self._answer())
            except VirtError as refusal:
                if lost and refusal.errno in _done_before(kind, flags):
                    return []
                raise
            except OSError as failure:
                # The kernel has handled the request, but had no memory for the answer (af_netlink.c netlink_ack).
                # Resend it: the new answer shows whether the first request succeeded.
                if failure.errno != errno.ENOBUFS:
                    raise
                lost = True
        raise VirtError(errno.ENOBUFS, "the kernel has no memory for its answer")

    def ask_both(self, first: Request, second: Request) -> None:
        """Send two requests in one system call, so that SIGKILL cannot end this process between them.

        The kernel handles the second request even if it refuses the first (af_netlink.c netlink_rcv_skb). VirtError:
        the error of the first request, or of the second if only that was refused.
        """
        failures = [failure for failure in self.ask_all([first, second]) if failure is not None]
        if failures:
            raise failures[0]

    def ask_all(self, requests: Sequence[Request]) -> list[VirtError | None]:
        """Send several requests in one system call. Return the error of each, or None if it succeeded.

        The kernel handles each request even if it refuses others (af_netlink.c netlink_rcv_skb). All requests together
        must fit into the socket's send buffer. Requests that the kernel answers with messages cannot be sent this way.
        """
        first = self._sequence + 1
        self._send(b"".join(_padded(self._encoded(*request)) for request in requests))
        failures: list[VirtError | None] = []
        try:
            for self._sequence in range(first, first + len(requests)):
                try:
                    list(self._answer())
                    failures.append(None)
                except VirtError as failure:
                    failures.append(failure)
        except OSError as failure:
            # An answer was lost, as in _ask(). Others may be lost too, so do not wait for them.
            if failure.errno != errno.ENOBUFS:
                raise
            self._sequence, failures = first + len(requests) - 1, []
            for request in requests:
                try:
                    self._ask(*request, lost=True)
                    failures.append(None)
                except VirtError as refusal:
                    failures.append(refusal)
        return failures

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendto(data, (0, 0))
        except OSError as failure:
            raise VirtError(failure.errno or errno.EIO, str(failure.strerror)) from failure

    def _encoded(self, kind: int, message: bytes | Message, flags: int) -> bytes:
        if isinstance(message, bytes):
            body = message
        else:
            message["header"].update(type=kind, flags=flags, sequence_number=0)
            message.encode()
            body = bytes(message.data[_HEADER.size :])
        self._sequence += 1
        length = _HEADER.size + len(body)
        return _HEADER.pack(length, kind, NLM_F_REQUEST | NLM_F_ACK | flags, self._sequence, 0) + body

    @overload
    def dump(self, kind: int, message: bytes) -> list[Reply]: ...

    @overload
    def dump(self, kind: int, message: Message) -> list[Message]: ...

    def dump(self, kind: int, message: bytes | Message) -> list[Reply] | list[Message]:
        """Return all objects of a kind that match the message's header (NLM_F_DUMP), in the form that ask() returns.

        A change during a dump can hide objects. The kernel reports this (NLM_F_DUMP_INTR), and the dump is repeated, up
        to ATTEMPTS times in all. The last answer is returned even if objects may be missing.
        """
        for _ in range(ATTEMPTS):
            answer: list[Any] = self.ask(kind, message, NLM_F_DUMP)
            flags = [one.flags if isinstance(one, Reply) else one["header"]["flags"] for one in answer]
            if not any(flag & _NLM_F_DUMP_INTR for flag in flags):
                break
        return answer

    def _answer(self) -> Iterator[Reply]:
        """Yield the messages of the answer. This never blocks, because the kernel answers during sendto(2)."""
        while True:
            data, (sender, _groups) = self._socket.recvfrom(ROOM)
            if sender != 0:
                continue  # sent by another process, not the kernel
            try:
                messages = list(replies(data))
            except ValueError as failure:
                raise VirtError(errno.EIO, f"cannot decode the kernel's answer: {failure}") from failure
            for reply in messages:
                if reply.sequence != self._sequence:
                    continue  # the answer to an earlier request that was interrupted
                if reply.kind == _NLMSG_ERROR:
                    _check(reply)
                    return
                if reply.kind == _NLMSG_DONE:
                    return
                yield reply


def _padded(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // 4) * 4, b"\0")


def _decoded(reply: Reply) -> Message:
    """Return a message as pyroute2 decodes it. VirtError EIO: pyroute2 cannot decode it."""
    head = _HEADER.pack(_HEADER.size + len(reply.body), reply.kind, reply.flags, reply.sequence, 0)
    (message,) = netlink_parts.marshal().parse(head + reply.body)
    if (failure := message["header"]["error"]) is not None:
        raise VirtError(errno.EIO, f"cannot decode the kernel's answer: {failure!r}")
    return message


def _done_before(kind: int, flags: int) -> frozenset[int]:
    """Return the errnos that show, for a repeated request, that the first attempt was carried out."""
    if flags & NLM_F_EXCL:
        return frozenset((errno.EEXIST,))
    deletes = kind % 4 == 1  # each object has four consecutive types: RTM_NEW…, RTM_DEL…, RTM_GET…, RTM_SET…
    return frozenset((errno.ENODEV, errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT) if deletes else ())


def _check(reply: Reply) -> None:
    """Raise the error in an NLMSG_ERROR message as a VirtError. An errno of 0 is an acknowledgement, not an error."""
    number = -_ERROR.unpack_from(reply.body)[0]
    if not number:
        return
    # After the errno come the whole request or only its header, and then attributes (af_netlink.c netlink_ack).
    quoted = _HEADER.size if reply.flags & _NLM_F_CAPPED else _HEADER.unpack_from(reply.body, _ERROR.size)[0]
    attributes = parse(reply.body, _ERROR.size + -(-quoted // 4) * 4)
    said = text(attributes.get(_NLMSGERR_ATTR_MSG, b""))
    raise VirtError(number, said or os.strerror(number))
