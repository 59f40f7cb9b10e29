"""rtnetlink requests and their answers, over a plain socket.

A request is either raw bytes (host.netlink_messages) or a pyroute2 message. Only bridges use pyroute2 messages. The
requests that every interface needs are raw, because pyroute2 takes 0.1 s to import and 0.2 ms to decode a link.

pyroute2's own IPRoute is not used. An IPRoute keeps an asyncio loop and a socket for the thread that created it. Each
call from another thread creates a new loop and a new socket. A plain socket takes half the time and works in any
thread.

A caller gets a complete and consistent answer, or an error. The kernel reports when it cannot give such an answer:

- It had no memory for an answer, or for a part of it (ENOBUFS). The request has been carried out all the same.
- Something changed during a dump (NLM_F_DUMP_INTR on a message or on NLMSG_DONE), so objects may be missing.
- A dump failed: NLMSG_DONE contains a negative errno, after any number of messages (af_netlink.c netlink_dump_done).
- An earlier dump on this socket is still running (EBUSY).

A failed dump is an error. In the other cases, whatever is left of earlier answers is discarded, and the request is
sent again. There are at most ATTEMPTS attempts.
"""

import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Self, overload

from virtfs.core.bytestext import to_bytes, to_text
from virtfs.core.errors import VirtError
from virtfs.host import netlink_parts
from virtfs.host.netlink_attributes import parse, text
from virtfs.host.netlink_messages import RTM_NEWLINK

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
_NO_MEMORY = "the kernel has no memory for its answer"
# Maximum number of attempts at a request whose answers are lost or incomplete. After the first QUICK attempts, a pause
# of 1, 2, 4, … ms precedes each attempt, so that a program that is changing many interfaces has time to finish.
ATTEMPTS, QUICK, PAUSE = 10, 4, 0.001

# Size of the receive buffer in bytes. A dump's messages are at most 32 KiB (netlink(7), af_netlink.c netlink_dump).
ROOM = 1 << 16

_SIOCGIFINDEX = 0x8933  # linux/sockios.h
_IFREQ = struct.Struct("16si20x")  # struct ifreq, linux/if.h: name and index
_NAME_MAX = 15  # IFNAMSIZ - 1

Message = Any  # a pyroute2 message: a dict with get_attr(name); pyroute2 has no type annotations
Request = tuple[int, bytes | Message, int]  # the arguments of Rtnl.ask
_Raw = tuple[int, bytes, int]  # the same, with an encoded message


class Reply(NamedTuple):
    """One message from the kernel. body: the bytes that follow struct nlmsghdr."""

    kind: int
    flags: int
    sequence: int
    body: bytes


class _Incomplete(VirtError):
    """The answer to a request is not complete, or not consistent. The request must be sent again."""


class _Lost(_Incomplete):
    """The kernel has handled the request, but its answer was lost. So the request may have taken effect."""


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
        self._unanswered = 0  # number of requests whose answers have not been read to the end
        self._messages: list[Message] = []  # pyroute2 messages, whose reference cycles close() breaks
        try:
            for option in (_NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
                self._socket.setsockopt(SOL_NETLINK, option, 1)
            self._socket.bind((0, 0))
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the socket, and break the reference cycles of pyroute2 messages. A second call does nothing."""
        self._socket.close()
        _break_cycles(self._messages)
        self._messages = []

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
        If the answer is lost or incomplete, the request is sent again.
        VirtError: the error that the kernel reported, with the kernel's message if there is one; EAGAIN, interfaces
        changed during every attempt at a dump; ENOBUFS, the answer was lost at every attempt.
        """
        answer = self._ask(_raw(kind, message, flags))
        if isinstance(message, bytes):
            return answer
        decoded = [_decoded(reply) for reply in answer]
        self._messages += (message, *decoded)
        return decoded

    @overload
    def ask_one(self, kind: int, message: bytes) -> Reply: ...

    @overload
    def ask_one(self, kind: int, message: Message) -> Message: ...

    def ask_one(self, kind: int, message: bytes | Message) -> Reply | Message:
        """Send a query for one object, and return the message that describes it.

        VirtError: as for ask(); EIO, the kernel described no object or several.
        """
        answer: list[Any] = self.ask(kind, message)
        if len(answer) != 1:
            raise VirtError(errno.EIO, f"the kernel described {len(answer)} objects instead of one")
        return answer[0]

    def _ask(self, request: _Raw, *, lost: bool = False) -> list[Reply]:
        """Implement ask(). lost: whether the same request was sent before and its answer was lost."""
        reason = VirtError(errno.ENOBUFS, _NO_MEMORY)
        for attempt in range(ATTEMPTS):
            if attempt >= QUICK:
                time.sleep(PAUSE * 2 ** (attempt - QUICK))
            try:
                (sequence,) = self._send([request])
                return self._answer(sequence)
            except _Incomplete as failure:
                # After a lost answer, the next answer shows whether the first request was carried out.
                lost, reason = lost or isinstance(failure, _Lost), failure
            except VirtError as refusal:
                kind, _body, flags = request
                if lost and refusal.errno in _done_before(kind, flags):
                    return []
                if not (refusal.errno == errno.EBUSY and flags & NLM_F_DUMP == NLM_F_DUMP):
                    raise
                self._unanswered, reason = 1, refusal  # an earlier dump still runs (af_netlink.c __netlink_dump_start)
        raise VirtError(reason.errno, str(reason.strerror)) from reason

    def ask_all(self, requests: Sequence[Request]) -> list[VirtError | None]:
        """Send several requests in one system call. Return the error of each, None if it succeeded.

        So SIGKILL cannot end this process between two of them.
        The kernel handles each request even if it refuses others (af_netlink.c netlink_rcv_skb). All requests together
        must fit into the socket's send buffer. Requests that the kernel answers with messages cannot be sent this way.
        """
        raw = [_raw(*request) for request in requests]
        failures: list[VirtError | None] = []
        try:
            for sequence in self._send(raw):
                failures.append(_failure(partial(self._answer, sequence)))
        except _Incomplete:
            # An answer was lost. Others may be lost too, so do not wait for them.
            return [_failure(partial(self._ask, request, lost=True)) for request in raw]
        return failures

    def _send(self, requests: Sequence[_Raw]) -> range:
        """Send requests in one system call, and return their sequence numbers."""
        if self._unanswered:
            self._drain()
        sequences = range(self._sequence + 1, self._sequence + 1 + len(requests))
        data = b"".join(_packed(request, sequence) for request, sequence in zip(requests, sequences, strict=True))
        self._sequence += len(requests)
        try:
            self._socket.sendto(data, (0, 0))
        except OSError as failure:
            raise VirtError(failure.errno or errno.EIO, str(failure.strerror)) from failure
        self._unanswered = len(requests)
        return sequences

    def _drain(self) -> None:
        """Discard whatever is left of earlier answers.

        Once the kernel has had no memory for an answer, it silently drops later ones until the receive queue has been
        empty (af_netlink.c netlink_overrun, netlink_rcv_wake). A dump continues only while it is read
        (netlink_recvmsg), and the kernel refuses another dump until it ends.
        """
        while True:
            try:
                self._socket.recv(1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._unanswered = 0
                return
            except OSError as failure:
                if failure.errno != errno.ENOBUFS:
                    raise VirtError(failure.errno or errno.EIO, str(failure.strerror)) from failure

    @overload
    def dump(self, kind: int, message: bytes) -> list[Reply]: ...

    @overload
    def dump(self, kind: int, message: Message) -> list[Message]: ...

    def dump(self, kind: int, message: bytes | Message) -> list[Reply] | list[Message]:
        """Return all objects of a kind that match the message's header (NLM_F_DUMP), in the form that ask() returns.

        VirtError: as for ask(). The list is complete.
        """
        answer: list[Any] = self.ask(kind, message, NLM_F_DUMP)
        return answer

    def _answer(self, sequence: int) -> list[Reply]:
        """Return the messages of a complete answer. VirtError: the error that the kernel reported.

        This never blocks, because the kernel answers during sendto(2), and continues a dump during recvfrom(2).
        """
        answer: list[Reply] = []
        interrupted = False
        while True:
            for reply in self._receive():
                if reply.sequence != sequence:
                    continue  # belongs to the answer to an earlier request
                interrupted = interrupted or bool(reply.flags & _NLM_F_DUMP_INTR)
                if reply.kind not in (_NLMSG_ERROR, _NLMSG_DONE):
                    answer.append(reply)
                    continue
                self._unanswered -= 1
                _check(reply)
                if interrupted:
                    raise _Incomplete(errno.EAGAIN, "the network interfaces keep changing: try again")
                return answer

    def _receive(self) -> list[Reply]:
        """Return the messages of the next datagram from the kernel. _Lost: there is none, or it cannot be read."""
        while True:
            try:
                data, (sender, _groups) = self._socket.recvfrom(ROOM, socket.MSG_DONTWAIT)
            except BlockingIOError as failure:
                raise _Lost(errno.ENOBUFS, _NO_MEMORY) from failure
            except OSError as failure:
                said = _NO_MEMORY if failure.errno == errno.ENOBUFS else str(failure.strerror)
                raise _Lost(failure.errno or errno.EIO, said) from failure
            if sender != 0:
                continue  # sent by another process, not the kernel
            try:
                if len(data) == ROOM:
                    raise ValueError("a datagram is too long")
                return list(replies(data))
            except ValueError as failure:
                raise _Lost(errno.EIO, f"cannot decode the kernel's answer: {failure}") from failure


def _failure(call: Callable[[], object]) -> VirtError | None:
    """Call a function and return its VirtError, or None. An _Incomplete is raised, not returned."""
    try:
        call()
    except _Incomplete:
        raise
    except VirtError as failure:
        return failure
    return None


def _raw(kind: int, message: bytes | Message, flags: int) -> _Raw:
    """Return a request with its message encoded."""
    if isinstance(message, bytes):
        return kind, message, flags
    message.reset()  # encode() appends to what an earlier call encoded
    message["header"].update(type=kind, flags=flags, sequence_number=0)
    message.encode()
    body = bytes(message.data[_HEADER.size :])
    _break_cycles([message])  # encode() makes a new object for each attribute
    return kind, body, flags


def _packed(request: _Raw, sequence: int) -> bytes:
    kind, body, flags = request
    head = _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | NLM_F_ACK | flags, sequence, 0)
    return _padded(head + body)


def _padded(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // 4) * 4, b"\0")


def _decoded(reply: Reply) -> Message:
    """Return a message as pyroute2 decodes it. VirtError EIO: pyroute2 cannot decode it."""
    head = _HEADER.pack(_HEADER.size + len(reply.body), reply.kind, reply.flags, reply.sequence, 0)
    (message,) = netlink_parts.marshal().parse(head + reply.body)
    if (failure := message["header"]["error"]) is not None:
        raise VirtError(errno.EIO, f"cannot decode the kernel's answer: {failure!r}")
    return message


def _break_cycles(messages: list[Message]) -> None:
    """Break the reference cycles in pyroute2 messages, so that reference counting frees them.

    Each message and attribute has a list, `chain`, that contains the object itself, and some attributes refer to their
    parent. The 200 objects of a link would wait for a full garbage collection, because they survive those of young
    garbage while the answer is read.
    """
    remaining = list(messages)
    while remaining:
        message = remaining.pop()
        message.chain = ()
        if message.own_parent:
            message.parent = None
        remaining += [slot.cell[1] for slot in message.get("attrs", ()) if hasattr(slot, "cell")]


def _done_before(kind: int, flags: int) -> frozenset[int]:
    """Return the errnos with which a repeated request fails if the first, identical one was carried out.

    EEXIST is not among those of a new link, because a link of that name may belong to another program. host.bridge_make
    finds out whose it is.
    """
    match kind % 4:  # each object has four consecutive types: RTM_NEW…, RTM_DEL…, RTM_GET…, RTM_SET…
        case 0 if flags & NLM_F_EXCL and kind != RTM_NEWLINK:
            return frozenset((errno.EEXIST,))
        case 1:
            return frozenset((errno.ENODEV, errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT))
    return frozenset()


def _check(reply: Reply) -> None:
    """Raise the error in an NLMSG_ERROR or NLMSG_DONE message as a VirtError.

    An errno of 0 is an acknowledgement, or the end of a complete dump.
    """
    if len(reply.body) < _ERROR.size:
        raise _Lost(errno.EIO, "cannot decode the kernel's answer: a message is cut short")
    number = -_ERROR.unpack_from(reply.body)[0]
    if number <= 0:
        return
    # In an NLMSG_ERROR, the whole request or only its header follows. Then come attributes (af_netlink.c netlink_ack).
    at = _ERROR.size
    if reply.kind == _NLMSG_ERROR:
        quoted = _HEADER.size if reply.flags & _NLM_F_CAPPED else _HEADER.unpack_from(reply.body, at)[0]
        at += -(-quoted // 4) * 4
    said = text(parse(reply.body, at).get(_NLMSGERR_ATTR_MSG, b""))
    raise VirtError(number, said or os.strerror(number))
