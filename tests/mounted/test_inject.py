"""inject: the frames of a capture file written to it are sent, as fast as possible or at the recorded times."""

import errno
import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness.captured import pcap
from harness.places import DIR, finished
from harness.process import File, fails
from harness.serving import Mount, Virt, Virts, frame
from harness.waiting import until
from harness.watching import Watch, assert_paced

from . import programs

SENT = [frame(60, 1), frame(1514, 2), frame(14, 3), frame(61, 4)]
FILE = pcap(enumerate(SENT))


def put(mount: Mount, name: str, data: bytes) -> str:
    """Write a file in the mount namespace, outside the mount, and return its path."""
    path = f"/mnt/{name}"
    mount.root.call(Path.write_bytes, Path(path), data)
    return path


def write(virt: Virt, data: bytes) -> None:
    """Write a whole capture file to inject in one write(2)."""
    file = virt.mount.root.open(f"{virt.name}/inject", os.O_WRONLY)
    assert file.write(data) == len(data)
    file.close()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nano", [False, True])
def test_pcap_in_both_orders_and_resolutions(virt: Virt, order: str, nano: bool) -> None:
    file = virt.mount.root.open(f"{virt.name}/inject", os.O_WRONLY)
    data = pcap(enumerate(SENT), order, nano)
    assert file.write(data) == len(data)
    assert [virt.host_gets() for _ in SENT] == SENT
    assert (virt.count("tx_frames"), virt.count("tx_bytes")) == (4, sum(map(len, SENT)))


@pytest.mark.parametrize("kind", ["pcap", "nsecpcap", "pcapng"])
def test_what_wireshark_s_tools_write(virt: Virt, kind: str) -> None:
    path = put(virt.mount, "recorded", FILE)
    virt.mount.sh(f"editcap -F {kind} {path} /mnt/other && cat /mnt/other >{virt.name}/inject")
    assert [virt.host_gets() for _ in SENT] == SENT


def test_several_sections(virt: Virt) -> None:
    path = put(virt.mount, "recorded", FILE)
    virt.mount.sh(f"editcap -F pcapng {path} /mnt/other && cat /mnt/other /mnt/other >{virt.name}/inject")
    assert [virt.host_gets() for _ in range(8)] == SENT * 2


@pytest.mark.parametrize("strict", ["", "strict"])
def test_an_fcs_that_the_file_announces_is_not_sent(virt: Virt, strict: str) -> None:
    """Nor does it count towards the length: a full frame with a VLAN tag and an FCS is not too long."""
    virt.set(f"{strict} up")
    sent = [frame(60, 1), frame(1514, 2), frame(1518, 3)] + [frame(60, number) for number in range(20)]
    file = pcap(enumerate(one + b"FCS!" for one in sent))
    write(virt, file[:20] + struct.pack("<I", 1 | 0x24000000) + file[24:])
    assert [virt.host_gets() for _ in sent] == sent
    assert (virt.count("tx_frames"), virt.count("tx_oversize")) == (len(sent), 0)


@pytest.mark.parametrize("pace", ["0", "1000000"])
def test_an_interface_of_another_link_type(virt: Virt, pace: str) -> None:
    """Frames before its first packet are sent. last_error gives the offset of that packet."""
    virt.set(f"pace {pace}")
    first, second = clocked(6, 0, SENT[0]), clocked(6, 1, SENT[1])[28 + 32 :]
    loopback = struct.pack("<IIHHII", 1, 20, 0, 0, 0, 20)
    good = first + loopback + second
    packet = bytearray(second)
    packet[8] = 1  # the number of its interface
    file = virt.mount.root.open(f"{virt.name}/inject", os.O_WRONLY)
    with fails(errno.EINVAL):
        file.write(good + bytes(packet) + second)
    assert [virt.host_gets() for _ in range(2)] == SENT[:2]
    said = f'{virt.name}/inject: byte {len(good)}: "LINKTYPE_NULL 0" is not Ethernet: its frames cannot be sent'
    assert virt.mount.read("last_error") == said
    file.close()
    assert (virt.mount.read("last_error"), virt.count("tx_frames")) == (said, 2)
    write(virt, good)
    assert virt.count("tx_frames") == 4


def test_what_was_captured_is_replayed(virts: Virts) -> None:
    """One virt's pcap, statistics blocks included, is written to another's inject."""
    first, second = virts(), virts()
    watch = Watch(first.mount, f"{first.name}/pcap")
    first.host_sends(*SENT)
    watch.until(4)
    first.mount.ctl(f"destroy {first.unit}")
    watch.look()
    write(second, watch.data)
    assert [second.host_gets() for _ in SENT] == SENT


@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
def test_cut_anywhere(virt: Virt, kind: str, size: int) -> None:
    path = put(virt.mount, "recorded", FILE)
    virt.mount.sh(f"editcap -F {kind} {path} /mnt/o && dd if=/mnt/o of={virt.name}/inject bs={size} status=none")
    assert [virt.host_gets() for _ in SENT] == SENT
    assert virt.count("tx_frames") == 4


@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_equal_frames_in_a_row(virt: Virt, kind: str, size: int) -> None:
    """Frames of equal length are sent in batches. They stay in order, also with others between them."""
    sent = [frame(60, number) for number in range(100)] + [frame(61)] + [frame(1514, number) for number in range(50)]
    path = put(virt.mount, "recorded", pcap(enumerate(sent)))
    virt.mount.sh(f"editcap -F {kind} {path} /mnt/o && dd if=/mnt/o of={virt.name}/inject bs={size} status=none")
    assert [virt.host_gets() for _ in sent] == sent
    assert (virt.count("tx_frames"), virt.count("tx_bytes")) == (151, sum(map(len, sent)))


def test_equal_frames_behind_one_that_is_refused(virt: Virt) -> None:
    """With `strict` the write fails at that frame. The frames after it are sent by the next write."""
    virt.set("strict")
    sent = [frame(60, number) for number in range(41)]
    data = pcap(enumerate([*sent[:20], frame(2000), *sent[20:40], frame(2000), sent[40]]))
    file = virt.mount.root.open(f"{virt.name}/inject", os.O_WRONLY)
    end = len(data) - 76
    for part, count, offset in ((data[:end], 20, 24 + 20 * 76), (data[end:], 40, 24 + 40 * 76 + 2016)):
        with fails(errno.EMSGSIZE):
            file.write(part)
        assert virt.count("tx_frames") == count
        said = f"{virt.name}/inject: byte {offset}: a frame of 2000 bytes is too long: the maximum is 1518"
        assert virt.mount.read("last_error") == said
    assert [virt.host_gets() for _ in range(40)] == sent[:40]
    assert virt.count("tx_oversize") == 2


def test_equal_frames_while_down(virt: Virt) -> None:
    virt.set("down")
    write(virt, pcap((number, frame(60, number)) for number in range(100)))
    assert (virt.count("tx_frames"), virt.count("tx_down"), virt.count("tx_dropped")) == (0, 100, 100)
    virt.set("up strict")
    write(virt, pcap((number, frame(60, number)) for number in range(100)))
    assert virt.count("tx_frames") == 100


def test_frames_go_as_soon_as_they_are_whole(virt: Virt) -> None:
    """The file may come bit by bit, for instance from a pipe that tcpdump fills."""
    file = virt.mount.root.open(f"{virt.name}/inject", os.O_WRONLY)
    file.write(FILE[: 24 + 16 + 60])
    assert virt.host_gets() == SENT[0]
    file.write(FILE[24 + 16 + 60 : -1])
    assert [virt.host_gets(), virt.host_gets()] == SENT[1:3]
    assert virt.count("tx_frames") == 3
    file.write(FILE[-1:])
    assert virt.host_gets() == SENT[3]


@pytest.mark.parametrize("size", [None, 7])
def test_a_broken_file(virt: Virt, size: int | None) -> None:
    """Frames before the error are sent, last_error gives its offset, and further writes fail."""
    file = virt.mount.root.open(f"{virt.name}/inject", os.O_WRONLY)
    broken = FILE + struct.pack("<IIII", 1, 0, 0x7FFFFFFF, 60) + FILE[24:]
    with fails(errno.EINVAL):
        for at in range(0, len(broken), size or len(broken)):
            file.write(broken[at : at + (size or len(broken))])
    assert [virt.host_gets() for _ in SENT] == SENT
    assert virt.mount.read("last_error").startswith(f"{virt.name}/inject: byte {len(FILE)}: ")
    with fails(errno.EINVAL):
        file.write(FILE)
    file.close()
    assert virt.count("tx_frames") == 4
    write(virt, FILE)
    assert virt.count("tx_frames") == 8


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1", "does not begin a pcap or pcapng file"),
        (b"\x1f\x8b\x08\x00" + bytes(30), "gzip"),
        (pcap([])[:20] + struct.pack("<I", 113), "LINKTYPE_LINUX_SLL 113"),
    ],
)
def test_what_is_no_capture(virt: Virt, data: bytes, why: str) -> None:
    file = virt.mount.root.open(f"{virt.name}/inject", os.O_WRONLY)
    with fails(errno.EINVAL):
        file.write(data)
    assert virt.mount.read("last_error").startswith(f"{virt.name}/inject: byte 0: ")
    assert why in virt.mount.read("last_error")


def test_a_file_cut_short_is_told_of_at_close(virt: Virt) -> None:
    file = virt.mount.root.open(f"{virt.name}/inject", os.O_WRONLY)
    file.write(FILE[:-5])
    file.close()
    assert virt.count("tx_frames") == 3
    begins = len(FILE) - 61 - 16
    assert virt.mount.read("last_error").startswith(f"{virt.name}/inject: byte {begins}: the file is truncated")


def test_fsync_tells_whether_a_file_is_cut_short(virt: Virt) -> None:
    file = virt.mount.root.open(f"{virt.name}/inject", os.O_WRONLY)
    file.write(FILE[:-5])
    with fails(errno.EINVAL):
        file.call(os.fsync)
    assert "the file is truncated" in virt.mount.read("last_error")
    file.write(FILE[-5:])  # the rest can still follow
    file.call(os.fsync)
    file.close()
    assert virt.count("tx_frames") == 4


def test_pace_1_keeps_the_distances(virt: Virt) -> None:
    virt.write("pace", "1\n")
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    times, begun = [0, 0.1, 0.3, 0.3, 0.45], time.time()
    write(virt, pcap((100 + at, frame()) for at in times))
    assert_paced(watch.until(5), begun, times)


def test_a_fraction_and_a_multiple(virt: Virt) -> None:
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    virt.write("pace", "10\n")
    begun = time.time()
    write(virt, pcap((at, frame()) for at in (1, 2, 4)))
    assert_paced(watch.until(3), begun, [0, 0.1, 0.3])
    virt.set("pace 0.5")
    begun = time.time()
    write(virt, pcap((at, frame()) for at in (1, 1.1, 1.2)))
    assert_paced(watch.until(6), begun, [0, 0.2, 0.4])


def test_writes_cut_a_paced_file_anywhere(virt: Virt) -> None:
    virt.write("pace", "1\n")
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    path = put(virt.mount, "recorded", pcap((number / 50, frame(60, number)) for number in range(20)))
    begun = time.time()
    virt.mount.sh(f"dd if={path} of={virt.name}/inject bs=37 status=none")
    assert_paced(watch.until(20), begun, [number / 50 for number in range(20)])


def waiting(virt: Virt, times: tuple[float, ...] = (0, 1000, 2000)) -> "subprocess.Popen[str]":
    """Start a cat of a file whose frames are far apart, and return it once the first frame has been sent."""
    virt.write("pace", "1\n")
    path = put(virt.mount, "slow", pcap((at, frame(60, number)) for number, at in enumerate(times)))
    writer = virt.mount.shell(f"exec cat {path} >{virt.name}/inject", stderr=subprocess.PIPE)
    until(lambda: virt.count("tx_frames") == 1, "the first frame is sent")
    return writer


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_a_waiting_write_and_frees_the_file(virt: Virt, number: int) -> None:
    writer = waiting(virt)
    with fails(errno.EBUSY):
        virt.mount.root.open(f"{virt.name}/inject", os.O_WRONLY)
    writer.send_signal(number)
    finished(writer)
    assert writer.returncode == -number
    virt.write("pace", "0\n")
    write(virt, FILE)
    assert virt.count("tx_frames") == 5


@pytest.mark.parametrize("resolution", [0, 0x80, 6, 9, 19, 127, 0xFF])
@pytest.mark.parametrize("pace", ["1", "0.001", "1000000"])
def test_a_recording_of_any_clock(virt: Virt, resolution: int, pace: str) -> None:
    """The timestamps differ as much as the clock allows. The second frame waits or is sent, depending on the pace.

    If it is due after more nanoseconds than 63 bits hold, it is refused, with the right number of years.
    """
    virt.set(f"pace {pace}")
    head, last = clocked(resolution, 0, SENT[0]), clocked(resolution, 2**64 - 1, SENT[1])[28 + 32 :]
    seconds = 2**64 / (2 if resolution & 0x80 else 10) ** (resolution & 0x7F) / float(pace)
    path = put(virt.mount, "recorded", head + last)
    writer = virt.mount.shell(f"exec cat {path} >{virt.name}/inject", stderr=subprocess.PIPE)
    assert virt.host_gets() == SENT[0]
    if seconds > 2**63 / 1e9:
        assert "Numerical result out of range" in finished(writer)[1]
        told = virt.mount.read("last_error")
        assert told.startswith(f"{virt.name}/inject: byte {len(head)}: at pace {pace} the frame is due in ")
        assert int(told.partition(" years;")[0].split()[-1]) == pytest.approx(seconds / 31_556_952, rel=0.01)
    elif seconds > 1:
        writer.send_signal(signal.SIGINT)
        finished(writer)
        assert virt.count("tx_frames") == 1
    else:
        finished(writer)
        assert virt.host_gets() == SENT[1]


def clocked(resolution: int, ticks: int, data: bytes) -> bytes:
    """Return a pcapng file with one frame. resolution: if_tsresol.

    The section header and the interface description take the first 60 bytes.
    """
    section = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
    interface = struct.pack("<IIHHIHHB3xHHI", 1, 32, 1, 0, 0, 9, 1, resolution, 0, 0, 32)
    body = (
        struct.pack("<IIIII", 0, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data)) + data + bytes(-len(data) % 4)
    )
    length = struct.pack("<I", len(body) + 12)
    return section + interface + struct.pack("<I", 6) + length + body + length


def test_a_refused_frame_is_told_of_at_the_end_too(virt: Virt) -> None:
    """The incomplete rest of the file is not reported as a second error."""
    virt.set("strict")
    file = virt.mount.root.open(f"{virt.name}/inject", os.O_WRONLY)
    with fails(errno.EMSGSIZE):
        file.write(pcap([(0, frame(2000)), (1, SENT[0]), (2, SENT[1])])[:-10])
    told = virt.mount.read("last_error")
    file.close()
    assert "2000" in told
    assert virt.mount.read("last_error") == told


def test_others_work_while_a_write_waits(virt: Virt) -> None:
    writer = waiting(virt)
    file = virt.open()
    virt.host_sends(SENT[0])
    assert file.read() == SENT[0]
    file.write(SENT[1])
    assert virt.count("tx_frames") == 2
    writer.kill()
    finished(writer)


def test_pace_changes_while_a_write_waits(virt: Virt) -> None:
    writer = waiting(virt)
    virt.write("pace", "0\n")
    finished(writer)
    assert writer.returncode == 0
    assert virt.count("tx_frames") == 3


def test_pace_changes_on_the_way(virt: Virt) -> None:
    """The new pace applies from the next frame on."""
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    virt.write("pace", "1\n")
    times = [*(number / 20 for number in range(4)), *(100 * number for number in range(1, 41))]
    path = put(virt.mount, "slow", pcap((at, frame(60)) for at in times))
    begun = time.time()
    writer = virt.mount.shell(f"exec cat {path} >{virt.name}/inject")
    assert_paced(watch.until(4), begun, times[:4])
    changed = time.time()
    virt.write("pace", "10000\n")
    finished(writer)
    assert watch.until(44).packets[-1].time / 1e9 > changed + 0.38


def test_destroyed_while_a_write_waits(virt: Virt) -> None:
    writer = waiting(virt)
    virt.mount.ctl(f"destroy {virt.unit}")
    _, complaint = finished(writer)
    assert "No such device" in complaint


def test_a_signal_between_two_frames_loses_none(virt: Virt) -> None:
    """write(2) returns how much was consumed. Writing the rest sends every frame once."""
    virt.write("pace", "1\n")
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    sent = [frame(60, number) for number in range(30)]
    path = put(virt.mount, "recorded", pcap((number / 100, one) for number, one in enumerate(sent)))
    program = f"""
import os, signal
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.025, 0.025)
rest = open({path!r}, "rb").read()
fd = os.open({f"{DIR}/{virt.name}/inject"!r}, os.O_WRONLY)
writes = 0
while rest:
    writes += 1
    rest = rest[os.write(fd, rest):]
signal.setitimer(signal.ITIMER_REAL, 0)
print(writes)
"""
    put(virt.mount, "program.py", program.encode())
    writes = int(virt.mount.sh(f"{sys.executable} /mnt/program.py"))
    assert writes > 3
    assert watch.until(30).frames == sent


def test_without_waiting_a_write_takes_what_is_due(virt: Virt) -> None:
    virt.write("pace", "1\n")
    file = virt.mount.root.open(f"{virt.name}/inject", os.O_WRONLY | os.O_NONBLOCK)
    data = pcap([(0, SENT[0]), (0, SENT[1]), (1000, SENT[2])])
    taken = write_due(file, data)
    assert taken == 24 + 16 + 60 + 16 + 1514
    virt.write("pace", "0\n")
    assert file.write(data[taken:]) == len(data) - taken
    assert [virt.host_gets() for _ in range(3)] == SENT[:3]


def write_due(file: File, data: bytes) -> int:
    """Write until a frame is not due. Return how many bytes were consumed.

    On a busy machine a write may end earlier, because the server stops after 2 ms.
    """
    taken = 0
    with fails(errno.EAGAIN):
        while True:
            taken += file.write(data[taken:])
    return taken


@pytest.mark.parametrize("events", [select.EPOLLOUT, select.EPOLLOUT | select.EPOLLET])
def test_without_waiting_at_a_pace(virt: Virt, events: int) -> None:
    """A writer that waits in epoll is woken when the next frame is due, and not before."""
    virt.write("pace", "1\n")
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    data = pcap((number / 5, frame(60, number)) for number in range(4))
    file = virt.mount.root.open(f"{virt.name}/inject", os.O_WRONLY | os.O_NONBLOCK)
    begun = time.time()
    refused = file.call(programs.write_by_epoll, data, events)
    assert 1 <= refused <= 6
    assert_paced(watch.until(4), begun, [0, 0.2, 0.4, 0.6])


def test_poll_while_a_frame_is_not_due(virt: Virt) -> None:
    virt.write("pace", "1\n")
    file = virt.mount.root.open(f"{virt.name}/inject", os.O_WRONLY | os.O_NONBLOCK)
    data = pcap([(0, SENT[0]), (1000, SENT[1])])
    data = data[write_due(file, data) :]
    assert file.poll() == 0
    waiting = file.begin_poll(select.POLLOUT)
    virt.write("pace", "0\n")
    assert waiting.result() == select.POLLOUT
    assert file.write(data) == len(data)
    virt.mount.ctl(f"destroy {virt.unit}")
    assert file.poll() == select.POLLOUT | select.POLLERR | select.POLLHUP


def test_poll_while_another_thread_s_write_waits(virt: Virt) -> None:
    virt.write("pace", "1\n")
    file = virt.mount.root.open(f"{virt.name}/inject", os.O_WRONLY)
    writing = file.process.begin(os.write, file.fd, pcap([(0, SENT[0]), (1000, SENT[1])]))
    until(lambda: virt.count("tx_frames") == 1, "the first frame is sent")
    assert file.poll() == 0
    polling = file.begin_poll(select.POLLOUT)
    virt.write("pace", "0\n")
    assert writing.result() > 0
    assert polling.result() == select.POLLOUT


def test_one_opener_at_a_time(virt: Virt) -> None:
    first = virt.mount.root.open(f"{virt.name}/inject", os.O_WRONLY)
    assert first.poll() == select.POLLOUT
    with fails(errno.EBUSY):
        virt.mount.root.open(f"{virt.name}/inject", os.O_WRONLY)
    first.close()
    virt.mount.root.open(f"{virt.name}/inject", os.O_WRONLY)


@pytest.mark.timeout(90)
def test_a_hundred_thousand_frames_all_arrive(virt: Virt) -> None:
    count = 100_000
    path = put(virt.mount, "many", pcap((number / 1e6, frame(60)) for number in range(count)))
    before = _received(virt)
    virt.mount.sh(f"cat {path} >{virt.name}/inject", seconds=60)
    assert (virt.count("tx_frames"), virt.count("tx_bytes"), virt.count("tx_dropped")) == (count, 60 * count, 0)
    assert _received(virt) - before == count


def _received(virt: Virt) -> int:
    """Return the number of frames received according to the host."""
    row = json.loads(virt.mount.ip(f"-s -json link show dev {virt.tap}"))[0]
    received: int = row["stats64"]["rx"]["packets"]
    return received


def test_writes_of_more_than_the_kernel_hands_over_at_once(virt: Virt) -> None:
    path = put(virt.mount, "many", pcap((number / 1e6, frame(1500, number)) for number in range(2000)))
    virt.mount.sh(f"dd if={path} of={virt.name}/inject bs=16M status=none")
    assert virt.count("tx_frames") == 2000


def test_down_and_what_does_not_fit_is_counted(virt: Virt) -> None:
    data = pcap([(0, frame(13)), (1, frame(60)), (2, frame(2000))])
    write(virt, data)
    virt.set("down")
    write(virt, FILE)
    assert (virt.count("tx_frames"), virt.count("tx_short"), virt.count("tx_oversize")) == (1, 1, 1)
    assert (virt.count("tx_down"), virt.count("tx_dropped")) == (4, 6)


def test_only_who_may_sends(virt: Virt) -> None:
    assert "Permission denied" in virt.mount.refused(f"echo >{virt.name}/inject", uid=1000)
    virt.set("owner 1000")
    path = put(virt.mount, "recorded", FILE)
    virt.mount.sh(f"cat {path} >{virt.name}/inject", uid=1000)
    assert virt.count("tx_frames") == 4
    assert "Permission denied" in virt.mount.refused(f"cat {virt.name}/inject", uid=1000)
