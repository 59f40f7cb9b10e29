"""Frames to the link-local groups 01:80:c2:00:00:0X, which a Linux bridge does not forward by default."""

import json

import pytest
from harness import told
from harness.programs import EXPERIMENTAL
from harness.serving import Mount, Virt, Virts
from harness.waiting import until

FORWARDED_BY_A_PORT = set(range(16)) - {1}
FORWARDED_BY_A_BRIDGE = set(range(3, 16))
WITHOUT_SPANNING_TREE = {0}  # without STP, group 0 is forwarded like any other (net/bridge/br_input.c br_handle_frame)


def to_group(number: int) -> bytes:
    """Return a frame to a group, with a length that differs for each group."""
    return bytes([1, 0x80, 0xC2, 0, 0, number]) + b"\2\0\0\0\0\7" + EXPERIMENTAL + bytes(46 + number)


def joined(mount: Mount, virts: Virts, verbs: str = "") -> tuple[Virt, Virt]:
    """Create bridge0 with two interfaces, and wait until it forwards between them."""
    mount.ctl(f"create bridge0 up {verbs}")
    one, two = virts("up bridge bridge0"), virts("up bridge bridge0")
    for virt in (one, two):
        until(lambda: told.port(mount, virt.tap)["state"] == "forwarding", "the port forwards")  # noqa: B023
    return one, two


def passing(one: Virt, two: Virt) -> set[int]:
    """Return the groups whose frames get from `one` to `two`."""
    reader, writer = two.open(), one.open()
    found = set()
    for number in range(16):
        writer.write(to_group(number))
    writer.write(b"\xff" * 6 + to_group(0)[6:])
    while (frame := reader.read(2048))[0] != 0xFF:
        if frame[12:14] == EXPERIMENTAL:
            assert frame == to_group(frame[5])
            found.add(frame[5])
    reader.close()
    writer.close()
    return found


def test_a_new_bridge_keeps_them_back(mount: Mount, virts: Virts) -> None:
    assert passing(*joined(mount, virts)) == WITHOUT_SPANNING_TREE


@pytest.mark.parametrize(("mask", "groups"), [("0xfff8", FORWARDED_BY_A_BRIDGE), ("0x4008", {3, 14}), ("0x0", set())])
def test_of_the_bridge(mount: Mount, virts: Virts, mask: str, groups: set[int]) -> None:
    assert passing(*joined(mount, virts, f"groupfwd {mask}")) == groups | WITHOUT_SPANNING_TREE


def test_of_a_member(mount: Mount, virts: Virts) -> None:
    """A member's mask affects frames received from it, LACP included. No Linux bridge forwards pause frames."""
    one, two = joined(mount, virts)
    mount.ctl(f"bridge0 ifgroupfwd {one.name} 0xfffd")
    assert passing(one, two) == FORWARDED_BY_A_PORT
    assert passing(two, one) == WITHOUT_SPANNING_TREE
    assert told.port(mount, one.tap)["group_fwd_mask"] == "0xfffd"


def test_it_is_shown_as_it_was_said(mount: Mount, virts: Virts) -> None:
    one, two = joined(mount, virts, "groupfwd 0x4008")
    mount.ctl(f"bridge0 ifgroupfwd {one.tap} 0x4")
    assert "groupfwd 0x4008" in mount.read("bridge/bridge0/ctl")
    assert f"ifgroupfwd {one.tap} 0x4" in mount.read("ctl")
    assert two.tap not in mount.read("bridge/bridge0/ctl").split("add")[0]
    status = mount.read("bridge/bridge0/status")
    assert "\t\tgroupfwd 0x4008\n" in status
    assert status.count("priority 128 groupfwd 0x4\n") == 1
    (bridge,) = json.loads(mount.read("status.json"))["bridges"]
    assert (bridge["groupfwd"], [member["groupfwd"] for member in bridge["members"]]) == (0x4008, [4, 0])
    mount.ctl(f"bridge0 groupfwd 0 ifgroupfwd {one.tap} 0x0")
    assert "groupfwd" not in mount.read("ctl") + mount.read("bridge/bridge0/status")


def test_one_that_is_set_by_hand_is_followed(mount: Mount, virts: Virts) -> None:
    one, _ = joined(mount, virts)
    mount.ip("link set bridge0 type bridge group_fwd_mask 0xfff8")
    mount.ip(f"link set {one.tap} type bridge_slave group_fwd_mask 0x4")
    text = mount.read("ctl")
    assert "create bridge0 groupfwd 0xfff8 up" in text
    assert f"bridge0 ifgroupfwd {one.tap} 0x4" in text
    mount.ctl("bridge0 priority 7 timeout 5 down up")
    assert mount.read("ctl").count("groupfwd") == 2
