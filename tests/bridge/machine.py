"""Set up a machine with eth0 as its uplink, for tests that put eth0 into a bridge."""

from harness import told
from harness.places import Place
from harness.waiting import until

OWN = {"10.1.1.2/24", "10.1.1.3/24", "172.16.0.2/16", "fd00::2/64"}
ROUTES = {"default 10.1.1.1", "10.50.0.0/16 10.1.1.9", "default fd00::1", "fd50::/64 fd00::9"}


_ADDRESSES = """\
address add 10.1.1.2/24 broadcast + dev eth0
address add 10.1.1.3/24 dev eth0 label eth0:1
address add 172.16.0.2/16 dev eth0 valid_lft 1000 preferred_lft 900 noprefixroute
address add fd00::2/64 dev eth0 nodad
route add default via 10.1.1.1 metric 100 proto dhcp src 10.1.1.3
route add 10.50.0.0/16 via 10.1.1.9
route add default via fd00::1 metric 77
route add fd50::/64 via fd00::9
route add 10.60.0.0/16 nexthop via 10.1.1.8 nexthop via 10.1.1.9 weight 2
"""


def machine(place: Place, peer: Place) -> None:
    """Create eth0 with addresses and routes, and make `peer` a neighbouring router."""
    told.cable(place, "eth0", peer, "10.1.1.1/24")
    peer.ips("address add fd00::1/64 dev eth0 nodad\naddress replace 10.77.0.1/32 dev lo")
    place.ips(_ADDRESSES)
    # The kernel adds the link-local address asynchronously, after the carrier appears (net/core/link_watch.c).
    until(lambda: any(a.startswith("fe80") for a in told.addresses(place, "eth0")), "a link-local address")


def clear(place: Place) -> None:
    """Remove eth0 and bridge0 if they exist."""
    place.delete_links("bridge0", "eth0")


def reached(peer: Place) -> None:
    """Assert that the neighbour reaches the machine by IPv4 and IPv6."""
    for address in ("10.1.1.2", "fd00::2"):
        _reached_at(peer, address)


def reached_by_ipv4(peer: Place) -> None:
    """Assert that a neighbour without IPv6 reaches the machine."""
    _reached_at(peer, "10.1.1.2")


def _reached_at(peer: Place, address: str) -> None:
    # The first one may be lost while a bridge learns where its ports lead.
    peer.sh(f"ping -c 1 -W 2 {address} || ping -c 5 -i 0.2 -W 2 {address}")


def reaches(place: Place) -> None:
    """Assert that the machine reaches a host through its default route."""
    place.sh("ping -c 1 -W 2 10.77.0.1")
