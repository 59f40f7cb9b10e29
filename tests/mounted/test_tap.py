"""virtfs follows changes that other programs make to taps."""

import errno
import json
import os
import re
import select
import subprocess
import sys

from harness.places import Place
from harness.process import File, fails
from harness.serving import Mount, Virt, Virts, frame
from harness.waiting import until


def test_the_message_names_who_holds_a_tap(mount: Mount) -> None:
    """Another mount does here, whose directory is in its command line."""
    virtfs = f"{sys.executable} -m virtfs"
    mount.sh(f"mkdir /mnt/second; {virtfs} mount /mnt/second; echo create 88 >/mnt/second/ctl")
    with fails(errno.EBUSY):
        mount.ctl("create 88 up")
    said = r'"create 88 up": "tap88" is held by process [0-9]+ \("virtfs mount /mnt/second"\)'
    assert re.fullmatch(said, mount.read("last_error"))
    mount.sh(f"{virtfs} umount /mnt/second; rmdir /mnt/second")
    mount.ctl("create 88 up\ndestroy 88")


def test_up_and_down(virt: Virt) -> None:
    for up in ("1", "0", "1"):
        virt.mount.ip(f"link set {virt.tap} {'up' if up == '1' else 'down'}")
        assert virt.read("up") == virt.read("tap/up") == up
    assert virt.read("tap/carrier") == "1"


def test_mtu(virt: Virt) -> None:
    virt.mount.ip(f"link set {virt.tap} mtu 9000")
    assert virt.read("mtu") == virt.read("tap/mtu") == "9000"
    file = virt.open()
    file.write(frame(9018))
    assert virt.host_gets() == frame(9018)
    virt.mount.ip(f"link set {virt.tap} mtu 1000")
    virt.until("mtu", "1000")
    file.write(frame(1019))
    assert virt.count("tx_oversize") == 1


def test_addresses(virt: Virt) -> None:
    virt.mount.ip(f"addr add 10.1.{virt.unit}.1/24 dev {virt.tap}")
    virt.mount.ip(f"addr add fd00::{virt.unit}/64 dev {virt.tap} nodad")
    # The kernel reports a new IPv6 address later, from a work queue (net/ipv6/addrconf.c addrconf_dad_completed).
    both = {f"10.1.{virt.unit}.1/24", f"fd00::{virt.unit}/64"}
    until(lambda: set(virt.read("tap/addresses").split()) == both, "both addresses are shown")
    virt.mount.ip(f"addr del 10.1.{virt.unit}.1/24 dev {virt.tap}")
    assert virt.read("tap/addresses") == f"fd00::{virt.unit}/64"


def test_the_taps_mac(virt: Virt) -> None:
    virt.mount.ip(f"link set {virt.tap} address 02:00:00:00:00:07")
    assert virt.read("tap/address") == "02:00:00:00:00:07"
    assert virt.read("address") != "02:00:00:00:00:07"


def test_queue(virt: Virt) -> None:
    virt.mount.ip(f"link set {virt.tap} txqueuelen 17")
    assert virt.read("queue") == "17"


def test_a_rename_is_followed(virt: Virt) -> None:
    file = virt.open()
    waiting = file.begin_read().waiting()
    virt.mount.ip(f"link set {virt.tap} name uplink{virt.unit}")
    assert virt.read("tap/name") == f"uplink{virt.unit}"
    virt.host_sends(frame())
    assert waiting.result() == frame()
    virt.set("mtu 1400")
    assert "mtu 1400" in virt.mount.ip(f"link show uplink{virt.unit}")
    virt.mount.ctl(f"destroy {virt.unit}")
    assert not virt.mount.has(f"uplink{virt.unit}")


def test_a_move_is_followed(virt: Virt, elsewhere: Place) -> None:
    """After a move to another network namespace the wire works, and `down` and a deletion there are noticed."""
    file = virt.open()
    waiting = file.begin_read().waiting()
    virt.mount.ip(f"link set {virt.tap} netns {elsewhere.pid}")
    virt.until("tap/up", "0")
    with fails(errno.EHOSTDOWN):
        waiting.result()
    elsewhere.ip(f"addr add 10.2.{virt.unit}.1/24 dev {virt.tap}")
    elsewhere.ip(f"link set {virt.tap} up")
    virt.until("up", "1")
    assert virt.read("tap/addresses").split()[0] == f"10.2.{virt.unit}.1/24"
    pinging = elsewhere.shell(f"exec ping -q -c1 -W5 10.2.{virt.unit}.2", stdout=-3)
    while file.read()[12:14] != b"\x08\x06":
        pass
    pinging.kill()
    virt.set("mtu 1400")
    assert "mtu 1400" in elsewhere.ip(f"link show {virt.tap}")
    _until_silent(file)
    waiting = file.begin_read().waiting()
    elsewhere.ip(f"link set {virt.tap} down")
    with fails(errno.EHOSTDOWN):
        waiting.result()
    virt.mount.ctl(f"destroy {virt.unit}")
    assert not elsewhere.has(virt.tap)


def test_a_move_and_back(virt: Virt, elsewhere: Place) -> None:
    virt.mount.ip(f"link set {virt.tap} netns {elsewhere.pid}")
    elsewhere.ip(f"link set {virt.tap} netns {virt.mount.pid}")
    virt.mount.ip(f"link set {virt.tap} up")
    virt.until("up", "1")
    file = virt.open()
    file.write(frame())
    assert virt.count("tx_frames") == 1


def test_moves_are_followed_while_somebody_looks(virts: Virts, elsewhere: Place) -> None:
    """Reading a file first processes the kernel's notifications, even while the new namespace is being looked for."""
    looked_at = virts()
    script = f"while :; do cat {looked_at.name}/up; done"
    looker = looked_at.mount.shell(script, stdout=subprocess.DEVNULL)
    for _ in range(15):
        virt = virts()
        virt.mount.ip(f"link set {virt.tap} netns {elsewhere.pid}")
        elsewhere.ip(f"link set {virt.tap} up")
        virt.until("up", "1")
    assert looker.poll() is None


def test_its_namespace_ends(virts: Virts) -> None:
    """The end of a namespace deletes the tap in it, like every interface that is not physical."""
    virt, other = virts(), virts()
    place = Place()
    virt.mount.ip(f"link set {virt.tap} netns {place.pid}")
    virt.until("up", "0")
    place.ip(f"link set {virt.tap} up")
    virt.until("up", "1")
    file = virt.open()
    polling = file.begin_poll(select.POLLPRI)
    place.tidy()
    assert not place.close()
    assert polling.result() & select.POLLERR
    with fails(errno.ENXIO):
        file.write(frame())
    waiting = other.open().begin_read().waiting()
    other.host_sends(frame())
    assert waiting.result() == frame()
    virt.mount.ctl(f"destroy {virt.unit}")


def test_deleted_and_made_anew_by_somebody_else(virt: Virt, mount: Mount) -> None:
    """Another program's tap with the same name is not taken for virtfs's own."""
    mount.ip(f"link del {virt.tap}")
    mount.ip(f"tuntap add {virt.tap} mode tap")
    with fails(errno.ENXIO):
        virt.open()
    assert mount.read(f"{virt.name}/up") == "0"
    mount.ctl(f"destroy {virt.unit}")
    assert mount.has(virt.tap)
    mount.ip(f"link del {virt.tap}")


def test_a_reader_alone_notices_the_deletion(virt: Virt) -> None:
    """No other program uses the mount meanwhile."""
    waiting = virt.open(os.O_RDONLY).begin_read().waiting()
    virt.mount.ip(f"link del {virt.tap}")
    with fails(errno.ENXIO):
        waiting.result()


def _until_silent(file: File) -> None:
    """Read and discard the frames that the host sends by itself when the interface comes up."""
    while file.poll(select.POLLIN, 0.3):
        file.read()


def test_a_tap_that_another_program_deletes(virts: Virts) -> None:
    """The log, metrics and status.json tell it, and virtfs ls, which reads status.json. Commands say what to do."""
    virt, other = virts(), virts()
    virt.mount.ip(f"link del {virt.tap}")
    until(
        lambda: f'virtfs_lost{{mount="/mnt/virt",virt="{virt.name}"}} 1.0' in virt.mount.read("metrics"),
        "the tap is lost",
    )
    assert f'virtfs_lost{{mount="/mnt/virt",virt="{other.name}"}} 0.0' in virt.mount.read("metrics")
    told = {one["name"]: one["lost"] for one in json.loads(virt.mount.read("status.json"))["virts"]}
    assert told == {virt.name: True, other.name: False}
    said = f'{virt.name} is lost: its tap "{virt.tap}" has vanished'
    until(lambda: any(said in line for line in virt.mount.log), "the log says so")
    for line, error, reason in (
        (f"create {virt.unit}", errno.EEXIST, f'"{virt.name}" already exists, but has lost its tap'),
        (f"check create {virt.unit}", errno.EEXIST, f'"{virt.name}" already exists, but has lost its tap'),
        (f"{virt.name} mtu 1400", errno.ENXIO, f"{virt.name} has lost its tap"),
        (f"cable {virt.unit} {other.unit}", errno.ENXIO, f"{virt.name} has lost its tap"),
    ):
        with fails(error):
            virt.mount.ctl(line)
        assert virt.mount.read("last_error") == f'"{line}": {reason}: "ensure {virt.unit}" makes it again'
