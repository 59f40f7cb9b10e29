"""clone: an interface that lives as long as its file is open."""

import errno
import os
import select
import signal
import subprocess
from collections.abc import Iterator

import pytest
from harness.fixtures import Alone
from harness.places import DIR, finished
from harness.process import Process, fails
from harness.serving import Mount
from harness.waiting import until, until_it_waits

from . import programs


@pytest.fixture(autouse=True)
def _closed(mount: Mount) -> Iterator[None]:
    """Close the files that the test left open, and wait until their interfaces are gone."""
    yield
    mount.end_programs()
    until(lambda: "of an open clone" not in mount.read("ctl"), "no interface of a clone is left")
    mount.delete_links(*(name for name in mount.links() if name != "lo"))


def gone(mount: Mount, unit: int) -> None:
    """Wait until the interface and its tap are gone."""
    until(lambda: not mount.exists(f"virt{unit}") and not mount.has(f"tap{unit}"), f"virt{unit} is gone")


def test_an_open_makes_one_and_the_last_close_destroys_it(mount: Mount) -> None:
    file = mount.process().open("clone", os.O_RDWR)
    assert mount.units() == ["virt0"]
    assert mount.has("tap0")
    assert file.poll(select.POLLIN) == select.POLLIN
    assert file.read() == b"0\n"
    assert file.read() == b""
    twin = file.call(os.dup)
    file.close()
    mount.ctl("virt0 up")
    file.process.call(os.close, twin)
    gone(mount, 0)


def test_it_is_an_interface_like_any(mount: Mount) -> None:
    file = mount.process().open("clone", os.O_RDWR)
    mount.ctl("create 7")
    for directory in ("", "/stats", "/tap", "/wait"):
        listings = [mount.sh(f"cd {name}{directory} && ls") for name in ("virt0", "virt7")]
        assert listings[0] == listings[1]
    mac = mount.read("virt0/address")
    assert (mac[:6], mac[8:]) == ("b2:0a:", ":0b:0e:00")
    mount.ctl("virt0 up inet 10.0.0.1/24 mtu 1400")
    assert mount.read("virt0/tap/addresses") == "10.0.0.1/24"
    file.close()
    gone(mount, 0)
    assert mount.units() == ["virt7"]


def test_its_cable_is_not_saved_either(mount: Mount) -> None:
    """The line of the cable could not be carried out without the interface."""
    file = mount.process().open("clone", os.O_RDWR)
    mount.ctl("create 7\ncable 0 7")
    assert [line.split()[0] for line in mount.read("ctl").splitlines()] == ["#", "create"]
    file.close()
    gone(mount, 0)


def test_the_lowest_free_unit(mount: Mount) -> None:
    mount.ctl("create 0\ncreate 2")
    user = mount.process()
    files = [user.open("clone", os.O_RDWR) for _ in range(3)]
    assert [file.read() for file in files] == [b"1\n", b"3\n", b"4\n"]
    files[1].close()
    gone(mount, 3)
    mount.ctl("destroy 0")
    assert [user.open("clone", os.O_RDWR).read() for _ in range(3)] == [b"0\n", b"3\n", b"5\n"]


def test_a_tap_of_the_hosts_is_not_taken(mount: Mount) -> None:
    mount.ip("tuntap add tap0 mode tap")
    mount.ip("link add tap1 type bridge")
    file = mount.process().open("clone", os.O_RDWR)
    assert file.read() == b"2\n"
    file.close()
    gone(mount, 2)
    assert {"tap0", "tap1"} <= set(mount.links())


def test_bash_reads_it_one_byte_at_a_time(mount: Mount) -> None:
    mount.ctl("create 0")
    said = mount.sh(
        "exec 9<>clone; read n <&9; echo up inet 10.1.0.1/24 >virt$n/ctl; cat virt$n/tap/addresses; echo $n; exec 9<&-"
    )
    assert said.split() == ["10.1.0.1/24", "1"]
    gone(mount, 1)


def test_each_cat_has_its_own(mount: Mount) -> None:
    """Each cat creates an interface and prints its unit. A later cat may get the same unit again."""
    for _ in range(5):
        number = mount.sh("cat <>clone")
        assert number.strip().isdecimal()
        assert number.endswith("\n")
    until(lambda: not mount.units(), "all interfaces are gone")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_goes_when_its_opener_is_killed(mount: Mount, number: int) -> None:
    opener = mount.shell("exec 9<>clone; echo; exec cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert opener.stdout is not None
    opener.stdout.readline()
    mount.ctl("virt0 up")
    reader = mount.process().open("virt0/frame", os.O_RDONLY)
    waiting = reader.begin_read().waiting()
    opener.send_signal(number)
    finished(opener)
    with fails(errno.ENXIO):
        waiting.result()
    gone(mount, 0)


def test_a_child_that_inherited_it_keeps_it(mount: Mount) -> None:
    script = "exec 9<>clone; echo up >virt0/ctl; cat virt0/frame >/dev/null & echo $!; exec sleep 60"
    parent = mount.shell(script, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    until_it_waits(child)
    parent.kill()
    parent.wait()
    assert mount.units() == ["virt0"]
    os.kill(child, signal.SIGKILL)
    gone(mount, 0)


def test_a_crowd_is_killed(mount: Mount) -> None:
    crowd = mount.process()
    numbers = {int(crowd.open("clone", os.O_RDWR).read()) for _ in range(20)}
    assert numbers == set(range(20))
    crowd.kill()
    until(lambda: not mount.units() and mount.links() == ["lo"], "all interfaces are gone")


def test_the_directory_appears_whole(mount: Mount) -> None:
    mount.ctl("create 50")
    whole = set(mount.sh("ls virt50").split())
    watcher = mount.process()
    watching = watcher.begin(programs.contents_until, "virt50")
    opener = mount.process()
    for _ in range(15):
        file = opener.open("clone", os.O_RDWR)
        unit = int(file.read())
        file.close()
        gone(mount, unit)
    mount.ctl("destroy 50")
    seen = watching.result()
    assert whole in seen
    assert all(names == whole for names in seen)


def test_destroyed_by_another_hand(mount: Mount) -> None:
    """By the time of the close, another interface may have the unit. The close must not affect that interface."""
    file = mount.process().open("clone", os.O_RDWR)
    mount.ctl("destroy 0")
    mount.ctl("create 0 description another")
    file.close()
    mount.ctl("create 1\ndestroy 1")  # commands and closes run in order, so that the close is complete after these
    assert mount.read("virt0/description") == "another"


def test_its_tap_deleted_from_outside(mount: Mount) -> None:
    file = mount.process().open("clone", os.O_RDWR)
    mount.ip("link del tap0")
    file.close()
    gone(mount, 0)
    assert mount.process().open("clone", os.O_RDWR).read() == b"0\n"


def test_the_state_tells_of_it_in_a_comment(mount: Mount) -> None:
    file = mount.process().open("clone", os.O_RDWR)
    lines = mount.read("ctl").splitlines()
    assert lines
    assert all(line.startswith("#") for line in lines)
    mount.write("ctl", mount.read("ctl") + "\n")
    file.close()
    gone(mount, 0)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY])
def test_it_is_opened_for_both(mount: Mount, flags: int) -> None:
    """An open for only reading or only writing is refused, so that a program that opens all files creates nothing."""
    with fails(errno.EACCES):
        mount.root.open("clone", flags)
    assert mount.read("last_error") == "clone must be opened for reading and writing: exec 3<>clone"
    assert mount.units() == []


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
def test_only_root_may(mount: Mount, flags: int) -> None:
    assert mount.sh("stat -c '%a %u' clone") == "600 0\n"
    with fails(errno.EACCES):
        mount.process(4001).open("clone", flags)
    assert mount.units() == []


def test_the_mounts_limit(alone: Alone) -> None:
    mount = alone("max_virts=2")
    mount.ctl("create 5")
    user = mount.process()
    file = user.open("clone", os.O_RDWR)
    for _ in range(3):
        with fails(errno.ENOSPC):
            user.open("clone", os.O_RDWR)
    assert sorted(mount.units()) == ["virt0", "virt5"]
    file.close()
    gone(mount, 0)
    assert user.open("clone", os.O_RDWR).read() == b"0\n"


def test_the_mount_ends_while_it_is_open(alone: Alone) -> None:
    mount = alone()
    user = mount.process()
    file = user.open("clone", os.O_RDWR)
    user.open("clone", os.O_RDWR)
    assert mount.end() == 0
    assert mount.links() == ["lo"]
    with pytest.raises(OSError, match=r"\[Errno"):
        file.read()


def test_many_open_at_once(mount: Mount) -> None:
    """Each has a unit of its own."""
    processes: list[Process] = [mount.process() for _ in range(4)]
    opens = [p.begin(os.open, f"{DIR}/clone", os.O_RDWR) for p in processes for _ in range(5)]
    fds = [one.result() for one in opens]
    numbers = [p.call(os.read, fd, 9) for p, fd in zip([p for p in processes for _ in range(5)], fds, strict=True)]
    assert sorted(int(number) for number in numbers) == list(range(20))


def test_one_that_waits_in_a_frame_is_not_in_the_way(mount: Mount) -> None:
    reader = mount.shell(
        "exec 9<>clone; read n <&9; echo up >virt$n/ctl; exec cat virt$n/frame", stdout=subprocess.PIPE
    )
    until_it_waits(reader.pid)
    reader.kill()
    reader.wait()
    gone(mount, 0)
