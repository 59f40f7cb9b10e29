"""Ethernet: addresses as text and bytes, and how long a frame may be."""

import re
from errno import EINVAL

from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit
from virtfs.core.quoting import quoted

ADDRESS_LEN = 6
HEADER_LEN = 14  # ETH_HLEN: destination, source, type
VLAN_LEN = 4  # VLAN_HLEN: a tagged frame may be this much longer than the MTU says
BROADCAST = b"\xff" * ADDRESS_LEN

MTU_DEFAULT = 1500
MTU_MIN = 68  # drivers/net/tun.c: MIN_MTU; RFC 791's smallest
MTU_MAX = 65521  # drivers/net/tun.c: MAX_MTU - hard_header_len; `ip -d link` shows both

_MAC = re.compile(r"[0-9A-Fa-f]{1,2}(?:(:[0-9A-Fa-f]{1,2}){5}|(-[0-9A-Fa-f]{1,2}){5})")


def parse_mac(text: str) -> bytes:
    """The six bytes of "aa:bb:cc:dd:ee:ff"; "-" separates as well, and a group may have one digit.

    Any address: also broadcast, multicast and all zero. EINVAL for other text.
    """
    if not _MAC.fullmatch(text):
        raise VirtError(EINVAL, f"{quoted(text)} is not a MAC address such as b2:0a:00:0b:0e:03")
    return bytes(int(group, 16) for group in re.split("[:-]", text))


def parse_station_mac(text: str) -> bytes:
    """An address an interface can have: EINVAL also for multicast and all zero (is_valid_ether_addr)."""
    mac = parse_mac(text)
    if is_multicast(mac):
        raise VirtError(EINVAL, f"{quoted(text)} is a multicast address: no interface can have it")
    if not any(mac):
        raise VirtError(EINVAL, f"{quoted(text)} is the all-zero address: no interface can have it")
    return mac


def format_mac(mac: bytes) -> str:
    """Six bytes as "aa:bb:cc:dd:ee:ff"."""
    return mac.hex(":")


def is_multicast(mac: bytes) -> bool:
    """Whether the group bit is set: multicast and broadcast."""
    return bool(mac[0] & 1)


def new_mac(unit: Unit, random_byte: int) -> bytes:
    """The address of a new virt, b2:0a:RR:0b:0e:NN as NetBSD's virt(4): RR random, NN = unit & 255."""
    return bytes((0xB2, 0x0A, random_byte, 0x0B, 0x0E, unit & 0xFF))


def frame_bounds(mtu: int) -> tuple[int, int]:
    """The shortest and the longest frame, in bytes, that an interface of this MTU passes on.

    A bare header is enough; the longest has a full payload and one VLAN tag.
    """
    return HEADER_LEN, mtu + HEADER_LEN + VLAN_LEN
