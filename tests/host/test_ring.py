"""The packet ring on real taps: frames in both directions, lost frames, and interfaces that go down or vanish."""

import errno
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from os import writev
from typing import NamedTuple

import pytest
from harness.nets import Namespace, descriptors, ip
from harness.waiting import PATIENCE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit
from virtfs.core.pcapng import INBOUND, OUTBOUND, split_packets
from virtfs.core.tpacket import pcapng
from virtfs.host.bpf import compile_filter
from virtfs.host.ring import PacketRing, Size
from virtfs.host.tap import Tap
from virtfs.host.tap_protocol import NO_HEADER

SIZE = Size(block=32 << 10, blocks=64, wait=1)  # enough for 64 ms in which nobody reads
LASTING = Size(block=4096, blocks=4, wait=60_000)  # long enough that only full blocks are handed over
WAYS = {INBOUND: "in", OUTBOUND: "out"}


class Seen(NamedTuple):
    """A frame in a ring. way: its direction. length: bytes on the wire. time: ns since 1970."""

    frame: bytes
    way: str
    length: int
    time: int


class Look:
    """A ring and its output so far. lost: the number of frames for which the ring had no room."""

    def __init__(self, ring: PacketRing) -> None:
        self.ring = ring
        self.seen: list[Seen] = []
        self.lost = 0

    @property
    def frames(self) -> list[bytes]:
        return [seen.frame for seen in self.seen]

    def look(self) -> None:
        """Read the blocks that the kernel has handed over."""
        for block in self.ring.blocks():
            self.lost += block.lost
            if block.frames:
                made = pcapng(block.memory, block.first, block.frames, 0)
                assert len(made) <= block.used
                self.seen += [_seen(time, packet) for time, packet in split_packets(made)]

    def until(self, frames: int) -> None:
        """Wait until `frames` frames have been seen or lost."""
        poll = select.poll()
        poll.register(self.ring.fileno(), select.POLLIN)
        self.look()
        while len(self.seen) + self.lost < frames:
            assert poll.poll(1000 * PATIENCE), f"{len(self.seen)} seen and {self.lost} lost, not {frames}"
            self.look()


def _seen(time: int, packet: bytes) -> Seen:
    """Return the contents of an enhanced packet block. Its only option, at its end, is the direction."""
    captured, length = struct.unpack_from("<II", packet, 20)
    return Seen(packet[28 : 28 + captured], WAYS[packet[-12]], length, time)


class Watched:
    """A tap that is up, and methods that send from its host and from its virt."""

    def __init__(self) -> None:
        self.tap = Tap.open(Unit(3))
        ip("link set tap3 addrgenmode none")
        ip("link set tap3 up")
        self.host = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.host.bind(("tap3", 0))
        self.looks: list[Look] = []

    def look(self, size: Size = SIZE, expression: str = "") -> Look:
        """Open another ring."""
        self.looks.append(Look(PacketRing.open(self.tap, size, compile_filter(expression))))
        return self.looks[-1]

    def host_sends(self, *frames: bytes) -> None:
        for each in frames:
            self.host.send(each)

    def virt_sends(self, *frames: bytes) -> None:
        for each in frames:
            writev(self.tap.fd, (NO_HEADER, each))

    def close(self) -> None:
        for look in self.looks:
            look.ring.close()
        self.host.close()
        self.tap.close()


@pytest.fixture
def watched(network: None) -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.close()


def frame(number: int, length: int = 60, kind: str = "88b5") -> bytes:
    head = bytes.fromhex("020000000001 020000000002" + kind) + number.to_bytes(4, "big")
    return head.ljust(length, bytes([number % 256]))[:length]


def test_both_ways_in_order_and_in_time(watched: Watched) -> None:
    look = watched.look()
    expected = []
    for number in range(100):
        each = frame(number, 14 + number)
        if number % 3:
            watched.host_sends(each)
        else:
            watched.virt_sends(each)
        expected.append((each, "in" if number % 3 else "out", len(each)))
    look.until(100)
    assert [seen[:3] for seen in look.seen] == expected
    times = [seen.time for seen in look.seen]
    assert times == sorted(times)
    assert look.lost == 0


TAGGED = ["8100 0007 88b5", "8100 2fff 88b5", "88a8 0007 88b5", "88a8 0005 8100 0007 88b5", "8100 0005 8100 0007 88b5"]


@pytest.mark.parametrize("kind", TAGGED)
def test_a_tag_is_where_it_was(watched: Watched, kind: str) -> None:
    look = watched.look()
    tagged = [frame(number, 60, kind) for number in range(40)]
    watched.virt_sends(*tagged)
    watched.host_sends(*tagged)
    look.until(80)
    assert [seen[:3] for seen in look.seen] == [(each, way, 60) for way in ("out", "in") for each in tagged]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from([*TAGGED, "88b5"]), st.booleans()), max_size=6))
def test_tagged_and_plain_frames_of_one_length(watched: Watched, runs: list[tuple[int, str, bool]]) -> None:
    """In a ring, tagged frames begin at another offset after their headers."""
    look = watched.look()
    sent = [
        (frame(number, 60, kind), "in" if inwards else "out")
        for count, kind, inwards in runs
        for number in range(count)
    ]
    for each, way in sent:
        watched.host_sends(each) if way == "in" else watched.virt_sends(each)
    look.until(len(sent))
    assert [seen[:2] for seen in look.seen] == sent


def vlan_interface(protocol: str) -> None:
    """Create v1, the interface of VLAN 7 on tap3."""
    words = f"link add link tap3 name v1 type vlan id 7 protocol {protocol}"
    done = subprocess.run(["ip", *words.split()], capture_output=True, text=True, check=False)
    if "Unknown device type" in done.stderr:
        pytest.skip("kernel lacks VLAN interfaces (CONFIG_VLAN_8021Q)")
    assert done.returncode == 0, done.stderr
    ip("link set v1 addrgenmode none")
    ip("link set v1 up")


@pytest.mark.parametrize("protocol", ["802.1Q", "802.1ad"])
@pytest.mark.parametrize("expression", ["", "vlan 7"])
def test_from_a_vlan_interface(watched: Watched, protocol: str, expression: str) -> None:
    vlan_interface(protocol)
    watched.tap.set_filter(compile_filter(expression))
    look = watched.look(expression=expression)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as above:
        above.bind(("v1", 0))
        for number in range(50):
            above.send(frame(number))
    look.until(50)
    tag = {"802.1Q": "8100", "802.1ad": "88a8"}[protocol] + "0007 88b5"
    assert look.frames == [frame(number, 64, tag) for number in range(50)]


@pytest.mark.parametrize("expression", ["", "vlan 7"])
def test_tags_of_frames_over_a_bridge(watched: Watched, expression: str) -> None:
    """A bridge passes the tag in the skb's metadata, not in the frame."""
    ip("link add name bridge0 type bridge mcast_snooping 0")
    ip("link set bridge0 addrgenmode none")
    ip("link set bridge0 up")
    with Tap.open(Unit(4)) as source:
        ip("link set tap4 addrgenmode none")
        ip("link set tap4 master bridge0 up")
        ip("link set tap3 master bridge0")
        watched.tap.set_filter(compile_filter(expression))
        look = watched.look(expression=expression)
        sent = [frame(number, 60, kind) for kind in TAGGED for number in range(20)]
        for each in [*sent, *(frame(number) for number in range(20))]:
            writev(source.fd, (NO_HEADER, each))
    if expression:
        seen = [each for each in sent if each[14:16] == b"\0\7"]
    else:
        seen = [*sent, *(frame(number) for number in range(20))]
    while len(ours(look.frames)) < len(seen):  # the bridge also sends frames of its own
        look.until(len(look.seen) + 1)
    assert ours(look.frames) == seen


def ours(frames: list[bytes]) -> list[bytes]:
    """Return the frames that the test has sent."""
    return [each for each in frames if each[:12] == frame(0)[:12]]


def test_a_filter_holds_for_the_way_in_alone(watched: Watched) -> None:
    look = watched.look(expression="ether proto 0x88b6")
    watched.host_sends(frame(1), frame(2, kind="88b6"))
    watched.virt_sends(frame(3), frame(4, kind="88b6"))
    look.until(3)
    assert [(seen.frame, seen.way) for seen in look.seen] == [
        (frame(2, kind="88b6"), "in"),
        (frame(3), "out"),
        (frame(4, kind="88b6"), "out"),
    ]


def test_a_filter_that_jumps_and_one_that_rejects_all(watched: Watched) -> None:
    look = watched.look(expression="ether proto 0x88b6 or (ip and tcp port 80) or vlan 7")
    watched.virt_sends(frame(1))
    watched.host_sends(frame(2), frame(3, kind="88b6"), frame(4, 60, "81000007 88b5"))
    look.until(3)
    assert look.frames == [frame(1), frame(3, kind="88b6"), frame(4, 60, "81000007 88b5")]
    look.ring.set_filter(compile_filter("less 1"))
    watched.host_sends(frame(5))
    watched.virt_sends(frame(6))
    look.until(4)
    assert look.frames[3:] == [frame(6)]
    look.ring.set_filter(None)
    look.ring.set_filter(None)
    watched.host_sends(frame(7))
    look.until(5)
    assert look.frames[4:] == [frame(7)]


def test_ahead_counts_what_will_come(watched: Watched) -> None:
    """A frame counts as ahead from the moment it passes until its block is yielded."""
    look = watched.look()
    assert look.ring.ahead() == 0
    for number in range(200):
        watched.virt_sends(frame(number))
        ahead = look.ring.ahead()
        assert ahead >= 1
        before = len(look.seen)
        poll = select.poll()
        poll.register(look.ring.fileno(), select.POLLIN)
        given = 0
        while given < ahead:
            poll.poll(1000 * PATIENCE)
            for block in look.ring.blocks():
                given += block.frames > 0
                before += block.frames
                look.seen += [Seen(b"", "", 0, 0)] * block.frames
        assert before == number + 1
        assert look.ring.ahead() == 0


def test_a_block_without_frames_is_not_ahead(watched: Watched) -> None:
    """A frame that is longer than a block is cut, and the kernel hands over an empty block beside it."""
    look = watched.look(Size(4096, 4, 200))
    for number in range(3):
        watched.virt_sends(frame(number, 10_000))
        ahead = look.ring.ahead()
        poll = select.poll()
        poll.register(look.ring.fileno(), select.POLLIN)
        given = 0
        while given < ahead:
            assert poll.poll(1000 * PATIENCE), "a block that was counted is not handed over"
            given += sum(block.frames > 0 for block in look.ring.blocks())
        assert given == ahead


def fill(watched: Watched, ring: PacketRing, blocks: int) -> int:
    """Send frames until the ring is full, and a few more. Returns their number."""
    sent = 0
    while ring.ahead() < blocks:
        watched.virt_sends(frame(sent, 1000))
        sent += 1
    for _ in range(10):
        watched.virt_sends(frame(sent, 1000))
        sent += 1
    return sent


def test_a_full_ring_counts_what_it_loses(watched: Watched) -> None:
    look = watched.look(LASTING)
    sent = fill(watched, look.ring, LASTING.blocks)
    look.look()
    assert len(look.seen) + look.lost == sent
    assert look.lost >= 8
    assert look.frames == [frame(number, 1000) for number in range(len(look.frames))]


def test_nothing_is_ahead_of_a_full_ring_once_it_is_empty(watched: Watched) -> None:
    """The kernel opens the next block only with the next frame or timer. Until then the block has its old header."""
    look = watched.look(LASTING)
    fill(watched, look.ring, LASTING.blocks)
    aheads = [look.ring.ahead() for _ in look.ring.blocks()]
    assert aheads == [4, 3, 2, 1, 0], "four blocks, then the report of the lost frames"
    assert look.ring.ahead() == 0
    watched.virt_sends(frame(1))
    assert look.ring.ahead() == 1


def test_it_goes_on_after_it_was_full(watched: Watched) -> None:
    look = watched.look(Size(block=4096, blocks=4, wait=1))
    for turn in range(20):
        before = len(look.seen) + look.lost
        sent = fill(watched, look.ring, 4)
        look.until(before + sent)
        assert len(look.seen) + look.lost == before + sent, turn
    lost = look.lost
    assert lost > 0
    watched.virt_sends(frame(1))
    look.until(len(look.seen) + lost + 1)
    assert (look.frames[-1], look.lost) == (frame(1), lost)


def test_a_burst_of_thousands(watched: Watched) -> None:
    """The tap's queue, which has no reader, holds only 500 of them."""
    # 32 blocks of 60 ms: even if each block ends by its time-out, the ring lasts for 2 s.
    look = watched.look(Size(block=128 << 10, blocks=32, wait=60))
    sent = [frame(number) for number in range(5000)]
    watched.host_sends(*sent)
    look.until(5000)
    assert (look.frames, look.lost) == (sent, 0)


def test_a_long_frame_is_cut_to_a_block(watched: Watched) -> None:
    look = watched.look(Size(block=16 << 10, blocks=4, wait=1))
    ip("link set tap3 mtu 60000")
    watched.virt_sends(frame(1, 50_000), frame(2))
    look.until(2)
    first, second = look.seen
    assert first.length == 50_000
    assert 15_000 < len(first.frame) < 16 << 10
    assert first.frame == frame(1, len(first.frame))
    assert second.frame == frame(2)


def test_it_goes_on_over_down_and_up(watched: Watched) -> None:
    look = watched.look()
    poll = select.poll()
    poll.register(look.ring.fileno(), select.POLLIN)
    for number in range(3):
        watched.virt_sends(frame(number))
        ip("link set tap3 down")
        look.until(number + 1)
        assert not poll.poll(0), "the pending error has been read"
        ip("link set tap3 up")
    assert look.frames == [frame(number) for number in range(3)]


def test_what_passed_before_the_end_is_there(watched: Watched) -> None:
    look = watched.look()
    watched.virt_sends(*(frame(number) for number in range(10)))
    ip("link del tap3")
    look.until(10)
    look.look()
    assert len(look.frames) == 10


def test_it_is_opened_where_the_tap_is(watched: Watched, elsewhere: Namespace) -> None:
    ip(f"link set tap3 netns {elsewhere.path}")
    elsewhere.ip("link set tap3 name wire")
    elsewhere.ip("link set wire addrgenmode none")
    elsewhere.ip("link set wire up")
    look = watched.look()
    watched.virt_sends(frame(1))
    look.until(1)
    assert look.frames == [frame(1)]


def refusal(act: Callable[[], object]) -> VirtError:
    with pytest.raises(VirtError) as caught:
        act()
    return caught.value


def test_of_a_tap_that_is_gone(watched: Watched) -> None:
    ip("link del tap3")
    before = descriptors()
    assert refusal(watched.look).errno == errno.ENXIO
    watched.tap.close()
    assert refusal(watched.look).errno == errno.ENXIO
    assert [name for name in descriptors() if name not in before] == []


_OPEN = """
import sys
from virtfs.core.ids import Unit
from virtfs.host.ring import PacketRing, Size
from virtfs.host.tap import Tap

with Tap.open(Unit(3)) as tap:
    try:
        PacketRing.open(tap, Size(4096, 2, 1)).close()
    except OSError as refusal:
        sys.exit(f"{refusal.errno} {refusal.strerror}")
"""


def test_without_the_capability_says_which(network: None) -> None:
    words = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", sys.executable, "-c", _OPEN]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stderr.startswith("1 capturing needs CAP_NET_RAW")
    assert subprocess.run(words[3:], capture_output=True, text=True, check=False).stderr == ""


def test_a_size_the_kernel_refuses(watched: Watched) -> None:
    before = descriptors()
    for size in (Size(4097, 2, 1), Size(1024, 2, 1)):
        assert refusal(lambda size=size: watched.look(size)).errno == errno.EINVAL  # type: ignore[misc]
    assert descriptors() == before


def test_all_is_given_back(watched: Watched) -> None:
    before = descriptors()
    for _ in range(5):
        ring = PacketRing.open(watched.tap, SIZE, compile_filter("arp"))
        watched.virt_sends(frame(1))
        ring.close()
        ring.close()
    assert descriptors() == before
