"""The ways a mount ends, and the limits set by its options."""

import errno
import os
import signal
import subprocess
import sys

import pytest
from harness.fixtures import Alone
from harness.places import DIR, Place, finished
from harness.process import File, Pending, Process, fails
from harness.serving import ENVIRONMENT, PROJECT, Mount
from harness.waiting import until

VIRTFS = [sys.executable, "-m", "virtfs"]


def busy(mount: Mount) -> tuple[File, Pending[bytes]]:
    """Create two interfaces and start a read on one. Returns the file and the waiting read."""
    mount.ctl("create 1 up\ncreate 2")
    file = mount.process().open("virt1/frame")
    return file, file.begin_read().waiting()


def all_gone(mount: Mount) -> None:
    """Assert that the server ends with status 0 and leaves nothing behind."""
    assert mount.ended() == 0
    assert mount.mounts() == []
    assert mount.links() == ["lo"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal(alone: Alone, number: int) -> None:
    mount = alone()
    file, waiting = busy(mount)
    mount.server.send_signal(number)
    with fails(errno.ENXIO):
        waiting.result()
    all_gone(mount)
    with pytest.raises(OSError, match=r"\[Errno"):
        file.read()


def test_virtfs_umount(alone: Alone) -> None:
    """`virtfs umount` returns once the taps are gone."""
    mount = alone()
    _, waiting = busy(mount)
    umount = mount.start(*VIRTFS, "umount", DIR, env=ENVIRONMENT, cwd=PROJECT)
    with fails(errno.ENXIO):
        waiting.result()
    finished(umount)
    assert umount.returncode == 0
    assert mount.links() == ["lo"]
    all_gone(mount)


def test_umount_lazy_from_outside(alone: Alone) -> None:
    mount = alone()
    _, waiting = busy(mount)
    finished(mount.start("umount", "--lazy", DIR))
    with fails(errno.ENXIO):
        waiting.result()
    all_gone(mount)


@pytest.mark.parametrize("command", ["fusermount3 -u", "umount"])
def test_unmounted_as_any_fuse(alone: Alone, command: str) -> None:
    """umount(8) fails while a file is open, as for any file system."""
    mount = alone()
    file, waiting = busy(mount)
    unmounting = mount.start(*command.split(), DIR, stderr=subprocess.PIPE)
    _, complaint = finished(unmounting)
    assert unmounting.returncode != 0
    assert "busy" in complaint
    mount.ctl("destroy 1")
    with fails(errno.ENXIO):
        waiting.result()
    file.process.close()
    mount.root.close()
    finished(mount.start(*command.split(), DIR))
    all_gone(mount)


def test_a_mount_ends_in_the_middle_of_commands(alone: Alone) -> None:
    mount = alone()
    mount.process().open("ctl", os.O_WRONLY)
    script = "while :; do echo create 5 up; echo destroy 5; done >ctl 2>/dev/null"
    mount.shell(script)
    until(lambda: mount.has("tap5"), "the script runs")
    mount.server.send_signal(signal.SIGTERM)
    mount.ended()
    mount.end_programs()
    all_gone(mount)


def test_a_killed_server_is_noticed_and_cleaned(alone: Alone) -> None:
    """SIGKILL leaves a dead mount. Waiting readers get an error, and the next `virtfs mount` removes the dead mount."""
    mount = alone()
    _, waiting = busy(mount)
    mount.server.kill()
    with pytest.raises(OSError, match=r"\[Errno"):
        waiting.result()
    assert mount.ended() == -signal.SIGKILL
    assert mount.mounts() == [DIR]
    again = mount.start(*VIRTFS, "mount", DIR, env=ENVIRONMENT, cwd=PROJECT, stderr=subprocess.PIPE)
    _, complaint = finished(again)
    assert again.returncode == 0, complaint
    mount.sh("echo create 1 up >ctl; cat virt1/mtu")
    finished(mount.start(*VIRTFS, "umount", DIR, env=ENVIRONMENT, cwd=PROJECT))
    assert mount.mounts() == []
    assert mount.links() == ["lo"]


def test_in_the_background(alone: Alone) -> None:
    """`virtfs mount` returns when the mount answers, so that scripts need not wait for it."""
    mount = alone()
    place = Place()
    try:
        background = place.start(
            "sh", "-c", f'"$@" mount {DIR} && echo create 3 up >{DIR}/ctl && cat {DIR}/virt3/mtu && "$@" umount {DIR}',
            "sh", *VIRTFS, env=ENVIRONMENT, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert finished(background) == ("1500\n", "")
        assert background.returncode == 0
        assert place.mounts() == []
        assert place.links() == ["lo"]
    finally:
        assert place.close() == {}
    assert mount.units() == []


def test_taps_that_were_there_stay(alone: Alone) -> None:
    mount = alone()
    mount.ip("tuntap add tap4 mode tap")
    mount.ctl("create 3 up\ncreate 4 up mtu 1400")
    assert mount.end() == 0
    assert mount.links() == ["lo", "tap4"]
    assert "mtu 1500" in mount.ip("link show tap4")
    mount.ip("link del tap4")


def test_max_virts(alone: Alone) -> None:
    mount = alone("max_virts=2")
    mount.ctl("create 1\ncreate 2")
    for line in ("create 3", "create", "ensure 3"):
        with fails(errno.ENOSPC):
            mount.ctl(line)
        limit = "this mount allows at most 2 interfaces (mount option max_virts)"
        assert mount.read("last_error").endswith(f"{limit}: destroy one first")
    mount.ctl("ensure 2 up\ndestroy 1\ncreate 3")
    assert sorted(mount.units()) == ["virt2", "virt3"]
    assert not mount.has("tap1")


def test_the_largest_queue_backlog_and_history(alone: Alone) -> None:
    mount = alone("max_queue=1000,max_backlog=10,max_history=64K")
    mount.ctl("create 1 queue 1000 backlog 10")
    for verb, most in (("queue 1001", "1000"), ("backlog 11", "10"), ("history 65K", "64K")):
        name, value = verb.split()
        with fails(errno.ERANGE):
            mount.ctl(f"virt1 {verb}")
        limit = f"this mount allows at most {most} (mount option max_{name}), not {value}"
        assert mount.read("last_error").endswith(f"{name}: {limit}")
        if name != "history":
            with fails(errno.ERANGE):
                mount.write(f"virt1/{name}", value)
    with fails(errno.ERANGE):
        mount.ctl("create 2 queue 5000")
    assert mount.units() == ["virt1"]


def test_a_new_interface_has_no_longer_queue_than_allowed(alone: Alone) -> None:
    mount = alone("max_queue=100")
    mount.ctl("create 1\ncreate 2 queue 99")
    assert [mount.read(f"virt{n}/queue") for n in (1, 2)] == ["100", "99"]
    assert " queue 100" in mount.read("virt1/ctl"), "another mount may allow more"
    mount.write("virt1/queue", mount.read("virt1/queue"))


def test_an_owner_is_told_of_the_limit_that_no_memory_lifts(alone: Alone) -> None:
    mount = alone("max_queue=100,max_user_memory=1M")
    mount.ctl("create 1 owner 4001")
    owner = mount.process(4001)
    with fails(errno.ERANGE):
        owner.open("virt1/queue", os.O_WRONLY).write("5000")
    limit = "virt1/queue: this mount allows at most 100 (mount option max_queue), not 5000\n"
    assert owner.open("last_error", os.O_RDONLY).read().decode() == limit


def test_poll_sees_the_mounts_end(alone: Alone) -> None:
    mount = alone()
    mount.ctl("create 1 up")
    program: Process = mount.process()
    waiting = program.open("virt1/frame").begin_poll(1)
    assert mount.end() == 0
    assert waiting.result() != 0
