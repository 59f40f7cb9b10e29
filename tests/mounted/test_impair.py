"""impair: frames delayed, lost, duplicated and corrupted, in both directions."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness.places import DIR, finished
from harness.process import File, fails
from harness.serving import Virt, frame
from harness.waiting import PATIENCE, until
from harness.watching import Watch, assert_paced

from .hosts import Ping, ping, pinging

RESPONDER = Path(__file__).parents[2] / "examples" / "responder.py"
FRAMES = [frame(60, number) for number in range(200)]


def taken(file: File, at_least: int = 0) -> list[bytes]:
    """Return all frames that can be read, once there are `at_least` of them."""
    frames: list[bytes] = []

    def look() -> bool:
        try:
            while True:
                frames.append(file.read())
        except BlockingIOError:
            return len(frames) >= at_least

    until(look, f"{at_least} frames are there")
    return frames


def station(virt: Virt) -> str:
    """Start a program that answers pings, and return its address."""
    virt.set("inet 10.4.0.1/24")
    address = "10.4.0.2"
    virt.mount.start(sys.executable, str(RESPONDER), f"{DIR}/{virt.name}", address, stderr=subprocess.DEVNULL)
    until(lambda: virt.mount.sh(f"ping -q -c1 -W1 {address} || true").count(" 0% packet"), "the program answers")
    return address


def test_delay_in_both_directions_and_in_one(virt: Virt) -> None:
    address = station(virt)
    assert ping(virt.mount, address, 10).shows(0)
    for words, expected in (
        ("delay 5ms", 10),
        ("in delay 30ms", 35),  # out is unchanged
        ("out delay 60ms", 90),
        ("in delay 0 out delay 0", 0),
    ):
        virt.set(f"impair {words}")
        found = ping(virt.mount, address, 10)
        assert found.complete
        assert found.shows(expected), found.shortest


def test_it_changes_while_ping_runs(virt: Virt) -> None:
    """No echo is lost when the delay changes."""
    address = station(virt)
    virt.set("impair delay 50ms")
    running = virt.mount.shell(f"exec {pinging(address, 40)}", stdout=subprocess.PIPE)
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    watch.until(10)
    virt.set("impair delay 5ms")
    watch.until(30)
    virt.write("impair", "in delay 20ms\n")
    summary = Ping(finished(running, 2 * PATIENCE)[0], 40)
    assert summary.complete
    assert summary.shortest < 50, "at first it is 100 ms"


def test_frames_on_their_way_go_on_after_a_change(virt: Virt) -> None:
    file = virt.open(os.O_RDWR | os.O_NONBLOCK)
    virt.set("impair delay 300ms")
    virt.host_sends(frame(60, 1))
    file.write(frame(60, 2))
    virt.set("impair delay 1ms")
    assert taken(file, 1) == [frame(60, 1)]
    assert virt.host_gets() == frame(60, 2)
    assert virt.count("rx_dropped") == virt.count("tx_dropped") == 0


@pytest.mark.parametrize("words", ["loss 20% seed 7", "loss gemodel 5% 20% seed 7"])
def test_loss_in_is_the_same_with_the_same_seed(virt: Virt, words: str) -> None:
    file = virt.open(os.O_RDONLY | os.O_NONBLOCK)
    fates = []
    for seed in ("", "", "1"):
        virt.set(f"impair in {words}{seed}")
        before = virt.count("rx_dropped")
        virt.host_sends(*FRAMES)
        until(lambda: virt.read("next") != "0", "frames arrive")
        fates.append(taken(file))
        until(lambda: virt.count("rx_dropped") - before == 200 - len(fates[-1]), "the lost ones are counted")  # noqa: B023
        assert virt.count("rx_lost") == virt.count("rx_dropped")
    assert fates[0] == fates[1] != fates[2]
    assert 120 < len(fates[0]) < 190
    assert fates[0] == [one for one in FRAMES if one in set(fates[0])]


def test_loss_out_is_the_same_with_the_same_seed(virt: Virt) -> None:
    watch, file = Watch(virt.mount, f"{virt.name}/pcap"), virt.open(os.O_WRONLY)
    fates: list[list[bytes]] = []
    for _ in range(2):
        virt.set("impair out loss 20% seed 7")
        before = len(watch.look().frames)
        for one in FRAMES:
            assert file.write(one) == 60
        fates.append(watch.look().frames[before:])
    assert fates[0] == fates[1]
    assert 130 < len(fates[0]) < 185
    assert virt.count("tx_frames") == 2 * len(fates[0])
    assert virt.count("tx_dropped") == 400 - 2 * len(fates[0])


def test_duplicates(virt: Virt) -> None:
    virt.set("impair duplicate 100%")
    file = virt.open(os.O_RDWR | os.O_NONBLOCK)
    virt.host_sends(frame(60, 1), frame(60, 2))
    assert taken(file, 4) == [frame(60, 1), frame(60, 1), frame(60, 2), frame(60, 2)]
    file.write(frame(60, 3))
    assert [virt.host_gets(), virt.host_gets()] == [frame(60, 3)] * 2
    assert (virt.count("rx_frames"), virt.count("tx_frames")) == (4, 2)


def test_corrupt_flips_one_bit(virt: Virt) -> None:
    virt.set("impair in corrupt 100%")
    file = virt.open(os.O_RDONLY | os.O_NONBLOCK)
    virt.host_sends(*FRAMES[:20])
    for before, after in zip(FRAMES, taken(file, 20), strict=False):
        wrong = int.from_bytes(before, "big") ^ int.from_bytes(after, "big")
        assert wrong.bit_count() == 1


def test_reorder(virt: Virt) -> None:
    virt.set("impair in delay 100ms reorder 50% seed 1")
    file = virt.open(os.O_RDONLY | os.O_NONBLOCK)
    virt.host_sends(*FRAMES[:50])
    came = taken(file, 50)
    assert came != FRAMES[:50]
    assert sorted(came) == sorted(FRAMES[:50])


def test_rate_spreads_frames(virt: Virt) -> None:
    """At 1 Mbit/s, 125 bytes take a millisecond."""
    virt.set("impair out rate 1mbit")
    watch, file = Watch(virt.mount, f"{virt.name}/pcap"), virt.open(os.O_WRONLY)
    begun = time.time()
    for _ in range(40):
        file.write(frame(1250))
    assert_paced(watch.until(40), begun, [number / 100 for number in range(40)])


def test_limit_drops_and_counts(virt: Virt) -> None:
    virt.set("impair in delay 200ms limit 5")
    file = virt.open(os.O_RDONLY | os.O_NONBLOCK)
    virt.host_sends(*FRAMES[:20])
    until(lambda: virt.count("rx_dropped") == 15, "frames over the limit are dropped")
    assert (virt.count("rx_overlimit"), virt.count("rx_lost")) == (15, 0)
    assert taken(file, 5) == FRAMES[:5]


def test_a_delayed_frame_wakes_reader_and_poll(virt: Virt) -> None:
    virt.set("impair in delay 100ms")
    file = virt.open(os.O_RDONLY)
    reading, begun = file.begin_read().waiting(), time.monotonic()
    virt.host_sends(frame())
    assert reading.result() == frame()
    assert time.monotonic() - begun >= 0.1
    polling = file.begin_poll(1)
    virt.host_sends(frame())
    assert polling.result() == 1
    assert virt.read("next") == "60"


def test_down_empties_it_and_counts(virt: Virt) -> None:
    virt.set("impair delay 500ms")
    file = virt.open(os.O_RDWR | os.O_NONBLOCK)
    virt.host_sends(*FRAMES[:5])
    for one in FRAMES[:3]:
        file.write(one)
    until(lambda: virt.mount.exists(virt.name) and virt.read("next") == "0", "the frames are delayed")
    virt.set("down")
    virt.set("up")
    assert virt.count("rx_dropped") == 5
    assert virt.count("tx_dropped") == 3
    virt.set("-impair")
    virt.host_sends(frame(60, 99))
    assert taken(file, 1) == [frame(60, 99)]
    assert virt.count("tx_frames") == 0


def test_one_direction_ends(virt: Virt) -> None:
    virt.set("impair in delay 20ms out loss 1%")
    virt.set("-impair in mtu 1400")
    assert virt.read("impair") == "out loss 1%"
    virt.set("impair in delay 20ms -impair out")
    assert virt.read("impair") == "in delay 20ms"
    with fails(errno.ERANGE):
        virt.set("-impair in mtu 1")
    assert virt.read("impair") == "in delay 20ms"
    virt.set("-impair in")
    assert virt.read("impair") == ""


def test_without_it_what_was_on_its_way_arrives(virt: Virt) -> None:
    file = virt.open(os.O_RDWR | os.O_NONBLOCK)
    virt.set("impair delay 100ms")
    virt.host_sends(*FRAMES[:5])
    for one in FRAMES[:3]:
        file.write(one)
    until(lambda: virt.read("next") == "0", "the frames are delayed")
    virt.set("-impair")
    virt.host_sends(frame(60, 99))
    assert sorted(taken(file, 6)) == sorted([*FRAMES[:5], frame(60, 99)])
    assert (virt.count("rx_frames"), virt.count("rx_dropped")) == (6, 0)
    until(lambda: virt.count("tx_frames") == 3, "all written frames are sent")


def test_captures_see_what_is_lost_in_and_not_what_is_lost_out(virt: Virt) -> None:
    virt.set("impair loss 100% history 1M")
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    file = virt.open(os.O_RDWR | os.O_NONBLOCK)
    file.write(frame(60, 1))
    virt.host_sends(frame(60, 2))
    seen = watch.until(1)
    assert [(packet.frame, packet.way) for packet in seen.packets] == [(frame(60, 2), "in")]
    with fails(errno.EAGAIN):
        file.read()
    assert (virt.count("rx_dropped"), virt.count("tx_dropped")) == (1, 1)
    assert (virt.count("rx_lost"), virt.count("tx_lost")) == (1, 1)


def test_each_impairment_is_counted_in_its_direction(virt: Virt) -> None:
    """Reordered and corrupted frames are also in `frames`. Frames that the impairment drops are also in `dropped`."""
    file = virt.open(os.O_RDWR | os.O_NONBLOCK)
    virt.set("impair delay 1ms limit 5 duplicate 50% reorder 50% corrupt 50% loss 20% seed 3")
    virt.host_sends(*FRAMES[:50])
    for one in FRAMES[:100]:
        file.write(one)
    for way, handed in (("rx", 50), ("tx", 100)):

        def stats(way: str = way) -> dict[str, int]:
            names = ("frames", "dropped", "lost", "overlimit", "duplicated", "reordered", "corrupted")
            return {name: virt.count(f"{way}_{name}") for name in names}

        def settled(handed: int = handed) -> bool:
            taken(file)
            now = stats()
            return now["frames"] + now["dropped"] == handed + now["duplicated"]

        until(settled, "no frame waits")
        now = stats()
        assert now["lost"] + now["overlimit"] == now["dropped"]
        assert all(now[name] > 0 for name in ("lost", "duplicated", "reordered", "corrupted"))


def test_captures_see_frames_in_before_their_delay_and_out_after(virt: Virt) -> None:
    virt.set("impair delay 2s")
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    file = virt.open(os.O_RDWR | os.O_NONBLOCK)
    sent = time.time_ns()
    file.write(frame(60, 1))
    virt.host_sends(frame(60, 2))
    seen = watch.until(2)
    assert [packet.way for packet in seen.packets] == ["in", "out"]
    assert seen.packets[1].time - sent >= 2e9


def test_frames_written_to_hex_are_impaired(virt: Virt) -> None:
    virt.set("impair out loss 100%")
    virt.write("hex", f"{frame().hex()}\n")
    assert (virt.count("tx_frames"), virt.count("tx_dropped")) == (0, 1)


@pytest.mark.parametrize(
    "words",
    [
        "delay 20ms",
        "in delay 20ms",
        "out loss 1%",
        "in delay 20ms 5ms distribution normal out loss gemodel 1% 10%",
        "delay 20ms loss 1% duplicate 0.1% reorder 25% corrupt 0.1% rate 10mbit limit 500 seed 42",
    ],
)
def test_what_was_written_can_be_read_and_written_back(virt: Virt, words: str) -> None:
    virt.write("impair", f"{words}\n")
    assert virt.read("impair") == words
    assert f" impair {words} " in virt.read("ctl").splitlines()[0]
    lines = virt.mount.read("ctl")
    virt.write("impair", f"{words}\n")
    assert virt.read("impair") == words
    virt.mount.ctl(f"destroy {virt.unit}")
    virt.mount.ctl(lines)
    assert virt.read("impair") == words
    virt.write("impair", "\n")
    assert virt.read("impair") == ""
    assert "impair" not in virt.read("ctl")


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("delay soon", errno.EINVAL),
        ("loss 101%", errno.ERANGE),
        ("wobble 3", errno.EINVAL),
        ("limit 500000", errno.ERANGE),
    ],
)
def test_a_bad_one_is_refused(virt: Virt, words: str, number: int) -> None:
    virt.write("impair", "delay 5ms\n")
    with fails(number):
        virt.write("impair", f"{words}\n")
    assert virt.read("impair") == "delay 5ms"
    assert words.split()[-1 if words[0] != "w" else 0] in virt.mount.read("last_error")


def test_its_owner_may_set_it(virt: Virt) -> None:
    virt.set("owner 1000")
    virt.mount.sh(f"echo loss 100% >{virt.name}/impair", uid=1000)
    virt.open(os.O_WRONLY).write(frame())
    assert virt.count("tx_dropped") == 1


def test_a_refused_line_puts_it_back(virt: Virt) -> None:
    virt.set("impair in delay 7ms")
    with fails(errno.EINVAL):
        virt.set("impair loss 50% filter nonsense nonsense")
    assert virt.read("impair") == "in delay 7ms"


def test_destroyed_with_frames_on_their_way(virt: Virt) -> None:
    virt.set("impair delay 100ms")
    file = virt.open(os.O_RDWR | os.O_NONBLOCK)
    virt.host_sends(*FRAMES[:5])
    file.write(frame())
    virt.mount.ctl(f"destroy {virt.unit}")
    with fails(errno.ENXIO):
        file.read()
    virt.mount.ctl(f"create {virt.unit} up")
    assert virt.count("rx_dropped") == 0
