import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfs.core.errors import VirtError
from virtfs.core.ethernet import format_mac, frame_bounds, new_mac, parse_mac, parse_station_mac
from virtfs.core.ids import Unit


@pytest.mark.parametrize(
    "text",
    ["0a:0b:0c:01:02:03", "0A:0B:0C:01:02:03", "a:b:c:1:2:3", "0a-0b-0c-01-02-03", "a-b-c-1-2-3"],
)
def test_spellings_of_one_address(text: str) -> None:
    assert parse_mac(text) == bytes.fromhex("0a0b0c010203")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0a:0b:0c:01:02",
        "0a:0b:0c:01:02:03:04",
        "0a:0b:0c:01:02:",
        "0a:0b:0c:01:02:003",
        "0a:0b:0c-01-02-03",
        "0a0b0c010203",
        "0a:0b:0c:01:02:0g",
        "0a:0b:0c:01:02:0３",
        " 0a:0b:0c:01:02:03",
        "0a:0b:0c:01:02:03\n",
    ],
)
def test_not_an_address(text: str) -> None:
    with pytest.raises(VirtError, match="is not a MAC address") as caught:
        parse_mac(text)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("01:00:5e:00:00:01", "multicast"),
        ("ff:ff:ff:ff:ff:ff", "multicast"),
        ("0:0:0:0:0:0", "all-zero"),
    ],
)
def test_no_interface_can_have_it(text: str, why: str) -> None:
    parse_mac(text)
    with pytest.raises(VirtError, match=f'"{text}" is (a|the) {why} address') as caught:
        parse_station_mac(text)
    assert caught.value.errno == errno.EINVAL


@given(st.binary(min_size=6, max_size=6))
def test_address_survives(mac: bytes) -> None:
    assert parse_mac(format_mac(mac)) == mac


@given(st.integers(0, 2147483639), st.integers(0, 255))
def test_new_address_is_one_an_interface_can_have(unit: int, random_byte: int) -> None:
    mac = new_mac(Unit(unit), random_byte)
    assert parse_station_mac(format_mac(mac)) == mac


def test_new_address_is_netbsds() -> None:
    assert format_mac(new_mac(Unit(0x1234), 0x5A)) == "b2:0a:5a:0b:0e:34"


def test_frame_bounds() -> None:
    assert frame_bounds(1500) == (14, 1518)
