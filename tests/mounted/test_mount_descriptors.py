"""A server without free descriptors refuses calls that need one, and keeps running."""

import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from harness.fixtures import Alone
from harness.places import DIR, Place, finished
from harness.process import fails
from harness.serving import ENVIRONMENT, PROJECT, Mount, Virt, frame
from harness.waiting import until

from .test_mount_ending import VIRTFS

FEW = 8  # enough for poll(2), which fails with EINVAL for more descriptors than RLIMIT_NOFILE


def files(most: int) -> tuple[str, ...]:
    """Return a command that starts a program with at most `most` open files, a limit that it cannot raise."""
    return ("prlimit", f"--nofile={most}:{most}")


@contextmanager
def no_descriptor_left(mount: Mount) -> Iterator[None]:
    """Keep the server from opening any file while the body runs."""
    before = resource.prlimit(mount.server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(mount.server.pid, resource.RLIMIT_NOFILE, (FEW, before[1]))
    try:
        yield
    finally:
        resource.prlimit(mount.server.pid, resource.RLIMIT_NOFILE, before)


def test_interfaces_until_the_descriptors_are_spent(alone: Alone) -> None:
    mount = alone("", files(400))
    with fails(errno.EMFILE):
        for first in range(0, 400, 50):
            mount.ctl("".join(f"create {unit}\n" for unit in range(first, first + 50)))
    made = len(mount.units())
    assert "400" in mount.read("last_error")
    assert "RLIMIT_NOFILE" in mount.read("last_error")
    assert made > 300
    assert any(f"max_virts is {made}" in line for line in mount.log), "logged at the start"
    for unit in range(15):
        mount.root.open(f"virt{unit}/inject", os.O_WRONLY)
    mount.ctl("virt1 up history 64K impair delay 1ms filter arp\ncable 2 3\ncreate bridge0 add virt4")
    mount.root.open("virt5/pcap", os.O_RDONLY)
    assert sum(line.startswith("create ") for line in mount.read("ctl").splitlines()) == made + 1
    with fails(errno.EMFILE):
        mount.ctl("create")
    mount.ctl("destroy 1\ncreate 1")


def test_opens_until_the_descriptors_are_spent(alone: Alone) -> None:
    """Enough descriptors are reserved for operations that need one only briefly."""
    mount = alone("max_virts=8", files(56))
    mount.ctl("".join(f"create {unit} up\n" for unit in range(1, 9)))
    with fails(errno.EMFILE):
        for unit in range(1, 9):
            mount.ctl(f"virt{unit} impair delay 1ms")
            mount.root.open(f"virt{unit}/pcap", os.O_RDONLY)
            mount.root.open(f"virt{unit}/inject", os.O_WRONLY)
    with fails(errno.EMFILE):
        mount.ctl("virt8 impair delay 1ms")  # which needs two
    with fails(errno.EMFILE):
        mount.ctl("cable 5 6")  # which needs one, perhaps the last
        mount.ctl("cable 7 8")
    assert "(RLIMIT_NOFILE) are free" in mount.read("last_error")
    state = mount.read("ctl")
    with fails(errno.EMFILE):
        mount.ctl("cable 1 2")
    assert "(RLIMIT_NOFILE) are free" in mount.read("last_error")
    assert mount.read("ctl") == state
    mount.ctl("create bridge0 up add virt1\nvirt1 mtu 1400 filter arp")
    mount.ip("link set tap1 mtu 1300")
    until(lambda: mount.read("virt1/mtu") == "1300", "the server follows the change")
    mount.end_programs()  # which closes their files
    mount.ctl("cable 1 2")
    assert mount.read("ctl").endswith("cable 1 2")


def test_max_virts_within_the_limit_holds(alone: Alone) -> None:
    mount = alone("max_virts=2", files(1024))
    assert not any("max_virts" in line for line in mount.log)
    mount.ctl("create 1\ncreate 2")
    with fails(errno.ENOSPC):
        mount.ctl("create 3")


def test_what_happens_while_no_descriptor_is_left(alone: Alone) -> None:
    """Background tasks wait until descriptors are available again."""
    mount = alone()
    mount.ctl("create 1 up\ncreate 2 up\ncreate bridge0 up add virt1")
    virt = Virt(mount, 3)
    reader = mount.process()

    def logged(what: str) -> bool:
        return any(what in line for line in mount.log)

    with no_descriptor_left(mount):
        for line in ("create 4", "cable 1 2", "virt2 impair delay 1ms", "virt2 mtu 1400", "create bridge1"):
            with fails(errno.EMFILE):
                mount.ctl(line)
            assert line.split()[0] in mount.read("last_error")
        opens = {"virt2/inject": os.O_WRONLY, "virt2/pcap": os.O_RDONLY, "pcap": os.O_RDONLY, "clone": os.O_RDWR}
        for file, flags in opens.items():
            with fails(errno.EMFILE):
                mount.root.open(file, flags)
        rx = reader.call(os.open, f"{DIR}/virt3/rx", os.O_RDONLY | os.O_NONBLOCK)
        mount.ip("link set bridge0 down")
        mount.sh("mkdir /mnt/other; mount -t tmpfs none /mnt/other; umount /mnt/other")
        mount.ip("link set tap2 mtu 1280")
        until(lambda: mount.read("virt2/mtu") == "1280", "notifications are processed")
        for task in ("virt3: cannot check rx for readers", "reading the state of bridges"):
            until(partial(logged, task), f"{task} waits")
        assert mount.server.poll() is None
        assert virt.read("up") == "1"
    until(lambda: "up" not in mount.read("bridge/bridge0/ctl").split(), "the change of the bridge is noticed")
    mount.ctl("create 4 up\ncable 2 4")

    def fed() -> bool:
        virt.host_sends(frame())
        try:
            return bool(reader.call(os.read, rx, 4096))
        except BlockingIOError:
            return False

    until(fed, "rx is fed")
    assert mount.exists("virt4")


def test_too_few_for_one_interface() -> None:
    place = Place()
    try:
        pipe = subprocess.PIPE
        program = place.start(*files(40), *VIRTFS, "mount", DIR, env=ENVIRONMENT, cwd=PROJECT, stdout=pipe, stderr=pipe)
        assert "40 open files (RLIMIT_NOFILE) is too low for one interface" in finished(program)[1]
        assert program.returncode == 1
        assert place.mounts() == []
    finally:
        assert place.close() == {}
