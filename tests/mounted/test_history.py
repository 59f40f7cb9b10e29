"""history: the last frames of an interface, for later readers."""

import errno
import os
import select
import sys

from harness.captured import Captured
from harness.process import fails
from harness.serving import Virt, frame
from harness.waiting import until
from harness.watching import history


def test_it_is_off_by_default(virt: Virt) -> None:
    assert virt.read("history_size") == "0"
    virt.host_sends(frame())
    virt.open(os.O_WRONLY).write(frame())
    seen = history(virt)
    assert seen.interfaces == [virt.name]
    assert seen.frames == []


def test_reading_takes_nothing_away(virt: Virt) -> None:
    virt.set("history 4M")
    assert virt.read("history_size") == "4M"
    assert "history 4M" in virt.read("ctl")
    virt.host_sends(frame(60, 1))
    virt.open(os.O_WRONLY).write(frame(60, 2))
    until(lambda: len(history(virt).frames) == 2, "both frames are in history")
    for _ in range(3):
        assert {(packet.frame, packet.way) for packet in history(virt).packets} == {
            (frame(60, 1), "in"),
            (frame(60, 2), "out"),
        }
    assert virt.mount.sh(f"tcpdump -nn -r {virt.name}/history 2>/dev/null").count("ethertype") == 2
    assert "Number of packets:   2" in virt.mount.sh(f"cat {virt.name}/history >/mnt/flight && capinfos /mnt/flight")


def test_it_is_bounded_and_keeps_the_last(virt: Virt) -> None:
    virt.write("history_size", "10000\n")
    file = virt.open(os.O_WRONLY)
    for number in range(100):
        file.write(frame(1000, number))
    frames = history(virt).frames
    assert frames == [frame(1000, number) for number in range(100 - len(frames), 100)]
    assert 8_000 < len(frames) * 1032 <= 10_000


def test_less_is_less_and_none_is_nothing(virt: Virt) -> None:
    virt.set("history 1M")
    file = virt.open(os.O_WRONLY)
    for number in range(20):
        file.write(frame(1000, number))
    assert len(history(virt).frames) == 20
    virt.set("history 5500")
    assert history(virt).frames == [frame(1000, number) for number in range(15, 20)]
    virt.set("-history")
    assert history(virt).frames == []
    assert virt.read("history_size") == "0"
    file.write(frame(60))
    assert history(virt).frames == []


def test_a_reader_sees_what_was_there_at_its_open(virt: Virt) -> None:
    virt.set("history 4M")
    writer = virt.open(os.O_WRONLY)
    for number in range(300):
        writer.write(frame(1000, number))
    file = virt.mount.root.open(f"{virt.name}/history", os.O_RDONLY)
    data = file.read(5000)
    assert file.poll() == select.POLLIN
    for number in range(300, 400):
        writer.write(frame(1000, number))
    virt.set("-history")
    while piece := file.read(5000):
        data += piece
    assert Captured(data).frames == [frame(1000, number) for number in range(300)]


def test_it_takes_nothing_from_a_reader(virt: Virt) -> None:
    virt.set("history 1M")
    file = virt.open()
    sent = [frame(60, number) for number in range(50)]
    virt.host_sends(*sent)
    assert [file.read() for _ in sent] == sent
    assert history(virt).frames == sent


def test_programs_that_seek_in_it(virt: Virt) -> None:
    """tshark in two passes, reordercap, and python-pcapng's scanner, which calls tell()."""
    virt.set("history 4M")
    file = virt.open(os.O_WRONLY)
    for number in range(300):
        file.write(frame(1000, number))
    path = f"{virt.name}/history"
    assert len(virt.mount.sh(f"tshark -2 -r {path} 2>/dev/null").splitlines()) == 300
    virt.mount.sh(f"reordercap {path} /mnt/ordered && capinfos -c /mnt/ordered | grep -w 300")
    assert virt.mount.sh(f"capinfos -Mc {path} | grep -c 300") == "1\n"
    scanning = "import pcapng, sys; print(sum(1 for _ in pcapng.FileScanner(open(sys.argv[1], 'rb'))))"
    assert virt.mount.sh(f'{sys.executable} -c "{scanning}" {path}') == "302\n"
    assert virt.mount.sh(f"tail -c 100 {path} | wc -c; wc -c <{path}").split() == ["100", str(size(virt))]


def size(virt: Virt) -> int:
    """Return the st_size of history."""
    return int(virt.mount.sh(f"stat -c %s {virt.name}/history"))


def test_each_open_has_its_own_length(virt: Virt) -> None:
    virt.set("history 1M")
    writer = virt.open(os.O_WRONLY)
    opens, sizes = [], []
    for _ in range(3):
        file = virt.mount.root.open(f"{virt.name}/history", os.O_RDONLY)
        opens.append(file)
        sizes.append(file.call(os.lseek, 0, os.SEEK_END))
        assert file.call(os.fstat).st_size == sizes[-1] == size(virt)
        writer.write(frame(1000))
    each = sizes[1] - sizes[0]
    assert each > 1000
    assert sizes == [sizes[0], sizes[0] + each, sizes[0] + 2 * each]
    for file, length in zip(opens, sizes, strict=True):
        assert len(file.call(os.pread, 1 << 20, 0)) == length
        assert len(file.call(os.pread, 1 << 20, length - 10)) == 10
        assert file.call(os.pread, 10, length) == b""
    opens.pop().close()
    until(lambda: size(virt) == sizes[1], "the size is that of the latest open")
    for file in opens:
        file.close()
    until(lambda: size(virt) == sizes[2] + each, "the size is that of a new open")


def test_the_ends_of_reads_are_anywhere(virt: Virt) -> None:
    virt.set("history 1M")
    writer = virt.open(os.O_WRONLY)
    for number in range(400):
        writer.write(frame(1000, number))
    file = virt.mount.root.open(f"{virt.name}/history", os.O_RDONLY)
    whole = file.call(os.pread, 1 << 20, 0)
    assert len(Captured(whole).frames) == 400
    for offset in range(0, len(whole), 9973):
        for length in (1, 1000, 70_000):
            assert file.call(os.pread, length, offset) == whole[offset : offset + length]


def test_the_mount_s_limit(virt: Virt) -> None:
    with fails(errno.ERANGE):
        virt.write("history_size", "1G\n")
    assert "history" in virt.mount.read("last_error")
    assert virt.read("history_size") == "0"
