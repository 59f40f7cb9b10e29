"""Ethernet addresses as text and bytes, and bounds on the frame length."""

import re
from errno import EINVAL

from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit
from virtfs.core.quoting import quoted

ADDRESS_LEN = 6
HEADER_LEN = 14  # ETH_HLEN: destination, source, type
VLAN_LEN = 4  # VLAN_HLEN: the MTU does not count the tag
BROADCAST = b"\xff" * ADDRESS_LEN

MTU_DEFAULT = 1500
MTU_MIN = 68  # drivers/net/tun.c MIN_MTU; the minimum of RFC 791
MTU_MAX = 65521  # drivers/net/tun.c: MAX_MTU - hard_header_len; `ip -d link` shows both

_MAC = re.compile(r"[0-9A-Fa-f]{1,2}(?:(:[0-9A-Fa-f]{1,2}){5}|(-[0-9A-Fa-f]{1,2}){5})")


def parse_mac(text: str) -> bytes:
    """Return the six bytes of "aa:bb:cc:dd:ee:ff"; "-" is a separator too, and groups may have one digit.

    Accepts any address, including broadcast, multicast and all-zero. EINVAL for other text.
    """
    if not _MAC.fullmatch(text):
        raise VirtError(EINVAL, f"{quoted(text)} is not a MAC address such as b2:0a:00:0b:0e:03")
    return bytes(int(group, 16) for group in re.split("[:-]", text))


def parse_station_mac(text: str) -> bytes:
    """Return an address that an interface can have: EINVAL for multicast and all-zero too (is_valid_ether_addr)."""
    mac = parse_mac(text)
    if is_multicast(mac):
        raise VirtError(EINVAL, f"{quoted(text)} is a multicast address: no interface can have it")
    if not any(mac):
        raise VirtError(EINVAL, f"{quoted(text)} is the all-zero address: no interface can have it")
    return mac


def format_mac(mac: bytes) -> str:
    """Return six bytes as "aa:bb:cc:dd:ee:ff"."""
    return mac.hex(":")


def is_multicast(mac: bytes) -> bool:
    """Return whether the group bit is set, as in multicast and broadcast addresses."""
    return bool(mac[0] & 1)


def new_mac(unit: Unit, random_byte: int) -> bytes:
    """Return the address of a new virt, b2:0a:RR:0b:0e:NN as in NetBSD's virt(4): RR is random, NN is unit & 255."""
    return bytes((0xB2, 0x0A, random_byte, 0x0B, 0x0E, unit & 0xFF))


def frame_bounds(mtu: int) -> tuple[int, int]:
    """Return the lengths in bytes of the shortest and the longest frame that an interface of this MTU passes.

    The shortest is a bare header; the longest has a full payload and one VLAN tag.
    """
    return HEADER_LEN, mtu + HEADER_LEN + VLAN_LEN
