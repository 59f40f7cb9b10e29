"""A tap that virtfs created has no IPv6 address until one is set, and sends nothing by itself."""

import errno
import os

import pytest
from harness import told
from harness.process import fails
from harness.serving import Mount, Virts

LIVES = {
    "up": ["up"],
    "down and up": ["up", "down", "up"],
    "another MAC": ["up", "taplink 02:00:00:00:00:31", "down up"],
    "IPv6's least MTU": ["up", "mtu 1280", "mtu 1500"],
    "less than IPv6 can use": ["up", "mtu 1279", "mtu 1280", "mtu 576 mtu 9000"],
    "less while down": ["mtu 576", "up", "down", "mtu 1500", "up"],
    "IPv4": ["up inet 10.9.9.1/24", "-inet 10.9.9.1"],
    "IPv6 and none again": ["up inet6 fd00::1/64", "-inet6 fd00::1"],
    "carrier": ["up carrier open", "carrier always"],
    "persist": ["persist up", "-persist"],
}


@pytest.mark.parametrize("lines", LIVES.values(), ids=LIVES)
def test_no_address_of_its_own(virts: Virts, lines: list[str]) -> None:
    virt = virts("")
    for line in lines:
        virt.set(line)
    assert virt.read("tap/addresses") == ""
    assert told.addresses(virt.mount, virt.tap) == set()


def test_nothing_is_sent(virts: Virts) -> None:
    """The test waits long enough for the first multicast listener report that Linux would send."""
    virt = virts("upopen")
    file = virt.open(os.O_RDONLY | os.O_NONBLOCK)
    assert file.poll(1, 0.5) == 0
    with fails(errno.EAGAIN):
        file.read()


def test_what_was_there_keeps_its_own(mount: Mount) -> None:
    """virtfs does not change how a tap of the host gets its link-local address."""
    mount.ip("tuntap add tap3 mode tap")
    mount.ctl("create 3 up")
    assert told.link(mount, "tap3")["inet6_addr_gen_mode"] == "eui64"
    mount.ctl("destroy 3")
    mount.ip("link del tap3")
