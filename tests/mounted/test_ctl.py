"""ctl: lines with one or more verbs, undoing of lines that fail, and its text, which recreates the state."""

import errno
import os
import struct
import subprocess

import pytest
from harness import programs
from harness.fixtures import Alone
from harness.places import finished
from harness.process import fails
from harness.serving import Mount, Virt, Virts, frame
from harness.waiting import until


def test_create_as_ifconfig_does(mount: Mount) -> None:
    mount.sh("echo create 3 up mtu 1400 inet 10.0.3.1/24 inet6 fd00:3::1/64 description the third >ctl")
    shown = mount.ip("addr show tap3")
    for said in ("mtu 1400", "UP", "10.0.3.1/24", "fd00:3::1/64"):
        assert said in shown
    assert mount.read("virt3/description") == "the third"
    assert mount.units() == ["virt3"]


def test_a_new_virt(mount: Mount) -> None:
    """It is down, has MTU 1500 and a MAC address like NetBSD's, and no IPv6 address when it is set up."""
    mount.ctl("create 300")
    assert (mount.read("virt300/up"), mount.read("virt300/mtu")) == ("0", "1500")
    mac = mount.read("virt300/address")
    assert (mac[:6], mac[8:]) == ("b2:0a:", ":0b:0e:2c")
    mount.ctl("virt300 up")
    assert "inet6" not in mount.ip("addr show tap300")


def test_addresses_outlive_down(mount: Mount) -> None:
    mount.ctl("create 3 up inet 10.0.3.1/24 inet6 fd00:3::1/64 link 02:00:00:00:00:03\nvirt3 down\nvirt3 up")
    assert mount.read("virt3/tap/addresses").split() == ["10.0.3.1/24", "fd00:3::1/64"]
    assert mount.read("virt3/address") == "02:00:00:00:00:03"


def test_verbs_are_ifconfigs(virt: Virt) -> None:
    virt.set("link 02:00:00:00:00:01 taplink 02:00:00:00:00:02 inet 10.5.0.1/24 inet 10.6.0.1/24 mtu 1000")
    assert virt.read("address") == "02:00:00:00:00:01"
    assert virt.read("tap/address") == "02:00:00:00:00:02"
    virt.set("-inet 10.5.0.1")
    assert virt.read("tap/addresses") == "10.6.0.1/24"
    virt.set("strict exclusive both queue 9 backlog 4 mode 640 owner nobody group 7")
    files = ("strict", "exclusive", "queue", "backlog")
    assert [virt.read(file) for file in files] == ["1", "both", "9", "4"]
    status = virt.mount.root.call(os.stat, f"/mnt/virt/{virt.name}/frame")
    assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o640, 65534, 7)
    virt.set("-strict exclusive read")
    assert (virt.read("strict"), virt.read("exclusive")) == ("0", "read")


REFUSED = [
    ("create 3", errno.EEXIST, "virt3"),
    ("create virt3", errno.EEXIST, "virt3"),
    ("create 03", errno.EINVAL, "03"),
    ("create +4", errno.EINVAL, "+4"),
    ("create -4", errno.EINVAL, "-4"),
    ("create ٤", errno.EINVAL, "٤"),
    ("create 2147483640", errno.ERANGE, "2147483640"),
    ("create 4 frob", errno.EINVAL, "frob"),
    ("create 4 mtu", errno.EINVAL, "mtu"),
    ("create 4 mtu 10", errno.ERANGE, "10"),
    ("create 4 mtu 99999", errno.ERANGE, "99999"),
    ("create 4 mtu 15oo", errno.EINVAL, "15oo"),
    ("create 4 inet 10.0.0.1", errno.EINVAL, "10.0.0.1"),
    ("create 4 inet 10.0.0.1/33", errno.ERANGE, "33"),
    ("create 4 inet 300.0.0.1/24", errno.EINVAL, "300.0.0.1"),
    ("create 4 link 01:00:00:00:00:00", errno.EINVAL, "01:00:00:00:00:00"),
    ("create 4 link zz", errno.EINVAL, "zz"),
    ("create 4 owner nosuchuser", errno.EINVAL, "nosuchuser"),
    ("create 4 group nosuchgroup", errno.EINVAL, "nosuchgroup"),
    ("create 4 mode 888", errno.EINVAL, "888"),
    ("create 4 exclusive some", errno.EINVAL, "some"),
    ("create 4 queue 0", errno.ERANGE, "0"),
    ("destroy 4", errno.ENXIO, "virt4"),
    ("virt4 up", errno.ENXIO, "virt4"),
    ("virt3", errno.EINVAL, "virt3"),
    ("destroy 3 up", errno.EINVAL, "up"),
    ("destroy", errno.EINVAL, "destroy"),
    ("frobnicate", errno.EINVAL, "frobnicate"),
    ("up", errno.EINVAL, "up"),
    ("virt3 up mtu 1400 frob", errno.EINVAL, "frob"),
    ("virt3 up inet 224.0.0.1/24", errno.EINVAL, "224.0.0.1"),
    ("virt3 up -inet 10.9.9.9", errno.EADDRNOTAVAIL, "10.9.9.9"),
]


@pytest.mark.parametrize(("line", "number", "quoted"), REFUSED, ids=[line for line, _, _ in REFUSED])
def test_a_refused_line_changes_nothing(mount: Mount, line: str, number: int, quoted: str) -> None:
    mount.ctl("create 3 description keep me")
    before = mount.read("ctl")
    with fails(number):
        mount.ctl(line)
    assert mount.read("ctl") == before
    assert not mount.has("tap4")
    why = mount.read("last_error")
    assert quoted in why
    assert "\n" not in why


@pytest.mark.parametrize("line", ["", "   ", "# a comment", "\t# another", "virt3 up # and why"])
def test_what_is_no_error(mount: Mount, line: str) -> None:
    mount.ctl("create 3 up")
    before = mount.read("last_error"), mount.read("ctl")
    mount.ctl(line)
    assert (mount.read("last_error"), mount.read("ctl")) == before


def test_lines_run_up_to_the_first_that_fails(mount: Mount) -> None:
    with fails(errno.ENXIO):
        mount.ctl("create 1\ncreate 2 # fine\n\nvirt9 up\ncreate 4")
    assert sorted(mount.units()) == ["virt1", "virt2"]
    why = mount.read("last_error")
    assert "line 4" in why
    assert "virt9 up" in why


def test_the_shell_says_why(mount: Mount) -> None:
    assert "No such device or address" in mount.refused("LC_ALL=C echo destroy 7 >ctl")
    assert "File exists" in mount.refused("export LC_ALL=C; echo create 7 >ctl && echo create 7 >ctl")


def test_a_line_is_undone_when_the_kernel_refuses(virt: Virt) -> None:
    """IPv6 is disabled on the tap, which virtfs learns only when the kernel refuses the address."""
    virt.set("mtu 2000 inet 10.7.0.1/24")
    before = virt.read("ctl")
    virt.mount.sh(f"echo 1 >/proc/sys/net/ipv6/conf/{virt.tap}/disable_ipv6")
    with pytest.raises(OSError, match=r"\[Errno"):
        virt.set("mtu 1400 queue 7 strict link 02:00:00:00:00:09 -inet 10.7.0.1 down inet6 fd00::1/64 up")
    assert virt.read("ctl") == before
    assert "fd00::1/64" in virt.mount.read("last_error")
    assert "mtu 2000" in virt.mount.ip(f"link show {virt.tap}")
    assert "10.7.0.1/24" in virt.mount.ip(f"addr show {virt.tap}")
    virt.open().write(frame())
    assert virt.host_gets() == frame()


def test_create_is_undone_when_the_kernel_refuses(mount: Mount) -> None:
    mount.sh("echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")
    try:
        with pytest.raises(OSError, match=r"\[Errno"):
            mount.ctl("create 5 up inet 10.0.5.1/24 inet6 fd00:5::1/64")
    finally:
        mount.sh("echo 0 >/proc/sys/net/ipv6/conf/default/disable_ipv6")
    assert not mount.exists("virt5")
    assert not mount.exists("tap5")
    assert not mount.has("tap5")
    mount.ctl("create 5")


def test_a_value_that_the_kernel_refuses(virt: Virt) -> None:
    before = virt.read("mtu")
    with fails(errno.EADDRNOTAVAIL):
        virt.set("mtu 1300 -inet 10.1.1.1/24")
    assert virt.read("mtu") == before


def test_a_script_cut_anywhere(mount: Mount) -> None:
    """cat of 300 KB makes writes that end within lines."""
    note = "n" * 210
    lines = [f"ensure {i % 7} description {note} {i}" for i in range(1300)]
    script = "\n".join(lines) + "\n"
    assert len(script) > 300_000
    catting = mount.shell("exec cat >ctl", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    _, complaint = catting.communicate(script, timeout=30)
    assert (catting.returncode, complaint) == (0, "")
    assert [mount.read(f"virt{i}/description").split()[1] for i in range(7)] == [
        str(max(j for j in range(1300) if j % 7 == i)) for i in range(7)
    ]


@pytest.mark.parametrize("size", [4095, 4096, 4097, 5000])
def test_where_a_write_ends_a_line(mount: Mount, size: int) -> None:
    """A write of less than 4096 bytes ends its last line. The line of a longer write may continue in the next write."""
    line = "create 1".ljust(size - 8, " ") + "# comment"[: size - len("create 1".ljust(size - 8))]
    assert len(line) == size
    file = mount.process().open("ctl", os.O_WRONLY)
    file.write(line)
    assert mount.exists("virt1") == (size < 4096)
    if size >= 4096:
        file.write("\ncreate 2\n")
        assert sorted(mount.units()) == ["virt1", "virt2"]


def test_an_unfinished_line_is_dropped_at_close(mount: Mount) -> None:
    file = mount.process().open("ctl", os.O_WRONLY)
    file.write("create 1\n" + "#" * 5000 + "\ncreate 2")
    file.close()
    mount.read("version")
    assert mount.units() == ["virt1"]
    assert "create 2" in mount.read("last_error")


def test_two_descriptors_do_not_mix(mount: Mount) -> None:
    first, second = (mount.process().open("ctl", os.O_WRONLY) for _ in range(2))
    first.write("#" * 5000 + "\ncreate")
    second.write("create 4\n")
    first.write(" 3\n")
    assert sorted(mount.units()) == ["virt3", "virt4"]


@pytest.mark.parametrize("size", [(1 << 20) + 1, (1 << 20) + 4096, 3 << 20])
def test_more_than_a_mebibyte_is_too_much(mount: Mount, size: int) -> None:
    script = ("create 1\n" + "#" * 1000 + "\n").ljust(size - 9, "#") + "\ncreate 2"
    assert len(script) == size
    file = mount.process().open("ctl", os.O_WRONLY)
    with fails(errno.E2BIG):
        file.write(script)
    assert mount.units() == []


def test_a_large_write_is_one(mount: Mount) -> None:
    script = ("# " + "x" * 1000 + "\n") * 900 + "create 1\n"
    assert mount.process().open("ctl", os.O_WRONLY).write(script) == len(script)
    assert mount.units() == ["virt1"]


def test_reading_gives_what_would_rebuild(mount: Mount, alone: Alone) -> None:
    mount.ctl(
        "create 0\n"
        "create 7 up mtu 9000 inet 10.0.7.1/24 inet 10.1.7.1/16 inet6 fd00:7::1/64 queue 99 backlog 5 strict\n"
        "virt7 exclusive both owner nobody group 12 mode 660 link 02:00:00:00:00:07\n"
        "create 12 inet6 fd00::12/128 description up # destroy 7 “äöü”\n"
        "create 2147483639 up"
    )
    state = mount.read("ctl")
    other = alone()
    other.ctl(state)
    assert other.read("ctl") == state
    for virt in mount.units():
        assert other.read(f"{virt}/ctl") == mount.read(f"{virt}/ctl")
    assert all(word in other.ip("addr show tap7") for word in ("mtu 9000", "10.1.7.1/16"))


def test_one_interfaces_state_is_verbs(virts: Virts) -> None:
    """The text of one interface's ctl can be written to that of another."""
    one, other = virts("up mtu 1234 inet 10.8.0.1/24 backlog 3 description of mine"), virts()
    other.set(one.read("ctl").replace("10.8.0.1", "10.8.0.2"))
    assert other.read("ctl").replace("10.8.0.2", "10.8.0.1") == one.read("ctl")


def test_cp_of_ctl(mount: Mount) -> None:
    """A shell can save and restore the state."""
    mount.ctl("create 1 up\ncreate 2 mtu 1400 description two")
    mount.sh("cat ctl >../saved; echo destroy 1 >ctl; echo destroy 2 >ctl; cat ../saved >ctl; cmp ctl ../saved")


def test_ensure_twice_is_once(mount: Mount) -> None:
    line = "ensure 3 up mtu 1400 inet 10.0.3.1/24 strict"
    mount.ctl(line)
    state = mount.read("ctl")
    mount.ctl(line)
    mount.ctl(line)
    assert mount.read("ctl") == state
    mount.ctl("virt3 down mtu 1500")
    mount.ctl(line)
    assert mount.read("ctl") == state


def test_the_lowest_free(mount: Mount) -> None:
    mount.ctl("create\ncreate up\ncreate")
    mount.ctl("destroy virt1\ncreate description again")
    assert sorted(mount.units()) == ["virt0", "virt1", "virt2"]
    assert mount.read("virt1/description") == "again"


def test_the_lowest_free_leaves_others_taps_alone(mount: Mount) -> None:
    mount.ip("tuntap add tap0 mode tap")
    mount.ip("tuntap add tap1 mode tun")
    try:
        mount.ctl("create")
        assert mount.units() == ["virt2"]
        with fails(errno.EBUSY):
            mount.ctl("create 1")
    finally:
        mount.ip("link del tap0")
        mount.ip("link del tap1")


def test_a_persistent_tap_is_left_as_found(mount: Mount) -> None:
    mount.ip("tuntap add tap6 mode tap")
    mount.ip("link set tap6 addrgenmode none")
    mount.ip("link set tap6 mtu 1450 txqueuelen 77 address 02:00:00:00:00:66 up")
    mount.ip("addr add 10.6.6.6/24 dev tap6")
    index = mount.ip("-o link show tap6").split(":")[0]
    mount.ctl("create 6")
    try:
        assert mount.read("virt6/tap/addresses") == "10.6.6.6/24"
        assert (mount.read("virt6/mtu"), mount.read("virt6/queue"), mount.read("virt6/up")) == ("1450", "77", "1")
        mount.ctl("virt6 mtu 1300 queue 5 taplink 02:00:00:00:00:77 inet 10.7.7.7/24 -inet 10.6.6.6 down")
        mount.ctl("destroy 6")
        link, addresses = mount.ip("-o link show tap6"), mount.ip("-o addr show tap6")
        assert link.split(":")[0] == index
        for word in ("mtu 1450", "qlen 77", "02:00:00:00:00:66", ",UP"):
            assert word in link
        assert "10.6.6.6/24" in addresses
        assert "10.7.7.7" not in addresses
        mount.ctl("create 6 up\ndestroy 6")
    finally:
        mount.ip("link del tap6")


def test_a_tap_that_is_held_is_busy(mount: Mount) -> None:
    holder = mount.process()
    tun = holder.call(os.open, "/dev/net/tun", os.O_RDWR)
    tunsetiff, tap_without_info = 0x400454CA, 0x1002
    holder.call(programs.ioctl, tun, tunsetiff, struct.pack("16sH22x", b"tap8", tap_without_info))
    with fails(errno.EBUSY):
        mount.ctl("create 8 up")
    assert "tap8" in mount.read("last_error")
    assert not mount.exists("virt8")
    assert mount.has("tap8")
    holder.kill()
    mount.ctl("create 8 up")


def test_virts_own_ctl(virt: Virt) -> None:
    virt.mount.sh(f"echo mtu 1400 down >{virt.name}/ctl; printf 'up\\nmtu 1300' >>{virt.name}/ctl")
    assert (virt.read("mtu"), virt.read("up")) == ("1300", "1")
    with fails(errno.EINVAL):
        virt.set(f"{virt.name} up")
    with fails(errno.EINVAL):
        virt.set("destroy")


def test_help_tells_every_verb(mount: Mount) -> None:
    shown = mount.read("help").split()
    for word in ("create", "ensure", "destroy", "up", "down", "mtu", "link", "taplink", "inet", "inet6", "-inet"):
        assert word in shown
    for word in ("owner", "group", "mode", "queue", "backlog", "strict", "exclusive", "description"):
        assert word in shown


def test_100_pairs_leak_no_descriptor(alone: Alone) -> None:
    mount = alone()
    mount.ctl("create 1 up\ndestroy 1")
    before = mount.descriptors()
    for start in range(0, 100, 50):
        mount.ctl("\n".join("create 1 up\ndestroy 1" for _ in range(start, start + 50)))
    file = mount.process().open("version", os.O_RDONLY)
    file.close()
    until(lambda: len(mount.descriptors()) <= len(before), "the server has closed everything")
    assert mount.links() == ["lo"]


def test_a_killed_writer_leaves_the_mount_well(mount: Mount) -> None:
    """The writer is killed in the middle of a long script."""
    writer = mount.shell("while :; do cat; done >ctl <<<$'create 1\\ndestroy 1'", stdin=subprocess.PIPE)
    writer.kill()
    finished(writer)
    assert mount.read("version").startswith("virtfs")
