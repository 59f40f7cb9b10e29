"""The effect of each verb of a bridge, as `ip`, `bridge` and the files show it, and each error."""

import errno

import pytest
from harness import told
from harness.process import fails
from harness.serving import Mount, Virt, Virts, frame
from harness.waiting import until

MAC = "02:00:00:00:00:09"


def ports(mount: Mount, virts: Virts) -> tuple[str, str]:
    """Create bridge0, up, with two members. Returns the names of their taps."""
    one, two = virts(), virts()
    mount.ctl(f"create bridge0 up add {one.tap} add {two.name}")
    return one.tap, two.tap


def test_made_as_brconfig_says_and_removed(mount: Mount) -> None:
    mount.ctl("create bridge0")
    assert mount.sh("cat bridge/bridge0/status") == (
        "bridge0: flags=0<>\n"
        "\tConfiguration:\n"
        "\t\tpriority 32768 hellotime 2 fwddelay 15 maxage 20\n"
        "\t\tipfilter disabled flags 0x0\n"
        "\tInterfaces:\n"
        "\tAddress cache (max cache: 100, timeout: 1200):\n"
    )
    assert told.data(mount, "bridge0")["ageing_time"] == 120000
    assert "UP" not in told.link(mount, "bridge0")["flags"]
    mount.ctl("bridge0 up")
    assert mount.read("bridge/bridge0/status").startswith("bridge0: flags=41<UP,RUNNING>\n")
    assert told.addresses(mount, "bridge0") == set()  # no link-local address, as on taps
    mount.ctl("destroy bridge0")
    assert not mount.has("bridge0")
    assert not mount.exists("bridge/bridge0")


def test_frames_with_vlan_tags_pass(mount: Mount, virts: Virts) -> None:
    mount.ctl("create bridge0 up")
    near, far = virts("up bridge bridge0").open(), virts("up bridge bridge0").open()
    tagged = frame(1514)[:12] + bytes((0x81, 0, 0x60, 5)) + frame(1514)[12:]
    near.write(tagged)
    assert far.read() == tagged


def test_files_are_roots(mount: Mount) -> None:
    mount.ctl("create bridge0")
    modes = mount.sh("stat -c '%n %a %u' bridge/bridge0/*").splitlines()
    assert modes == [
        "bridge/bridge0/addresses 444 0",
        "bridge/bridge0/ctl 644 0",
        "bridge/bridge0/members 444 0",
        "bridge/bridge0/status 444 0",
    ]
    assert "Permission denied" in mount.refused("echo up >bridge/bridge0/ctl", uid=1000)
    assert mount.sh("cat bridge/bridge0/ctl", uid=1000) == "\n"


@pytest.mark.parametrize(
    ("verb", "attribute", "value"),
    [
        ("timeout 7", "ageing_time", 700),
        ("maxage 6", "max_age", 600),
        ("fwddelay 30", "forward_delay", 3000),
        ("hellotime 10", "hello_time", 1000),
        ("priority 0", "priority", 0),
        ("priority 65535", "priority", 65535),
        ("groupfwd 0x8", "group_fwd_mask", "0x8"),
        ("groupfwd 0xfff8", "group_fwd_mask", "0xfff8"),
    ],
)
def test_parameters(mount: Mount, verb: str, attribute: str, value: int | str) -> None:
    mount.ctl("create bridge0")
    mount.write("bridge/bridge0/ctl", f"{verb}\n")
    assert told.data(mount, "bridge0")[attribute] == value
    assert mount.read("bridge/bridge0/ctl") == verb


def test_timeout_0_is_never(mount: Mount) -> None:
    mount.ctl("create bridge0 timeout 0")
    assert told.data(mount, "bridge0")["ageing_time"] > 2**32 - 100
    assert mount.read("bridge/bridge0/ctl") == "timeout 0"
    assert "timeout: 0" in mount.read("bridge/bridge0/status")


def test_what_only_interfaces_have(mount: Mount) -> None:
    mount.ctl("create bridge0 up mtu 1400 inet 10.0.3.1/24 inet6 fd00::1/64")
    assert told.addresses(mount, "bridge0") == {"10.0.3.1/24", "fd00::1/64"}
    assert told.link(mount, "bridge0")["mtu"] == 1400
    assert mount.read("bridge/bridge0/ctl") == "inet 10.0.3.1/24 inet6 fd00::1/64 mtu 1400 up"
    mount.ctl("bridge0 inet 10.0.3.1/24 -inet 10.0.3.1 -inet6 fd00::1/64 down")
    assert told.addresses(mount, "bridge0") == set()
    with fails(errno.EADDRNOTAVAIL):
        mount.ctl("bridge0 -inet 10.0.3.1")


@pytest.mark.parametrize(
    ("verb", "attribute", "value"),
    [
        ("-learn", "learning", False),
        ("-discover", "flood", False),
        ("protect", "isolated", True),
    ],
)
def test_switches_of_a_member(mount: Mount, virts: Virts, verb: str, attribute: str, value: bool) -> None:
    one, two = ports(mount, virts)
    mount.ctl(f"bridge0 {verb} {one}")
    assert told.port(mount, one)[attribute] is value
    assert told.port(mount, two)[attribute] is not value
    assert f"{verb} {one}" in mount.read("bridge/bridge0/ctl")
    mount.ctl(f"bridge0 {verb.removeprefix('-') if verb[0] == '-' else '-' + verb} {one}")
    assert told.port(mount, one)[attribute] is not value
    assert f"{verb} {one}" not in mount.read("bridge/bridge0/ctl")


def test_numbers_of_a_member(mount: Mount, virts: Virts) -> None:
    one, _ = ports(mount, virts)
    mount.ctl(f"bridge0 ifpriority {one} 255 ifpathcost {one} 65535 stp {one}")
    shown = told.port(mount, one)
    assert (shown["priority"], shown["cost"]) == (63, 65535)
    assert told.data(mount, "bridge0")["stp_state"] == 1
    assert "priority 252 path cost 65535" in mount.read("bridge/bridge0/status")
    mount.ctl(f"bridge0 -stp {one}")
    assert told.data(mount, "bridge0")["stp_state"] == 0
    assert "path cost" not in mount.read("bridge/bridge0/status")


def test_members_come_and_go(mount: Mount, virts: Virts) -> None:
    one, two = ports(mount, virts)
    assert mount.read("bridge/bridge0/members").split() == [one, two]
    assert told.link(mount, one)["master"] == told.link(mount, two)["master"] == "bridge0"
    mount.ctl(f"bridge0 delete {one}")
    assert mount.read("bridge/bridge0/members") == two
    assert "master" not in told.link(mount, one)


@pytest.mark.parametrize("option", ["", " adopt"])
def test_only_an_ethernet_interface_can_be_a_member(mount: Mount, option: str) -> None:
    mount.ip("tuntap add tun0 mode tun")
    for name in ("lo", "tun0"):
        line = f"create bridge0 add {name}{option}"
        with fails(errno.EINVAL):
            mount.ctl(line)
        why = "only an Ethernet interface can be in a bridge"
        assert mount.read("last_error") == f'"{line}": add "{name}"{option} on bridge0: {why}'
        assert not mount.has("bridge0")
    mount.ip("link delete tun0")


def test_a_renamed_tap_is_meant_by_its_virt(mount: Mount, virts: Virts) -> None:
    virt = virts()
    mount.ip(f"link set {virt.tap} name wire")
    mount.ctl(f"create bridge0 add {virt.name} -learn {virt.tap}")
    assert mount.read("bridge/bridge0/members") == "wire"
    assert told.port(mount, "wire")["learning"] is False
    mount.ctl(f"bridge0 delete {virt.tap}")
    assert mount.read("bridge/bridge0/members") == ""


def test_the_table(mount: Mount, virts: Virts) -> None:
    one, two = ports(mount, virts)
    own = set(told.table(mount, "bridge0", one))
    mount.ctl(f"bridge0 static {one} {MAC}")
    entry = told.table(mount, "bridge0", one)[MAC]
    assert entry["state"] == "static"
    assert "sticky" in entry["flags"]
    assert mount.read("bridge/bridge0/addresses") == f"{MAC} {one} 0 flags=1<STATIC>"
    mount.ctl(f"bridge0 static {two} {MAC}")  # moves the entry
    assert mount.read("bridge/bridge0/addresses").startswith(f"{MAC} {two} ")
    mount.ctl(f"bridge0 deladdr {MAC}")
    assert mount.read("bridge/bridge0/addresses") == ""
    with fails(errno.ENOENT):
        mount.ctl(f"bridge0 deladdr {MAC}")
    with fails(errno.ENOENT):  # a port's own address is not an entry of the table
        mount.ctl(f"bridge0 deladdr {own.pop()}")


def station(number: int) -> bytes:
    return bytes((2, 0, 0, 1, 0, number))


def sends(virt: Virt, *stations: int) -> None:
    """Send a frame from each of the numbered stations behind an interface."""
    file = virt.open()
    for number in stations:
        file.write(b"\xff" * 6 + station(number) + b"\x88\xb5" + bytes(46))
    file.close()


def learned(mount: Mount) -> set[str]:
    return {line.split()[0] for line in mount.read("bridge/bridge0/addresses").splitlines()}


def test_learned_and_flushed(mount: Mount, virts: Virts) -> None:
    virt, two = virts(), virts()
    mount.ctl(f"create bridge0 up add {virt.tap} add {two.tap} static {two.tap} {MAC}")
    own = set(told.table(mount, "bridge0", virt.tap))
    sends(virt, 1, 2)
    until(lambda: len(learned(mount)) == 3, "two addresses are learned")
    shown = mount.read("bridge/bridge0/addresses")
    assert f"{station(1).hex(':')} {virt.tap} 0 flags=0<>" in shown.splitlines()
    assert f"\t\t{station(1).hex(':')} {virt.tap} 1200 flags=0<>" in mount.read("bridge/bridge0/status").splitlines()
    mount.ctl("bridge0 flush")
    assert learned(mount) == {MAC}
    assert set(told.table(mount, "bridge0", virt.tap)) == own
    sends(virt, 1)
    until(lambda: len(learned(mount)) == 2, "an address is learned again")
    mount.ctl("bridge0 flushall")
    assert learned(mount) == set()
    assert set(told.table(mount, "bridge0", virt.tap)) == own


def test_no_more_than_maxaddr_are_learned(mount: Mount, virts: Virts) -> None:
    virt = virts()
    mount.ctl(f"create bridge0 up add {virt.tap} maxaddr 3")
    sends(virt, *range(1, 9))
    until(lambda: len(learned(mount)) == 3, "three addresses are learned")
    sends(virt, *range(9, 20))
    assert len(learned(mount)) == 3
    assert mount.read("bridge/bridge0/ctl").endswith("maxaddr 3 up")
    mount.ctl("bridge0 maxaddr 0")
    sends(virt, *range(1, 9))
    until(lambda: len(learned(mount)) >= 8, "more than three addresses are learned")


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("create bridge0", errno.EEXIST),
        ("bridge1 up", errno.ENXIO),
        ("destroy bridge1", errno.ENXIO),
        ("create bridge01", errno.EINVAL),
        ("create bridge1000000000", errno.ERANGE),
        ("bridge0 add nosuch", errno.ENXIO),
        ("bridge0 add virt99999", errno.ENXIO),
        ("bridge0 add {one}", errno.EEXIST),
        ("bridge0 add {busy}", errno.EBUSY),
        ("bridge0 delete {busy}", errno.ENOENT),
        ("bridge0 learn {busy}", errno.ENOENT),
        ("bridge0 static {busy} " + MAC, errno.ENOENT),
        ("bridge0 static {one} 01:00:00:00:00:01", errno.EINVAL),
        ("bridge0 add lo", errno.EINVAL),
        ("bridge0 add bridge0", errno.ELOOP),
        ("bridge0 hellotime 11", errno.ERANGE),
        ("bridge0 maxage 41", errno.ERANGE),
        ("bridge0 fwddelay 1", errno.ERANGE),
        ("bridge0 priority 65536", errno.ERANGE),
        ("bridge0 ifpriority {one} 256", errno.ERANGE),
        ("bridge0 ifpathcost {one} 0", errno.ERANGE),
        ("bridge0 timeout 42949672", errno.ERANGE),
        ("bridge0 groupfwd 0xffff", errno.ERANGE),
        ("bridge0 ifgroupfwd {one} 0x2", errno.ERANGE),
        ("bridge0 ifgroupfwd {busy} 0x4", errno.ENOENT),
        ("bridge0 mtu 67", errno.ERANGE),
        ("bridge0 flush up", errno.EINVAL),
        ("create bridge3 hellotime 3 add lo", errno.EINVAL),
    ],
)
def test_refused(mount: Mount, virts: Virts, line: str, number: int) -> None:
    one, _ = ports(mount, virts)
    busy = virts().tap
    mount.ip("link add bridge2 type bridge")
    mount.ip(f"link set {busy} master bridge2")
    before = mount.read("ctl")
    line = line.format(one=one, busy=busy)
    with fails(number):
        mount.ctl(line)
    assert mount.read("last_error").startswith(f'"{line}": ')
    assert mount.read("ctl") == before
    assert not mount.has("bridge3")


def test_a_line_that_the_kernel_refuses_is_undone(mount: Mount, virts: Virts) -> None:
    one, two = ports(mount, virts)
    mount.ctl(
        f"bridge0 priority 4 timeout 9 -learn {one} ifpriority {one} 16 ifpathcost {one} 55 stp {two}"
        f" static {one} {MAC} inet 10.0.3.1/24 groupfwd 0x8 ifgroupfwd {one} 0x4"
    )
    before, status = mount.read("bridge/bridge0/ctl"), mount.read("bridge/bridge0/status")
    with fails(errno.EINVAL):
        mount.ctl(
            f"bridge0 groupfwd 0x4008 ifgroupfwd {two} 0x4"
            f" down mtu 1400 priority 5 timeout 0 maxaddr 2 hellotime 9 maxage 30 fwddelay 9 delete {one}"
            f" protect {two} -stp {two} -discover {two} inet 10.0.4.1/24 -inet 10.0.3.1 add lo"
        )
    assert sorted(mount.read("bridge/bridge0/ctl").split()) == sorted(before.split())
    assert sorted(mount.read("bridge/bridge0/members").split()) == sorted((one, two))
    assert mount.read("bridge/bridge0/status").splitlines()[:3] == status.splitlines()[:3]
    entry = told.table(mount, "bridge0", one)[MAC]
    assert (entry["state"], told.port(mount, one)["learning"]) == ("static", False)


def test_ensure_twice_is_once(mount: Mount, virts: Virts) -> None:
    virt = virts()
    line = f"ensure bridge0 add {virt.tap} -learn {virt.tap} static {virt.tap} {MAC} inet 10.0.3.1/24 up"
    mount.ctl(line)
    state = mount.read("ctl")
    mount.ctl(line)
    assert mount.read("ctl") == state
    mount.ctl(f"ensure bridge0 delete {virt.tap} delete {virt.tap}")
    assert mount.read("bridge/bridge0/members") == ""


def test_an_open_ctl_of_a_bridge_that_is_gone(mount: Mount) -> None:
    mount.ctl("create bridge0")
    file = mount.root.open("bridge/bridge0/ctl")
    mount.ctl("destroy bridge0\ncreate bridge0")
    with fails(errno.ENXIO):
        file.write("up\n")
    assert "UP" not in told.link(mount, "bridge0")["flags"]
