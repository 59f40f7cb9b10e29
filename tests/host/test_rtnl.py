"""rtnetlink requests: an answer is complete and consistent, or it is an error."""

import errno
import gc
import socket
import struct
from collections import deque
from collections.abc import Callable
from ipaddress import IPv4Interface

import pytest
from harness.nets import fresh, need_taps
from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL
from pyroute2.netlink.rtnl import RTM_DELLINK, RTM_GETADDR, RTM_GETLINK, RTM_NEWADDR, RTM_NEWLINK, RTM_SETLINK
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit
from virtfs.core.ip import IpInterface
from virtfs.host import bridgeinfo, bridgeports, rtnl
from virtfs.host.netlink_messages import address as an_address
from virtfs.host.netlink_messages import addresses as question
from virtfs.host.netlink_values import address_of
from virtfs.host.rtnl import ATTEMPTS, ROOM, Message, Request, Rtnl
from virtfs.host.tap import Tap

from .losing import LOST, losing

INTERRUPTED = 16  # NLM_F_DUMP_INTR, linux/netlink.h
ERROR, DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE

# A datagram of an answer, made from the sequence number of its request, or the error that its receipt reports.
Part = Callable[[int], bytes] | OSError


class Scripted:
    """A netlink socket with a script instead of a kernel.

    answers: for each request, the parts of its answer. log: what happened: "request", "answer" and "discarded".
    """

    def __init__(self, *answers: list[Part]) -> None:
        self._answers = deque(answers)
        self._queue: deque[bytes | OSError] = deque()
        self.requests: list[bytes] = []
        self.log: list[str] = []

    def sendto(self, data: bytes, _address: object) -> None:
        self.log.append("request")
        self.requests.append(data)
        sequence = struct.unpack_from("IHHI", data)[3]
        for part in self._answers.popleft():
            self._queue.append(part if isinstance(part, OSError) else part(sequence))

    def _next(self, what: str) -> bytes:
        if not self._queue:
            raise BlockingIOError
        self.log.append(what)
        part = self._queue.popleft()
        if isinstance(part, OSError):
            raise part
        return part

    def recvfrom(self, size: int, flags: int) -> tuple[bytes, tuple[int, int]]:
        assert flags == socket.MSG_DONTWAIT
        return self._next("answer")[:size], (0, 0)

    def recv(self, size: int, flags: int) -> bytes:
        assert flags == socket.MSG_DONTWAIT
        return self._next("discarded")[:size]

    def close(self) -> None: ...


def scripted(*answers: list[Part]) -> tuple[Rtnl, Scripted]:
    rtnl, script = Rtnl(), Scripted(*answers)
    rtnl._socket.close()
    rtnl._socket = script  # type: ignore[assignment]
    return rtnl, script


def part(*bodies: bytes, flags: int = 0, late: int = 0) -> Part:
    """Return a datagram with messages of these bodies. late: belongs to a request so many requests ago."""
    return lambda sequence: b"".join(_message(RTM_NEWADDR, body, flags, sequence - late) for body in bodies)


def end(kind: int = DONE, number: int = 0, flags: int = 0, more: bytes = b"", late: int = 0) -> Part:
    """Return the end of an answer. number: the errno. more: what follows the errno."""
    return lambda sequence: _message(kind, struct.pack("i", -number) + more, flags, sequence - late)


def _message(kind: int, body: bytes, flags: int, sequence: int) -> bytes:
    return struct.pack("IHHII", 16 + len(body), kind, flags, sequence, 0) + body


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtnl, "PAUSE", 0)


WHOLE: list[Part] = [part(b"one_"), part(b"two_"), end()]


@pytest.mark.parametrize(
    "first",
    [
        [LOST],
        [part(b"one_"), LOST, part(b"two_"), end()],
        [part(b"one_"), part(b"two_"), LOST, end()],
        [part(b"one_")],
        [part(b"one_", flags=INTERRUPTED), part(b"two_"), end()],
        [part(b"one_"), end(flags=INTERRUPTED)],
        [end(ERROR, errno.EBUSY, more=bytes(16))],
        [lambda sequence: b"\xff" * 20],
        [lambda sequence: bytes(ROOM + 1)],
    ],
    ids=["lost", "middle lost", "end lost", "no end", "interrupted", "end", "busy", "garbage", "too long"],
)
@pytest.mark.parametrize("times", [1, 3])
def test_an_incomplete_answer_is_asked_for_again(first: list[Part], times: int) -> None:
    asker, script = scripted(*[first] * times, WHOLE)
    assert [reply.body for reply in asker.dump(RTM_GETADDR, b"what")] == [b"one_", b"two_"]
    assert len(script.requests) == times + 1
    assert {request[:8] + request[12:] for request in script.requests} == {
        script.requests[0][:8] + script.requests[0][12:]
    }


@pytest.mark.parametrize(
    ("first", "number"),
    [
        ([LOST], errno.ENOBUFS),
        ([], errno.ENOBUFS),
        ([end(flags=INTERRUPTED)], errno.EAGAIN),
        ([part(b"")], errno.ENOBUFS),
    ],
)
def test_an_answer_that_stays_incomplete_is_an_error(first: list[Part], number: int) -> None:
    asker, script = scripted(*[first] * ATTEMPTS)
    with pytest.raises(VirtError) as caught:
        asker.dump(RTM_GETADDR, b"what")
    assert caught.value.errno == number
    assert len(script.requests) == ATTEMPTS


def test_the_end_of_a_dump_can_be_an_error() -> None:
    """The kernel refuses a dump in NLMSG_DONE, after any number of messages."""
    said = b"\x0c\x00\x01\x00no way\0\0"
    asker, script = scripted([part(b"one_"), end(DONE, errno.EINVAL, more=said)])
    with pytest.raises(VirtError, match="no way") as caught:
        asker.dump(RTM_GETADDR, b"what")
    assert (caught.value.errno, len(script.requests)) == (errno.EINVAL, 1)


def test_busy_is_an_error_of_a_change() -> None:
    asker, script = scripted([end(ERROR, errno.EBUSY, more=bytes(16))])
    with pytest.raises(VirtError) as caught:
        asker.ask(RTM_SETLINK, b"what")
    assert (caught.value.errno, len(script.requests)) == (errno.EBUSY, 1)


def test_late_replies_are_no_part_of_an_answer() -> None:
    asker, _ = scripted(WHOLE, [part(b"old_", flags=INTERRUPTED, late=1), end(DONE, errno.EIO, late=1), *WHOLE])
    for _ in range(2):
        assert [reply.body for reply in asker.dump(RTM_GETADDR, b"what")] == [b"one_", b"two_"]


def test_the_rest_of_a_lost_answer_is_discarded_first() -> None:
    """Otherwise the kernel drops answers, or refuses the next dump because the old one still runs."""
    asker, script = scripted([part(b"one_"), LOST, part(b"two_"), LOST, end()], WHOLE)
    asker.dump(RTM_GETADDR, b"what")
    assert script.log == ["request", *["answer"] * 2, *["discarded"] * 3, "request", *["answer"] * 3]


def test_lost_answers_to_two_requests() -> None:
    """The first may not be read from the answer to the second."""
    ok, no = end(ERROR), end(ERROR, errno.EPERM, more=bytes(16))
    asker, _ = scripted([LOST, ok], [no], [ok])
    failures = asker.ask_all([(RTM_SETLINK, b"a", 0), (RTM_SETLINK, b"b", 0)])
    assert [failure and failure.errno for failure in failures] == [errno.EPERM, None]


@pytest.mark.parametrize("bodies", [(), (b"one_", b"two_")])
def test_a_query_for_one_object_has_one_answer(bodies: tuple[bytes, ...]) -> None:
    asker, _ = scripted([part(*bodies), end(ERROR)])
    with pytest.raises(VirtError) as caught:
        asker.ask_one(RTM_GETLINK, b"what")
    assert caught.value.errno == errno.EIO


def addresses(rtnl: Rtnl) -> list[IpInterface]:
    return [address_of(reply.body) for reply in rtnl.dump(RTM_GETADDR, question(0))]


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("lost", [(1,), (2,), (3,), (1, 2), (2, 4)])
def test_a_part_of_a_long_list_is_lost(network: None, lost: tuple[int, ...], read: bool) -> None:
    """The kernel refuses a dump while the rest of an earlier one has not been read."""
    wanted: list[IpInterface] = [IPv4Interface(f"10.0.{number}.1/24") for number in range(200)]
    with Rtnl() as asker:
        requests: list[Request] = [(RTM_NEWADDR, an_address(one, 1), NLM_F_CREATE | NLM_F_EXCL) for one in wanted]
        assert asker.ask_all(requests) == [None] * len(wanted)
    with losing(*lost, read=read) as asker:
        assert addresses(asker) == wanted
        assert addresses(asker) == wanted


@pytest.mark.parametrize("lost", [1, 2])
def test_a_part_of_the_members_of_a_bridge_is_lost(network: None, lost: int) -> None:
    with Tap.open(Unit(1)) as tap, Rtnl() as asker:
        asker.ask(*creation())
        bridge = socket.if_nametoindex("both")
        asker.ask(RTM_SETLINK, link(socket.if_nametoindex(tap.name()), ("IFLA_MASTER", bridge)))
        with losing(lost) as loser:
            members = bridgeports.ports_of(loser, bridge)
        assert [member.name for member in members] == ["tap1"]


def test_answers_that_exceed_the_receive_buffer(network: None) -> None:
    """The kernel itself reports a loss, and drops further answers until the queue has been empty."""
    with Rtnl() as asker:
        asker._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        requests: list[Request] = [setting_alias(str(n), 1 + n % 2) for n in range(100)]
        failures = asker.ask_all(requests)
        assert [failure and failure.errno for failure in failures] == [None, errno.ENODEV] * 50
    with Rtnl() as asker:
        assert alias(asker, "lo") == "98"


def alias(rtnl: Rtnl, name: str) -> str:
    question = ifinfmsg()
    question["attrs"] = [("IFLA_IFNAME", name)]
    (link,) = rtnl.ask(RTM_GETLINK, question)
    return str(link.get_attr("IFLA_IFALIAS"))


def setting_alias(alias: str, index: int) -> Request:
    return RTM_SETLINK, link(index, ("IFLA_IFALIAS", alias)), 0


def creation() -> Request:
    made = ifinfmsg()
    made["attrs"] = [("IFLA_IFNAME", "both"), ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]})]
    return RTM_NEWLINK, made, NLM_F_CREATE | NLM_F_EXCL


def link(index: int, *attributes: tuple[str, object]) -> Message:
    message = ifinfmsg()
    message["index"] = index
    message["attrs"] = list(attributes)
    return message


@pytest.mark.parametrize("losses", [1, 2])
def test_a_request_whose_answer_is_lost_is_sent_again(losses: int) -> None:
    need_taps()
    new = link(0, ("IFLA_IFNAME", "one"), ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]}))
    with fresh():
        with losing(*range(1, losses + 1), read=True) as rtnl, pytest.raises(VirtError) as caught:
            rtnl.ask(RTM_NEWLINK, new, NLM_F_CREATE | NLM_F_EXCL)
        assert caught.value.errno == errno.EEXIST, "the interface may belong to another program"
        index = socket.if_nametoindex("one")
        address = an_address(IPv4Interface("10.0.0.1/24"), index)
        with losing(*range(1, losses + 1), read=True) as rtnl:
            rtnl.ask(RTM_NEWADDR, address, NLM_F_CREATE | NLM_F_EXCL)
        with Rtnl() as rtnl, pytest.raises(VirtError) as caught:
            rtnl.ask(RTM_NEWADDR, address, NLM_F_CREATE | NLM_F_EXCL)
        assert caught.value.errno == errno.EEXIST, "if no answer was lost, this is an error"
        with losing(*range(1, losses + 1), read=True) as rtnl:
            rtnl.ask(RTM_SETLINK, link(index, ("IFLA_MTU", 1400)))
        with losing(*range(1, losses + 1), read=True) as rtnl, pytest.raises(VirtError) as caught:
            rtnl.ask(RTM_SETLINK, link(index, ("IFLA_ADDRESS", "ff:ff:ff:ff:ff:ff")))
        assert caught.value.errno == errno.EADDRNOTAVAIL
        with losing(*range(1, losses + 1), read=True) as rtnl:
            rtnl.ask(RTM_DELLINK, link(index))
        assert [name for _, name in socket.if_nameindex()] == ["lo"]


@pytest.mark.parametrize("losses", [1, 2])
def test_several_requests_whose_answer_is_lost_are_sent_again(network: None, losses: int) -> None:
    """A loss of one answer says nothing about the others, so all requests are repeated."""
    with losing(*range(1, losses + 1), read=True) as rtnl:
        done, refused = rtnl.ask_all([setting_alias("one", 1), setting_alias("two", 2)])
    assert done is None
    assert refused is not None
    assert refused.errno == errno.ENODEV
    with Rtnl() as rtnl:
        assert alias(rtnl, "lo") == "one"


def test_closing_the_socket_leaves_no_garbage(network: None) -> None:
    """Messages that only a full collection frees would add up to gigabytes in an hour of reading status.json."""

    def look() -> None:
        with Rtnl() as rtnl:
            link = bridgeinfo.ask_link(rtnl, "lo")
            assert link is not None
            assert link.get_attr("IFLA_MTU")
            assert link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") is None
            assert link.get_nested("IFLA_AF_SPEC", "AF_INET") is not None
            assert bridgeports.ports_of(rtnl, 12345) == []

    look()  # pyroute2 makes its classes at the first use
    gc.collect()
    gc.disable()
    try:
        look()
        assert gc.collect() == 0
    finally:
        gc.enable()
