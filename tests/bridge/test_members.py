"""Interfaces of the host as members: how they join, leave, vanish and come back, and whether they have a link."""

import os
import re
import sys
from collections.abc import Iterator

import pytest
from harness import told
from harness.lasting import LastingOnes
from harness.process import File
from harness.serving import Mount, Virts
from harness.waiting import until


@pytest.fixture
def events(mount: Mount) -> Iterator[File]:
    file = mount.root.open("events", os.O_RDONLY)
    yield file
    file.close()


def happened(events: File, *wanted: str) -> None:
    """Wait for these events, without their times."""
    lines: list[str] = []
    while len(lines) < len(wanted):
        lines += [line.split(" ", 1)[1] for line in events.read().decode().splitlines()]
    assert lines == [*wanted]


def members(mount: Mount) -> str:
    return mount.sh("cat bridge/bridge0/members")


def test_a_member_that_is_deleted_keeps_its_line(mount: Mount, events: File) -> None:
    mount.ip("link add d7 type veth peer name far-d7")
    mount.ctl("create bridge0 up add d7 -learn d7 static d7 02:00:00:00:00:09")
    happened(events, "create bridge0", "join bridge0 member=d7")
    mount.ip("link delete d7")
    happened(events, "leave bridge0 member=d7 returned=1")
    line = "bridge0 add d7 -learn d7 static d7 02:00:00:00:00:09"
    until(lambda: f'# not replayed: {line}\n#     "d7" is gone' in mount.read("ctl"), "ctl has the line")
    mount.ctl("ensure bridge0 up priority 7")  # another command about the bridge does not drop it
    mount.ip("link add d7 type veth peer name far-d7")
    mount.ctl("retry")
    happened(events, "join bridge0 member=d7", "retry state done=1 failed=0")
    assert mount.read("ctl").endswith("priority 7 -learn d7 static d7 02:00:00:00:00:09 up")


@pytest.mark.parametrize("line", ["ensure bridge0 delete d7", "destroy bridge0"])
def test_the_line_of_a_deleted_member_can_be_dropped(mount: Mount, line: str) -> None:
    mount.ip("link add d7 type veth peer name far-d7")
    mount.ctl("create bridge0 up add d7")
    mount.ip("link delete d7")
    until(lambda: "not replayed" in mount.read("ctl"), "ctl has the line")
    mount.ctl(line)
    assert "not replayed" not in mount.sh("cat ctl")


def test_a_member_that_joins_again_by_another_program(mount: Mount) -> None:
    mount.ip("link add d7 type veth peer name far-d7")
    mount.ctl("create bridge0 up add d7")
    mount.ip("link delete d7")
    until(lambda: "not replayed" in mount.read("ctl"), "ctl has the line")
    mount.ips("link add d7 type veth peer name far-d7\nlink set d7 master bridge0")
    until(lambda: mount.read("ctl").endswith("create bridge0 add d7 up"), "d7 is a member again")


def test_a_member_that_is_taken_out_has_no_line(mount: Mount, events: File) -> None:
    mount.ip("link add d7 type veth peer name far-d7")
    mount.ctl("create bridge0 up add d7")
    happened(events, "create bridge0", "join bridge0 member=d7")
    mount.log.clear()
    mount.ip("link set d7 nomaster")
    happened(events, "leave bridge0 member=d7 returned=1")
    until(lambda: '"d7" has left the bridge' in "".join(mount.log), "the log tells it")
    assert mount.read("ctl").endswith("create bridge0 up")
    mount.ctl("bridge0 add d7")
    mount.ctl("bridge0 delete d7")
    happened(events, "join bridge0 member=d7", "leave bridge0 member=d7 returned=1")


@pytest.mark.parametrize("before", ["", "bridge0 add vnet0\nbridge0 delete vnet0"])
def test_a_member_that_others_have_added_and_deleted_has_no_line(mount: Mount, before: str) -> None:
    """A virtual machine's tap, for example, comes and goes with the machine. A line may have had it before."""
    mount.ip("link add vnet0 type veth peer name far-vnet0")
    mount.ctl(f"create bridge0 up\n{before}")
    events = mount.root.open("events", os.O_RDONLY)
    mount.ip("link set vnet0 master bridge0")
    happened(events, "join bridge0 member=vnet0")
    mount.ip("link delete vnet0")
    happened(events, "leave bridge0 member=vnet0 returned=1")
    assert mount.read("ctl").endswith("create bridge0 up")


@pytest.mark.parametrize("way", ["kill", "end"])
def test_the_next_mount_adds_a_member_that_is_back(lasting: LastingOnes, way: str) -> None:
    mount = lasting("state=/mnt/state")
    mount.ip("link add d7 type veth peer name far-d7")
    mount.ctl("create bridge0 up add d7\ncreate 3 bridge bridge0")
    mount.ip("link delete d7")
    until(lambda: "# not replayed: bridge0 add d7" in mount.sh("cat /mnt/state"), "the state file has the line")
    if way == "kill":
        mount.kill()
    else:
        assert mount.end() == 0
    mount.ip("link add d7 type veth peer name far-d7")
    mount.again("state=/mnt/state")
    assert sorted(members(mount).split()) == ["d7", "tap3"]
    assert "not replayed" not in mount.read("ctl")


def test_a_member_without_a_link_is_told(mount: Mount, virts: Virts) -> None:
    mount.ip("link add d7 type veth peer name far-d7")
    mount.ips("link set d7 up\nlink set far-d7 up")
    virt = virts("up")
    mount.ctl(f"create bridge0 up add d7 add {virt.name}")
    assert told.port(mount, "d7")["state"] == "forwarding"
    row = re.compile(rf"bridge0 +up +{{}} {virt.tap}\n")
    listing = f"{sys.executable} -m virtfs ls"
    assert re.search(row.pattern.format("d7"), mount.sh(listing))
    assert "128 disabled" not in mount.sh("cat bridge/bridge0/status")
    mount.ip("link set d7 down")
    assert re.search(row.pattern.format(r"d7\(nolink\)"), mount.sh(listing))
    assert "port 1 priority 128 disabled\n" in mount.sh("cat bridge/bridge0/status")


def test_a_bridge_that_is_given_by_its_number(mount: Mount, virts: Virts) -> None:
    virt = virts()
    told_by_ctl = mount.sh(f"{sys.executable} -m virtfs ctl -d . {virt.name} bridge 0 2>&1 || true")
    assert told_by_ctl.endswith(': bridge: there is no bridge "0": did you mean "bridge0"?\n')
    mount.ip("link add name 0 type bridge")  # an odd name, but a valid one
    mount.ctl(f"{virt.name} bridge 0")
    assert virt.read("tap/bridge") == "0"
    mount.ip("link delete 0")
