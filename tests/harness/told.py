"""Reads interfaces with ip(8) and bridge(8). options: options of ip(8), such as `-n NAME`."""

import json
from typing import Any

from harness.places import Place


def link(place: Place, name: str, options: str = "") -> dict[str, Any]:
    """Return what `ip -details -json link show` reports: ifindex, flags, mtu, master, address …"""
    row: dict[str, Any] = json.loads(place.ip(f"{options} -details -json link show dev {name}"))[0]
    return row


def flags(place: Place, name: str, options: str = "") -> set[str]:
    """Return an interface's flags: UP, LOWER_UP, NO-CARRIER …"""
    return set(link(place, name, options)["flags"])


def data(place: Place, name: str) -> dict[str, Any]:
    """Return the attributes of a bridge."""
    found: dict[str, Any] = link(place, name)["linkinfo"]["info_data"]
    return found


def port(place: Place, name: str) -> dict[str, Any]:
    """Return the attributes of a bridge's port."""
    found: dict[str, Any] = link(place, name)["linkinfo"]["info_slave_data"]
    return found


def table(place: Place, name: str, member: str) -> dict[str, dict[str, Any]]:
    """Return the forwarding entries of a bridge's port, by MAC address (`bridge fdb`)."""
    rows = json.loads(place.sh(f"bridge -json fdb show br {name}"))
    return {row["mac"]: row for row in rows if row["ifname"] == member and row.get("master") == name}


def addresses(place: Place, name: str, options: str = "") -> set[str]:
    """Return the addresses of an interface, such as "10.0.0.1/24"."""
    rows = json.loads(place.ip(f"{options} -json address show dev {name}"))[0]["addr_info"]
    return {f"{row['local']}/{row['prefixlen']}" for row in rows}


def routes(place: Place, name: str) -> set[str]:
    """Return the routes through an interface, of both families, except those that the kernel made.

    IPv4 routes with several next hops are left out. IPv6 routes with several are included, one row for each hop.
    """
    rows = [row for row in json.loads(place.ip("-json route")) if "dev" in row]
    for row in json.loads(place.ip("-json -6 route")):
        rows += [{**row, **hop} for hop in row.get("nexthops", [{}])]
    mine = (row for row in rows if row.get("dev") == name and row.get("protocol") != "kernel")
    return {f"{row['dst']} {row.get('gateway', '')}" for row in mine}


def cable(one: Place, name: str, other: Place, address: str) -> None:
    """Connect a new interface of one machine to a new eth0 of another. eth0 gets the address. Both are set up."""
    one.ips(f"link add {name} type veth peer name far-{name} netns {other.pid}\nlink set {name} up")
    other.ips(f"link set far-{name} name eth0\naddress add {address} dev eth0\nlink set eth0 up")
