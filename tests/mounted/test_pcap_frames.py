"""Which frames a capture contains, and in which form: VLAN tags, filters, bursts, and frames not read or not sent."""

import errno
import os
import select
from collections.abc import Iterator

import pytest
from harness import programs
from harness.captured import Packet
from harness.process import fails
from harness.serving import Mount, Virt, Virts, frame
from harness.waiting import until
from harness.watching import Watch, history

TAGS = {
    "802.1Q": "8100 0007",
    "802.1Q with priority": "8100 e007",
    "802.1ad": "88a8 0007",
    "QinQ": "88a8 0005 8100 0007",
    "two of 802.1Q": "8100 0005 8100 0007",
}
NUMBER = "ether[17]"  # the last byte of the number in a test frame


def tagged(tag: str, number: int = 0, length: int = 60) -> bytes:
    """Return a test frame with a VLAN tag. length: in bytes, including the tag."""
    plain = frame(2000, number)
    return (plain[:12] + bytes.fromhex(tag) + plain[12:])[:length]


def ways(packets: list[Packet]) -> list[tuple[bytes, str]]:
    return [(packet.frame, packet.way) for packet in packets]


# --- VLAN tags


@pytest.mark.parametrize("tag", TAGS.values(), ids=TAGS)
def test_a_tagged_frame_has_its_tag_both_ways(virt: Virt, tag: str) -> None:
    watch, file = Watch(virt.mount, f"{virt.name}/pcap"), virt.open()
    sent = [tagged(tag, number, length) for number, length in enumerate((60, 61, 200, 1514))]
    for each in sent:
        file.write(each)
    virt.host_sends(*sent)
    assert [file.read() for _ in sent] == sent
    assert ways(watch.until(8).packets) == [(each, way) for way in ("out", "in") for each in sent]


def test_tshark_sees_the_tags(virt: Virt) -> None:
    virt.set("history 1M")
    file = virt.open(os.O_WRONLY)
    for tag in TAGS.values():
        file.write(tagged(tag))
        virt.host_sends(tagged(tag))
    seen = virt.mount.sh(f"tshark -r {virt.name}/history -T fields -e vlan.id -e ieee8021ad.id 2>/dev/null")
    expected = {"7\t": 4, "\t7": 2, "7\t5": 2, "5,7\t": 2}
    assert {line: seen.splitlines().count(line) for line in seen.splitlines()} == expected


def test_tagged_and_plain_ones_of_one_length_in_a_row(virt: Virt) -> None:
    """Tagged and plain frames have different offsets in the ring."""
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    sent = [tagged(TAGS["802.1Q"] if number % 2 else "", number) for number in range(200)]
    virt.host_sends(*sent)
    assert watch.until(200).frames == sent


@pytest.mark.parametrize("tag", ["8100 0007", "88a8 0007"])
def test_a_filter_for_a_vlan_with_a_capture(virt: Virt, tag: str) -> None:
    virt.set("filter vlan 7")
    watch, file = Watch(virt.mount, f"{virt.name}/pcap"), virt.open(os.O_RDWR | os.O_NONBLOCK)
    other = tagged("8100 0006", 2)
    virt.host_sends(frame(60, 1), other, tagged(tag, 3))
    file.write(other)
    assert ways(watch.until(2).packets) == [(tagged(tag, 3), "in"), (other, "out")]
    assert file.read() == tagged(tag, 3)
    virt.set("-filter")
    virt.host_sends(other)
    assert watch.until(3).frames[-1] == other


def vlan(virt: Virt, words: str) -> None:
    """Create the VLAN interface v1 on the host's end. Skips the test if the kernel has no VLAN interfaces."""
    try:
        virt.mount.ip(f"link add link {virt.tap} name v1 type vlan {words}")
    except AssertionError as refusal:
        if "Unknown device type" in str(refusal):
            pytest.skip("kernel lacks VLAN interfaces (CONFIG_VLAN_8021Q)")
        raise
    virt.mount.ip("link set v1 addrgenmode none")
    virt.mount.ip("link set v1 up")


@pytest.mark.parametrize("expression", ["", "vlan 7"])
@pytest.mark.parametrize(("words", "tag"), [("id 7", "8100 0007"), ("id 7 protocol 802.1ad", "88a8 0007")])
def test_from_a_vlan_interface_of_the_host(virt: Virt, words: str, tag: str, expression: str) -> None:
    vlan(virt, words)
    virt.write("filter", f"{expression}\n")
    watch, file = Watch(virt.mount, f"{virt.name}/pcap"), virt.open()
    above = virt.mount.root.call(programs.wire, "v1")
    virt.mount.root.call(programs.send, above, (frame(56, 1),))
    assert file.read() == tagged(tag, 1)
    file.write(tagged(tag, 2))
    assert ways(watch.until(2).packets) == [(tagged(tag, 1), "in"), (tagged(tag, 2), "out")]


@pytest.fixture
def bridged(virts: Virts) -> Iterator[tuple[Virt, Virt]]:
    """Two interfaces that are members of a bridge."""
    one, other = virts(), virts()
    one.mount.ctl(f"create bridge9 up\nbridge9 add {one.tap}\nbridge9 add {other.tap}")
    yield one, other
    one.mount.ctl("destroy bridge9")


@pytest.mark.parametrize("expression", ["", "vlan 7"])
def test_over_a_bridge(bridged: tuple[Virt, Virt], expression: str) -> None:
    """The bridge passes the tag on as metadata, outside the frame."""
    one, other = bridged
    other.write("filter", f"{expression}\n")
    watch, reader, writer = Watch(one.mount, f"{other.name}/pcap"), other.open(), one.open(os.O_WRONLY)
    sent = [tagged(tag, number) for number, tag in enumerate(TAGS.values())]
    for each in sent:
        writer.write(each)
    passing = [each for each in sent if not expression or each[14:16] in (b"\0\7", b"\xe0\7")]
    read: list[bytes] = []
    while len(read) < len(passing):  # the bridge sends frames of its own, too
        read += ours([reader.read()])
    assert read == passing
    until(lambda: len(ours(watch.look().frames)) >= len(passing), "the frames are captured")
    assert ours(watch.look().frames) == passing


def ours(frames: list[bytes]) -> list[bytes]:
    """Return only the test frames."""
    return [each for each in frames if each[:12] == frame()[:12]]


# --- filters


def test_a_filter_set_changed_and_removed_while_a_capture_runs(virt: Virt) -> None:
    watch, file = Watch(virt.mount, f"{virt.name}/pcap"), virt.open(os.O_WRONLY)
    expected: list[tuple[bytes, str]] = []
    for expression, passing in (("", range(4)), (f"{NUMBER} = 2", [2]), ("less 14", []), (f"{NUMBER} < 2", [0, 1])):
        for _ in range(2):
            virt.write("filter", f"{expression}\n")
            virt.host_sends(*(frame(60, number) for number in range(4)))
            file.write(frame(61, 9))
            expected += [(frame(60, number), "in") for number in passing] + [(frame(61, 9), "out")]
            assert ways(watch.until(len(expected)).packets) == expected
    virt.set("-filter")
    virt.host_sends(frame(60, 200))
    assert watch.until(len(expected) + 1).frames[-1] == frame(60, 200)


def test_a_filter_that_is_refused_leaves_the_capture_s(virt: Virt) -> None:
    virt.set(f"filter {NUMBER} = 2")
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    with fails(errno.EINVAL):
        virt.write("filter", "nonsense nonsense\n")
    with fails(errno.EINVAL):
        virt.mount.ctl(f"{virt.name} filter {NUMBER} = 3 link ff:ff:ff:ff:ff:ff")
    virt.host_sends(*(frame(60, number) for number in range(4)))
    assert watch.until(1).frames == [frame(60, 2)]


def test_the_root_s_holds_each_one_s_filter(virts: Virts) -> None:
    one, other = virts(f"up filter {NUMBER} = 1"), virts()
    watch = Watch(one.mount, "pcap")
    other.set(f"filter {NUMBER} = 2")
    for virt in (one, other):
        virt.host_sends(*(frame(60, number) for number in range(4)))
    seen = watch.until(2)
    assert [(packet.interface, packet.frame) for packet in seen.packets] == [
        (one.name, frame(60, 1)),
        (other.name, frame(60, 2)),
    ]


def test_a_long_filter(virt: Virt) -> None:
    """The jumps of its program are long. Frames that virtfs sends pass regardless of the filter."""
    virt.set("filter " + " or ".join(f"ether[17:2] = {number}" for number in range(3, 40)))
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    virt.open(os.O_WRONLY).write(frame(60, 1))
    virt.host_sends(frame(60, 1))
    assert ways(watch.until(1).packets) == [(frame(60, 1), "out")]


# --- frames that are not read, and frames that are not sent


@pytest.mark.parametrize("reading", [False, True])
def test_frames_that_a_full_queue_dropped_are_there(virt: Virt, reading: bool) -> None:
    """tcpdump on the tap would show them, too."""
    virt.set("queue 1")
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    file = virt.open(os.O_RDONLY | os.O_NONBLOCK) if reading else None
    sent = [frame(60, number) for number in range(100)]
    virt.host_sends(*sent)
    assert watch.until(100).frames == sent
    if file is not None:
        assert file.read() == frame(60, 0)
        with fails(errno.EAGAIN):
            file.read()
    assert virt.count("rx_dropped") == 100 - reading


@pytest.mark.parametrize("length", [60, 1514])
def test_nothing_of_a_burst_is_lost(virt: Virt, length: int) -> None:
    """frame is never read, and pcap is read only after the burst."""
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    sent = [frame(length, number) for number in range(3000 if length == 60 else 1000)]
    virt.host_sends(*sent)
    seen = watch.until(len(sent))
    assert seen.frames == sent
    assert all(packet.lost == 0 for packet in seen.packets)
    assert seen.statistics == []
    times = [packet.time for packet in seen.packets]
    assert times == sorted(times)


def test_a_burst_both_ways(virt: Virt) -> None:
    watch, file = Watch(virt.mount, f"{virt.name}/pcap"), virt.open(os.O_WRONLY)
    for number in range(300):
        virt.host_sends(frame(60, number))
        file.write(frame(61, number))
    seen = watch.until(600)
    assert ways(seen.packets) == [
        pair for number in range(300) for pair in ((frame(60, number), "in"), (frame(61, number), "out"))
    ]


@pytest.fixture
def one_processor(mount: Mount) -> Iterator[None]:
    """Run the server, the test and its programs on one processor."""
    before, server = os.sched_getaffinity(0), mount.server.pid
    whose = (0, server, mount.root.pid)
    for pid in whose:
        os.sched_setaffinity(pid, {min(before)})
    yield
    for pid in (0, server):
        os.sched_setaffinity(pid, before)


def test_requests_one_after_the_other_leave_a_turn_to_captures(virt: Virt, one_processor: None) -> None:
    """A ring hands over a block every millisecond, so that it is soon full if nothing reads it."""
    watch, file = Watch(virt.mount, f"{virt.name}/pcap"), virt.open(os.O_WRONLY)
    for number in range(300):
        file.write(frame(60, number))
    seen = watch.until(300)
    assert seen.statistics == []
    assert seen.frames == [frame(60, number) for number in range(300)]


def test_what_antispoof_refuses_is_not_there(virt: Virt) -> None:
    virt.set("link b2:0a:00:0b:0e:99 antispoof")
    watch, file = Watch(virt.mount, f"{virt.name}/pcap"), virt.open(os.O_WRONLY)
    own = frame()[:6] + bytes.fromhex("b20a000b0e99") + frame()[12:]
    file.write(frame())
    file.write(own)
    file.write(frame())
    assert watch.until(1).frames == [own]
    assert virt.count("tx_spoofed") == 2


def test_lost_on_the_way_out_and_delayed_on_the_way_in(virt: Virt) -> None:
    virt.set("impair out loss 100% impair in delay 5s")
    watch, file = Watch(virt.mount, f"{virt.name}/pcap"), virt.open(os.O_RDWR | os.O_NONBLOCK)
    file.write(frame(60, 1))
    virt.host_sends(frame(60, 2))
    assert watch.until(1).frames == [frame(60, 2)]
    with fails(errno.EAGAIN):
        file.read()
    virt.set("-impair")
    file.write(frame(60, 3))
    assert watch.until(2).frames == [frame(60, 2), frame(60, 3)]


# --- several readers, and frames that were just sent


def test_history_has_what_was_just_sent(virt: Virt) -> None:
    virt.set("history 1M")
    file = virt.open(os.O_WRONLY)
    for number in range(50):
        file.write(frame(60, number))
        assert history(virt).frames[-1] == frame(60, number)
        virt.host_sends(frame(61, number))
        assert history(virt).frames[-1] == frame(61, number)
    assert len(history(virt).frames) == 100


def test_history_stays_bounded_under_many_frames(virt: Virt) -> None:
    virt.set("history 100K")
    sent = [frame(60, number) for number in range(5000)]
    for at in range(0, 5000, 500):
        virt.host_sends(*sent[at : at + 500])
        frames = history(virt).frames
        assert frames == sent[at + 500 - len(frames) : at + 500]
        assert len(frames) * 104 <= 100 << 10
    assert len(frames) * 104 > 90 << 10


def test_history_both_captures_and_a_reader_at_once(virt: Virt) -> None:
    virt.set("history 1M")
    own, root = Watch(virt.mount, f"{virt.name}/pcap"), Watch(virt.mount, "pcap")
    file = virt.open()
    sent = [frame(60, number) for number in range(200)]
    virt.host_sends(*sent)
    assert [file.read() for _ in sent] == sent
    assert own.until(200).frames == root.until(200).frames == history(virt).frames == sent
    own.file.close()
    virt.host_sends(frame(60, 201))
    assert root.until(201).frames[-1] == frame(60, 201)
    root.file.close()
    virt.host_sends(frame(60, 202))
    assert history(virt).frames[-2:] == [frame(60, 201), frame(60, 202)]


def test_history_on_and_off_quickly(virt: Virt) -> None:
    file = virt.open(os.O_WRONLY)
    for number in range(20):
        virt.set("history 1M")
        file.write(frame(60, number))
        assert history(virt).frames == [frame(60, number)]
        virt.set("-history")
        assert history(virt).frames == []
    many = [virt.mount.process().begin(_toggle, f"/mnt/virt/{virt.name}/history_size", 20) for _ in range(3)]
    for each in many:
        each.result()
    virt.set("-history")
    virt.set("history 1M")
    file.write(frame(60, 77))
    assert history(virt).frames == [frame(60, 77)]


def _toggle(path: str, times: int) -> None:
    for number in range(times):
        with open(path, "w") as file:
            file.write("0\n" if number % 2 else "64K\n")


# --- without waiting


def test_a_read_that_may_not_wait_finds_what_was_just_sent(virt: Virt) -> None:
    """The kernel hands a frame over a few milliseconds later. If none is pending, the read fails at once (EAGAIN)."""
    virt.set("history 1M")
    file, writer = virt.mount.root.open(f"{virt.name}/pcap", os.O_RDONLY | os.O_NONBLOCK), virt.open(os.O_WRONLY)
    root = virt.mount.root.open("pcap", os.O_RDONLY | os.O_NONBLOCK)
    for pcap in (file, root):
        pcap.read()
    for number in range(50):
        for pcap in (file, root):
            with fails(errno.EAGAIN):
                pcap.read()
            assert pcap.poll() == 0
        writer.write(frame(60, number))
        if number % 2:
            assert file.poll() == root.poll() == select.POLLIN
        assert file.read()[28 : 28 + 60] == frame(60, number)
        assert root.read()[28 : 28 + 60] == frame(60, number)


def test_a_poll_that_waits_is_woken(virt: Virt) -> None:
    for name in (f"{virt.name}/pcap", "pcap"):
        file, writer = virt.mount.root.open(name, os.O_RDONLY | os.O_NONBLOCK), virt.open(os.O_WRONLY)
        file.read()
        for number in range(20):
            waiting = file.begin_poll(select.POLLIN)
            writer.write(frame(60, number))
            assert waiting.result() == select.POLLIN
            assert file.read()[28 : 28 + 60] == frame(60, number)
            assert file.poll() == 0


def test_what_is_not_this_reader_s_makes_nothing_ready(virts: Virts) -> None:
    one, other = virts(), virts(f"up filter {NUMBER} = 1")
    Watch(one.mount, "pcap").look()
    watch = Watch(other.mount, f"{other.name}/pcap")
    watch.look()
    one.open(os.O_WRONLY).write(frame())
    other.host_sends(frame(60, 2))
    assert watch.file.poll() == 0
    with fails(errno.EAGAIN):
        watch.file.read()
