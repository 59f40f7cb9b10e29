"""What ip(8) says of an interface."""

import json
from typing import Any

from mount.places import Place


def link(place: Place, name: str, options: str = "") -> dict[str, Any]:
    """`ip -json link`: ifindex, flags, mtu, master, address …"""
    row: dict[str, Any] = json.loads(place.ip(f"{options} -details -json link show dev {name}"))[0]
    return row


def flags(place: Place, name: str, options: str = "") -> set[str]:
    """UP, LOWER_UP, NO-CARRIER …"""
    return set(link(place, name, options)["flags"])


def addresses(place: Place, name: str, options: str = "") -> set[str]:
    """10.0.3.1/24 …"""
    rows = json.loads(place.ip(f"{options} -json address show dev {name}"))[0]["addr_info"]
    return {f"{row['local']}/{row['prefixlen']}" for row in rows}
