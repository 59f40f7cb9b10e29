"""Names and attributes: what the kernel may keep of them is never stale."""

import errno
import os
import stat

from harness.places import DIR
from harness.process import fails
from harness.serving import Mount, Virt

PLACES = ("virt3", "virt3/stats", "virt3/tap", "virt3/wait")


def test_a_new_owner_shows_at_once(mount: Mount) -> None:
    """The kernel keeps the attributes of directories, and so do programs that have them open."""
    mount.ctl("create 3")
    root = mount.root
    held = [root.call(os.open, f"{DIR}/{place}", os.O_PATH) for place in PLACES]
    for owner, group in ((1001, 0), (1002, 1003), (0, 0)):
        for _ in range(2):  # the second time, the kernel may answer from its cache
            mount.read("virt3/mtu")
        mount.ctl(f"virt3 owner {owner} group {group}")
        for place, fd in zip(PLACES, held, strict=True):
            for found in (root.call(os.fstat, fd), root.call(os.stat, f"{DIR}/{place}")):
                assert (found.st_uid, found.st_gid) == (owner, group), place
        frame = root.call(os.stat, f"{DIR}/virt3/frame")
        assert (frame.st_uid, frame.st_gid) == (owner, group)
    root.call(os.chown, f"{DIR}/virt3/frame", 1004, 1005)
    assert root.call(os.stat, f"{DIR}/virt3").st_uid == 1004
    mount.ctl("virt3 mode 0640")
    assert stat.S_IMODE(root.call(os.stat, f"{DIR}/virt3/frame").st_mode) == 0o640


def test_a_new_owner_shows_in_a_directory_just_looked_up(mount: Mount) -> None:
    """Even if the kernel looked the directory up for the first time a moment ago."""
    mount.ctl("\n".join(f"create {unit}" for unit in range(3, 13)))
    found = mount.root.call(_owners_after_a_change, [f"virt{unit}" for unit in range(3, 13)])
    assert found == [1001] * 10


def _owners_after_a_change(names: list[str]) -> list[int]:
    owners = []
    for name in names:
        with open(f"{DIR}/ctl", "wb", buffering=0) as ctl:
            stats = os.open(f"{DIR}/{name}/stats", os.O_PATH)
            ctl.write(f"{name} owner 1001\n".encode())
            owners.append(os.fstat(stats).st_uid)
            os.close(stats)
    return owners


def test_the_links_of_the_root_directory_are_counted(mount: Mount) -> None:
    def links() -> int:
        return int(mount.root.call(os.stat, DIR).st_nlink)

    before = links()
    mount.ctl("create 3\ncreate 4")
    assert links() == before + 2
    mount.ctl("destroy 3")
    assert links() == before + 1


def test_the_names_of_a_destroyed_interface_are_gone(mount: Mount) -> None:
    """They are gone at once, and another interface of the same number has files of its own."""
    mount.ctl("create 3")
    root = mount.root
    paths = [f"{DIR}/virt3/{name}" for name in ("mtu", "frame", "stats/rx_frames", "tap/name", "wait/up")]
    numbers = []
    inside = root.call(os.open, f"{DIR}/virt3/stats", os.O_PATH)
    for _ in range(3):
        numbers += [root.call(os.stat, path).st_ino for path in paths]
        assert numbers[-len(paths) :] == [root.call(os.stat, path).st_ino for path in paths], "they are stable"
        mount.ctl("destroy 3")
        for path in paths:
            with fails(errno.ENOENT):
                root.call(os.stat, path)
        mount.ctl("create 3")
    assert len(set(numbers)) == len(numbers)
    with fails(errno.ENXIO):
        root.call(os.stat, f"/proc/self/fd/{inside}")
    with fails(errno.ENXIO):
        root.call(os.stat, f"/proc/self/fd/{inside}/rx_frames")


def test_a_storm_of_changes_beside_programs_that_look(mount: Mount) -> None:
    """The kernel is told about changed directories while it looks names up in them, and nothing hangs."""
    look = "for i in $(seq 6); do ls -lR . >/dev/null 2>&1; cat virt*/stats/* >/dev/null 2>&1; done"
    lookers = [mount.process().begin(os.system, f"cd {DIR}; {look}") for _ in range(2)]
    for number in range(15):
        mount.ctl("create 3 up\ncreate 4\ncreate 5\nvirt4 owner 1001")
        mount.ctl(f"virt3 owner {1000 + number}\ndestroy 3\ndestroy 4\ndestroy 5")
    for looker in lookers:
        looker.result(60)
    assert mount.units() == []


def test_nothing_is_left_of_a_text_that_was_read(virt: Virt) -> None:
    reader = virt.mount.process(1000)
    for _ in range(20):
        reader.open(f"{virt.name}/mtu", os.O_RDONLY).close()
    assert reader.call(os.listdir, f"{DIR}/{virt.name}/stats")
    held = virt.mount.read("memory").splitlines()[1:]
    assert [line for line in held if line.startswith("1000 ")] == []


def test_a_new_mode_holds_at_the_next_call(mount: Mount) -> None:
    """The kernel keeps the attributes of files for a moment, but no longer than they are true."""
    mount.ctl("create 3\nvirt3 mode 0644")
    root, other = mount.root, mount.process(1000)
    names = ("mtu", "hex", "stream", "queue", "ctl")
    for number in range(20):
        mode = 0o644 if number % 2 else 0o600
        listing = other.begin(os.system, f"ls -l {DIR}/virt3 >/dev/null")
        for name in names:
            root.call(os.stat, f"{DIR}/virt3/{name}")
        mount.ctl(f"virt3 mode {mode:o}")
        for name in names:
            found = stat.S_IMODE(root.call(os.stat, f"{DIR}/virt3/{name}").st_mode)
            assert found == (mode if name in ("hex", "stream") else mode | 0o444), name
        if mode == 0o600:
            with fails(errno.EACCES):
                other.open("virt3/stream", os.O_RDONLY | os.O_NONBLOCK)
        else:
            other.open("virt3/stream", os.O_RDONLY | os.O_NONBLOCK).close()
        listing.result(60)


def test_the_size_of_a_value_after_a_change(mount: Mount) -> None:
    mount.ctl("create 3")
    for value in ("576", "1500", "9000", "68", "65521"):
        for _ in range(2):
            mount.root.call(os.stat, f"{DIR}/virt3/mtu")
        mount.ctl(f"virt3 mtu {value}")
        assert mount.root.call(os.stat, f"{DIR}/virt3/mtu").st_size == len(value) + 1
        mount.root.call(os.stat, f"{DIR}/virt3/queue")
        mount.write("virt3/queue", value)
        assert mount.root.call(os.stat, f"{DIR}/virt3/queue").st_size == len(value) + 1
