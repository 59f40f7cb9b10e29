"""A walk through all files of a mount, as root, changes nothing: grep -r, cp -a, tar, rsync, find."""

import errno
import os

import pytest
from harness.process import fails
from harness.serving import Mount, Virt, frame
from harness.waiting import until

WALKS = {
    "grep": "grep -r nothing-has-this . ; test $? = 1",
    "cp": "cp -a . /mnt/copy",
    "tar": "tar -cf /mnt/copy.tar .",
    "rsync": "rsync -a . /mnt/copy",
    "find": "find . -ls >/dev/null; ls -lR . >/dev/null; du -a . >/dev/null",
}


def everything(mount: Mount) -> str:
    """Return the state of the mount and the host, except values that change with time."""
    memory = """sed 's/"memory": .*//' status.json; grep -v virtfs_memory metrics"""  # every read changes its numbers
    texts = mount.sh(f"{memory}; cat ctl */clients last_error; ip -br link; ip -br addr")
    return texts + str(mount.links())


@pytest.mark.timeout(300)
def test_a_walk_changes_nothing(mount: Mount) -> None:
    mount.ctl("create 1 up backlog 4 history 1M\ncreate 2 upopen carrier open exclusive both\ncreate 3 up")
    first, third = Virt(mount, 1, ""), Virt(mount, 3, "")
    first.host_sends(*(frame(60, number) for number in range(6)))
    reader = third.open(os.O_RDWR)
    third.host_sends(frame(99))
    until(lambda: (first.read("next"), third.read("next")) == ("60", "99"), "frames wait")
    events = mount.root.open("events", os.O_RDONLY)
    events.set_blocking(False)
    for name, walk in WALKS.items():
        told = everything(mount)
        mount.sh("rm -rf /mnt/copy*")
        mount.sh(walk, seconds=60)
        assert everything(mount) == told, name
        text = events.call(os.read, 1 << 16).decode() if events.poll() else ""
        lines = [line for line in text.splitlines() if " drop " not in line]  # two frames did not fit into the backlog
        assert all("history" in line for line in lines), f"{name}: {lines}"
    assert reader.read() == frame(99)
    taker = first.open(os.O_RDONLY)
    assert [taker.read() for _ in range(4)] == [frame(60, number) for number in range(2, 6)]


def test_a_look_is_no_open(virt: Virt) -> None:
    """An open with O_NOFOLLOW or O_NOATIME, as by programs that walk a directory, does not count as an open."""
    looker = virt.mount.process()
    virt.set("backlog 4 exclusive both")
    virt.host_sends(frame(60))
    until(lambda: virt.read("next") == "60", "the frame waits")
    for flags in (os.O_NOFOLLOW, os.O_NOATIME):
        for name in ("frame", "hex", "stream", "pcap", "inject", "wait/gone"):
            file = looker.open(f"{virt.name}/{name}", os.O_RDONLY | flags)
            size = file.call(os.fstat).st_size
            assert size == {"frame": 60, "inject": 0}.get(name, 1)
            assert file.read() == bytes(size)  # as many bytes as st_size: tar complains otherwise
            assert file.read() == b""
        file = looker.open("clone", os.O_RDONLY | flags)
        assert file.read() == b"\0"
        assert file.read() == b""
    assert virt.mount.units() == [virt.name]
    assert virt.read("clients").splitlines()[1:] == []
    assert virt.open().read() == frame(60)
    with fails(errno.EACCES):
        looker.open("clone", os.O_RDONLY)


def test_who_writes_means_it(virt: Virt) -> None:
    file = virt.open(os.O_RDWR | os.O_NOFOLLOW)
    virt.host_sends(frame(60))
    assert file.read() == frame(60)
    writer = virt.mount.root.open(f"{virt.name}/hex", os.O_WRONLY | os.O_NOFOLLOW)
    writer.write(frame(70).hex() + "\n")
    assert virt.host_gets() == frame(70)


def test_texts_and_history_are_read_by_a_look(virt: Virt) -> None:
    virt.set("history 1M")
    virt.open(os.O_WRONLY).write(frame(60))
    for path in ("ctl", f"{virt.name}/mtu", f"{virt.name}/history"):
        read = [virt.mount.sh(f"dd status=none if={path} {how} | xxd") for how in ("", "iflag=nofollow")]
        assert read[0] == read[1] != ""
