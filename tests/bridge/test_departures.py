"""An adopted member that another program takes out of the bridge, or deletes, does not take its addresses away."""

import json
import os
import re
import subprocess
import sys

import pytest
from harness import told
from harness.fixtures import Alone
from harness.lasting import Lasting, LastingOnes
from harness.places import DIR, Place
from harness.serving import ENVIRONMENT, PROJECT, Mount, Virts
from harness.waiting import until

from .machine import OWN, ROUTES, clear, machine, reached, reached_by_ipv4, reaches


def agree(mount: Mount, line: str) -> None:
    """Assert that ctl has this line, link-local addresses aside, and that status.json agrees with the kernel."""
    assert re.sub(r" inet6 fe80\S+", "", mount.read("ctl")) == f"# made: bridge0\n{line}"
    shown = json.loads(mount.read("status.json"))["bridges"][0]
    assert set(shown["inet"]) == told.addresses(mount, "bridge0")


def logged(mount: Mount, sentence: str) -> None:
    """Wait until a sentence is in the log."""
    until(lambda: sentence in "".join(mount.log), f"the log has {sentence}")


def kept(mount: Mount) -> list[str]:
    """Return the verbs inet in the line of bridge0, and the comments about adopted addresses."""
    text = mount.read("ctl")
    return [*re.findall(r"inet6? (\S+)", text), *re.findall(r"# adopted: .*", text)]


@pytest.mark.parametrize("option", ["nomaster", "master br-other"])
def test_a_member_that_leaves_has_its_addresses_again(mount: Mount, peer: Place, option: str) -> None:
    machine(mount, peer)
    held = told.addresses(mount, "eth0")
    mount.ip("link add br-other type bridge")
    mount.ctl("create bridge0 up add eth0 adopt")
    mount.log.clear()
    events = mount.root.open("events", os.O_RDONLY)
    mount.ip(f"link set eth0 {option}")
    assert re.fullmatch(rb"\S+ leave bridge0 member=eth0 returned=1\n", events.begin_read(4096).result())
    events.close()
    agree(mount, "create bridge0 up")
    assert told.addresses(mount, "eth0") == held
    assert told.addresses(mount, "bridge0") == set()
    assert told.routes(mount, "eth0") == ROUTES
    assert told.link(mount, "bridge0")["address"] != told.link(mount, "eth0")["address"]
    logged(mount, '"eth0" has left the bridge, and has its addresses again: 10.1.1.2/24, ')
    if option == "nomaster":
        reached(peer)
        reaches(mount)
    else:
        assert told.link(mount, "eth0")["master"] == "br-other"
        logged(mount, 'they do not work while it is in "br-other"')


def test_the_end_of_the_mount_gives_back_what_a_member_left(alone: Alone, peer: Place) -> None:
    mount = alone()
    machine(mount, peer)
    held = told.addresses(mount, "eth0")
    mount.ctl("create bridge0 up add eth0 adopt")
    mount.ip("link set eth0 nomaster")
    assert mount.end() == 0
    assert not mount.has("bridge0")
    assert told.addresses(mount, "eth0") == held
    reached(peer)
    reaches(mount)
    clear(mount)


def test_only_its_own_leave_with_one_of_two(mount: Mount, peer: Place, other: Place) -> None:
    machine(mount, peer)
    told.cable(mount, "eth1", other, "10.2.2.1/24")
    mount.ip("address add 10.2.2.2/24 dev eth1")
    mount.ctl("create bridge0 inet 10.9.9.9/24 up add eth0 adopt add eth1 adopt")
    mount.ip("link set eth1 nomaster")
    until(lambda: "10.2.2.2/24" in told.addresses(mount, "eth1"), "eth1 has its address")
    assert OWN | {"10.9.9.9/24"} <= told.addresses(mount, "bridge0")
    until(lambda: "10.2.2.2/24" not in told.addresses(mount, "bridge0"), "bridge0 has lost the address of eth1")
    other.sh("ping -c 3 -W 2 10.2.2.2")
    mount.ip("link set eth0 nomaster")
    until(lambda: not OWN & told.addresses(mount, "bridge0"), "bridge0 has lost the addresses of eth0")
    agree(mount, "create bridge0 inet 10.9.9.9/24 up")
    reached(peer)


@pytest.mark.parametrize("way", ["adopt", "retry", "destroy"])
def test_a_member_that_vanishes_and_comes_back(mount: Mount, peer: Place, other: Place, way: str) -> None:
    machine(mount, peer)
    mount.ctl("create bridge0 up add eth0 adopt")
    mount.log.clear()
    events = mount.root.open("events", os.O_RDONLY)
    mount.ip("link delete eth0")
    assert re.fullmatch(rb"\S+ leave bridge0 member=eth0 returned=0\n", events.begin_read(4096).result())
    events.close()
    logged(mount, '"eth0" is gone; the bridge keeps the addresses that it has adopted from it, 10.1.1.2/24')
    assert told.addresses(mount, "bridge0") >= OWN
    (comment,) = kept(mount)
    assert comment.startswith("# adopted: bridge0 eth0 10.1.1.2/24 ")
    assert '\n# not replayed: bridge0 add eth0 adopt\n#     "eth0" is gone' in mount.read("ctl")
    told.cable(mount, "eth0", other, "10.1.1.1/24")
    other.ips("address add fd00::1/64 dev eth0 nodad\naddress replace 10.77.0.1/32 dev lo")
    if way != "destroy":
        mount.ctl("bridge0 add eth0 adopt" if way == "adopt" else "retry")
        assert told.addresses(mount, "eth0") == set()
        assert "create bridge0 add eth0 adopt up" in mount.read("ctl")
        assert "not replayed" not in mount.read("ctl")
        reached(other)
        reaches(mount)
    mount.ctl("destroy bridge0")
    assert told.addresses(mount, "eth0") >= OWN
    assert told.routes(mount, "eth0") >= {"default 10.1.1.1", "10.50.0.0/16 10.1.1.9"}
    reached(other)
    reaches(mount)


def test_a_bridge_of_the_host_keeps_them(mount: Mount, peer: Place) -> None:
    machine(mount, peer)
    mount.ip("link add bridge0 type bridge")
    mount.ctl("create bridge0 up add eth0 adopt")
    mount.ip("link delete eth0")
    until(lambda: kept(mount), "the bridge has the addresses")
    mount.ctl("destroy bridge0")
    assert told.addresses(mount, "bridge0") >= OWN


def test_a_member_of_a_bridge_of_the_host_that_was_adopted(mount: Mount, peer: Place) -> None:
    machine(mount, peer)
    held = told.addresses(mount, "eth0")
    mount.ip("link add bridge0 type bridge")
    mount.ip("link set eth0 master bridge0")
    mount.ctl("create bridge0 up add eth0 adopt")
    assert told.addresses(mount, "bridge0") >= OWN
    mount.ctl("destroy bridge0")
    assert told.link(mount, "eth0")["master"] == "bridge0"
    assert told.addresses(mount, "eth0") == held


def test_addresses_of_a_destroyed_tap_stay_in_ctl(mount: Mount, virts: Virts) -> None:
    mount.ctl("create bridge0 up")
    virt = virts("up inet 10.0.77.1/24")
    mount.ctl(f"bridge0 add {virt.tap} adopt")
    virt.set("-bridge")
    until(lambda: told.addresses(mount, virt.tap) >= {"10.0.77.1/24"}, "the tap has its address again")
    mount.ctl(f"bridge0 add {virt.tap} adopt")
    mount.ctl(f"destroy {virt.unit}")
    assert told.addresses(mount, "bridge0") >= {"10.0.77.1/24"}
    until(lambda: "10.0.77.1/24" in kept(mount), "ctl has the address")


@pytest.mark.parametrize("way", ["kill", "end"])
def test_the_next_mount_has_the_addresses_of_an_adopted_tap(lasting: LastingOnes, way: str) -> None:
    """The line of the tap joins it to the bridge, but does not adopt it. So the bridge's line has its addresses."""
    mount = lasting("state=/mnt/state")
    mount.ctl("create bridge0 up\ncreate 3 up inet 10.0.77.1/24\nbridge0 add tap3 adopt")
    assert "create bridge0 inet 10.0.77.1/24 up\n" in mount.read("ctl")
    if way == "kill":
        mount.kill()
    else:
        assert mount.end() == 0
    mount.again("state=/mnt/state")
    assert told.addresses(mount, "bridge0") == {"10.0.77.1/24"}
    assert "create bridge0 inet 10.0.77.1/24 up\n" in mount.read("ctl")


NOT_ADOPTED = "# not replayed: bridge0 add eth0 adopt"


def without_its_member(lasting: LastingOnes, peer: Place) -> Lasting:
    """Return a mount whose bridge has adopted eth0, which is gone, and whose state file says so."""
    mount = lasting("state=/mnt/state")
    machine(mount, peer)
    mount.ctl("create bridge0 up add eth0 adopt")
    mount.ip("link delete eth0")
    until(lambda: NOT_ADOPTED in mount.sh("cat /mnt/state"), "the state file says that eth0 is gone")
    return mount


def test_a_kill_does_not_lose_the_addresses_of_a_vanished_member(lasting: LastingOnes, peer: Place) -> None:
    mount = without_its_member(lasting, peer)
    mount.kill()
    mount.again("state=/mnt/state")
    assert told.addresses(mount, "bridge0") >= OWN
    assert NOT_ADOPTED in mount.read("ctl")
    mount.ips("link add eth0 type veth peer name far-eth0\nlink set eth0 up")
    mount.ctl("retry")
    assert NOT_ADOPTED not in mount.read("ctl")
    mount.ctl("bridge0 delete eth0")
    assert told.addresses(mount, "eth0") >= OWN
    assert not OWN & told.addresses(mount, "bridge0")
    mount.ctl("destroy bridge0")
    mount.delete_links("eth0")


def test_a_kill_after_a_member_is_adopted_again_and_before_it_is_saved(
    lasting: LastingOnes, peer: Place, other: Place
) -> None:
    mount = without_its_member(lasting, peer)
    told.cable(mount, "eth0", other, "10.1.1.1/24")
    mount.sh("cp /mnt/state /mnt/before")
    mount.ctl("retry")
    mount.kill()
    mount.sh("cp /mnt/before /mnt/state")
    mount.again("state=/mnt/state")
    assert told.addresses(mount, "bridge0") >= OWN
    assert "create bridge0 add eth0 adopt up" in mount.read("ctl")
    reached_by_ipv4(other)
    assert mount.end() == 0
    assert told.addresses(mount, "eth0") >= OWN
    reached_by_ipv4(other)
    mount.delete_links("eth0")


def test_a_member_that_is_not_back_yet(lasting: LastingOnes, peer: Place, other: Place) -> None:
    """A mount without the interface has the bridge and its other members, and does not claim the addresses."""
    mount = without_its_member(lasting, peer)
    mount.ctl("create 3 bridge bridge0")
    assert mount.end() == 0
    for _ in range(2):
        mount.again("state=/mnt/state")
        assert mount.sh("cat bridge/bridge0/members") == "tap3\n"
        assert told.addresses(mount, "bridge0") == set()
        assert NOT_ADOPTED in mount.read("ctl")
        assert mount.end() == 0
    told.cable(mount, "eth0", other, "10.1.1.1/24")
    mount.ip("address add 10.1.1.2/24 dev eth0")
    mount.again("state=/mnt/state")
    assert "10.1.1.2/24" in told.addresses(mount, "bridge0")
    reached_by_ipv4(other)
    assert mount.end() == 0
    assert "10.1.1.2/24" in told.addresses(mount, "eth0")
    mount.delete_links("eth0")


def test_the_next_mount_adopts_a_member_that_has_come_back(lasting: LastingOnes, peer: Place, other: Place) -> None:
    """The card was replugged once. The bridge has its addresses alone in each later mount."""
    mount = without_its_member(lasting, peer)
    told.cable(mount, "eth0", other, "10.1.1.1/24")
    assert mount.end() == 0
    assert told.addresses(mount, "eth0") >= OWN
    for _ in range(2):
        mount.again("state=/mnt/state")
        assert told.addresses(mount, "eth0") == set()
        assert told.addresses(mount, "bridge0") >= OWN
        assert "create bridge0 add eth0 adopt up" in mount.read("ctl")
        reached_by_ipv4(other)
        assert mount.end() == 0
        assert told.addresses(mount, "eth0") >= OWN
        reached_by_ipv4(other)
    mount.delete_links("eth0")


def run(mount: Mount, *words: str) -> str:
    """Run virtfs, which must succeed, and return what it prints to standard error."""
    command = mount.command(sys.executable, "-m", "virtfs", *words)
    done = subprocess.run(command, env=ENVIRONMENT, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True)
    return done.stderr


def test_addresses_that_the_end_of_a_bridge_loses_are_told(lasting: LastingOnes, peer: Place) -> None:
    mount = without_its_member(lasting, peer)
    assert run(mount, "ctl", "-d", DIR, "destroy", "bridge0").startswith(
        "virtfs: warning: bridge0 is deleted with 10.1.1.2/24, "
    )


def test_a_bridge_that_stays_at_the_end_of_the_mount_is_told(lasting: LastingOnes, peer: Place) -> None:
    mount = lasting()
    machine(mount, peer)
    mount.ctl("create bridge0 up add eth0 adopt")
    mount.ips("address add 10.4.4.2/24 dev bridge0\nroute add 10.40.0.0/16 via 10.4.4.1")
    mount.ip("address delete 10.4.4.2/24 dev bridge0")
    said = run(mount, "umount", DIR)
    assert said.startswith(f'virtfs: "{DIR}": warning: cannot release bridge0: delete "eth0": cannot move the route ')
    assert told.addresses(mount, "bridge0") >= OWN
    assert mount.server.wait(60) == 0
    mount.delete_links("bridge0", "eth0")


def test_addresses_that_the_end_of_the_mount_loses_are_told(lasting: LastingOnes, peer: Place, other: Place) -> None:
    mount = without_its_member(lasting, peer)
    said = run(mount, "umount", DIR)
    assert said.startswith(f'virtfs: "{DIR}": warning: bridge0 is deleted with 10.1.1.2/24, ')
    assert 'which it has adopted from "eth0", which is gone\n' in said
    assert mount.server.wait(60) == 0
    logged(mount, "bridge0 is deleted with 10.1.1.2/24, ")
    told.cable(mount, "eth0", other, "10.1.1.1/24")
    mount.ip("address add 10.1.1.7/24 dev eth0")
    mount.again("state=/mnt/state")
    logged(mount, f'bridge0 has lost {", ".join(sorted(OWN))}, which it had adopted from "eth0": configure the')
    assert mount.sh("cat last_error").startswith("warning: bridge0 has lost ")
    assert not OWN & told.addresses(mount, "bridge0")
    assert "create bridge0 add eth0 adopt up" in mount.read("ctl")
    assert mount.end() == 0
    assert "10.1.1.7/24" in told.addresses(mount, "eth0")
    mount.delete_links("eth0")


def test_the_end_after_a_move_that_a_kill_cut_short(lasting: LastingOnes, peer: Place) -> None:
    """The line that adopts is not in the state file yet, but the addresses have moved."""
    mount = lasting("state=/mnt/state")
    machine(mount, peer)
    mount.ctl("create bridge0 up")
    mount.sh("cp /mnt/state /mnt/before")
    mount.ctl("bridge0 add eth0 adopt")
    mount.kill()
    mount.sh("cp /mnt/before /mnt/state")
    mount.again("state=/mnt/state")
    assert told.addresses(mount, "bridge0") >= OWN
    assert mount.end() == 0
    assert told.addresses(mount, "eth0") >= OWN
    reached(peer)
    reaches(mount)
    mount.delete_links("eth0")


@pytest.mark.parametrize("first", ["", "link set bridge0 down"])
def test_a_bridge_that_is_deleted_gives_its_members_back_what_it_adopted(
    mount: Mount, peer: Place, other: Place, first: str
) -> None:
    machine(mount, peer)
    held = told.addresses(mount, "eth0")
    told.cable(mount, "eth1", other, "10.2.2.1/24")
    mount.ip("address add 10.2.2.2/24 dev eth1")
    mount.ctl("create bridge0 inet 10.9.9.9/24 up add eth0 adopt add eth1 adopt")
    mount.ip("route add 10.70.0.0/16 via 10.1.1.9 dev bridge0")
    mount.ip("address add 10.1.1.4/24 dev bridge0")
    until(lambda: "10.1.1.4/24" in mount.read("status.json"), "virtfs has seen the address")
    mount.log.clear()
    events = mount.root.open("events", os.O_RDONLY)
    if first:
        mount.ip(first)
        until(lambda: json.loads(mount.read("status.json"))["bridges"][0]["up"] is False, "virtfs has seen it")
    mount.ip("link del bridge0")
    news = ""
    while "member=eth1" not in news:
        news += events.begin_read(4096).result().decode()
    events.close()
    assert " leave bridge0 member=eth0 returned=1\n" in news
    logged(mount, 'bridge0: "eth0" has left the bridge, and has its addresses again: 10.1.1.2/24, ')
    assert told.addresses(mount, "eth0") == held | {"10.1.1.4/24"}
    assert told.addresses(mount, "eth1") >= {"10.2.2.2/24"}
    assert told.routes(mount, "eth0") == ROUTES | {"10.70.0.0/16 10.1.1.9"}
    assert "10.60.0.0/16" in mount.ip("route show dev eth0") or "10.60.0.0/16" in mount.ip("route")
    reached(peer)
    reaches(mount)
    mount.ctl("ensure bridge0 up")
    assert "is made again" not in mount.read("last_error")
    assert told.addresses(mount, "eth0") == told.addresses(mount, "eth1") == set()
    assert told.addresses(mount, "bridge0") >= {*OWN, "10.1.1.4/24", "10.2.2.2/24", "10.9.9.9/24"}
    reached(peer)
    reaches(mount)
    mount.ctl("destroy bridge0")
    assert told.addresses(mount, "eth0") == held | {"10.1.1.4/24"}
    assert told.addresses(mount, "eth1") >= {"10.2.2.2/24"}


def test_a_bridge_that_is_made_again_without_adopted_addresses(mount: Mount, peer: Place) -> None:
    machine(mount, peer)
    mount.ctl("create bridge0 up add eth0 adopt")
    mount.ip("link del bridge0")
    until(lambda: "10.1.1.3/24" in told.addresses(mount, "eth0"), "eth0 has its addresses")
    mount.ip("address del 10.1.1.3/24 dev eth0")
    mount.ctl("ensure bridge0")
    sentence = 'bridge0 is made again without 10.1.1.3/24, which it had adopted from "eth0"'
    assert mount.read("last_error") == f"warning: {sentence}"


def test_a_tap_of_the_mount_gets_back_what_a_deleted_bridge_had_adopted(mount: Mount, virts: Virts) -> None:
    virt = virts("up inet 10.0.77.1/24")
    mount.ctl(f"create bridge0 up inet 10.9.9.9/24 add {virt.tap} adopt")
    mount.ip("link del bridge0")
    until(lambda: "10.0.77.1/24" in told.addresses(mount, virt.tap), "the tap has its address")
    until(lambda: "create bridge0 inet 10.9.9.9/24 up" in mount.read("ctl"), "the bridge has its own address alone")
    mount.ctl("ensure bridge0")
    assert {"10.0.77.1/24", "10.9.9.9/24"} <= told.addresses(mount, "bridge0")
    assert told.addresses(mount, virt.tap) == set()
    mount.ctl("destroy bridge0")
    assert "10.0.77.1/24" in told.addresses(mount, virt.tap)


def test_routes_that_networkmanager_makes_move(mount: Mount, peer: Place) -> None:
    """The address has noprefixroute, and so the route to the gateway is not the kernel's own."""
    told.cable(mount, "eth0", peer, "10.1.1.1/24")
    mount.ip("address add 10.1.1.2/24 dev eth0 noprefixroute")
    mount.ip("route add 10.1.1.0/24 dev eth0 proto kernel scope link src 10.1.1.2 metric 100")
    mount.ip("route add default via 10.1.1.1 dev eth0 proto dhcp metric 100")
    peer.ips("address replace 10.77.0.1/32 dev lo")
    mount.ctl("create bridge0 up add eth0 adopt")
    reaches(mount)
    mount.ip("link del bridge0")
    until(lambda: "default 10.1.1.1" in told.routes(mount, "eth0"), "eth0 has its route")
    reaches(mount)
