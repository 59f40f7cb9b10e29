"""Bridges that other programs create, change or delete; taps that join and leave them; bridges recreated elsewhere."""

import errno
import json
import os
import re
import select
from typing import Any

import pytest
from harness import told
from harness.fixtures import Alone
from harness.lasting import LastingOnes
from harness.places import Place
from harness.process import fails
from harness.serving import Mount, Virts, frame
from harness.waiting import until

# --- forwarding


def test_ping_passes_over_the_bridge_and_not_without(mount: Mount, peer: Place, other: Place) -> None:
    told.cable(mount, "v0", peer, "10.0.3.1/24")
    told.cable(mount, "v1", other, "10.0.3.2/24")
    ping = "ping -c 1 -W 1 10.0.3.2"
    passes = "ping -c 20 -i 0.1 -W 1 10.0.3.2 | grep -m 1 'bytes from'"  # the kernel repeats unanswered ARP requests
    peer.refused(ping)
    mount.ctl("create bridge0 up add v0 add v1")
    peer.sh(passes)
    assert len(mount.read("bridge/bridge0/addresses").splitlines()) == 2
    mount.ctl("bridge0 delete v1")
    peer.refused(ping)
    mount.ctl("bridge0 add v1 protect v0 protect v1")
    peer.refused(ping)
    mount.ctl("bridge0 -protect v0")
    peer.sh(passes)
    mount.ctl("bridge0 down")
    peer.refused(ping)
    mount.ctl("bridge0 up")
    peer.sh(passes)
    mount.ctl("destroy bridge0")
    peer.refused(ping)


def test_frames_pass_between_virts(mount: Mount, virts: Virts) -> None:
    mount.ctl("create bridge0")
    # A bridge that snoops sends IGMP reports of its own (net/bridge/br_multicast.c br_multicast_join_snoopers).
    mount.ip("link set bridge0 up type bridge mcast_snooping 0")
    one, two, apart = virts("up bridge bridge0"), virts("up bridge bridge0"), virts()
    with_reader = two.open()
    outside = apart.open()
    sender = one.open()
    sender.write(frame(number=1))
    assert with_reader.begin_read(2048).result() == frame(number=1)
    apart.host_sends(frame(number=2))
    assert outside.begin_read(2048).result() == frame(number=2)


# --- verbs of an interface


def test_a_tap_goes_into_any_bridge_and_out(mount: Mount, virts: Virts) -> None:
    mount.ip("link add br-lan type bridge")
    mount.ctl("create bridge0")
    virt = virts("bridge br-lan")
    assert virt.read("tap/bridge") == "br-lan"
    assert told.link(mount, virt.tap)["master"] == "br-lan"
    assert "bridge br-lan" in virt.read("ctl")
    virt.write("tap/bridge", "bridge0\n")
    assert (virt.read("tap/bridge"), told.link(mount, virt.tap)["master"]) == ("bridge0", "bridge0")
    assert mount.read("bridge/bridge0/members") == virt.tap
    virt.write("tap/bridge", "\n")
    assert (virt.read("tap/bridge"), mount.read("bridge/bridge0/members")) == ("", "")
    virt.set("bridge bridge0 -bridge -bridge bridge bridge0 bridge bridge0")
    assert virt.read("tap/bridge") == "bridge0"


def test_a_bridge_that_is_none(mount: Mount, virts: Virts) -> None:
    virt = virts()
    for name in ("nosuch", "lo", virt.tap):
        with fails(errno.ENXIO):
            virt.set(f"bridge {name}")
    assert mount.read("last_error") == f'"bridge {virt.tap}": bridge: "{virt.tap}" is not a bridge'
    assert virt.read("tap/bridge") == ""


def test_a_failing_line_puts_the_tap_back(mount: Mount, virts: Virts) -> None:
    mount.ctl("create bridge0\ncreate bridge1")
    virt = virts("bridge bridge0")
    mount.ctl(f"bridge0 -learn {virt.tap} ifpriority {virt.tap} 8 static {virt.tap} 02:00:00:00:00:09")
    before = mount.read("ctl")
    for line in ("bridge bridge1 mtu 1400 bridge nosuch", "-bridge mtu 1400 bridge nosuch"):
        with fails(errno.ENXIO):
            virt.set(line)
        assert mount.read("ctl") == before
    with fails(errno.ENXIO):
        mount.ctl("create 77 up bridge bridge0 mtu 1400 bridge nosuch")
    with fails(errno.ERANGE):
        mount.ctl("create 77 up bridge bridge0 mtu 99999999")
    assert mount.read("ctl") == before
    assert not mount.has("tap77")


def test_bridges_are_roots_also_for_an_owner(mount: Mount, virts: Virts) -> None:
    mount.ctl("create bridge0")
    virt = virts("up owner 1000")
    assert mount.sh(f"stat -c '%a %u' {virt.name}/tap/bridge") == "644 0\n"
    assert "Permission denied" in mount.refused(f"echo bridge0 >{virt.name}/tap/bridge", uid=1000)
    assert "Operation not permitted" in mount.refused(f"echo bridge bridge0 >{virt.name}/ctl", uid=1000)
    assert virt.read("tap/bridge") == ""


def test_a_tap_elsewhere_knows_the_bridges_there(mount: Mount, virts: Virts, peer: Place) -> None:
    peer.ip("link add bridge5 type bridge")
    virt = virts()
    virt.set(f"netns {peer.pid}")
    with fails(errno.ENXIO):
        virt.set("bridge bridge0")
    assert "in the network namespace of the tap: create a second interface" in mount.read("last_error")
    mount.ctl("create bridge0")
    with fails(errno.ENXIO):
        mount.ctl(f"bridge0 add {virt.name}")
    assert f'network namespace "{peer.pid}", unlike the bridge' in mount.read("last_error")
    virt.set("bridge bridge5")
    assert virt.read("tap/bridge") == "bridge5"
    assert told.link(peer, virt.tap)["master"] == "bridge5"
    virt.set("-bridge")
    assert "master" not in told.link(peer, virt.tap)


def test_what_ip_does_to_a_tap_shows(mount: Mount, virts: Virts) -> None:
    mount.ctl("create bridge0")
    virt = virts()
    mount.ip(f"link set {virt.tap} master bridge0")
    assert virt.read("tap/bridge") == "bridge0"
    mount.ip(f"link set {virt.tap} nomaster")
    assert virt.read("tap/bridge") == ""


def test_events_tell_of_bridges(mount: Mount, virts: Virts) -> None:
    events = mount.root.open("events", os.O_RDONLY)
    mount.ctl("create bridge0")
    virt = virts("bridge bridge0")
    mount.ctl("destroy bridge0")
    told_of = ""
    while "destroy bridge0" not in told_of or "bridge=\n" not in told_of:
        told_of += events.begin_read(4096).result().decode()
    lines = [line.split(" ", 1)[1] for line in told_of.splitlines()]
    assert [line for line in lines if "bridge" in line] == [
        "create bridge0",
        f"bridge {virt.name} bridge=bridge0",
        *sorted(("destroy bridge0", f"bridge {virt.name} bridge="), key=lines.index),
    ]


# --- changes by other programs


def test_what_ip_does_to_a_bridge_shows(mount: Mount, virts: Virts) -> None:
    virt = virts()
    mount.ctl(f"create bridge0 add {virt.tap}")
    mount.ip("link set bridge0 up type bridge ageing_time 4200 priority 7")
    mount.sh(f"bridge link set dev {virt.tap} learning off")
    mount.sh(f"bridge fdb add 02:00:00:00:00:09 dev {virt.tap} master static")
    mount.ip("address add 10.0.3.1/24 dev bridge0")
    said = mount.read("bridge/bridge0/ctl")
    assert said == (
        f"add {virt.tap} priority 7 timeout 42 -learn {virt.tap} static {virt.tap} 02:00:00:00:00:09"
        " inet 10.0.3.1/24 up"
    )
    assert mount.read("bridge/bridge0/status").startswith("bridge0: flags=41<UP,RUNNING>")


def test_poll_tells_what_ip_does_to_a_bridge(mount: Mount) -> None:
    mount.ctl("create bridge0")
    file = mount.root.open("bridge/bridge0/status")
    assert b"flags=0<>" in file.read()
    waiting = file.begin_poll(select.POLLPRI)
    mount.ip("link set bridge0 up")
    assert waiting.result() & select.POLLPRI


TAKEN = "another program has deleted or renamed it"
AGAIN = '"ensure bridge0" makes it again'


@pytest.mark.parametrize("blow", ["link set bridge0 name moved", "link del bridge0"])
def test_a_bridge_that_others_take_away(mount: Mount, virts: Virts, blow: str) -> None:
    virt = virts()
    mount.ctl(f"create bridge0 add {virt.tap}")
    mount.ip(blow)
    for words in ("up", f"delete {virt.tap}", "flush", "inet 10.0.3.1/24", "maxaddr 3"):
        with fails(errno.ENXIO):
            mount.ctl(f"bridge0 {words}")
    for line in ("create bridge0", "check create bridge0"):
        with fails(errno.EEXIST):
            mount.ctl(line)
        assert mount.read("last_error") == f'"{line}": "bridge0" already exists, but is lost: {AGAIN}'
    for file in ("ctl", "status", "members", "addresses"):
        with fails(errno.ENXIO):
            mount.read(f"bridge/bridge0/{file}")
        assert mount.read("last_error").endswith(f"bridge0 is lost: {TAKEN}: {AGAIN}")
    for line in ("bridge0 up", "check bridge0 up"):
        with fails(errno.ENXIO):
            mount.ctl(line)
        assert mount.read("last_error") == f'"{line}": bridge0 is lost: {TAKEN}: {AGAIN}'
    assert "create bridge0\n" in mount.read("ctl")
    assert 'virtfs_bridge_lost{bridge="bridge0",mount="/mnt/virt"} 1.0' in mount.read("metrics")
    virt.set("up")
    mount.ctl("destroy bridge0")
    assert not mount.has("bridge0")
    assert mount.has("moved") == ("name moved" in blow), "whoever renamed it keeps it"
    mount.ctl("create bridge0")
    assert mount.read("bridge/bridge0/members") == ""
    mount.sh("ip link del moved 2>/dev/null || true")


def test_a_lost_bridge_has_no_members_in_status(mount: Mount, virts: Virts) -> None:
    """Its former members are in no bridge. What the lines would restore stays."""
    mount.ctl(f"create bridge0 add {virts().tap} inet 10.0.3.1/24 maxaddr 7 up")
    mount.ip("link del bridge0")
    (told_of,) = json.loads(mount.read("status.json"))["bridges"]
    assert (told_of["lost"], told_of["up"], told_of["members"], told_of["addresses"]) == (True, False, [], [])
    assert (told_of["maxaddr"], told_of["inet"]) == (7, ["10.0.3.1/24"])


def test_ensure_makes_a_lost_bridge_again(mount: Mount, virts: Virts) -> None:
    """The lines stay, and open files show the new bridge."""
    one, two = virts(), virts()
    mount.ip("link add other type veth peer name far")
    mount.ctl(f"create bridge0 up add other maxaddr 7 inet 10.0.3.1/24 add {one.tap} add {two.tap}")
    mount.ctl(f"bridge0 -learn {one.tap} ifpriority other 16 static {two.tap} 02:00:00:00:00:09 stp other")
    before, file = mount.read("ctl"), mount.root.open("bridge/bridge0/members")
    events = mount.root.open("events", os.O_RDONLY)
    mount.ip("link del bridge0")
    mount.ctl("check ensure bridge0")
    assert not mount.has("bridge0")
    mount.ctl("ensure bridge0")
    assert mount.read("ctl") == before
    for name in ("other", one.tap, two.tap):
        assert told.link(mount, name)["master"] == "bridge0"
    assert told.port(mount, one.tap)["learning"] is False
    assert told.addresses(mount, "bridge0") == {"10.0.3.1/24"}
    assert file.read().decode().split() == ["other", one.tap, two.tap]
    told_of = ""
    while "create bridge0" not in told_of:
        told_of += events.begin_read(4096).result().decode()
    assert "lost bridge0" in told_of
    mount.ip("link del bridge0")
    mount.ctl("ensure bridge0 maxaddr 8 up")
    assert mount.read("ctl") == before.replace("maxaddr 7", "maxaddr 8"), "the verbs are carried out after the lines"
    mount.ctl("destroy bridge0")
    assert not mount.has("bridge0"), "virtfs has made it"


def test_ensure_of_a_lost_bridge_that_cannot_be_made_again(mount: Mount, virts: Virts) -> None:
    """The bridge stays lost, and its lines stay."""
    virt = virts()
    mount.ip("link add other type veth peer name far")
    mount.ctl(f"create bridge0 up add other add {virt.tap}\nbridge0 -learn {virt.tap}")
    mount.ip("link del bridge0")
    before = mount.read("ctl")
    for line in ("ensure bridge0 add nosuch", "check ensure bridge0 add nosuch"):
        with fails(errno.ENXIO):
            mount.ctl(line)
        assert mount.read("last_error") == f'"{line}": add: there is no interface "nosuch"'
        assert mount.read("ctl") == before
    mount.ip("link del other")
    for line in ("ensure bridge0", "check ensure bridge0"):
        with fails(errno.ENXIO):
            mount.ctl(line)
        said = 'cannot make bridge0 again: add: there is no interface "other". "destroy bridge0" drops its lines'
        assert mount.read("last_error") == f'"{line}": {said}'
        assert mount.read("ctl") == before
    assert not mount.has("bridge0")
    assert json.loads(mount.read("status.json"))["bridges"][0]["lost"]


def test_ensure_of_a_renamed_bridge(mount: Mount, virts: Virts) -> None:
    """Members that are still in the renamed bridge are not taken out of it."""
    virt = virts()
    mount.ctl(f"create bridge0 up add {virt.tap}")
    mount.ip("link set bridge0 name moved")
    for line in ("ensure bridge0", "check ensure bridge0"):
        with fails(errno.EBUSY):
            mount.ctl(line)
        assert mount.read("last_error") == (
            f'"{line}": cannot make bridge0 again: it is "moved" now, with its members.'
            ' "ip link set moved name bridge0" gives it back, and "destroy bridge0" drops its lines'
        )
    assert told.link(mount, virt.tap)["master"] == "moved"
    assert not mount.has("bridge0")
    mount.ip("link set moved name bridge0")
    mount.ctl("ensure bridge0 down")
    assert mount.read("bridge/bridge0/members") == virt.tap
    mount.ctl(f"bridge0 delete {virt.tap}")
    mount.ip("link set bridge0 name moved")
    mount.ctl("ensure bridge0 up")
    assert mount.has("bridge0")
    assert mount.has("moved"), "whoever renamed it keeps it"
    mount.ip("link del moved")


@pytest.mark.parametrize("owner", ["the mount", "another program"])
def test_a_tap_shows_the_new_name_of_its_bridge(mount: Mount, virts: Virts, owner: str) -> None:
    """All files show it, no matter who made the bridge. ctl keeps the lines of the mount's own bridge."""
    virt = virts()
    if owner == "the mount":
        mount.ctl(f"create bridge0 up add {virt.name}")
    else:
        mount.ip("link add bridge0 type bridge")
        virt.write("ctl", "bridge bridge0\n")
    mount.ip("link set bridge0 name br7")
    until(lambda: virt.read("tap/bridge") == "br7", "tap/bridge shows the new name")
    assert [one["tap"]["bridge"] for one in json.loads(mount.read("status.json"))["virts"]] == ["br7"]
    assert '"bridge /br7"' in mount.read("topology")
    line = next(line for line in mount.read("ctl").splitlines() if f"create {virt.unit} " in line)
    assert line.endswith("bridge bridge0" if owner == "the mount" else "bridge br7")
    mount.ip("link set br7 name bridge0")
    until(lambda: virt.read("tap/bridge") == "bridge0", "tap/bridge shows the old name")
    if owner == "another program":
        mount.ip("link del bridge0")


def test_a_member_of_another_bridge(mount: Mount, virts: Virts) -> None:
    """The message has the line that takes the member out of the other bridge."""
    virt = virts()
    mount.ctl(f"create bridge0 up add {virt.name}")
    with fails(errno.EBUSY):
        mount.ctl(f"create bridge1 add {virt.name}")
    assert mount.read("last_error").endswith(f'take it out with "bridge0 delete {virt.tap}" first')
    mount.ctl(f"bridge0 delete {virt.tap}\ncreate bridge1 add {virt.name}")
    mount.ip("link add br-lan type bridge")
    mount.ip(f"link set {virt.tap} master br-lan")
    with fails(errno.EBUSY):
        mount.ctl(f"bridge1 add {virt.name}")
    remedy = f"ip link set {virt.tap} nomaster"
    assert mount.read("last_error").endswith(f'take it out with "{remedy}" first')
    mount.sh(remedy)
    mount.ctl(f"bridge1 add {virt.name}")
    mount.ip("link del br-lan")


@pytest.mark.parametrize("end", ["destroy", "unmount", "kill"])
def test_a_bridge_that_others_have_renamed_is_theirs(lasting: LastingOnes, end: str) -> None:
    """It keeps its members, and the addresses that it has adopted, however the mount lets go of its lines."""
    mount = lasting("state=/mnt/state")
    mount.ip("link add eth0 type veth peer name far")
    mount.ip("link set eth0 up")
    mount.ip("address add 10.1.1.2/24 dev eth0")
    mount.ctl("create bridge0 up add eth0 adopt")
    if end == "kill":
        mount.kill()
    mount.ip("link set bridge0 name lan")
    if end == "destroy":
        mount.ctl("destroy bridge0")
    elif end == "unmount":
        mount.end()
    if end != "destroy":
        mount.again("state=/mnt/state")
        assert '"eth0" is in "lan"' in mount.read("ctl"), "the line of bridge0 waits for its member"
    mount.end()
    assert told.link(mount, "eth0")["master"] == "lan"
    assert "10.1.1.2/24" in told.addresses(mount, "lan")
    assert "ifalias" not in told.link(mount, "lan")
    mount.ip("link del lan")
    mount.ip("link del eth0")


def test_a_renamed_bridge_may_get_any_name(lasting: LastingOnes) -> None:
    """Even one that virtfs could have given it: the next mount must not take it for a leftover of its own."""
    mount = lasting("state=/mnt/state")
    mount.ctl("create bridge0 up")
    mount.ip("link set bridge0 name bridge7")
    until(lambda: 'it is "bridge7" now, and virtfs leaves it alone' in "".join(mount.log), "the log tells it")
    mount.kill()
    mount.again("state=/mnt/state")
    assert mount.has("bridge7")
    assert mount.has("bridge0")
    mount.end()
    assert mount.links() == ["lo", "bridge7"]
    mount.ip("link del bridge7")


# --- bridges that existed before


def found(mount: Mount) -> Any:
    """Return the visible state of bridge7 and its ports, without timers and counters."""
    rows = [json.loads(mount.ip(f"-details -json link show {name}"))[0] for name in ("bridge7", "v0", "v1")]
    for row in rows:
        for timer in ("gc_timer", "topology_change_timer", "hello_timer", "tcn_timer", "fdb_n_learned", "hold_timer",
                      "forward_delay_timer", "message_age_timer", "no", "id", "designated_port", "state",
                      "topology_change", "topology_change_detected", "config_pending"):  # fmt: skip
            for part in ("info_data", "info_slave_data"):
                row.get("linkinfo", {}).get(part, {}).pop(timer, None)
    return rows, told.addresses(mount, "bridge7")


def test_a_bridge_of_the_host_is_left_as_found(mount: Mount, peer: Place, virts: Virts) -> None:
    for name in ("v0", "v1"):
        told.cable(mount, name, peer, f"10.0.3.{name[1]}/24")
        peer.ip("link set eth0 name other-" + name)
    mount.ip("link add bridge7 type bridge ageing_time 7700 forward_delay 0 group_fwd_mask 0x8")
    mount.ip("link set v0 master bridge7")
    mount.sh("bridge link set dev v0 learning off isolated on cost 44 hairpin on neigh_suppress on")
    mount.ip("link set v0 type bridge_slave group_fwd_mask 0x4")
    mount.sh("bridge fdb add 02:00:00:00:00:09 dev v0 master static sticky")
    mount.ip("address add 10.0.7.1/24 dev bridge7")
    mount.ip("link set bridge7 address 02:00:00:00:07:07")
    before = found(mount)
    virt = virts()
    mount.ctl(
        f"create bridge7 up delete v0 add v1 add {virt.tap} timeout 3 maxaddr 4 priority 1 hellotime 4 mtu 1400"
        " groupfwd 0x4008 -inet 10.0.7.1 inet 10.0.8.1/24"
    )
    assert mount.read("bridge/bridge7/members").split() == ["v1", virt.tap]
    mount.ctl("destroy bridge7")
    assert not mount.exists("bridge/bridge7")
    after = found(mount)
    assert after[1] == before[1]
    for then, now in zip(before[0], after[0], strict=True):
        for part in ("flags", "mtu", "address", "master"):
            assert now.get(part) == then.get(part), (now["ifname"], part)
        for part in ("info_data", "info_slave_data"):
            expected = then["linkinfo"].get(part, {})
            shown = now["linkinfo"].get(part, {})
            assert shown == expected, now["ifname"]
    assert told.table(mount, "bridge7", "v0")["02:00:00:00:00:09"]["state"] == "static"


def test_an_interface_of_the_name_that_is_no_bridge(mount: Mount) -> None:
    mount.ip("link add bridge7 type veth peer name other")
    with fails(errno.EBUSY):
        mount.ctl("create bridge7")
    assert mount.has("bridge7")


def test_unmounting_removes_what_was_made_and_leaves_the_rest(alone: Alone) -> None:
    mount = alone()
    mount.ip("link add bridge7 type bridge")
    mount.ctl("create bridge0 up\ncreate bridge7 up\ncreate 3 up bridge bridge7")
    assert mount.end() == 0
    assert mount.links() == ["lo", "bridge7"]
    assert "UP" not in told.link(mount, "bridge7")["flags"]
    mount.ip("link del bridge7")


# --- recreated from saved text


def test_reading_ctl_makes_it_again(alone: Alone) -> None:
    one, two = alone(), alone()
    for mount in (one, two):
        mount.ip("link add eth0 type veth peer name far")
        mount.ip("link set eth0 up")
        mount.ip("address add 10.1.1.2/24 dev eth0")
    one.ctl(
        "create bridge0 groupfwd 0x4008 priority 4096 timeout 7 maxaddr 9 inet 10.9.9.9/24 up"
        " add eth0 adopt -discover eth0\n"
        "create bridge10 mtu 1400\n"
        "create 3 up bridge bridge0 description # a lab\n"
        "create 4 bridge bridge10\n"
        "bridge0 -learn virt3 static virt3 02:00:00:00:00:09 ifpriority tap3 16 ifpathcost tap3 77"
        " ifgroupfwd virt3 0x4 stp tap3\n"
        "bridge10 protect tap4\n"
    )
    text = one.read("ctl")
    lines = text.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["#", "made:"],
        ["#", "adopted:"],
        ["create", "bridge0"],
        ["create", "bridge10"],
        ["create", "3"],
        ["create", "4"],
        ["bridge0", "-learn"],
        ["bridge10", "protect"],
    ]
    assert "inet 10.1.1.2" not in text  # `adopt` takes it from eth0
    two.ctl(text)
    assert two.read("ctl") == text
    waits = " (listening|learning|forwarding)\n"
    shown, again = (re.sub(waits, "\n", mount.read("bridge/bridge0/status")) for mount in (one, two))
    assert again == shown
    for mount in (one, two):
        assert told.addresses(mount, "bridge0") >= {"10.1.1.2/24", "10.9.9.9/24"}
        mount.ctl("destroy bridge0")
        assert "10.1.1.2/24" in told.addresses(mount, "eth0")
        mount.ip("link del eth0")


def test_the_state_file_brings_bridges_back(alone: Alone) -> None:
    mount = alone("state=/mnt/state")
    mount.ctl("create bridge0 up timeout 9\ncreate 3 up bridge bridge0\nbridge0 -learn tap3")
    text = mount.read("ctl")
    until(lambda: mount.sh("cat /mnt/state") == f"{text}\n", "the state is saved")
    assert "# made: bridge0" in text


def test_changes_by_others_reach_the_state_file(alone: Alone) -> None:
    mount = alone("state=/mnt/state")
    mount.ctl("create bridge0")
    mount.ip("link set bridge0 up")
    until(lambda: "create bridge0 up\n" in mount.sh("cat /mnt/state"), "the state is saved")
