"""persist: the tap outlives the mount, and the next mount finds it."""

import errno
import os
from collections.abc import Callable

import pytest
from harness import told
from harness.lasting import Lasting, LastingOnes
from harness.process import fails
from harness.serving import Mount, Virt, frame

WAYS: dict[str, Callable[[Lasting], object]] = {"SIGTERM": Lasting.end, "SIGKILL": Lasting.kill}


@pytest.mark.parametrize("way", WAYS)
def test_the_tap_outlives_the_mount(lasting: LastingOnes, way: str) -> None:
    mount = lasting()
    mount.ip("link add br5 type bridge")
    mount.ctl("create 3 up inet 10.0.3.1/24 inet6 fd00:3::1/64 mtu 1400 persist bridge br5\ncreate 4 up")
    before = told.link(mount, "tap3")
    WAYS[way](mount)
    after = told.link(mount, "tap3")
    for what in ("ifindex", "address", "mtu", "master", "txqlen"):
        assert after[what] == before[what], what
    assert {"10.0.3.1/24", "fd00:3::1/64"} <= told.addresses(mount, "tap3")
    assert {"UP", "NO-CARRIER"} <= set(after["flags"]), "no process holds it"
    assert not mount.has("tap4")
    mount.again()
    mount.ctl("create 3")
    assert told.link(mount, "tap3")["ifindex"] == before["ifindex"]
    assert "LOWER_UP" in told.flags(mount, "tap3")
    assert (mount.read("virt3/mtu"), mount.read("virt3/up"), mount.read("virt3/persist")) == ("1400", "1", "1")
    assert mount.read("virt3/tap/bridge") == "br5"
    assert mount.read("virt3/tap/addresses").split() == ["10.0.3.1/24", "fd00:3::1/64"]


def test_frames_flow_after_attaching_again(lasting: LastingOnes) -> None:
    mount = lasting()
    mount.ctl("create 3 up persist")
    mount.end()
    mount.again()
    virt = Virt(mount, 3)
    file = virt.open()
    virt.host_sends(frame())
    assert file.read() == frame()
    file.write(frame(61))
    assert virt.host_gets() == frame(61)


def test_without_it_the_tap_goes(lasting: LastingOnes) -> None:
    mount = lasting()
    mount.ctl("create 3 persist\nvirt3 -persist")
    assert mount.read("virt3/persist") == "0"
    mount.write("virt3/persist", "1\n")
    assert mount.read("virt3/persist") == "1"
    assert " persist" in mount.read("virt3/ctl")
    mount.write("virt3/persist", "0\n")
    mount.end()
    assert not mount.has("tap3")


def test_destroy_removes_what_virtfs_made(mount: Mount) -> None:
    mount.ctl("create 3 persist\ndestroy 3")
    assert not mount.has("tap3")


def test_of_another_mount_it_is_somebody_elses(lasting: LastingOnes) -> None:
    """Without a state file, the next mount does not know that virtfs made the tap, so `destroy` leaves it."""
    mount = lasting()
    mount.ctl("create 3 persist inet 10.0.3.1/24")
    mount.end()
    mount.again()
    mount.ctl("create 3 inet 10.0.4.1/24 up mtu 1300\ndestroy 3")
    assert mount.has("tap3")
    assert told.addresses(mount, "tap3") == {"10.0.3.1/24"}
    assert (told.link(mount, "tap3")["mtu"], "UP" in told.flags(mount, "tap3")) == (1500, False)
    mount.ctl("create 3")
    assert mount.read("virt3/up") == "0"


def test_with_a_state_file_it_is_known_to_be_virtfs_own(lasting: LastingOnes) -> None:
    mount = lasting("state=/mnt/state")
    mount.ctl("create 3 persist")
    mount.end()
    assert mount.has("tap3")
    mount.again("state=/mnt/state")
    assert mount.units() == ["virt3"]
    mount.ctl("destroy 3")
    assert not mount.has("tap3")


def test_one_that_was_there_stays_also_unless_it_is_to_persist(lasting: LastingOnes) -> None:
    mount = lasting()
    mount.ip("tuntap add tap3 mode tap")
    mount.ctl("create 3")
    assert mount.read("virt3/persist") == "1"
    mount.ctl("virt3 -persist\ndestroy 3")
    assert mount.has("tap3"), "left as it was found"
    mount.ctl("create 3")
    mount.end()
    assert mount.has("tap3")


def test_the_next_reader_gets_nothing_from_before(lasting: LastingOnes) -> None:
    mount = lasting()
    mount.ctl("create 3 up persist")
    mount.end()
    mount.again()
    virt = Virt(mount, 3)
    virt.host_sends(frame(62))
    file = virt.open(os.O_RDONLY | os.O_NONBLOCK)
    with fails(errno.EAGAIN):
        file.read()
    virt.host_sends(frame(63))
    assert file.read() == frame(63)
