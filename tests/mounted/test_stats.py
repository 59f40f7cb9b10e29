"""stats: the counters of every interface, a line each."""

import os

from harness.serving import Mount, Virt, frame
from harness.waiting import until


def rows(mount: Mount) -> dict[str, dict[str, int]]:
    heading, *lines = (line.split() for line in mount.read("stats").splitlines())
    assert heading[0] == "INTERFACE"
    return {name: dict(zip(heading[1:], map(int, numbers), strict=True)) for name, *numbers in lines}


def test_the_numbers_are_those_of_the_files(mount: Mount) -> None:
    assert rows(mount) == {}
    mount.ctl("".join(f"create {unit}\n" for unit in (12, 4)) + "create 3 up queue 2")
    virt = Virt(mount, 3, "")
    assert list(rows(mount)) == ["virt3", "virt4", "virt12"]
    reader = virt.open(os.O_RDWR)
    virt.host_sends(*(frame(60, number) for number in range(5)))  # three more than the queue holds
    assert reader.read() == frame(60, 0)
    reader.write(frame(100))
    until(lambda: rows(mount)["virt3"]["rx_dropped"] == 3, "the drops of the kernel are in stats")
    names = list(rows(mount)["virt3"])
    assert sorted(names) == sorted(mount.root.call(os.listdir, "/mnt/virt/virt3/stats"))
    values = mount.texts(f"virt3/stats/{name}" for name in names)
    assert rows(mount)["virt3"] == dict(zip(names, map(int, values), strict=True))
    assert rows(mount)["virt3"]["tx_bytes"] == 100
    size = mount.root.call(os.stat, "/mnt/virt/stats").st_size
    assert size == len(mount.read("stats")) + 1
    mount.ctl("destroy 4")
    assert list(rows(mount)) == ["virt3", "virt12"]


def test_a_descriptor_that_stays_open(mount: Mount) -> None:
    """A program that polls the counters reads them again at offset 0."""
    mount.ctl("create 3 up")
    virt, file = Virt(mount, 3, ""), mount.root.open("stats", os.O_RDONLY)
    first = file.call(os.pread, 65536, 0)
    with_writer = virt.open(os.O_WRONLY)
    with_writer.write(frame(60))
    second = file.call(os.pread, 65536, 0)
    assert first != second
    assert b" 1 60 " in second
    mount.ctl("create 4")
    assert file.call(os.pread, 65536, 0).count(b"\n") == 3
