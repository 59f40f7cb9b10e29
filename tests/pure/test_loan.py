"""Requests for the descriptor of a tap, the rights that they need, and the frames that a holder moves."""

import errno
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from virtfs.core.errors import VirtError
from virtfs.core.ids import Gid, Uid, Unit
from virtfs.core.loan import Meter, Request, Traffic, check_rights, granted, parse_request, refusal
from virtfs.core.virt import Counters, HostEnd, Virt

ROOT = Path(__file__).parents[2]
HOST = HostEnd("tap3", 7, True, 1400, bytes(6), True, 256)
VIRT = Virt(Unit(3), b"\xb2\x0a\0\x0b\x0e\3", HOST, owner=Uid(1), group=Gid(2))


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("{}", Request()),
        ('{"vnet_hdr":10}', Request()),
        (' {"vnet_hdr": 0} ', Request(header=False)),
        ('{"lend":true}', Request(lend=True)),
        ('{"lend":false,"vnet_hdr":0}', Request(header=False)),
    ],
)
def test_requests(text: str, request_: Request) -> None:
    assert parse_request(text.encode()) == request_


@pytest.mark.parametrize(
    "data",
    [b"x", b"", b"[]", b'{"vnet_hdr":12}', b'{"vnet_hdr":true}', b'{"lend":1}', b'{"lend":true,"vnet_hdr":0}',
     b'{"a":0}', b"{}" + b" " * 9999, b"\xff" * 99, b"[" * 4000, b'{"vnet_hdr":1e999}'],
)  # fmt: skip
def test_malformed_requests(data: bytes) -> None:
    with pytest.raises(VirtError) as caught:
        parse_request(data)
    assert caught.value.errno == errno.EINVAL
    assert json.loads(refusal(caught.value)) == {"errno": errno.EINVAL, "error": caught.value.strerror}


def test_an_answer_is_as_the_page_prints_it() -> None:
    """A program may search it for a key instead of parsing it."""
    (example,) = re.findall(r'^\{"name":.*?\}$', (ROOT / "man/virtfs.5").read_text(), re.MULTILINE | re.DOTALL)
    virt = replace(VIRT, address=bytes.fromhex("b20a2c0b0e03"), host=replace(HOST, mtu=1500))
    assert granted(virt, Request()).decode() == example.replace("\n ", "")
    assert refusal(VirtError(16, "busy: now")) == b'{"errno":16,"error":"busy: now"}'


def test_answers() -> None:
    same = {"name": "virt3", "tap": "tap3", "address": "b2:0a:00:0b:0e:03", "mtu": 1400}
    assert json.loads(granted(VIRT, Request())) == {**same, "vnet_hdr": 10}
    assert json.loads(granted(VIRT, Request(header=False))) == {**same, "vnet_hdr": 0}
    assert json.loads(granted(VIRT, Request(lend=True))) == {**same, "lend": True}


@pytest.mark.parametrize(
    ("mode", "uid", "groups", "may"),
    [
        (0o600, 0, [], True),
        (0o000, 0, [], True),
        (0o600, 1, [], True),
        (0o400, 1, [2], False),
        (0o066, 1, [2], False),
        (0o600, 5, [2], False),
        (0o660, 5, [1, 2], True),
        (0o640, 5, [2], False),
        (0o606, 5, [2], False),
        (0o606, 5, [], True),
    ],
)
def test_rights(mode: int, uid: int, groups: list[int], may: bool) -> None:
    """They are those of open(2) for reading and writing."""
    virt = replace(VIRT, mode=mode)
    refused = None
    try:
        check_rights(virt, Uid(uid), list(map(Gid, groups)))
    except VirtError as error:
        refused = error.errno
    assert refused == (None if may else errno.EACCES)
    if may and uid:
        with pytest.raises(VirtError, match="antispoof"):
            check_rights(replace(virt, antispoof=True), Uid(uid), list(map(Gid, groups)))


def test_frames_of_a_holder() -> None:
    """Frames that virtfs writes itself are counted once, and a tap that is made again starts at 0."""
    counters = Counters(rx_frames=5, tx_frames=5, tx_bytes=500)
    meter = Meter(counters, Traffic(100, 10000, 200, 20000))
    counters.tx_frames += 1  # virtfs has written a frame of 60 bytes
    counters.tx_bytes += 60
    meter.update(Traffic(103, 10300, 203, 20260))
    assert (counters.rx_frames, counters.rx_bytes, meter.taken) == (8, 300, 3)
    assert (counters.tx_frames, counters.tx_bytes) == (8, 760)
    meter.update(Traffic(1, 60, 0, 0))
    assert (counters.rx_frames, counters.rx_bytes, counters.tx_frames) == (9, 360, 8)
