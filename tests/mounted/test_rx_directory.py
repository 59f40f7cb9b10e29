"""The FIFOs of rx: a full or damaged run-time directory, and a server without CAP_DAC_OVERRIDE."""

import errno
import os
import shutil
import stat
from pathlib import Path

from harness.fixtures import Alone
from harness.places import DIR
from harness.process import fails
from harness.serving import Mount, Virt, frame
from harness.waiting import until

# Room for the root, the run-time directory, its lock and one FIFO.
FULL = ("sh", "-c", 'mount -t tmpfs -o nr_inodes=4 tmpfs /run && exec "$@"', "sh")
WEAK = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")


def rx(mount: Mount, name: str) -> Path:
    """Return the path of the FIFO of an interface."""
    return Path(mount.root.call(os.readlink, f"{DIR}/{name}/rx"))


def made_anew(mount: Mount, fifo: Path) -> None:
    """Wait until the server has made a FIFO again that was removed."""
    until(lambda: mount.root.call(os.path.exists, fifo), "the FIFO is made anew")


def is_fed(virt: Virt) -> bool:
    """Return whether a reader of rx gets the frames of the host."""
    fd = virt.mount.root.call(os.open, f"{DIR}/{virt.name}/rx", os.O_RDONLY | os.O_NONBLOCK)

    def arrived() -> bool:
        virt.host_sends(frame())
        try:
            return bool(virt.mount.root.call(os.read, fd, 4096))
        except BlockingIOError:
            return False

    until(arrived, "rx is fed")
    virt.mount.root.call(os.close, fd)
    return True


def test_a_create_is_undone_if_run_is_full(alone: Alone) -> None:
    mount = alone("", FULL)
    mount.ctl("create 1 up")
    with fails(errno.ENOSPC):
        mount.ctl("create 2 up")
    assert mount.read("last_error").startswith('"create 2 up": rx: cannot create the FIFO "/run/virtfs-run-')
    assert (mount.units(), mount.has("tap2")) == (["virt1"], False)
    assert [line.split()[1] for line in mount.read("ctl").splitlines()] == ["1"]
    mount.ctl("destroy 1\ncreate 2 up")


def test_what_is_removed_from_the_directory_is_made_anew(alone: Alone) -> None:
    mount = alone()
    virt, other = Virt(mount, 3, "up owner daemon mode 0640"), Virt(mount, 4)
    fifo = rx(mount, virt.name)
    mount.root.call(os.unlink, fifo)
    made_anew(mount, fifo)

    def has_rights() -> bool:
        status = mount.root.call(os.stat, fifo)
        return (stat.S_IMODE(status.st_mode), status.st_uid) == (0o440, 1)

    until(has_rights, "the FIFO has its owner and mode")
    assert is_fed(virt)
    mount.root.call(shutil.rmtree, fifo.parent)
    mount.ctl("create 5 up")
    for one in (virt, other):
        made_anew(mount, rx(mount, one.name))
        assert is_fed(one)
    mount.ctl("destroy 3\ndestroy 4\ndestroy 5")


def test_a_file_in_the_way_of_one_interface_does_not_affect_others(alone: Alone) -> None:
    mount = alone()
    virt, other = Virt(mount, 3), Virt(mount, 4)
    fifo = rx(mount, virt.name)
    mount.root.call(os.symlink, "/nowhere", fifo.with_name("other"))
    mount.root.call(os.replace, fifo.with_name("other"), fifo)
    assert is_fed(other)
    until(lambda: any("virt3: cannot check rx for readers" in line for line in mount.log), "it is logged")
    mount.root.call(os.unlink, fifo)
    made_anew(mount, fifo)
    assert is_fed(virt)
    until(lambda: len(mount.log) == 3, "one failure is logged once, and so is its end")
    assert mount.log[-1] == "virtfs: virt3: rx is checked for readers again\n"


def test_without_the_right_to_open_any_file(alone: Alone) -> None:
    mount = alone("", WEAK)
    virt = Virt(mount, 3)
    assert is_fed(virt)
    with fails(errno.EACCES):
        mount.ctl("virt3 mtu 1400 owner daemon")
    assert "CAP_DAC_OVERRIDE" in mount.read("last_error")
    assert "owner" not in mount.read("virt3/ctl")
    assert virt.read("mtu") == "1500"
    assert is_fed(virt)


def test_directories_of_killed_servers_are_removed(alone: Alone) -> None:
    """Also one whose server was killed before it made the lock. A young one may still get its lock."""
    make = "mkdir /run/virtfs-run-old /run/virtfs-run-new /run/virtfs-run-full; mkfifo /run/virtfs-run-full/virt3.rx; "
    age = "touch -d '2 minutes ago' /run/virtfs-run-old /run/virtfs-run-full; "
    mount = alone("", ("sh", "-c", f'mount -t tmpfs tmpfs /run; {make}{age}exec "$@"', "sh"))
    left = mount.root.call(os.listdir, "/run")
    assert [name for name in left if name.startswith("virtfs-run-") and len(name) < 17] == ["virtfs-run-new"]
