"""Filters in tcpdump's language, compiled, and run by the kernel on frames that the host sends over real taps."""

import errno
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from harness.nets import Namespace, ip
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroute2.ethtool.ioctl import IoctlEthtool

from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit
from virtfs.host import bpf
from virtfs.host import tap as tap_module
from virtfs.host.bpf import Matcher, Program, compile_filter
from virtfs.host.links import Links
from virtfs.host.tap import Tap

from .contract import read, readable

HOST, VIRT, OTHER = (bytes.fromhex(f"0200000000{number:02x}") for number in (1, 2, 9))
_TUNSETIFF = 0x400454CA
_IFF_TAP = 2

HEADERS = VIRT + HOST


def ipv4(protocol: int, payload: bytes) -> bytes:
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0, b"\x0a\0\0\1", b"\x0a\0\0\2"
    )
    words = sum(struct.unpack("!10H", header))
    checksum = ~(words + (words >> 16)) & 0xFFFF  # a bridge drops packets with a wrong checksum
    return header[:10] + struct.pack("!H", checksum) + header[12:] + payload


def tcp(port: int) -> bytes:
    return ipv4(6, struct.pack("!HHIIBBHHH", 40000, port, 0, 0, 0x50, 2, 1000, 0, 0))


def udp(port: int) -> bytes:
    return ipv4(17, struct.pack("!HHHH", 40000, port, 8, 0))


FRAMES = {
    "arp": HEADERS + b"\x08\x06" + bytes.fromhex("0001080006040001") + HOST + b"\x0a\0\0\1" + bytes(6) + b"\x0a\0\0\2",
    "http": HEADERS + b"\x08\0" + tcp(80),
    "ssh": HEADERS + b"\x08\0" + tcp(22),
    "dns": OTHER + HOST + b"\x08\0" + udp(53),
    "ip6": HEADERS + b"\x86\xdd" + bytes.fromhex("6000000000003b40") + bytes(32),
    "tagged arp": HEADERS + b"\x81\0\0\x05\x08\x06" + bytes(28),
    "tagged http": HEADERS + b"\x81\0\0\x05\x08\0" + tcp(80),
    "qinq": HEADERS + b"\x88\xa8\0\x07\x08\0" + tcp(80),
}


@pytest.fixture
def tap(network: None) -> Iterator[Tap]:
    with Tap.open(Unit(3)) as tap:
        ip("link set tap3 addrgenmode none")
        ip("link set tap3 up")
        yield tap


@pytest.fixture
def host(tap: Tap) -> Iterator[socket.socket]:
    """Yield a packet socket that sends from the host over the tap."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind(("tap3", 0))
        yield sender


def refused(expression: str) -> VirtError:
    with pytest.raises(VirtError) as caught:
        compile_filter(expression)
    return caught.value


def set_filter(tap: Tap, expression: str) -> None:
    tap.set_filter(compile_filter(expression))


def waiting(tap: Tap) -> list[bytes]:
    frames = []
    while readable(tap):
        frames.append(read(tap))
    return frames


def passed(tap: Tap, host: socket.socket) -> set[str]:
    """Send all of FRAMES. Returns the names of those that pass the filter; they must be unchanged."""
    for frame in FRAMES.values():
        host.send(frame)
    names = {frame: name for name, frame in FRAMES.items()}
    return {names[frame] for frame in waiting(tap)}


# --- compiling ---


def test_a_program_is_the_kernels_instructions() -> None:
    program = compile_filter("  arp ")
    assert program == Program(
        "arp",
        struct.pack("HBBI", 0x28, 0, 0, 12)  # ldh [12]
        + struct.pack("HBBI", 0x15, 0, 1, 0x806)  # jeq #0x806
        + struct.pack("HBBI", 0x06, 0, 0, 262144)
        + struct.pack("HBBI", 0x06, 0, 0, 0),
    )
    assert len(program) == 4


@pytest.mark.parametrize("expression", ["", " ", "\t\n"])
def test_an_empty_expression_is_no_filter(expression: str) -> None:
    assert compile_filter(expression) is None


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("tcp port", "syntax error"),
        ("port nosuchservice", "unknown port 'nosuchservice'"),
        ("host nosuch.example.org", "unknown host 'nosuch.example.org'"),
        ("ip and arp", "expression rejects all packets"),
        ("ether[0] / 0 = 1", "division by zero"),
        ("ip6 protochain 6", "the kernel refuses the compiled program"),
        ("arp\0", "NUL"),
        ("hôst 10.0.0.1", "syntax error"),
        ("(" * 4000, "syntax error"),
    ],
)
def test_a_bad_expression_is_einval_and_says_why(expression: str, message: str) -> None:
    refusal = refused(expression)
    assert refusal.errno == errno.EINVAL
    assert refusal.strerror.startswith('filter "')
    assert message in refusal.strerror
    assert refusal.strerror.isprintable()


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("arp or " * 600 + "arp", "longer than 4096 bytes"),
        ("arp||" * 200 + "arp", "more than 200 terms"),
        ("portrange " + " or ".join(f"{low}-{low + 3}" for low in range(1, 1000, 5)), "too complex for libpcap"),
        (" or ".join(f"ip6 protochain {number}" for number in range(150)), "more than 4093 instructions"),
    ],
)
def test_too_much_is_e2big_and_soon_told(expression: str, message: str) -> None:
    before = time.process_time()
    refusal = refused(expression)
    assert time.process_time() - before < 20
    assert refusal.errno == errno.E2BIG
    assert message in refusal.strerror


def test_as_much_as_is_allowed() -> None:
    program = compile_filter(" or ".join(f"tcp port {port}" for port in range(1, 201)))
    assert program is not None
    assert len(program) <= bpf.INSTRUCTIONS_MAX


def test_names_of_this_machines_files_are_known() -> None:
    by_name, by_number = compile_filter("port domain and proto \\udp"), compile_filter("port 53 and proto 17")
    assert by_name is not None
    assert by_number is not None
    assert by_name.instructions == by_number.instructions


def test_names_are_not_asked_of_the_network(tap: Tap) -> None:
    """The resolver is never asked, so one that does not answer causes no delay."""
    for words in ("address add 10.0.3.1/24 dev tap3", "route add default via 10.0.3.2", "link set lo up"):
        ip(words)
    ip("neigh add 10.0.3.2 lladdr 02:00:00:00:00:02 dev tap3")
    for expression in ("host nosuch.example.org", "net nosuch", "ether host nosuch", "src nosuch.example.org"):
        assert refused(expression).errno == errno.EINVAL
    assert waiting(tap) == []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.sendto(b"", ("10.0.3.2", 53))
    assert len(waiting(tap)) == 1, "only the compiler's own thread is confined"


def test_without_libpcap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf, "_LIBRARIES", ("libpcap.so.nosuch",))
    bpf._libpcap.cache_clear()
    refusal = refused("arp")
    assert refusal.errno == errno.EOPNOTSUPP
    assert "libpcap0.8" in refusal.strerror
    assert compile_filter("") is None
    monkeypatch.undo()
    assert compile_filter("arp"), "libpcap is found once it is installed"


def test_many_threads_at_once() -> None:
    programs: list[Program | None] = []
    expressions = [f"tcp port {port}" for port in range(1, 41)]
    threads = [threading.Thread(target=lambda e=e: programs.append(compile_filter(e))) for e in expressions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {program.expression for program in programs if program} == set(expressions)


_WORDS = (
    "ip ip6 tcp udp arp vlan mpls host net port src dst ( ) [ ] and or not ! && || + / << = > ether 0 80 10.0.0.0/8"
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(_WORDS.split())).map(" ".join) | st.text(max_size=200))
def test_any_text_gives_a_program_or_a_refusal(text: str) -> None:
    refusal = None
    try:
        compile_filter(text)
    except VirtError as error:
        refusal = error
    if refusal:
        assert refusal.errno in (errno.EINVAL, errno.E2BIG)
        assert refusal.strerror.isprintable()


# --- filtering ---


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("", set(FRAMES)),
        ("arp", {"arp"}),
        ("tcp port 80", {"http"}),
        ("tcp port http or port domain", {"http", "dns"}),
        ("vlan", {"tagged arp", "tagged http", "qinq"}),
        ("vlan 5 and tcp port 80", {"tagged http"}),
        ("vlan 6", set()),
        ("ether host 02:00:00:00:00:09", {"dns"}),
        ("not ip6", set(FRAMES) - {"ip6"}),
        ("ip", {"http", "ssh", "dns"}),
        ("less 42", {"arp"}),
    ],
)
def test_what_passes(tap: Tap, host: socket.socket, expression: str, names: set[str]) -> None:
    """The program sees the frame from its first byte on, without the virtio_net_hdr before it."""
    set_filter(tap, expression)
    if expression == "less 42":
        names = {name for name, frame in FRAMES.items() if len(frame) <= 42}
    assert passed(tap, host) == names
    if program := compile_filter(expression):
        matches = Matcher(program)
        assert {name for name, frame in FRAMES.items() if matches(frame, len(frame))} == names


def test_what_is_rejected_counts_as_dropped_by_the_tap(tap: Tap, host: socket.socket, links: Links) -> None:
    before = links.get(tap).tx_dropped
    set_filter(tap, "arp")
    passed(tap, host)
    assert links.get(tap).tx_dropped - before == len(FRAMES) - 1


def test_a_large_frame_is_not_cut(tap: Tap, host: socket.socket) -> None:
    ip("link set tap3 mtu 65521")
    frame = HEADERS + b"\x88\xb5" + os.urandom(65521)
    set_filter(tap, "ether proto 0x88b5")
    host.send(frame)
    assert waiting(tap) == [frame]


def test_a_filter_takes_over_from_another_and_goes(tap: Tap, host: socket.socket) -> None:
    set_filter(tap, "arp")
    host.send(FRAMES["arp"])
    set_filter(tap, "ip6")
    assert passed(tap, host) == {"arp", "ip6"}, "frames that already wait are kept"
    assert passed(tap, host) == {"ip6"}
    set_filter(tap, "")
    assert passed(tap, host) == set(FRAMES)
    set_filter(tap, "")


def test_a_program_that_the_kernel_refuses_leaves_the_one_before(tap: Tap, host: socket.socket) -> None:
    set_filter(tap, "arp")
    with pytest.raises(VirtError) as caught:
        tap.set_filter(Program("", struct.pack("HBBI", 0x28, 0, 0, 12)))
    assert caught.value.errno == errno.EINVAL
    assert passed(tap, host) == {"arp"}
    set_filter(tap, "")
    before = _insertion()
    with pytest.raises(VirtError):
        tap.set_filter(Program("", b""))
    assert passed(tap, host) == set(FRAMES)
    assert _insertion() == before, "or none"


def test_what_virt_sends_is_not_filtered(tap: Tap) -> None:
    set_filter(tap, "arp")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as receiver:
        receiver.bind(("tap3", 3))
        os.writev(tap.fd, [bytes(10), FRAMES["dns"]])
        assert select.select([receiver], [], [], 10)[0]
        assert receiver.recv(2000) == FRAMES["dns"]


# --- VLAN tags ---


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("vlan", {"tagged arp", "tagged http", "qinq"}),
        ("vlan 5", {"tagged arp", "tagged http"}),
        ("arp", {"arp"}),
        ("tcp port 80", {"http"}),
        ("not vlan", {"arp", "http", "ssh", "dns", "ip6"}),
    ],
)
def test_tags_of_frames_over_a_bridge_are_seen(tap: Tap, expression: str, names: set[str]) -> None:
    """A bridge passes the tag in the skb's metadata, which a filter program does not read."""
    ip("link add name bridge0 type bridge mcast_snooping 0")
    ip("link set bridge0 addrgenmode none")
    with Tap.open(Unit(4)) as source:
        ip("link set tap4 addrgenmode none")
        for name in ("tap3", "tap4"):
            ip(f"link set {name} master bridge0 up")
        ip("link set bridge0 up")
        set_filter(tap, expression)
        for frame in FRAMES.values():
            os.writev(source.fd, [bytes(10), frame])
        by_content = {frame: name for name, frame in FRAMES.items()}
        assert {by_content[frame] for frame in waiting(tap)} == names


def _insertion(where: Namespace | None = None) -> list[str]:
    """Return the features of VLAN tag insertion "by hardware" that are active on tap3, as ethtool(8) shows them."""
    found: list[str] = []

    def ask() -> None:
        ethtool = IoctlEthtool("tap3")
        features = ethtool.get_features()
        ethtool.close()
        found.extend(name for name in ("tx-vlan-hw-insert", "tx-vlan-stag-hw-insert") if features.is_active(name))

    where.call(ask) if where else ask()
    return found


def test_the_taps_features_are_as_found_without_a_filter(tap: Tap) -> None:
    before = _insertion()
    assert before
    set_filter(tap, "arp")
    assert _insertion() == []
    set_filter(tap, "ip")
    assert _insertion() == []
    set_filter(tap, "")
    assert _insertion() == before


def test_a_tap_that_moved_is_filtered_where_it_is(elsewhere: Namespace) -> None:
    with Tap.open(Unit(3)) as tap:
        ip(f"link set tap3 netns {elsewhere.path}")
        set_filter(tap, "arp")
        assert _insertion(elsewhere) == []


# --- the next owner of a tap ---


def test_a_tap_that_stays_is_left_without_a_filter(network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel keeps the address of the program. If the program is still set, the next attach fails."""
    kept: list[object] = []

    def keeping(instructions: bytes) -> tuple[bytes, object]:
        kept.append(both := bpf.sock_fprog(instructions))
        return both

    monkeypatch.setattr(tap_module, "sock_fprog", keeping)
    ip("tuntap add tap3 mode tap")
    before = _insertion()
    with Tap.open(Unit(3)) as tap:
        set_filter(tap, "arp")
    with open("/dev/net/tun", "r+b", buffering=0, opener=_without_blocking) as tun:
        # Without IFF_NO_PI, because IFF_NOFILTER is the same bit.
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", b"tap3", _IFF_TAP))
        assert tun.read(2000) is None, "the tap is attached, and no frame waits"
    assert _insertion() == before


def _without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def test_a_tap_whose_owner_was_killed_can_be_had_again(network: None) -> None:
    """The kernel remembers that there was a filter, and its address in the memory of the killed process."""
    ip("tuntap add tap3 mode tap")
    program = (
        "import sys; from virtfs.core.ids import Unit; from virtfs.host.bpf import *; from virtfs.host.tap import Tap;"
        "tap = Tap.open(Unit(3)); tap.set_filter(compile_filter('arp')); print('ready', flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        owner.send_signal(signal.SIGKILL)
    ip("link set tap3 up addrgenmode none")
    with Tap.open(Unit(3)) as tap, socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as host:
        ip("link set tap3 up")
        host.bind(("tap3", 0))
        assert passed(tap, host) == set(FRAMES)
        set_filter(tap, "ip6")
        assert passed(tap, host) == {"ip6"}
