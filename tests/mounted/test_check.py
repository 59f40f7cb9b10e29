"""check LINE: has the same result or error as the line, but changes nothing."""

import errno
import os
from collections.abc import Iterator

import pytest
from harness.process import fails
from harness.serving import Mount, Virt

from .test_ctl import REFUSED

ACCEPTED = [
    "create 4 up mtu 1400 inet 10.0.4.1/24 netns far owner nobody filter arp",
    "create up",
    "ensure 3 up mtu 1400 -inet 10.0.3.1",
    "destroy 3",
    "virt3 netns far",
    "virt3 inet 10.0.5.1/24 -inet 10.0.5.1",
    "cable 3 7 delay 20ms",
    "uncable 6 5",
    "create bridge1 up add virt3 static virt3 02:00:00:00:00:09",
    "bridge0 add virt3 maxaddr 7",
    "destroy bridge0",
    "virt5 bridge bridge0",
    "mark a text",
    "retry",
    "# a comment",
    "check create 4",
]
ALSO_REFUSED = [
    ("create 4 netns nowhere", errno.ENXIO, "nowhere"),
    ("virt3 netns far up", errno.EINVAL, "netns"),
    ("virt3 bridge br99", errno.ENXIO, "br99"),
    ("virt3 bridge lo", errno.ENXIO, "lo"),
    ("create 4 netns far bridge bridge0", errno.ENXIO, "bridge0"),
    ("virt3 filter tcp prot 80", errno.EINVAL, "tcp prot 80"),
    ("virt3 backlog 99999", errno.ERANGE, "99999"),
    ("virt3 mark", errno.EINVAL, "mark"),
    ("cable 3 4", errno.ENXIO, "virt4"),
    ("cable 5 6", errno.EEXIST, "virt5"),
    ("cable 3 5 delay 20", errno.EBUSY, "virt5"),
    ("uncable 3 5", errno.ENOENT, "cable"),
    ("create bridge0", errno.EEXIST, "bridge0"),
    ("create bridge1 add nosuch", errno.ENXIO, "nosuch"),
    ("bridge0 delete virt3", errno.ENOENT, "tap3"),
    ("bridge7 up", errno.ENXIO, "bridge7"),
    ("destroy bridge7", errno.ENXIO, "bridge7"),
    ("", errno.EINVAL, "check"),
]


@pytest.fixture
def laboratory(mount: Mount) -> Iterator[str]:
    """Create interfaces, a bridge and a cable. Return the text of ctl."""
    if "far" not in mount.sh("ip netns list"):
        mount.sh("ip netns add far")
    mount.ctl("create 3 inet 10.0.3.1/24 description keep me\ncreate 5\ncreate 6\ncreate 7\ncreate bridge0\ncable 5 6")
    yield mount.read("ctl")
    for bridge in mount.sh("ls bridge").split():
        mount.ctl(f"destroy {bridge}")


def test_a_line_that_would_succeed(mount: Mount, laboratory: str) -> None:
    for line in ACCEPTED:
        mount.ctl(f"check {line}")
    assert mount.read("ctl") == laboratory
    assert mount.read("last_error") == "ok"
    assert not mount.has("tap4")


def test_lines_that_would_fail(mount: Mount, laboratory: str) -> None:
    for line, number, quoted in (*(one for one in REFUSED if "cable" not in one[0]), *ALSO_REFUSED):
        with fails(number):
            mount.ctl(f"check {line}")
        assert quoted in mount.read("last_error"), line
        if line and "delay 20" not in line:
            with fails(number):
                mount.ctl(line)
    assert mount.read("ctl") == laboratory


def test_in_a_script_the_lines_before_take_effect(mount: Mount) -> None:
    with fails(errno.EEXIST):
        mount.ctl("create 3 up\ncheck virt3 mtu 1400\ncheck create 3\ncreate 4")
    assert "line 3" in mount.read("last_error")
    assert mount.read("virt3/mtu") == "1500"
    assert mount.units() == ["virt3"]


def test_the_owner_checks_verbs(virt: Virt) -> None:
    virt.set("owner 4001")
    ctl = virt.mount.process(4001).open(f"{virt.name}/ctl", os.O_WRONLY)
    ctl.write("check mtu 1400")
    with fails(errno.EPERM):
        ctl.write("check inet 10.9.9.1/24")
    with fails(errno.ERANGE):
        ctl.write("check mtu 7")
    assert virt.read("mtu") == "1500"


def test_a_bridges_own_ctl(mount: Mount) -> None:
    mount.ctl("create 3\ncreate bridge0")
    ctl = mount.process().open("bridge/bridge0/ctl", os.O_WRONLY)
    ctl.write("check add virt3 maxaddr 7")
    with fails(errno.ENOENT):
        ctl.write("check delete virt3")
    assert mount.read("bridge/bridge0/members") == ""
    mount.ctl("destroy bridge0")
