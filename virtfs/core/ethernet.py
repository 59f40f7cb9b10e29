"""Ethernet addresses as text and bytes, and bounds on the frame length."""

import re
from errno import EINVAL

from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit
from virtfs.core.quoting import quoted

ADDRESS_LEN = 6
HEADER_LEN = 14  # ETH_HLEN: destination, source, type
VLAN_LEN = 4  # VLAN_HLEN; the MTU does not include the tag
BROADCAST = b"\xff" * ADDRESS_LEN

MTU_DEFAULT = 1500
# The limits of drivers/net/tun.c. `ip -d link` shows them as minmtu and maxmtu.
MTU_MIN = 68  # MIN_MTU, the minimum of RFC 791
MTU_MAX = 65521  # MAX_MTU - hard_header_len

_MAC = re.compile(r"[0-9A-Fa-f]{1,2}(?:(:[0-9A-Fa-f]{1,2}){5}|(-[0-9A-Fa-f]{1,2}){5})")


def parse_mac(text: str) -> bytes:
    """Parse a MAC address such as "aa:bb:cc:dd:ee:ff" into six bytes.

    The separator is ":" or "-", and a group may have a single digit. Any address is accepted, including broadcast,
    multicast and all-zero.
    Errors: EINVAL if the text is not a MAC address.
    """
    if not _MAC.fullmatch(text):
        raise VirtError(EINVAL, f"{quoted(text)} is not a MAC address such as b2:0a:00:0b:0e:03")
    return bytes(int(group, 16) for group in re.split("[:-]", text))


def parse_station_mac(text: str) -> bytes:
    """Parse a MAC address that an interface can have.

    Errors: those of parse_mac(), and EINVAL for a multicast or all-zero address (include/linux/etherdevice.h
    is_valid_ether_addr).
    """
    mac = parse_mac(text)
    if is_multicast(mac):
        raise VirtError(EINVAL, f"{quoted(text)} is a multicast address: no interface can have it")
    if not any(mac):
        raise VirtError(EINVAL, f"{quoted(text)} is the all-zero address: no interface can have it")
    return mac


def format_mac(mac: bytes) -> str:
    """Format a MAC address of six bytes as "aa:bb:cc:dd:ee:ff"."""
    return mac.hex(":")


def is_multicast(mac: bytes) -> bool:
    """Return whether the group bit is set, as in multicast and broadcast addresses."""
    return bool(mac[0] & 1)


def new_mac(unit: Unit, random_byte: int) -> bytes:
    """Return the MAC address of a new virt: b2:0a:RR:0b:0e:NN, as in NetBSD's virt(4).

    RR is random_byte, NN is unit & 255.
    """
    return bytes((0xB2, 0x0A, random_byte, 0x0B, 0x0E, unit & 0xFF))


def frame_bounds(mtu: int) -> tuple[int, int]:
    """Return the minimum and the maximum length, in bytes, of a frame on an interface with this MTU.

    The shortest frame is a bare header. The longest has a header, one VLAN tag and `mtu` bytes of payload.
    """
    return HEADER_LEN, mtu + HEADER_LEN + VLAN_LEN
