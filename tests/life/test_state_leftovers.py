"""What a server that was killed during a line has left: the next mount removes it, or undoes the half that was done.

A test kills a server, and gives the next one the state file of an earlier moment, as if the kill had come before the
file was replaced. tests/crash kills servers at every system call.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import told
from harness.lasting import Lasting, LastingOnes
from harness.serving import PROJECT, Mount
from harness.waiting import until

STATE = "/mnt/state"
OPTION = f"state={STATE}"
VIRTFS = f"env PYTHONPATH={PROJECT} {sys.executable} -m virtfs"


@pytest.fixture
def mount(lasting: LastingOnes) -> Iterator[Lasting]:
    """A mount with a state file."""
    mount = lasting(OPTION)
    mount.ip("netns add net1")
    yield mount
    mount.ip("netns del net1")


def cut(mount: Lasting, line: str) -> None:
    """Run a line, kill the server, and start the next one with the state file of before."""
    before = mount.root.call(Path.read_text, Path(STATE))
    mount.ctl(line)
    mount.kill()
    mount.root.call(Path.write_text, Path(STATE), before)
    mount.again(OPTION)
    assert mount.read("ctl") == before.removesuffix("\n")


def alias(mount: Mount, name: str) -> str:
    return str(told.link(mount, name).get("ifalias", ""))


def test_what_outlives_the_server_has_a_mark(mount: Lasting) -> None:
    mount.ctl("create 3\ncreate 4 persist\ncreate bridge0")
    mark = alias(mount, "tap4")
    assert mark.startswith("virtfs state ")
    assert (alias(mount, "bridge0"), alias(mount, "tap3")) == (mark, "")


def test_without_a_state_file_there_is_no_mark(lasting: LastingOnes) -> None:
    mount = lasting()
    mount.ctl("create 4 persist\ncreate bridge0")
    assert (alias(mount, "bridge0"), alias(mount, "tap4")) == ("", "")


@pytest.mark.parametrize(
    "line",
    ["create 3 up persist", "create 3 persist netns net1", "create bridge0 up inet 10.9.0.1/24"],
)
def test_what_no_line_mentions_is_removed(mount: Lasting, line: str) -> None:
    cut(mount, line)
    assert mount.links() == ["lo"]
    assert "tap" not in mount.ip("-n net1 -br link")
    assert "an earlier server had left behind" in "".join(mount.log)


def test_the_first_half_of_a_line_is_undone(mount: Lasting) -> None:
    mount.ctl("create bridge0 priority 7 up inet 10.9.0.1/24")
    mount.ctl("create 3 persist up inet 10.0.3.1/24 bridge bridge0\ncreate 4")
    index, bridge = told.link(mount, "tap3")["ifindex"], told.link(mount, "bridge0")["ifindex"]
    cut(mount, "virt3 mtu 1400 queue 99 promisc inet 10.7.7.1/24 down -bridge")
    link = told.link(mount, "tap3")
    assert (link["ifindex"], link["mtu"], link["txqlen"], link["master"]) == (index, 1500, 256, "bridge0")
    assert (told.addresses(mount, "tap3"), "UP" in told.flags(mount, "tap3")) == ({"10.0.3.1/24"}, True)
    mount.ip("link add other type veth peer name far")
    cut(mount, "bridge0 timeout 600 inet 10.7.7.1/24 add other -learn tap3 down")
    assert (told.link(mount, "bridge0")["ifindex"], told.addresses(mount, "bridge0")) == (bridge, {"10.9.0.1/24"})
    assert "master" not in told.link(mount, "other")
    assert told.port(mount, "tap3")["learning"] is True
    cut(mount, "virt4 persist")
    assert not told.data(mount, "tap4")["persist"]
    cut(mount, "virt3 netns net1")
    assert told.link(mount, "tap3")["master"] == "bridge0"
    assert "tap" not in mount.ip("-n net1 -br link")
    mount.ip("link del other")


def test_a_line_that_failed_keeps_its_tap(mount: Lasting) -> None:
    """The tap of `create 3` exists, and its bridge does not. The tap stays as virtfs's own."""
    mount.ip("link add br9 type bridge")
    mount.ctl("create 3 persist inet 10.0.3.1/24 bridge br9")
    index = told.link(mount, "tap3")["ifindex"]
    mount.end()
    mount.ip("link del br9")
    mount.again(OPTION)
    assert mount.units() == []
    assert "# made: tap3\n" in mount.read("ctl")
    assert told.link(mount, "tap3")["ifindex"] == index
    mount.ip("link add br9 type bridge")
    mount.ctl("retry")
    assert told.link(mount, "tap3")["ifindex"] == index
    mount.ctl("destroy 3")
    assert not mount.has("tap3")
    mount.ip("link del br9")


def test_a_tap_of_a_line_that_failed_is_not_an_interface_of_the_host(mount: Lasting) -> None:
    """It stays in its bridge. If the line of the bridge mentioned it, that line would fail once the tap is gone."""
    mount.ip("link add br9 type bridge")
    mount.ctl("create bridge0 up\ncreate 3 persist bridge br9")
    mount.end()
    mount.ip("link del br9")
    mount.again(OPTION)
    mount.ip("link set tap3 master bridge0")
    until(lambda: "tap3" in mount.read("bridge/bridge0/members"), "tap3 is a member")
    assert "create bridge0 up\n" in mount.read("ctl")
    mount.ctl("destroy 3")
    mount.kill()
    mount.again(OPTION)
    assert mount.read("ctl") == "# made: bridge0\ncreate bridge0 up"
    assert not mount.has("tap3")


def test_others_that_have_the_names_of_what_virtfs_made_stay(mount: Lasting) -> None:
    """The state file says that virtfs made bridge0 and tap3. Since then, others have taken these names."""
    mount.ctl("create bridge0 up\ncreate 3 persist")
    mount.kill()
    mount.sh("ip link set bridge0 name lan; ip link del tap3")
    mount.sh("ip link add bridge0 type bridge; ip tuntap add tap3 mode tap")
    mount.again(OPTION)
    assert mount.units() == ["virt3"]
    mount.ctl("destroy bridge0\ndestroy 3")
    assert mount.has("bridge0")
    assert mount.has("tap3")
    mount.sh("ip link del bridge0; ip link del tap3; ip link del lan || true")


def test_a_state_file_that_was_removed_costs_no_tap(mount: Lasting) -> None:
    """The taps are the host's from then on."""
    mount.ctl("create 3 persist inet 10.0.3.1/24")
    mount.kill()
    mount.sh(f"rm {STATE}")
    for _ in range(2):
        mount.again(OPTION)
        assert (mount.read("ctl"), alias(mount, "tap3")) == ("", "")
        mount.kill()
    mount.again(OPTION)
    mount.ctl("create 3\ndestroy 3")
    assert told.addresses(mount, "tap3") == {"10.0.3.1/24"}


def test_a_tap_that_a_server_uses_is_left_alone(mount: Lasting) -> None:
    """Somebody has given his tap our mark, and holds it."""
    mount.ctl("create 3 persist")
    mark = alias(mount, "tap3")
    mount.ctl("destroy 3")
    mount.end()
    mount.ip("tuntap add tap7 mode tap multi_queue")
    mount.ip(f"link set tap7 alias '{mark}'")
    mount.sh("mkdir /mnt/other")
    mount.again()
    mount.ctl("create 7")
    second = mount.start("bash", "-c", f"exec {VIRTFS} mount -f -o {OPTION} /mnt/other", stderr=-1)
    assert second.stderr is not None
    assert "cannot remove tap7" in second.stderr.readline()
    second.terminate()
    second.wait()
    assert mount.read("virt7/tap/name") == "tap7"


def test_a_bridge_that_adopts_stays(mount: Lasting) -> None:
    """Deleting it could cut the machine off, since it may have the only copy of an address."""
    mount.ip("link add other type veth peer name far")
    mount.ip("addr add 10.5.5.1/24 dev other")
    before = mount.root.call(Path.read_text, Path(STATE))
    mount.ctl("create bridge0 add other adopt")
    assert told.addresses(mount, "bridge0") == {"10.5.5.1/24"}
    mount.kill()
    mount.root.call(Path.write_text, Path(STATE), before)
    mount.again(OPTION)
    assert told.addresses(mount, "bridge0") == {"10.5.5.1/24"}
    mount.ctl("ensure bridge0 add other adopt")
    mount.ctl("bridge0 delete other")
    assert told.addresses(mount, "other") == {"10.5.5.1/24"}
    mount.ip("link del other")
