"""frame: each read or write transfers one frame, and frames that cannot be delivered are dropped and counted."""

import errno
import os

import pytest
from harness.process import fails
from harness.serving import Mount, Virt, Virts, frame
from harness.waiting import PATIENCE, until

import virtfs

SIZES = [14, 60, 1514, 9018, 65535]


@pytest.mark.parametrize("size", SIZES)
def test_a_frame_survives_both_ways(virts: Virts, size: int) -> None:
    mtu = max(1500, size - 14)
    virt = virts(f"mtu {mtu} up")
    with_file = virt.open()
    virt.host_sends(frame(size))
    assert with_file.read() == frame(size)
    assert with_file.write(frame(size, 1)) == size
    assert virt.host_gets() == frame(size, 1)


def test_many_frames_keep_borders_and_order(virt: Virt) -> None:
    file = virt.open()
    sent = [frame(14 + 7 * i, i) for i in range(200)]
    virt.host_sends(*sent)
    assert [file.read() for _ in sent] == sent
    for one in sent:
        file.write(one)
    assert [virt.host_gets() for _ in sent] == sent


def test_a_short_read_cuts_the_frame_and_loses_the_rest(virt: Virt) -> None:
    file = virt.open()
    virt.host_sends(frame(1000, 1), frame(60, 2))
    assert file.read(100) == frame(1000, 1)[:100]
    assert file.read() == frame(60, 2)


def test_dd_takes_one_frame(virt: Virt) -> None:
    """What a user may try first: dd reads the ARP request that ping causes."""
    virt.set(f"inet 10.0.{virt.unit}.1/24")
    script = f"""
        dd if={virt.name}/frame bs=2048 count=1 status=none | xxd -p -c 99 &
        while kill -0 $!; do ping -q -c1 -W1 10.0.{virt.unit}.2 >/dev/null; done 2>/dev/null
        wait $!"""
    request = virt.mount.sh(script).strip()
    assert request.startswith("ffffffffffff" + virt.read("tap/address").replace(":", "") + "0806")
    assert len(request) == 2 * 42


def test_arping_is_answered_from_the_shell(virt: Virt) -> None:
    """A few lines of shell read an ARP request and write the answer."""
    virt.set(f"inet 10.0.{virt.unit}.1/24")
    mac = virt.read("address").replace(":", "")
    script = f"""
        exec 3<>{virt.name}/frame
        arping -q -c1 -w{PATIENCE:g} -I {virt.tap} 10.0.{virt.unit}.2 & A=$!
        q=$(dd bs=2048 count=1 status=none <&3 | xxd -p -c 99)
        a=${{q:12:12}}{mac}08060001080006040002{mac}${{q:76:8}}${{q:44:12}}${{q:56:8}}
        xxd -r -p <<<$a >&3
        wait $A"""
    virt.mount.sh(script)


def test_tcpdump_on_the_tap_sees_what_is_written(virt: Virt) -> None:
    watcher = virt.mount.shell(
        f"exec tcpdump -i {virt.tap} -c1 -nn -e -x ether proto 0x88b5 2>&1 | tee /dev/stderr", stdout=-1, stderr=-1
    )
    assert watcher.stderr is not None
    until(lambda: "listening" in watcher.stderr.readline(), "tcpdump listens")  # type: ignore[union-attr]
    virt.open(os.O_WRONLY).write(frame(60))
    seen, _ = watcher.communicate(timeout=PATIENCE)
    assert "b2:0a:00:0b:0e:01 > ff:ff:ff:ff:ff:ff" in seen
    assert "length 60" in seen


def test_reading_an_empty_one_waits(virt: Virt) -> None:
    waiting = virt.open().begin_read().waiting()
    virt.host_sends(frame(77))
    assert waiting.result() == frame(77)


@pytest.mark.parametrize("at_open", [True, False])
def test_nonblocking(virt: Virt, at_open: bool) -> None:
    file = virt.open(os.O_RDWR | (os.O_NONBLOCK if at_open else 0))
    file.set_blocking(False)
    with fails(errno.EAGAIN):
        file.read()
    virt.host_sends(frame())
    assert file.read() == frame()
    file.set_blocking(True)
    waiting = file.begin_read().waiting()
    virt.host_sends(frame(61))
    assert waiting.result() == frame(61)


def test_fionbio(virt: Virt) -> None:
    file = virt.open()
    fionbio = 0x5421
    file.ioctl(fionbio, (1).to_bytes(4, "little"))
    with fails(errno.EAGAIN):
        file.read()


def test_down_is_hostdown(virt: Virt) -> None:
    virt.set("down")
    file = virt.open(os.O_RDWR | os.O_NONBLOCK)
    with fails(errno.EHOSTDOWN):
        file.read()
    virt.set("up")
    with fails(errno.EAGAIN):
        file.read()


@pytest.mark.parametrize("by", ["ctl", "up", "ip"])
def test_going_down_wakes_the_reader(virt: Virt, by: str) -> None:
    file = virt.open()
    waiting = file.begin_read().waiting()
    if by == "ctl":
        virt.set("down")
    elif by == "up":
        virt.write("up", "0\n")
    else:
        virt.mount.ip(f"link set {virt.tap} down")
    with fails(errno.EHOSTDOWN):
        waiting.result()
    assert virt.read("up") == "0"


def test_down_empties_the_queue_and_counts(virt: Virt) -> None:
    file = virt.open()
    virt.host_sends(frame(60, 1), frame(60, 2), frame(60, 3))
    virt.set("down")
    virt.set("up")
    virt.host_sends(frame(60, 4))
    assert file.read() == frame(60, 4)
    assert virt.count("rx_dropped") == 3
    assert virt.count("rx_frames") == 1


def test_frames_while_nobody_reads_are_dropped_and_counted(virt: Virt) -> None:
    virt.host_sends(frame(60, 1), frame(60, 2))
    assert virt.count("rx_dropped") == 2
    writer = virt.open(os.O_WRONLY)
    virt.host_sends(frame(60, 3))
    file = virt.open(os.O_RDONLY)
    virt.host_sends(frame(60, 4))
    assert file.read() == frame(60, 4)
    assert virt.count("rx_dropped") == 3
    writer.close()
    file.close()
    virt.host_sends(frame(60, 5))
    assert virt.count("rx_dropped") == 4
    with fails(errno.EAGAIN):
        virt.open(os.O_RDONLY | os.O_NONBLOCK).read()


def test_backlog_keeps_the_last(virt: Virt) -> None:
    virt.write("backlog", "3\n")
    sent = [frame(60 + i, i) for i in range(10)]
    virt.host_sends(*sent)
    until(lambda: virt.count("rx_dropped") == 7, "seven of ten are dropped")
    file = virt.open(os.O_RDONLY | os.O_NONBLOCK)
    assert [file.read() for _ in range(3)] == sent[-3:]
    with fails(errno.EAGAIN):
        file.read()
    assert virt.count("rx_frames") == 3


def test_backlog_is_for_the_next_reader_too(virt: Virt) -> None:
    """Frames that a reader leaves unread become the backlog for the next reader."""
    virt.write("backlog", "2\n")
    first = virt.open(os.O_RDONLY)
    virt.host_sends(frame(60, 1), frame(60, 2), frame(60, 3), frame(60, 4))
    assert first.read() == frame(60, 1)
    first.close()
    second = virt.open(os.O_RDONLY | os.O_NONBLOCK)
    assert [second.read(), second.read()] == [frame(60, 3), frame(60, 4)]
    with fails(errno.EAGAIN):
        second.read()
    assert virt.count("rx_dropped") == 1


def test_the_queue_bounds_a_slow_reader(virt: Virt) -> None:
    virt.write("queue", "5\n")
    file = virt.open(os.O_RDONLY | os.O_NONBLOCK)
    virt.host_sends(*(frame(60, i) for i in range(20)))
    taken = []
    with fails(errno.EAGAIN):
        while True:
            taken.append(file.read())
    assert taken == [frame(60, i) for i in range(5)]
    assert virt.count("rx_dropped") == 15


def test_a_shorter_queue_counts_the_frames_that_it_drops(virt: Virt) -> None:
    reader = virt.open(os.O_RDONLY | os.O_NONBLOCK)
    sent = [frame(60, number) for number in range(100)]
    virt.host_sends(*sent)
    virt.set("queue 10")
    virt.host_sends(*sent[:5])
    assert virt.read("stats/rx_dropped") == "90"
    assert [reader.read() for _ in range(15)] == sent[:10] + sent[:5]
    with fails(errno.EAGAIN):
        reader.read()
    assert (virt.count("rx_frames"), virt.count("rx_dropped")) == (15, 90)


def test_in_is_read_plus_dropped(virt: Virt) -> None:
    file = virt.open(os.O_RDONLY | os.O_NONBLOCK)
    virt.host_sends(*(frame(60, i) for i in range(300)))
    for _ in range(100):
        file.read()
    file.close()
    assert virt.count("rx_frames") == 100
    assert virt.count("rx_bytes") == 6000
    assert virt.count("rx_frames") + virt.count("rx_dropped") == 300


def test_a_second_reader_is_busy(virt: Virt) -> None:
    first = virt.open(os.O_RDONLY)
    for flags in (os.O_RDONLY, os.O_RDWR):
        with fails(errno.EBUSY):
            virt.open(flags)
    virt.open(os.O_WRONLY).write(frame())
    first.close()
    virt.open(os.O_RDWR)


def test_exclusive_both(virt: Virt) -> None:
    virt.write("exclusive", "both\n")
    writer = virt.open(os.O_WRONLY)
    with fails(errno.EBUSY):
        virt.open(os.O_WRONLY)
    virt.open(os.O_RDONLY)
    writer.close()
    virt.open(os.O_WRONLY)


def test_exclusive_none_shares_the_queue(virt: Virt) -> None:
    """Each frame goes to one reader."""
    virt.write("exclusive", "none\n")
    files = [virt.open(os.O_RDONLY) for _ in range(3)]
    waiting = [file.begin_read().waiting() for file in files]
    sent = [frame(60, i) for i in range(3)]
    virt.host_sends(*sent)
    assert sorted(one.result() for one in waiting) == sent


DROPPED = [
    pytest.param("down", 60, "tx_down", errno.ENETDOWN, id="down"),
    pytest.param("up", 1, "tx_short", errno.EMSGSIZE, id="1"),
    pytest.param("up", 13, "tx_short", errno.EMSGSIZE, id="13"),
    pytest.param("up", 1519, "tx_oversize", errno.EMSGSIZE, id="1519"),
    pytest.param("up", 65536, "tx_oversize", errno.EMSGSIZE, id="65536"),
    pytest.param("up", 1 << 20, "tx_oversize", errno.EMSGSIZE, id="1M"),
]


@pytest.mark.parametrize(("state", "length", "counter", "number"), DROPPED)
def test_what_cannot_be_sent_is_counted(virt: Virt, state: str, length: int, counter: str, number: int) -> None:
    virt.set(state)
    file = virt.open(os.O_WRONLY)
    assert file.write(frame(length)) == length
    assert virt.count(counter) == virt.count("tx_dropped") == 1
    virt.write("strict", "1\n")
    with fails(number):
        file.write(frame(length))
    assert virt.count(counter) == virt.count("tx_dropped") == 2
    assert virt.mount.read("last_error").startswith(f"{virt.name}/frame: ")
    virt.set("up")
    file.write(frame(1518))
    assert virt.host_gets() == frame(1518)
    assert (virt.count("tx_frames"), virt.count("tx_bytes")) == (1, 1518)


def test_the_error_of_a_write_that_the_kernel_cuts_has_no_wrong_length(virt: Virt) -> None:
    """The server sees only the first MiB, so it cannot tell the length."""
    virt.set("strict")
    with fails(errno.EMSGSIZE):
        virt.open(os.O_WRONLY).write(frame((1 << 20) + 1))
    said = f"{virt.name}/frame: a frame of more than 65553 bytes is too long: the maximum is 1518"
    assert virt.mount.read("last_error") == said


def test_offsets_never_matter(virt: Virt) -> None:
    file = virt.open()
    virt.host_sends(frame())
    for call, arguments in ((os.lseek, (0, os.SEEK_SET)), (os.lseek, (5, os.SEEK_CUR)), (os.pread, (60, 0))):
        with fails(errno.ESPIPE):
            file.call(call, *arguments)
    with fails(errno.ESPIPE):
        file.call(os.pwrite, frame(), 10)
    assert file.read() == frame()


def test_appending_and_truncating_mean_nothing(virt: Virt) -> None:
    virt.mount.sh(f"head -c 60 /dev/zero | tr '\\0' x >{virt.name}/frame")
    virt.mount.sh(f"head -c 61 /dev/zero | tr '\\0' x >>{virt.name}/frame")
    assert (virt.count("tx_frames"), virt.count("tx_bytes")) == (2, 121)
    assert virt.mount.root.call(os.truncate, f"/mnt/virt/{virt.name}/frame", 0) is None


def test_stat_tells_of_frames(virt: Virt) -> None:
    """st_size is the next frame's length (1 if there is none), mtime the last write, and atime the last read."""

    def stat() -> os.stat_result:
        return virt.mount.root.call(os.stat, f"/mnt/virt/{virt.name}/frame")

    file = virt.open()
    assert (stat().st_size, virt.read("next")) == (1, "0")
    before = stat()
    virt.host_sends(frame(321), frame(60))
    assert (stat().st_size, virt.read("next")) == (321, "321")
    file.read()
    assert (stat().st_size, virt.read("next")) == (60, "60")
    assert stat().st_atime_ns > before.st_atime_ns
    assert stat().st_mtime_ns == before.st_mtime_ns
    file.write(frame())
    assert stat().st_mtime_ns > before.st_mtime_ns


def test_the_taps_other_name(virt: Virt, mount: Mount) -> None:
    """tap<n> takes the place of NetBSD's /dev/tap<n>."""
    file = mount.root.open(virt.tap)
    virt.host_sends(frame(99))
    assert file.read() == frame(99)
    assert mount.sh(f"readlink {virt.tap}").strip() == f"{virt.name}/frame"


def test_version_names_the_loop(mount: Mount) -> None:
    assert mount.read("version") == f"virtfs {virtfs.__version__}, compiled loop"


def test_a_bridge_of_two_interfaces(virts: Virts) -> None:
    """A program that carries frames from one interface to the other, with one open file for each direction."""
    one, other = virts(), virts()
    source, sink = one.open(os.O_RDWR), other.open(os.O_RDWR)
    for number in range(20):
        one.host_sends(frame(60 + number, number))
        sink.write(source.read())
        assert other.host_gets() == frame(60 + number, number)
    assert (one.count("rx_frames"), other.count("tx_frames")) == (20, 20)


def test_a_setting_takes_effect_between_two_frames(virt: Virt) -> None:
    file = virt.open()
    for number in range(3):
        file.write(frame(60, number))
        assert virt.host_gets() == frame(60, number)
    virt.set("antispoof")
    file.write(frame(60))
    assert (virt.count("tx_frames"), virt.count("tx_spoofed")) == (3, 1)
    virt.set("-antispoof")
    virt.set("impair in loss 100%")
    virt.host_sends(frame(60))
    assert file.write(frame(60)) == 60
    virt.until("stats/rx_lost", "1")
    virt.set("mtu 100")
    assert file.write(frame(200)) == 200
    assert (virt.count("tx_frames"), virt.count("tx_oversize")) == (4, 1)


def test_two_users_at_once(virts: Virts, mount: Mount) -> None:
    """With a second user, the Python loop shares the server between them. Afterwards no frame is missing."""
    mine, theirs = virts("up"), virts("owner 65534 up")
    file, other = mine.open(), theirs.open(os.O_RDWR, mount.process(65534))
    for number in range(20):
        file.write(frame(60, number))
        other.write(frame(61, number))
        mine.host_sends(frame(62, number))
        assert file.read() == frame(62, number)
        assert (mine.host_gets(), theirs.host_gets()) == (frame(60, number), frame(61, number))
    assert (mine.count("tx_frames"), mine.count("rx_frames"), theirs.count("tx_frames")) == (20, 20, 20)
