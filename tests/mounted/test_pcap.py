"""pcap: a live capture for any number of readers."""

import os
import select
import subprocess
import time

import pytest
from harness.captured import Captured
from harness.fixtures import Alone
from harness.places import finished
from harness.serving import Mount, Virt, Virts, frame
from harness.waiting import until, until_it_waits
from harness.watching import Watch

FIELDS = (
    "-T fields -e frame.interface_name -e frame.interface_description"
    " -e frame.packet_flags_direction -e frame.len -e frame.time_epoch"
)


def test_both_ways_with_names_and_times(virts: Virts) -> None:
    virt = virts("up link b2:0a:00:0b:0e:77 description the lab's Ärger")
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    begun = time.time_ns()
    virt.host_sends(frame(60, 1))
    virt.open(os.O_WRONLY).write(frame(100, 2))
    virt.host_sends(frame(1514, 3))
    seen = watch.until(3)
    assert [(packet.frame, packet.way) for packet in seen.packets] == [
        (frame(60, 1), "in"),
        (frame(100, 2), "out"),
        (frame(1514, 3), "in"),
    ]
    section, interface = seen.blocks[:2]
    assert section.options["shb_userappl"].startswith("virtfs ")
    assert section.options["shb_os"].startswith("Linux")
    assert interface.options["if_name"] == virt.name
    assert interface.options["if_description"] == "the lab's Ärger"
    assert interface.options["if_MACaddr"] == "b2:0a:00:0b:0e:77"
    assert interface.timestamp_resolution == 1e-9
    times = [packet.time for packet in seen.packets]
    assert begun <= times[0] <= times[1] <= times[2] <= time.time_ns()
    assert any(at % 1000 for at in times)


def test_tcpdump_reads_it_live(virt: Virt) -> None:
    reader = virt.mount.shell(f"exec tcpdump -l -nn -e -r {virt.name}/pcap -c 3 2>/dev/null", stdout=subprocess.PIPE)
    assert reader.stdout is not None
    until_it_waits(reader.pid)
    for number in range(3):
        virt.host_sends(frame(60 + number, number))
        while "ethertype" not in (line := reader.stdout.readline()):
            assert line
        assert f"length {60 + number}" in line
    finished(reader)
    assert reader.returncode == 0


def test_tshark_reads_it_live(virt: Virt) -> None:
    virt.set("description my lab")
    reader = virt.mount.shell(f"exec tshark -l -r {virt.name}/pcap {FIELDS} 2>/dev/null", stdout=subprocess.PIPE)
    assert reader.stdout is not None
    until_it_waits(reader.pid)
    virt.host_sends(frame(60))
    assert reader.stdout.readline().split("\t")[:4] == [virt.name, "my lab", "0x00000001", "60"]
    virt.open(os.O_WRONLY).write(frame(70))
    assert reader.stdout.readline().split("\t")[:4] == [virt.name, "my lab", "0x00000002", "70"]
    virt.mount.ctl(f"destroy {virt.unit}")
    finished(reader)
    assert reader.returncode == 0


def test_everybody_reads_it_afterwards(virt: Virt) -> None:
    """cat copies the capture, which ends when the interface is destroyed."""
    mount = virt.mount
    writer = mount.shell(f"exec cat {virt.name}/pcap >/mnt/capture")
    until_it_waits(writer.pid)
    virt.host_sends(*(frame(60 + number, number) for number in range(50)))
    virt.open(os.O_WRONLY).write(frame(1000))
    until(lambda: virt.count("tx_frames"), "the frame is sent")
    mount.ctl(f"destroy {virt.unit}")
    finished(writer)
    assert writer.returncode == 0
    lines = mount.sh(f"tshark -r /mnt/capture {FIELDS} 2>/dev/null").splitlines()
    assert [line.split("\t")[2:4] for line in lines] == [
        *(["0x00000001", str(60 + number)] for number in range(50)),
        ["0x00000002", "1000"],
    ]
    assert mount.sh("tcpdump -nn -r /mnt/capture 2>/dev/null").count("ethertype Unknown (0x88b5)") == 51
    told = mount.sh("capinfos /mnt/capture")
    assert f"Name = {virt.name}" in told
    assert "Number of stat entries = 1" in told
    assert "Number of packets:   51" in told
    assert "Time precision = nanoseconds (9)" in told
    seen = Captured(mount.root.call(_contents, "/mnt/capture"))
    assert len(seen.frames) == 51
    assert seen.statistics == [(51, 0)]


def _contents(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def test_two_readers_each_get_all(virt: Virt) -> None:
    first, second = Watch(virt.mount, f"{virt.name}/pcap"), Watch(virt.mount, f"{virt.name}/pcap")
    sent = [frame(60, number) for number in range(20)]
    virt.host_sends(*sent[:10])
    assert first.until(10).frames == sent[:10]
    late = Watch(virt.mount, f"{virt.name}/pcap")
    virt.host_sends(*sent[10:])
    assert first.until(20).frames == second.until(20).frames == sent
    assert late.until(10).frames == sent[10:]


def test_it_takes_nothing_from_a_reader(virt: Virt) -> None:
    reader = virt.open()
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    sent = [frame(60, number) for number in range(100)]
    virt.host_sends(*sent)
    assert [reader.read() for _ in sent] == sent
    assert watch.until(100).frames == sent
    watch.file.close()
    virt.host_sends(*sent)
    assert [reader.read() for _ in sent] == sent
    assert (virt.count("rx_frames"), virt.count("rx_dropped")) == (200, 0)


def test_it_keeps_a_waiting_reader_waiting_for_its_own(virt: Virt) -> None:
    """A read that waits when a capture begins or ends still gets its frame at once."""
    reader = virt.open()
    waiting = reader.begin_read().waiting()
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    virt.host_sends(frame(99))
    assert waiting.result() == frame(99)
    assert watch.until(1).frames == [frame(99)]
    waiting = reader.begin_read().waiting()
    watch.file.close()
    virt.host_sends(frame(98))
    assert waiting.result() == frame(98)


def test_without_a_reader_frames_are_dropped_all_the_same(virt: Virt) -> None:
    """A capture does not count as a reader of frames."""
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    virt.host_sends(*(frame(60, number) for number in range(5)))
    watch.until(5)
    assert (virt.count("rx_frames"), virt.count("rx_dropped")) == (0, 5)
    with pytest.raises(BlockingIOError):
        virt.open(os.O_RDONLY | os.O_NONBLOCK).read()


def test_a_frame_that_cannot_be_sent_is_not_seen(virt: Virt) -> None:
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    writer = virt.open(os.O_WRONLY)
    writer.write(frame(13))
    writer.write(frame(2000))
    virt.set("antispoof link b2:0a:00:0b:0e:99")
    writer.write(frame(60))
    virt.set("down")
    virt.set("-antispoof")
    writer.write(frame(60))
    virt.set("up")
    writer.write(frame(61))
    assert watch.until(1).frames == [frame(61)]
    assert virt.count("tx_dropped") == 4


SMALL = 64 << 10


def captured(virt: Virt, frames: int) -> None:
    """Wait until the only capture of an interface has seen `frames` frames: taken, waiting and dropped ones."""

    def seen() -> bool:
        (client,) = [line for line in virt.read("clients").splitlines() if "pcap" in line]
        return sum(map(int, client.split()[3:6])) == frames

    until(seen, f"{frames} frames are seen")


@pytest.mark.parametrize("size", [1 << 20, 1000])
def test_a_full_buffer_drops_and_says_so(alone: Alone, size: int) -> None:
    """Once the reader has caught up, a statistics block reports the drops, without waiting for another frame."""
    virt = Virt(alone("capture=64K"), 1, "queue 512 up")
    watch = Watch(virt.mount, f"{virt.name}/pcap", size)
    writer = virt.open(os.O_WRONLY)
    for number in range(100):
        writer.write(frame(1500, number))
    captured(virt, 100)
    seen = watch.look()
    fitting = len(seen.frames)
    assert SMALL - 3100 < fitting * 1532 <= SMALL
    assert seen.frames == [frame(1500, number) for number in range(fitting)]
    assert seen.statistics == [(100, 100 - fitting)]
    writer.write(frame(60, 200))
    last = watch.until(fitting + 1).packets[-1]
    assert (last.frame, last.lost) == (frame(60, 200), 0)
    (client,) = [line for line in virt.read("clients").splitlines() if "pcap" in line]
    assert client.split()[5] == str(100 - fitting)


def test_the_next_frame_counts_those_before_it(alone: Alone) -> None:
    """If the buffer has not run empty since the drops, epb_dropcount of the next frame reports them."""
    virt = Virt(alone("capture=64K"), 1)
    watch = Watch(virt.mount, f"{virt.name}/pcap", size=8192)
    writer = virt.open(os.O_WRONLY)
    for number in range(50):
        writer.write(frame(1500, number))
    captured(virt, 50)
    watch.data += watch.file.read(8192)
    writer.write(frame(60, 200))
    captured(virt, 51)
    seen = watch.until(1)
    assert seen.packets[-1].frame == frame(60, 200)
    kept = len(seen.packets) - 1
    assert seen.packets[-1].lost == 50 - kept > 0
    assert [packet.lost for packet in seen.packets[:-1]] == [0] * kept


def test_a_reader_that_stops_costs_nothing_else(alone: Alone) -> None:
    mount = alone("capture=64K")
    virt = Virt(mount, 1, "up")
    stopped = mount.root.open(f"{virt.name}/pcap", os.O_RDONLY)
    other, reader = Watch(mount, f"{virt.name}/pcap"), virt.open()
    for turn in range(8):
        sent = [frame(1000, 100 * turn + number) for number in range(50)]
        virt.host_sends(*sent)
        assert [reader.read() for _ in sent] == sent
        assert other.until(50 * (turn + 1)).frames[-50:] == sent
    assert virt.count("rx_dropped") == 0
    assert all(packet.lost == 0 for packet in other.look().packets)
    assert len(stopped.read(1 << 20)) <= SMALL


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
def test_reads_of_any_size(virt: Virt, size: int) -> None:
    watch = Watch(virt.mount, f"{virt.name}/pcap", size)
    sent = [frame(14, 1), frame(60, 2), frame(251, 3)]
    virt.host_sends(*sent)
    assert watch.until(3).frames == sent


def test_a_large_read_gives_many_whole_blocks(virt: Virt) -> None:
    """A read returns as many blocks as fit. The other blocks stay whole for the next read."""
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    writer = virt.open(os.O_WRONLY)
    for number in range(100):
        writer.write(frame(1000, number))
    captured(virt, 100)
    pieces = [watch.file.read(10_000) for _ in range(5)]
    assert all(9_000 <= len(piece) <= 10_000 for piece in pieces)
    assert len(Captured(b"".join(pieces)).frames) == 9 * 4 + 9
    rest = watch.file.read(1 << 20)
    assert Captured(b"".join((*pieces, rest))).frames == [frame(1000, number) for number in range(100)]


def test_a_block_larger_than_the_read_goes_on_in_the_next(virts: Virts) -> None:
    virt = virts("mtu 65521 up")
    watch = Watch(virt.mount, f"{virt.name}/pcap", 5000)
    virt.host_sends(frame(65535, 1), frame(60, 2))
    assert watch.until(2).frames == [frame(65535, 1), frame(60, 2)]


def test_poll_wait_and_the_end(virt: Virt) -> None:
    file = virt.mount.root.open(f"{virt.name}/pcap", os.O_RDONLY)
    assert file.poll() == select.POLLIN
    header = file.read()
    assert Captured(header).interfaces == [virt.name]
    assert file.poll() == 0
    waiting = file.begin_poll(select.POLLIN)
    virt.host_sends(frame())
    assert waiting.result() == select.POLLIN
    data = header + file.read()
    reading = file.begin_read().waiting()
    virt.mount.ctl(f"destroy {virt.unit}")
    data += reading.result()
    assert file.read() == b""
    assert file.read() == b""
    seen = Captured(data)
    assert seen.frames == [frame()]
    assert seen.statistics == [(1, 0)]


def test_it_goes_on_over_down_and_up(virt: Virt) -> None:
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    virt.host_sends(frame(60, 1))
    watch.until(1)
    virt.set("down")
    virt.set("up")
    virt.host_sends(frame(60, 2))
    assert watch.until(2).frames == [frame(60, 1), frame(60, 2)]


def test_the_root_s_has_all_and_who_appears(mount: Mount, virts: Virts) -> None:
    first = virts()
    watch = Watch(mount, "pcap")
    first.host_sends(frame(60, 1))
    watch.until(1)
    second = virts("up description came later")
    second.host_sends(frame(60, 2))
    first.open(os.O_WRONLY).write(frame(60, 3))
    seen = watch.until(3)
    assert [(packet.frame, packet.interface, packet.way) for packet in seen.packets] == [
        (frame(60, 1), first.name, "in"),
        (frame(60, 2), second.name, "in"),
        (frame(60, 3), first.name, "out"),
    ]
    assert seen.interfaces == [first.name, second.name]
    kinds = [type(block).__name__ for block in seen.blocks]
    assert kinds[:4] == ["SectionHeader", "InterfaceDescription", "EnhancedPacket", "InterfaceDescription"]


def test_the_root_s_goes_on_when_one_is_destroyed(mount: Mount, virts: Virts) -> None:
    first, second = virts(), virts()
    watch = Watch(mount, "pcap")
    first.host_sends(frame(60, 1))
    watch.until(1)
    mount.ctl(f"destroy {first.unit}")
    second.host_sends(frame(60, 2))
    seen = watch.until(2)
    assert seen.statistics == [(1, 0)]
    assert not watch.ended
    third = virts()
    third.host_sends(frame(60, 3))
    assert watch.until(3).interfaces == [first.name, second.name, third.name]


def test_root_s_and_own_at_once(mount: Mount, virt: Virt) -> None:
    both = [Watch(mount, "pcap"), Watch(mount, f"{virt.name}/pcap")]
    virt.host_sends(frame(60, 1))
    for watch in both:
        assert watch.until(1).frames == [frame(60, 1)]


def test_only_who_may_captures(virt: Virt) -> None:
    assert "Permission denied" in virt.mount.refused(f"cat {virt.name}/pcap", uid=1000)
    assert "Permission denied" in virt.mount.refused("cat pcap", uid=1000)
    virt.set("owner 1000")
    watcher = virt.mount.shell(f"exec cat {virt.name}/pcap >/dev/null", uid=1000)
    until_it_waits(watcher.pid)
    assert "Permission denied" in virt.mount.refused("cat pcap", uid=1000)
    assert "Permission denied" in virt.mount.refused(f"echo >{virt.name}/pcap", uid=1000)
