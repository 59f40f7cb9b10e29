"""Names of destroyed interfaces: the kernel may keep them for a moment, but programs never get the old files."""

import errno
import os
import stat
from collections.abc import Callable

import pytest
from harness.places import DIR
from harness.process import fails
from harness.serving import Mount

V = f"{DIR}/virt3"

# System calls that take a path, each with a path that it accepts while the interface exists.
BY_PATH: dict[str, tuple[Callable[..., object], tuple[object, ...]]] = {
    "stat of the directory": (os.stat, (V,)),
    "lstat of the directory": (os.lstat, (V,)),
    "access": (os.access, (V, os.F_OK)),
    "listdir": (os.listdir, (V,)),
    "chdir": (os.chdir, (V,)),
    "chown": (os.chown, (V, 1001, 1001)),
    "stat of a file": (os.stat, (f"{V}/frame",)),
    "stat of a file in a subdirectory": (os.stat, (f"{V}/stats/rx_frames",)),
    "stat of a subdirectory": (os.stat, (f"{V}/stats",)),
    "open of a device file": (os.open, (f"{V}/frame", os.O_RDWR)),
    "open of a text": (os.open, (f"{V}/mtu", os.O_RDONLY)),
    "open for writing": (os.open, (f"{V}/mtu", os.O_WRONLY)),
    "readlink": (os.readlink, (f"{V}/rx",)),
    "chmod": (os.chmod, (f"{V}/frame", 0o640)),
    "truncate": (os.truncate, (f"{V}/mtu", 0)),
    "utime": (os.utime, (f"{V}/mtu",)),
}


def keep(mount: Mount) -> None:
    """Make the kernel keep the name and the attributes of virt3, and all that is below it."""
    mount.root.call(os.stat, f"{V}/frame")
    mount.root.call(os.stat, V)


@pytest.mark.parametrize("held", [False, True], ids=["", "held open"])
def test_a_destroyed_interface_is_gone_at_the_next_call(mount: Mount, held: bool) -> None:
    """This is so even while a program has the directory and a file open, so that the server still knows them."""
    root = mount.root
    for what, (call, arguments) in BY_PATH.items():
        mount.ctl("create 3 up exclusive none")
        holder = mount.process()
        if held:
            holder.call(os.open, V, os.O_RDONLY)
            holder.call(os.open, f"{V}/frame", os.O_RDONLY)
            holder.call(os.open, f"{V}/mtu", os.O_RDONLY)
        keep(mount)
        root.call(call, *arguments)
        root.call(os.chdir, "/")
        keep(mount)
        mount.ctl("destroy 3")
        if call is os.access:
            assert not root.call(os.access, *arguments)
        else:
            with fails(errno.ENOENT):
                print(what)
                root.call(call, *arguments)
        assert "virt3" not in root.call(os.listdir, DIR)
        holder.close()


def until_it_fails(call: Callable[..., object], arguments: tuple[object, ...]) -> int:
    """Repeat a call until it fails, and return the errno. Run in another process."""
    try:
        while True:
            call(*arguments)
    except OSError as error:
        return error.errno or 0


@pytest.mark.parametrize(
    ("call", "arguments"),
    [(os.chown, (1001, 1001)), (os.utime, ()), (os.stat, ())],
    ids=["chown", "utime", "stat"],
)
def test_calls_while_an_interface_is_destroyed(
    mount: Mount, call: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    for _ in range(5):
        mount.ctl("create 3")
        program = mount.process()
        program.call(call, V, *arguments)
        pending = program.begin(until_it_fails, call, (V, *arguments))
        mount.ctl("destroy 3")
        assert pending.result() == errno.ENOENT
        program.close()


def test_an_interface_that_is_created_again_shows_at_once(mount: Mount) -> None:
    root = mount.root
    for number in range(5):
        mount.ctl(f"create 3 mtu {1000 + number} owner {1000 + number}")
        keep(mount)
        mount.ctl(f"destroy 3\ncreate 3 mtu {2000 + number} owner {2000 + number}")
        assert mount.read("virt3/mtu") == f"{2000 + number}"
        assert root.call(os.stat, V).st_uid == 2000 + number
        assert root.call(os.stat, f"{V}/frame").st_uid == 2000 + number
        keep(mount)
        mount.ctl(f"destroy 3\ncreate 3 mtu {3000 + number}")
        before = root.call(os.stat, V).st_ino
        assert root.call(os.stat, V).st_ino == before
        assert mount.read("virt3/mtu") == f"{3000 + number}"
        mount.ctl("destroy 3")


def test_a_program_inside_a_destroyed_interface(mount: Mount) -> None:
    """What is open stays open, and a path that begins inside leads nowhere."""
    for _ in range(2):
        mount.ctl("create 3 up")
        program = mount.process()
        program.call(os.chdir, V)
        subdirectory = program.call(os.open, f"{V}/stats", os.O_PATH)
        frame = program.call(os.open, "frame", os.O_RDWR)
        mtu = program.call(os.open, "mtu", os.O_RDONLY)
        keep(mount)
        mount.ctl("destroy 3\ncreate 3")
        for path in (".", "mtu", "stats", "stats/rx_frames"):
            for _ in range(3):
                with fails(errno.ENXIO):
                    program.call(os.stat, path)
                with fails(errno.ENXIO):
                    program.call(os.open, path, os.O_RDONLY)
        with fails(errno.ENXIO):
            program.call(os.stat, f"/proc/self/fd/{subdirectory}/rx_frames")
        with fails(errno.ENXIO):
            program.call(os.read, frame, 100)
        for file in (frame, mtu):
            assert stat.S_ISREG(program.call(os.fstat, file).st_mode)
        assert program.call(os.stat, f"{V}/mtu")
        program.close()
        mount.ctl("destroy 3")


def test_a_listing_of_a_destroyed_interface(mount: Mount) -> None:
    mount.ctl("create 3")
    program = mount.process()
    listed = program.call(os.open, V, os.O_RDONLY)
    keep(mount)
    names = program.call(os.listdir, listed)
    mount.ctl("destroy 3")
    assert program.call(os.listdir, listed) == names
