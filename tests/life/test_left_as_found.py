"""After `destroy`, a tap that existed before virtfs has its addresses back, with all their attributes."""

import re

import pytest
from harness.lasting import LastingOnes
from harness.serving import Mount

ADDRESSES = (
    "10.0.3.1/24",  # without a broadcast address
    "10.0.3.2/24 broadcast 10.0.3.99",
    "10.0.4.1/24 broadcast + label tap3:four",
    "10.0.5.1/24 broadcast + scope link metric 77 noprefixroute",
    "10.0.6.1 peer 10.0.6.2",
    "fd00:3::1/64 nodad",
    "fd00:4::1 peer fd00:4::2 nodad noprefixroute",
)


def held(mount: Mount, name: str = "tap3") -> list[str]:
    """Return what ip(8) prints for each address except the link-local one, which depends on the carrier.

    "nodad" is removed, because it says only how an address was added.
    """
    lines = mount.ip(f"-oneline address show dev {name}").replace(name, "tap3").splitlines()
    return sorted(re.sub(r" nodad| +", " ", line) for line in lines if " fe80::" not in line)


@pytest.mark.parametrize(
    "change",
    [
        "echo -inet 10.0.3.1 -inet 10.0.4.1 -inet6 fd00:3::1 >virt3/ctl",
        "ip address flush dev tap3",
        "echo inet 10.9.9.9/24 mtu 1000 >virt3/ctl",  # an MTU too small for IPv6
        "ip address delete 10.0.3.1/24 dev tap3; echo inet 10.0.3.1/24 >virt3/ctl",  # adds a broadcast address
        "ip address flush dev tap3; ip link set tap3 down; ip link set tap3 name lan; ip link set lan up",
    ],
)
def test_addresses_come_back_as_they_were(lasting: LastingOnes, change: str) -> None:
    mount = lasting()
    mount.ip("tuntap add tap3 mode tap")
    mount.ip("link set tap3 up")
    for address in ADDRESSES:
        mount.ip(f"address add {address} dev tap3")
    before = held(mount)
    mount.ctl("create 3 inet 10.8.8.8/24")
    mount.sh(change)
    mount.ctl("destroy 3")
    assert held(mount, "lan" if mount.has("lan") else "tap3") == before
