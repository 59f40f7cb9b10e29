"""A tap or a bridge that another program deletes: ctl and the state file keep its lines as they were before."""

import errno
import os

import pytest
from harness import told
from harness.lasting import Lasting, LastingOnes
from harness.process import File, fails
from harness.waiting import until

from .test_state import OPTION, kept, same

LINE = "create 3 up mtu 1400 inet 10.0.3.1/24 inet 10.0.3.2/24 inet6 fd00:3::1/64 promisc owner 4001"


def lost(mount: Lasting, name: str = "virt3") -> None:
    """Wait until an interface is lost."""
    until(lambda: mount.read(f"{name}/wait/gone") == "1", f"{name} is lost")


def test_the_lines_of_a_deleted_tap_stay(lasting: LastingOnes) -> None:
    """The kernel reports that the tap is down and loses its bridge and addresses before it reports the deletion."""
    mount = lasting(OPTION)
    mount.ip("link add br9 type bridge")
    mount.ctl(f"{LINE} bridge br9\ncreate 4 up\ncable 3 4")
    before = same(mount)
    for _ in range(5):
        mount.ip("link del tap3")
        lost(mount)
        assert same(mount) == before
        assert (mount.read("virt3/up"), mount.read("virt3/tap/carrier")) == ("0", "0")
        mount.end()
        mount.again(OPTION)
        assert same(mount) == before
        assert told.link(mount, "tap3")["master"] == "br9"
        assert {"10.0.3.1/24", "10.0.3.2/24", "fd00:3::1/64"} <= told.addresses(mount, "tap3")
    mount.ip("link del br9")


def test_the_lines_of_an_ended_namespace_stay(lasting: LastingOnes) -> None:
    mount = lasting(OPTION)
    mount.ip("netns add net1")
    mount.ctl(f"{LINE} netns net1")
    before = same(mount)
    mount.ip("netns del net1")
    lost(mount)
    assert same(mount) == before
    mount.end()
    mount.ip("netns add net1")
    mount.again(OPTION)
    assert same(mount) == before
    assert mount.read("virt3/up") == "1"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("addr del 10.0.3.2/24 dev tap3", " inet 10.0.3.2/24"),
        ("link set tap3 down", " up"),
        ("link set tap3 nomaster", " bridge br9"),
    ],
)
def test_a_change_before_the_deletion_counts(lasting: LastingOnes, change: str, said: str) -> None:
    mount = lasting(OPTION)
    mount.ip("link add br9 type bridge")
    mount.ctl(f"{LINE} bridge br9")
    before = same(mount)
    mount.ip(change)
    changed = before.replace(said, "")
    until(lambda: kept(mount) == changed, f"the file follows: {change}")
    mount.ip("link del tap3")
    lost(mount)
    assert same(mount) == changed
    mount.ip("link del br9")


def test_verbs_that_need_no_tap_still_change_the_lines(lasting: LastingOnes) -> None:
    mount = lasting(OPTION)
    mount.ctl("create 3 up inet 10.0.3.1/24")
    mount.ip("link del tap3")
    lost(mount)
    mount.ctl("virt3 description far")
    assert same(mount).endswith(" inet 10.0.3.1/24 up description far")
    with fails(errno.ENXIO):
        mount.ctl("virt3 down")
    assert " up " in same(mount)


def test_the_lines_make_the_interface_again(lasting: LastingOnes) -> None:
    mount = lasting(OPTION)
    mount.ctl(f"{LINE} description far")
    before = same(mount)
    mount.ip("link del tap3")
    lost(mount)
    with fails(errno.EEXIST):
        mount.ctl("create 3")
    assert mount.read("last_error").endswith('"virt3" already exists, but has lost its tap: "ensure 3" makes it again')
    mount.ctl("check ensure 3 strict")
    mount.ctl("ensure 3 strict")
    assert same(mount) == before.replace(" promisc", " strict promisc")
    assert mount.read("virt3/up") == "1"
    assert {"10.0.3.1/24", "10.0.3.2/24", "fd00:3::1/64"} <= told.addresses(mount, "tap3")


def test_an_interface_made_again_has_its_bridge_port_and_its_cable(lasting: LastingOnes) -> None:
    """If both ends of a cable are lost, one command makes both again."""
    mount = lasting(OPTION)
    mount.ctl("create bridge5 up\ncreate 3 up bridge bridge5\ncreate 4 up filter arp\ncreate 5 bridge bridge5")
    mount.ctl("bridge5 -learn tap3 static tap3 02:00:00:00:00:07 -learn tap5\ncable 3 4 delay 20ms")
    before = same(mount)
    for deleted in ("tap3",), ("tap4",), ("tap3", "tap4"):
        for tap in deleted:
            mount.ip(f"link del {tap}")
            lost(mount, tap.replace("tap", "virt"))
        mount.ctl("ensure 3\nensure 4")
        assert same(mount) == before
        assert told.port(mount, "tap3")["learning"] is False


def test_an_interface_that_cannot_be_made_again_keeps_its_lines(lasting: LastingOnes) -> None:
    mount = lasting(OPTION)
    mount.ip("netns add net1")
    mount.ctl(f"{LINE} netns net1\ncreate 4\ncable 3 4")
    before = same(mount)
    mount.ip("netns del net1")
    lost(mount)
    for line in "check ensure 3", "ensure 3":
        with fails(errno.ENXIO):
            mount.ctl(line)
        assert 'cannot make virt3 again: there is no network namespace "net1"' in mount.read("last_error")
        assert same(mount) == before
    mount.ip("netns add net1")
    mount.ctl("ensure 3")
    assert same(mount) == before
    mount.ip("link add br9 type bridge")
    mount.ctl("destroy 3\ncreate 3 up bridge br9 owner 4001\ncable 3 4")
    mount.ip("link del tap3")
    lost(mount)
    mount.ip("link add tap3 type bridge")  # only opening the tap shows that this is in the way
    with fails(errno.EBUSY):
        mount.ctl("ensure 3")
    assert mount.read("last_error").endswith(': "retry" runs its lines again')
    assert "# not replayed: create 3 " in same(mount)
    mount.ip("link del tap3")
    mount.ctl("retry")
    assert " bridge br9" in same(mount)
    assert "cable 3 4" in same(mount)
    assert "not replayed" not in same(mount)
    mount.ip("link del br9")
    mount.ip("netns del net1")


@pytest.mark.parametrize("blow", ["link del bridge5", "link set bridge5 name moved"])
def test_the_lines_of_a_lost_bridge_stay(lasting: LastingOnes, blow: str) -> None:
    """So do those of its members, of which the kernel reports that they have left the bridge."""
    mount = lasting(OPTION)
    mount.ip("link add other type veth peer name far")
    mount.ctl(
        "create bridge5 up inet 10.5.0.1/24 inet6 fd00:5::1/64 add other maxaddr 7\ncreate 3 up\ncreate 4\ncreate 5"
    )
    mount.ctl("virt3 bridge bridge5\nvirt4 bridge bridge5\nvirt5 bridge bridge5\nbridge5 -learn tap3 -learn tap4")
    before = same(mount)
    events = mount.root.open("events", os.O_RDONLY)
    mount.ip(blow)
    until(lambda: "is lost" in "".join(mount.log), "the bridge is lost")
    assert '"ensure bridge5" makes it again' in "".join(mount.log)
    assert " lost bridge5\n" in _news(events)
    first, _, rest = before.partition("\n")
    assert first == "# made: bridge5"
    until(lambda: kept(mount) == rest, "the lines stay, and the bridge is no longer one that virtfs has made")
    assert same(mount) == rest
    mount.ip("link add br9 type bridge")
    mount.ctl("virt4 bridge br9\ndestroy 5")
    after = same(mount)
    assert "bridge5 -learn tap3" in after
    assert "tap4 " not in after
    mount.end()
    if "moved" in blow:
        mount.ip("link del moved")  # virtfs leaves it to whoever renamed it, with its member
    mount.again(OPTION)
    assert "not replayed" not in same(mount)
    assert told.link(mount, "tap3")["master"] == "bridge5"
    assert told.port(mount, "tap3")["learning"] is False
    assert told.link(mount, "tap4")["master"] == "br9"
    assert {"10.5.0.1/24", "fd00:5::1/64"} <= told.addresses(mount, "bridge5")
    assert told.link(mount, "other")["master"] == "bridge5"
    mount.ip("link del br9")
    mount.ip("link del other")


@pytest.mark.parametrize("deleted", ["tap3", "tap3 bridge5", "bridge5 tap3"])
def test_the_port_settings_of_a_deleted_tap_stay(lasting: LastingOnes, deleted: str) -> None:
    """They are in a line of the bridge, and the line of the interface makes the tap again."""
    mount = lasting(OPTION)
    mount.ctl("create bridge5 up\ncreate 3 up bridge bridge5\ncreate 4 bridge bridge5\ncreate 5 bridge bridge5")
    mount.ctl("bridge5 -learn tap3 static tap3 02:00:00:00:00:07 -learn tap4 protect tap5")
    before = same(mount)
    for name in deleted.split():
        mount.ip(f"link del {name}")
        until(lambda: f"{name.replace('tap', 'virt')} is lost" in "".join(mount.log), f"{name} is lost")  # noqa: B023
    expected = before if "bridge5" not in deleted else before.replace("# made: bridge5\n", "")
    until(lambda: kept(mount) == expected, "the lines stay")
    assert same(mount) == expected
    mount.ctl("destroy 4")
    assert "-learn tap3" in same(mount)
    assert "tap4" not in same(mount)
    if "bridge5" in deleted:
        mount.ctl("ensure bridge5")
    for _ in range(2):
        text = same(mount)
        for settings in ("-learn tap3", "static tap3 02:00:00:00:00:07", "protect tap5"):
            assert settings in text
        assert text.count(" bridge bridge5") == 2
        mount.end()
        mount.again(OPTION)
    assert "not replayed" not in same(mount)
    assert (told.link(mount, "tap3")["master"], told.port(mount, "tap3")["learning"]) == ("bridge5", False)


def test_the_port_settings_of_a_tap_that_has_left_its_bridge_go(lasting: LastingOnes) -> None:
    mount = lasting(OPTION)
    mount.ctl("create bridge5 up\ncreate 3 up bridge bridge5\nbridge5 -learn tap3")
    for change in ("link set tap3 nomaster", "link del tap3"):
        mount.ip(change)
        until(lambda: kept(mount).count("bridge5") == 2, f"the lines follow: {change}")
    lost(mount)
    assert "-learn" not in same(mount)


def test_a_bridge_that_virtfs_destroys_is_not_lost(lasting: LastingOnes) -> None:
    mount = lasting(OPTION)
    events = mount.root.open("events", os.O_RDONLY)
    for _ in range(5):
        mount.ctl("create bridge5 up\ncreate 3 bridge bridge5\ndestroy bridge5\ndestroy 3")
    assert same(mount) == ""
    assert " lost " not in _news(events)
    assert "lost" not in "".join(mount.log)


def _news(events: File) -> str:
    """Return the events so far."""
    text = ""
    while events.poll():
        text += events.read().decode()
    return text
