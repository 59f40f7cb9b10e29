"""cable: joins two interfaces in user space. To the hosts behind the taps it looks like an Ethernet cable."""

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from harness.fixtures import Alone
from harness.lasting import Lasting
from harness.places import Place, finished
from harness.process import fails
from harness.serving import Mount, Virt, Virts, frame
from harness.waiting import PATIENCE, until
from harness.watching import Watch
from prometheus_client.parser import text_string_to_metric_families

from .conftest import Hosts
from .hosts import Host, ping
from .programs import longest_captured, longest_read

Pair = tuple[Host, Host]
FULL = 1500 + 14 + 4  # the longest frame with an MTU of 1500, including a VLAN tag


@pytest.fixture
def pair(mount: Mount, hosts: Hosts) -> Pair:
    """Two hosts, 10.0.0.1 and 10.0.0.2, and a cable between them."""
    ends = hosts(1), hosts(2)
    mount.ctl("cable 1 2")
    return ends


@pytest.fixture
def joined(virts: Virts) -> tuple[Virt, Virt]:
    """Two virts whose taps are in the mount's namespace, and a cable between them."""
    first, second = virts(), virts()
    first.mount.ctl(f"cable {first.unit} {second.unit}")
    return first, second


def counts(virt: Virt) -> dict[str, int]:
    """Return the counters of an interface that are not 0."""
    names = ("rx_frames", "rx_dropped", "tx_frames", "tx_dropped")
    return {name: count for name in names if (count := virt.count(name))}


def of_cable(virt: Virt) -> tuple[dict[str, int], dict[str, int]]:
    """Return the counters of an interface's cable that are not 0, for the directions out and in."""
    cables = json.loads(virt.mount.read("status.json"))["cables"]
    (cable,) = (one for one in cables if virt.name in one["ends"])
    out, back = ({name: count for name, count in cable["stats"][way].items() if count} for way in ("out", "in"))
    return out, back


def of_metrics(source: Virt, sink: Virt) -> dict[str, float]:
    """Return the counters of one direction of a cable that are not 0, from `metrics`."""
    return {
        sample.name.removeprefix("virtfs_cable_").removesuffix("_total"): sample.value
        for family in text_string_to_metric_families(source.mount.read("metrics") + "\n")
        for sample in family.samples
        if (sample.labels.get("from"), sample.labels.get("to")) == (source.name, sink.name) and sample.value
    }


def test_frames_cross_both_ways_and_are_counted(joined: tuple[Virt, Virt]) -> None:
    first, second = joined
    sent = [frame(14), frame(60, 1), frame(1000, 2), frame(1514, 3)]
    first.host_sends(*sent)
    assert [second.host_gets() for _ in sent] == sent
    second.host_sends(frame(60, 4))
    assert first.host_gets() == frame(60, 4)
    assert counts(first) == {"rx_frames": 4, "tx_frames": 1}
    assert counts(second) == {"rx_frames": 1, "tx_frames": 4}
    assert first.count("rx_bytes") == second.count("tx_bytes") == sum(map(len, sent))


def test_ping(pair: Pair) -> None:
    left, right = pair
    assert left.ping(right).complete
    assert right.ping(left, 3, "-M do -s 1472").complete
    assert left.ping(right, 3, "-s 20000").complete


def test_iperf3_crosses_in_large_pieces(pair: Pair) -> None:
    """A capture shows segments that are too long for a real wire."""
    left, right = pair
    before = [counts(end) for end in pair]
    watch = Watch(left.mount, f"{left.name}/pcap")
    end = left.iperf3(right, "-t 1")
    assert end["sum_received"]["bits_per_second"] > 5e7
    assert max(map(len, watch.look().frames)) > 10 * FULL
    for virt, old in zip(pair, before, strict=True):
        now = counts(virt)
        assert now["rx_frames"] > old.get("rx_frames", 0) + 100
        assert now["tx_frames"] > old.get("tx_frames", 0) + 100
    assert left.count("rx_bytes") == right.count("tx_bytes")
    assert left.count("rx_bytes") > end["sum_received"]["bytes"]


def test_udp_and_ipv6(pair: Pair) -> None:
    left, right = pair
    for number, host in enumerate(pair, start=1):
        host.place.ip(f"addr add fd00::{number}/64 dev {host.tap} nodad")
    ping(left.place, "fd00::2", 2, "-s 5000")
    with right.serving():
        report = json.loads(left.place.sh("iperf3 -J -6 -c fd00::2 -n 20M", seconds=2 * PATIENCE))
    assert report["end"]["sum_received"]["bytes"] > 1e6
    end = left.iperf3(right, "-u -b 20M -l 1400 -n 1M")
    assert end["sum"]["lost_percent"] < 1


_RECEIVE = """
import socket
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.settimeout(10)
receiver.bind(("", 4000))
print("bound", flush=True)
datagrams = [receiver.recv(2000) for _ in range(20)]
assert b"".join(datagrams) == bytes(range(250)) * 78, "other contents"
print(*map(len, datagrams))
"""
# Linux combines the datagrams of one call if UDP_SEGMENT (103) is set; see udp(7).
_SEND = """
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.setsockopt(socket.SOL_UDP, 103, 1000)
sender.sendto(bytes(range(250)) * 78, (sys.argv[1], 4000))
"""


def sends_together(left: Host, right: Host) -> str:
    """Send 20 datagrams with one call, and return the lengths with which they are received."""
    receiver = right.place.start(sys.executable, "-c", _RECEIVE, stdout=subprocess.PIPE)
    assert receiver.stdout is not None
    assert receiver.stdout.readline() == "bound\n"
    finished(left.place.start(sys.executable, "-c", _SEND, right.address))
    lengths = receiver.stdout.read()
    finished(receiver)
    return lengths


def test_datagrams_sent_together_cross_together(pair: Pair) -> None:
    """The cable carries them as one frame, but a reader gets a frame for each datagram."""
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 2):
        pytest.skip("kernel lacks offload of UDP datagrams to a tap (TUN_F_USO4, Linux 6.2)")
    left, right = pair

    def offload() -> bool:
        return "tx-udp-segmentation: on" in left.place.sh(f"ethtool -k {left.tap}")

    until(offload, "offload is on")
    assert left.ping(right, 1).complete
    before = left.count("rx_frames")
    lengths = "1000 " * 19 + "500\n"
    assert sends_together(left, right) == lengths
    assert left.count("rx_frames") < before + 10
    reader = left.open(os.O_RDONLY | os.O_NONBLOCK)
    until(lambda: not offload(), "offload is off")
    assert sends_together(left, right) == lengths
    seen = []
    with fails(errno.EAGAIN):
        while True:
            seen.append(len(reader.read()))
    assert [length for length in seen if length in (1042, 542)] == [1042] * 19 + [542]


@contextmanager
def transfer(left: Host, right: Host) -> Iterator[None]:
    """Run iperf3 in the background while the body runs. Afterwards the transfer must still make progress."""
    with right.serving():
        client = left.place.start("iperf3", "-t", "60", "-c", right.address, stdout=subprocess.DEVNULL)
        until(lambda: left.count("rx_bytes") > 1_000_000, "the transfer runs")
        yield
        assert client.poll() is None
        crossed = right.count("tx_bytes")
        until(lambda: right.count("tx_bytes") > crossed + 1_000_000, "the transfer still runs")
        client.terminate()
        finished(client)


@contextmanager
def capture(virt: Virt) -> Iterator[Callable[[int], int]]:
    """Open an interface's pcap. Yields a function that reads a number of frames and returns the greatest length."""
    file = virt.mount.root.open(f"{virt.name}/pcap", os.O_RDONLY)
    yield lambda frames: file.call(longest_captured, frames)
    file.close()


def test_a_reader_comes_and_goes_while_iperf3_runs(pair: Pair) -> None:
    """While there is a reader, single frames cross and the connection continues. Afterwards large segments return."""
    left, right = pair
    with transfer(left, right):
        with capture(right) as longest:
            assert longest(200) > 10 * FULL
        for _ in range(3):
            reader = left.open(os.O_RDONLY)
            assert 1400 < reader.call(longest_read, 1000) <= FULL
            with capture(right) as longest:
                longest(50)
                assert 1400 < longest(500) <= FULL
            reader.close()
            with capture(left) as longest:
                longest(200)
                until(lambda: longest(100) > 10 * FULL, "large pieces cross again")


def test_an_impairment_comes_and_goes_while_iperf3_runs(pair: Pair) -> None:
    left, right = pair
    with transfer(left, right):
        for _ in range(3):
            right.set("impair out delay 1ms limit 2000")
            with capture(right) as longest:
                longest(50)
                assert longest(500) <= FULL
            right.set("-impair")
            with capture(right) as longest:
                until(lambda: longest(100) > 10 * FULL, "large pieces cross again")


def test_captures_come_and_go_while_iperf3_runs(pair: Pair) -> None:
    """Captures change nothing: segments stay large throughout."""
    left, right = pair
    with transfer(left, right):
        for _ in range(3):
            root = left.mount.root.open("pcap", os.O_RDONLY)
            with capture(left) as before, capture(right) as behind:
                for longest in (before, behind, before):
                    assert longest(300) > 10 * FULL
                assert root.call(longest_captured, 300) > 10 * FULL
            root.close()


def test_a_reader_takes_nothing_from_the_cable(pair: Pair) -> None:
    """The reader gets the frames as on a real wire, and they still cross the cable."""
    left, right = pair
    reader = left.open(os.O_RDONLY | os.O_NONBLOCK)
    found = left.ping(right)
    assert found.complete
    seen = []
    with fails(errno.EAGAIN):
        while True:
            seen.append(reader.read())
    assert 10 <= sum(one[12:14] == b"\x08\x00" for one in seen) <= found.sent
    assert all(checksums(one) for one in seen)


def test_a_reader_that_does_not_read_holds_nobody_up(pair: Pair) -> None:
    left, right = pair
    stopped = [end.open(os.O_RDONLY) for end in pair]
    end = left.iperf3(right, "-t 1 --bidir")
    assert end["sum_received"]["bytes"] > 5e5
    assert end["sum_received_bidir_reverse"]["bytes"] > 5e5
    assert all(len(file.read()) <= FULL for file in stopped)


def checksums(data: bytes) -> bool:
    """Return whether the checksum of an IPv4 header is correct. True for frames of other protocols."""
    if data[12:14] != b"\x08\x00":
        return True
    words = [int.from_bytes(data[at : at + 2], "big") for at in range(14, 34, 2)]
    return sum(words) % 0xFFFF == 0


def test_single_frames_have_their_checksums(pair: Pair) -> None:
    """tcpdump finds correct checksums in the frames that a reader gets."""
    left, right = pair
    left.set("exclusive none")
    reader = left.mount.shell(f"exec head -c 200000 {left.name}/hex >/mnt/lines")
    until(lambda: left.read("clients").count("hex"), "head reads")
    left.iperf3(right, "-n 300K")
    finished(reader)
    virt = left.mount
    virt.sh("head -n -1 /mnt/lines | sed 's/../& /g; s/^/000000 /' | text2pcap -q - /mnt/single")
    told = virt.sh("tcpdump -nn -vv -r /mnt/single tcp 2>/dev/null")
    assert "incorrect" not in told
    assert told.count("(correct)") > 50


def test_captures_have_checksums(pair: Pair) -> None:
    """They have the large pieces as they are, and tcpdump finds correct checksums in them at both ends."""
    left, right = pair
    for number, host in enumerate(pair, start=1):
        host.place.ip(f"addr add fd00::{number}/64 dev {host.tap} nodad")
        host.set("history 4M")
    left.iperf3(right, "-n 300K")
    left.iperf3(right, "-6 -n 300K -c fd00::2")
    left.iperf3(right, "-u -b 20M -n 20K")
    for host in pair:
        told = left.mount.sh(f"cat {host.name}/history | tcpdump -nn -vv -r - 2>/dev/null")
        assert re.search(r"length [1-9]\d{4}\b", told), "there is a large piece"
        assert told.count("(correct)") > 20
        assert told.count("udp sum ok") > 10
        assert "incorrect" not in told
        assert "bad udp cksum" not in told


_RECEIVE_TWICE = """
import socket
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.settimeout(20)
receiver.bind(("", 4000))
print("bound", flush=True)
for _ in range(2):
    print(receiver.recv(2000).decode(), flush=True)
"""
_SEND_HELLO = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'hello', ('10.0.0.2', 4000))"


def test_a_recording_of_a_cable_is_received_when_it_is_injected(pair: Pair) -> None:
    left, right = pair
    right.set("history 64K")
    receiver = right.place.start(sys.executable, "-c", _RECEIVE_TWICE, stdout=subprocess.PIPE)
    assert receiver.stdout is not None
    assert receiver.stdout.readline() == "bound\n"
    left.place.sh(f'{sys.executable} -c "{_SEND_HELLO}"')
    assert receiver.stdout.readline() == "hello\n"
    right.mount.sh(f"cat {right.name}/history >/mnt/recording; cat /mnt/recording >{right.name}/inject")
    assert receiver.stdout.readline() == "hello\n"
    finished(receiver)


def test_the_far_end_writes_too(pair: Pair) -> None:
    """A program that writes to frame sends to the host at that end of the cable, as without a cable."""
    left, right = pair
    left.open(os.O_WRONLY).write(frame())
    wire = left.place
    assert (left.count("tx_frames"), right.count("rx_frames")) == (1, 0)
    row = json.loads(wire.ip(f"-s -json link show dev {left.tap}"))[0]
    assert row["stats64"]["rx"]["packets"] == 1


@pytest.mark.parametrize(
    ("words", "rtt"), [("delay 20ms", 40), ("in delay 30ms", 30), ("out delay 10ms in delay 5ms", 15), ("", 0)]
)
def test_delay(mount: Mount, hosts: Hosts, words: str, rtt: float) -> None:
    left, right = hosts(1), hosts(2)
    mount.ctl(f"cable 1 2 {words}")
    left.ping(right, 1)
    for one, other in ((left, right), (right, left)):
        found = one.ping(other)
        assert found.complete
        assert found.shows(rtt), found.shortest


def test_out_is_from_the_first_to_the_second(joined: tuple[Virt, Virt]) -> None:
    first, second = joined
    first.mount.ctl(f"uncable {first.unit} {second.unit}\ncable {first.unit} {second.unit} out loss 100%")
    first.host_sends(frame(60, 1))
    second.host_sends(frame(60, 2))
    assert first.host_gets() == frame(60, 2)
    assert second.count("tx_frames") == 0
    assert counts(first) == {"rx_frames": 1, "tx_frames": 1}
    out, back = of_cable(first)
    assert out == of_metrics(first, second) == {"lost": 1}
    assert back == of_metrics(second, first) == {"frames": 1, "bytes": 60}


def test_loss_is_the_same_with_the_same_seed(joined: tuple[Virt, Virt]) -> None:
    first, second = joined
    fates = []
    for _ in range(2):
        first.mount.ctl(f"uncable {first.unit} {second.unit}")
        first.mount.ctl(f"cable {first.unit} {second.unit} loss 20% seed 5")
        watch = Watch(second.mount, f"{second.name}/pcap")
        first.host_sends(*(frame(60, number) for number in range(200)))
        until(lambda: ended(of_cable(first)[0]) == 200, "each frame is delivered or lost")
        fates.append([packet.frame for packet in watch.look().packets if packet.way == "out"])
        watch.file.close()
    assert fates[0] == fates[1]
    assert 130 < len(fates[0]) < 190


def ended(counters: dict[str, int]) -> int:
    """Return the number of frames that entered a direction and do not wait in it."""
    return sum(counters.get(name, 0) for name in ("frames", "lost", "dropped")) - counters.get("duplicated", 0)


def test_each_impairment_of_a_cable_is_counted(joined: tuple[Virt, Virt]) -> None:
    """Only the direction that has the impairment counts it. The ends count what enters and leaves the cable."""
    first, second = joined
    first.mount.ctl(
        f"uncable {first.unit} {second.unit}\n"
        f"cable {first.unit} {second.unit} out delay 50ms limit 5 duplicate 50% reorder 50% corrupt 50% loss 20% seed 2"
    )
    first.host_sends(*(frame(60, number) for number in range(100)))
    until(lambda: ended(of_cable(first)[0]) == 100, "no frame waits")
    out, back = of_cable(first)
    assert set(out) == {"frames", "bytes", "lost", "dropped", "duplicated", "reordered", "corrupted"}
    assert out == of_metrics(first, second)
    assert back == of_metrics(second, first) == {}
    assert counts(first) == {"rx_frames": 100}
    assert counts(second) == {"tx_frames": out["frames"]}
    assert out["bytes"] == second.count("tx_bytes") == 60 * out["frames"]
    first.mount.ctl(f"uncable {first.unit} {second.unit}\ncable {second.unit} {first.unit}")
    assert of_cable(first) == ({}, {}), "a new cable counts from 0"


def test_rate(mount: Mount, hosts: Hosts) -> None:
    """iperf3 reports payload, which is 1448 of the 1514 bytes in each frame."""
    left, right = hosts(1), hosts(2)
    mount.ctl("cable 1 2 out rate 20mbit limit 100")
    end = left.iperf3(right, "-t 2 -O 1")
    on_wire = end["sum_received"]["bits_per_second"] * 1514 / 1448
    assert 4e6 < on_wire < 22e6
    end = right.iperf3(left, "-t 1")
    assert end["sum_received"]["bits_per_second"] > 30e6


def test_rate_of_udp(mount: Mount, hosts: Hosts) -> None:
    left, right = hosts(1), hosts(2)
    mount.ctl("cable 1 2 rate 10mbit limit 50")
    end = left.iperf3(right, "-u -b 20M -l 1458 -t 2")
    received = end["sum"]["packets"] - end["sum"]["lost_packets"]
    assert 2e6 < received * 1500 * 8 / end["sum"]["seconds"] < 10.8e6


def test_an_end_s_own_impairment_and_filter_hold(pair: Pair) -> None:
    """The settings of both ends apply: of the virt that a frame comes from, and of the virt that it goes to."""
    left, right = pair
    left.ping(right, 1)
    left.set("impair in delay 20ms")
    assert left.ping(right).shows(20)
    right.set("impair delay 10ms")
    assert left.ping(right).shows(40)
    left.set("-impair")
    right.set("-impair")
    assert left.ping(right).shows(0)
    left.set("filter arp")
    assert left.hears_nothing(right)
    left.set("-filter")
    assert left.ping(right).complete


def test_an_end_s_own_impairment_adds_to_that_of_the_cable(mount: Mount, pair: Pair) -> None:
    left, right = pair
    mount.write("ctl", "uncable 1 2\ncable 1 2 delay 20ms\n")
    assert left.ping(right).shows(40)
    left.set("impair delay 20ms")
    assert left.ping(right).shows(80)
    mount.write("ctl", "uncable 1 2\ncable 1 2 delay 40ms\nvirt1 -impair\n")
    assert left.ping(right).shows(80)


def test_captures_of_both_ends(joined: tuple[Virt, Virt]) -> None:
    first, second = joined
    watches = [Watch(first.mount, f"{virt.name}/pcap") for virt in joined]
    first.host_sends(frame(60, 1))
    second.host_sends(frame(60, 2))
    seen = [{(packet.frame, packet.way) for packet in watch.until(2).packets} for watch in watches]
    assert seen[0] == {(frame(60, 1), "in"), (frame(60, 2), "out")}
    assert seen[1] == {(frame(60, 2), "in"), (frame(60, 1), "out")}


def test_uncable(joined: tuple[Virt, Virt]) -> None:
    """After uncable, frames are dropped or go to a reader, as before the cable."""
    first, second = joined
    first.mount.ctl(f"check uncable {first.unit}\nuncable {second.unit}")
    first.host_sends(frame(60, 1))
    assert counts(first) == {"rx_dropped": 1}
    assert counts(second) == {}
    file = first.open()
    first.host_sends(frame(60, 2))
    assert file.read() == frame(60, 2)
    with fails(errno.ENOENT):
        first.mount.ctl(f"uncable {first.unit} {second.unit}")
    first.mount.ctl(f"cable {first.unit} {second.unit}")
    first.host_sends(frame(60, 3))
    assert second.host_gets() == frame(60, 3)


def test_a_script_with_a_cable_can_be_run_again(virts: Virts) -> None:
    """The lines are those of virtfs(5), CABLES."""
    first, second = virts(), virts()
    a, b = first.unit, second.unit
    for delay in ("20ms", "20ms", "30ms"):
        first.mount.sh(f"set -e; echo uncable {a} >ctl 2>/dev/null || true\necho cable {a} {b} delay {delay} >ctl")
        assert f"cable {a} {b} delay {delay}\n" in first.mount.read("ctl") + "\n"


def test_a_waiting_reader_goes_on_over_cable_and_uncable(virts: Virts) -> None:
    first, second = virts(), virts()
    file = first.open()
    waiting = file.begin_read().waiting()
    first.mount.ctl(f"cable {first.unit} {second.unit}")
    first.host_sends(frame(60, 1))
    assert waiting.result() == frame(60, 1)
    assert second.host_gets() == frame(60, 1)
    waiting = file.begin_read().waiting()
    first.mount.ctl(f"uncable {first.unit} {second.unit}")
    first.host_sends(frame(60, 2))
    assert waiting.result() == frame(60, 2)


def test_what_is_refused(mount: Mount, virts: Virts) -> None:
    a, b, c = (virts().unit for _ in range(3))
    mount.ctl(f"cable {a} {b}")
    before = mount.read("ctl")
    for line, number, why in (
        (
            f"cable {a} {b}",
            errno.EEXIST,
            f"virt{a} and virt{b} already have a cable: take it away with uncable {a} first, or write virt{a} impair",
        ),
        (
            f"cable {b} {a} delay 1ms",
            errno.EEXIST,
            f"virt{b} and virt{a} already have a cable: take it away with uncable {b} first, or write virt{b} impair",
        ),
        (
            f"cable {a} {c}",
            errno.EBUSY,
            f"virt{a} already has a cable, which connects virt{a} and virt{b}: take it away with uncable {a} first",
        ),
        (
            f"cable {c} {b}",
            errno.EBUSY,
            f"virt{b} already has a cable, which connects virt{a} and virt{b}: take it away with uncable {b} first",
        ),
        (f"uncable {c}", errno.ENOENT, f"virt{c} has no cable"),
        (f"check uncable {c}", errno.ENOENT, f"virt{c} has no cable"),
        (f"uncable {a} {c}", errno.ENOENT, f"there is no cable between virt{a} and virt{c}"),
        (f"cable {c} {c}", errno.EINVAL, f'"virt{c}" cannot be both ends of a cable'),
        (f"cable {a} 77", errno.ENXIO, "virt77"),
        (f"cable {c}", errno.EINVAL, "cable A B"),
        (f"cable {c} {b} wobble", errno.EINVAL, "wobble"),
    ):
        with fails(number):
            mount.ctl(line)
        assert why in mount.read("last_error")
    assert mount.read("ctl") == before
    assert "Permission denied" in mount.refused(f"echo uncable {a} {b} >ctl", uid=1000)


def test_one_end_is_destroyed(joined: tuple[Virt, Virt]) -> None:
    """The other end works as it did before the cable."""
    first, second = joined
    mount = first.mount
    file = first.open()
    mount.ctl(f"destroy {second.unit}")
    assert "cable" not in mount.read("ctl")
    first.host_sends(frame(60, 1))
    assert file.read() == frame(60, 1)
    third = Virt(mount, second.unit)
    mount.ctl(f"cable {first.unit} {third.unit}")
    first.host_sends(frame(60, 2))
    assert third.host_gets() == frame(60, 2)


def test_one_end_s_tap_is_deleted(joined: tuple[Virt, Virt]) -> None:
    first, second = joined
    second.mount.ip(f"link del {second.tap}")
    first.host_sends(frame(60, 1))
    until(lambda: not second.mount.has(second.tap), "the tap is gone")
    file = first.open()
    first.host_sends(frame(60, 2))
    taken = file.read()
    if taken == frame(60, 1):  # it has not crossed, because the server had already noticed the deletion
        taken = file.read()
    assert taken == frame(60, 2)
    second.mount.ctl(f"destroy {second.unit}")
    assert "cable" not in second.mount.read("ctl")


def test_down_and_up(joined: tuple[Virt, Virt]) -> None:
    """Frames for an end that is down are dropped and counted there."""
    first, second = joined
    second.set("down")
    first.host_sends(frame(60, 1))
    until(lambda: counts(second) == {"tx_dropped": 1}, "the frame is dropped there")
    assert (second.count("tx_down"), second.count("tx_bytes")) == (1, 0)
    assert counts(first) == {"rx_frames": 1}
    second.set("up")
    first.host_sends(frame(60, 2))
    assert second.host_gets() == frame(60, 2)


def test_ctl_tells_of_it_and_can_be_written_back(joined: tuple[Virt, Virt]) -> None:
    first, second = joined
    mount = first.mount
    line = f"cable {first.unit} {second.unit}"
    assert mount.read("ctl").splitlines()[-1] == line
    for words in ("delay 20ms loss 1%", "in delay 20ms", "in delay 5ms out loss 1%"):
        mount.ctl(f"un{line}\n{line} {words}")
        lines = mount.read("ctl")
        assert lines.splitlines()[-1] == f"{line} {words}"
        mount.ctl(f"destroy {first.unit}\ndestroy {second.unit}")
        mount.ctl(lines)
        assert mount.read("ctl") == lines


def test_it_comes_back_after_a_crash(alone: Alone) -> None:
    mount = Lasting("state=/mnt/state")
    alone.made.append(mount)
    mount.ctl("create 1 up\ncreate 2 up\ncreate 3\ncable 1 2 delay 50ms")
    before = mount.read("ctl")
    mount.kill()
    mount.again("state=/mnt/state")
    after = mount.read("ctl")
    assert after.splitlines()[-1] == "cable 1 2 delay 50ms"
    assert len(after.splitlines()) == len(before.splitlines())
    mount.clear()


def test_different_mtus(mount: Mount, hosts: Hosts) -> None:
    """Frames and large segments that are too long for the receiving end are dropped and counted there."""
    left, right = hosts(1, "mtu 9000"), hosts(2)
    mount.ctl("cable 1 2")
    assert left.ping(right, 2, "-s 1400").complete
    before = right.count("tx_dropped")
    assert left.hears_nothing(right, "-M do -s 4000")
    assert right.count("tx_dropped") >= before + 2
    assert right.count("tx_oversize") >= 2
    for one, other in ((right, left), (left, right)):
        assert one.iperf3(other, "-t 1")["sum_received"]["bytes"] > 2e6


def test_a_stream_of_small_frames(joined: tuple[Virt, Virt]) -> None:
    """Enough frames to be carried in batches: all arrive, in order."""
    first, second = joined
    first.set("queue 4096")
    watch = Watch(second.mount, f"{second.name}/pcap")
    sent = [frame(60 + number // 1000, number) for number in range(3000)]
    first.host_sends(*sent)
    assert watch.until(3000).frames == sent
    assert (first.count("rx_frames"), second.count("tx_frames")) == (3000, 3000)
    assert first.count("rx_bytes") == second.count("tx_bytes") == sum(map(len, sent))


def test_tagged_frames(joined: tuple[Virt, Virt]) -> None:
    first, second = joined
    tagged = frame(1514)[:12] + bytes((0x81, 0, 0x60, 5)) + frame(1514)[12:]
    watch = Watch(second.mount, f"{second.name}/pcap")
    first.host_sends(tagged)
    assert watch.until(1).frames == [tagged]
    reader = first.open(os.O_RDONLY)
    first.host_sends(tagged)
    assert reader.read() == tagged
    assert watch.until(2).frames[1] == tagged
    assert second.count("tx_frames") == 2


def test_antispoof_of_the_end_it_goes_to(joined: tuple[Virt, Virt]) -> None:
    """With antispoof, only frames with the virt's own source address reach the tap."""
    first, second = joined
    second.set("antispoof link b2:0a:00:0b:0e:77")
    first.host_sends(frame(60, 1))
    until(lambda: second.count("tx_spoofed") == 1, "the frame is dropped")
    second.set("link b2:0a:00:0b:0e:01")  # the source address of test frames
    first.host_sends(frame(60, 2))
    assert second.host_gets() == frame(60, 2)


def test_two_cables_at_once(mount: Mount, virts: Virts) -> None:
    ends = [virts() for _ in range(4)]
    mount.ctl(f"cable {ends[0].unit} {ends[1].unit}\ncable {ends[2].unit} {ends[3].unit}")
    ends[0].host_sends(frame(60, 1))
    ends[3].host_sends(frame(60, 2))
    assert ends[1].host_gets() == frame(60, 1)
    assert ends[2].host_gets() == frame(60, 2)
    assert len(re.findall("^cable", mount.read("ctl"), re.M)) == 2


def test_nothing_is_left_when_the_mount_ends(alone: Alone) -> None:
    mount = alone()
    Virt(mount, 1), Virt(mount, 2)
    mount.ctl("cable 1 2 delay 10ms")
    assert mount.end() == 0
    assert mount.links() == ["lo"]


def say(mount: Mount, line: str) -> str:
    """Write a line with `virtfs ctl`, and return what it prints."""
    return mount.sh(f"{sys.executable} -m virtfs ctl -d . {line} 2>&1")


def test_a_warning_if_the_kernel_bypasses_the_cable(mount: Mount, virts: Virts, places: Callable[[], Place]) -> None:
    """A ping between two addresses of one namespace takes lo, so it shows no delay and no loss of the cable."""
    a, b = virts("up inet 10.0.78.1/24"), virts("up inet6 fd00:78::2/64")
    line = f"cable {a.unit} {b.unit} loss 100%"
    assert say(mount, line) == "", "an IPv4 address and an IPv6 address do not meet"
    mount.ctl(f"uncable {a.unit}\n{b.name} inet 10.0.78.2/24")
    sentence = "the ends of a cable, have IP addresses in the same network namespace"
    effect = "the kernel sends packets between them over lo, and none through the cable"
    told = f'virtfs: warning: "{a.tap}" and "{b.tap}", {sentence}: {effect}: "{a.name} netns NAME" moves one of them\n'
    assert say(mount, line) == told
    assert " 1 received" in mount.sh("ping -q -c1 -W1 10.0.78.1"), "although the cable loses everything"
    assert say(mount, f"{a.name} backlog 4") == "", "a line about something else does not repeat it"
    assert say(mount, f"{b.name} -inet 10.0.78.2") == ""
    assert sentence in say(mount, f"{b.name} inet 10.0.78.2/24")
    assert say(mount, f"{a.name} netns {places().pid}") == ""
    assert " 0 received" in mount.sh("ping -q -c1 -W1 10.0.78.1 || true")


def test_a_new_end_with_the_same_taplink_is_reached_at_once(mount: Mount, places: Callable[[], Place]) -> None:
    """The other host goes on with the address of the old tap. With another one, it would lose pings for a while."""
    near, far = places(), places()
    end = f"create 2 up taplink 02:00:00:00:00:02 inet 10.0.0.2/24 netns {far.pid}\ncable 1 2"
    mount.ctl(f"create 1 up inet 10.0.0.1/24 netns {near.pid}\n{end}")
    assert ping(near, "10.0.0.2", 1).complete
    mount.ctl(f"destroy 2\n{end}")
    near.sh("ping -q -c1 -W20 10.0.0.2")
    mount.ctl("destroy 1\ndestroy 2")


def test_a_warning_if_one_end_drops_long_frames(mount: Mount, joined: tuple[Virt, Virt]) -> None:
    a, b = joined
    told = say(mount, f"{a.name} mtu 9000")
    assert told == (
        f"virtfs: warning: {a.name} has mtu 9000, {b.name} at the other end of its cable 1500: longer frames are "
        f'dropped, and counted in {b.name}/stats/tx_oversize: "{b.name} mtu 9000" lets them pass\n'
    )
    a.host_sends(frame(4000))
    until(lambda: b.count("tx_oversize") == 1, "the long frame is counted")
    a.write("mtu", "9001\n")
    assert "has mtu 9001" in mount.read("last_error")
    assert say(mount, f"{b.name} mtu 9001") == ""
    mount.ctl(f"uncable {a.unit}")
    assert say(mount, f"{b.name} mtu 1400") == "", "without a cable, the ends may differ"
    assert f'"{b.name} mtu 9001" lets them pass' in say(mount, f"cable {b.unit} {a.unit}")
