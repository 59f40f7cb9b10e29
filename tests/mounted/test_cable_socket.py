"""cable A SOCKET: the far end of a cable is a socket of another program."""

import errno
import json
import os
import re
import shutil
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from harness.lasting import LastingOnes
from harness.places import DIR
from harness.process import File, fails
from harness.serving import Virt, Virts, frame
from harness.waiting import PATIENCE, until
from harness.watching import Watch


def record(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def told(virt: Virt) -> dict[str, Any]:
    """Return the object of the interface's cable in status.json."""
    cables: list[dict[str, Any]] = json.loads(virt.mount.read("status.json"))["cables"]
    return next(one for one in cables if one["ends"][0] == virt.name)


def state(virt: Virt) -> dict[str, Any]:
    """Return the state of the cable's socket."""
    socket: dict[str, Any] = told(virt)["socket"]
    return socket


def counts(virt: Virt) -> tuple[dict[str, int], dict[str, int]]:
    """Return the counters of the cable that are not 0, for the directions to and from the socket."""
    stats = told(virt)["stats"]
    out, back = ({name: count for name, count in stats[way].items() if count} for way in ("out", "in"))
    return out, back


def connected(virt: Virt) -> None:
    until(lambda: state(virt)["state"] == "connected", "the cable is connected")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory for sockets, with a short path. It must be empty at the end of the test."""
    folder = Path(tempfile.mkdtemp(prefix="virtfs", dir="/tmp"))
    yield folder
    left = [path.name for path in folder.iterdir()]
    shutil.rmtree(folder)
    assert not left


class Peer:
    """A program at the far end of a cable: a listening socket, and the connection that it has accepted."""

    def __init__(self, path: Path, kind: int = socket.SOCK_STREAM) -> None:
        self.path = path
        self._listening = socket.socket(socket.AF_UNIX, kind)
        self._listening.bind(str(path))
        self._listening.listen()
        self.socket = socket.socket(socket.AF_UNIX, kind)

    def accept(self) -> None:
        self._listening.settimeout(PATIENCE)
        self.socket.close()
        self.socket, _ = self._listening.accept()
        self.socket.settimeout(PATIENCE)

    def close(self) -> None:
        self.socket.close()
        self._listening.close()
        self.path.unlink(missing_ok=True)


@pytest.fixture
def peer(folder: Path) -> Iterator[Peer]:
    """A peer that listens at a path."""
    peer = Peer(folder / "peer")
    yield peer
    peer.close()


def exactly(size: int, connected: socket.socket) -> bytes:
    data = b""
    while len(data) < size:
        more = connected.recv(size - len(data))
        assert more, f"the connection ended after {len(data)} of {size} bytes"
        data += more
    return data


def frames(count: int, connected: socket.socket) -> list[bytes]:
    """Receive frames from a stream."""
    return [exactly(struct.unpack(">I", exactly(4, connected))[0], connected) for _ in range(count)]


def cabled(virt: Virt, peer: Peer, words: str = "") -> Virt:
    """Connect an interface with a peer."""
    virt.mount.ctl(f"cable {virt.unit} unix:{peer.path} {words}")
    peer.accept()
    connected(virt)
    return virt


def test_frames_cross_both_ways_and_are_counted(virt: Virt, peer: Peer) -> None:
    cabled(virt, peer)
    sent = [frame(14), frame(60, 1), frame(1514, 2)]
    virt.host_sends(*sent)
    assert frames(3, peer.socket) == sent
    data = b"".join(map(record, sent))
    peer.socket.sendall(data[:50])
    peer.socket.sendall(data[50:])
    assert [virt.host_gets() for _ in sent] == sent
    until(lambda: virt.count("tx_frames") == 3, "all frames are counted")
    assert (virt.count("rx_frames"), virt.count("rx_bytes")) == (3, 14 + 60 + 1514)
    assert (virt.count("rx_dropped"), virt.count("tx_dropped")) == (0, 0)
    carried = {"frames": 3, "bytes": 14 + 60 + 1514}
    until(lambda: counts(virt) == (carried, carried), "all are counted")
    assert told(virt)["ends"] == [virt.name, f"unix:{peer.path}"]


def lines(events: File) -> list[str]:
    """Return the events so far, without their times."""
    found = []
    with suppress(BlockingIOError):
        while True:
            found.append(events.read().decode().strip().partition(" ")[2])
    return found


def test_a_peer_that_comes_later_and_comes_again(virt: Virt, folder: Path) -> None:
    events = virt.mount.root.open("events", os.O_RDONLY | os.O_NONBLOCK)
    virt.mount.ctl(f"cable {virt.unit} unix:{folder}/peer")
    until(lambda: state(virt)["error"] is not None, "an attempt has failed")
    assert state(virt)["error"] == f"cannot connect to unix:{folder}/peer: No such file or directory"
    for connections in (1, 2):
        virt.host_sends(frame(60, 1))  # nobody gets this
        peer = Peer(folder / "peer")
        peer.accept()
        connected(virt)
        virt.host_sends(frame(60, 2))
        assert frames(1, peer.socket) == [frame(60, 2)]
        assert state(virt) == {"state": "connected", "peer": "", "connections": connections, "error": None}
        assert virt.count("rx_dropped") == connections
        peer.close()
        until(lambda: state(virt)["state"] == "connecting", "the end is noticed")
        assert "peer" in str(state(virt)["error"])
    name = f"{virt.name} socket=unix:{folder}/peer"
    seen = [line for line in lines(events) if "connect " in line]
    assert seen == 2 * [f"connect {name}", f"disconnect {name} errno=EPIPE"]


@pytest.mark.parametrize("bad", [struct.pack(">I", 0), struct.pack(">I", 65554) + bytes(9), b"GET / HTTP/1.1\r\n\r\n"])
def test_rubbish_ends_the_connection(virt: Virt, peer: Peer, bad: bytes) -> None:
    cabled(virt, peer)
    peer.socket.sendall(record(frame(60, 1)) + bad)
    assert virt.host_gets() == frame(60, 1)
    assert peer.socket.recv(1) == b""
    assert "invalid frame length" in str(state(virt)["error"]) or state(virt)["state"] == "connected"
    until(
        lambda: any(
            f"{virt.name}: disconnected" in line and "byte 64: invalid frame length" in line for line in virt.mount.log
        ),
        "the log tells why",
    )
    peer.accept()
    peer.socket.sendall(record(frame(60, 2)))
    assert virt.host_gets() == frame(60, 2)


def test_a_slow_peer_loses_frames_into_a_counter(virt: Virt, peer: Peer) -> None:
    """Each frame is delivered to the peer or counted as dropped, whatever happens to the connection."""
    virt.set("queue 16")
    cabled(virt, peer)
    sent = 1000
    virt.host_sends(*(frame(1514, number) for number in range(sent)))
    until(lambda: virt.count("rx_dropped") > 0, "frames are dropped")
    taken = virt.count("rx_frames")
    got = frames(taken, peer.socket)
    peer.socket.settimeout(0.05)
    until(lambda: virt.count("rx_frames") + virt.count("rx_dropped") == sent, "each frame has been sent or dropped")
    got += frames(virt.count("rx_frames") - taken, peer.socket)
    numbers = [int.from_bytes(one[14:18], "big") for one in got]
    assert numbers == sorted(numbers)
    assert counts(virt)[0] == {"frames": len(got), "bytes": 1514 * len(got)}


def test_frames_that_wait_for_a_peer_that_ends_are_dropped(virt: Virt, peer: Peer) -> None:
    def held() -> dict[str, int]:
        memory = json.loads(virt.mount.read("status.json"))["memory"]
        return {kind: memory[kind]["bytes"] for kind in ("frames", "input") if memory[kind]["bytes"]}

    sent = 0

    def full() -> bool:
        nonlocal sent
        virt.host_sends(*(frame(1514, number) for number in range(50)))
        sent += 50
        return "frames" in held()

    cabled(virt, peer)
    until(full, "the socket is full")
    peer.close()
    until(lambda: state(virt)["state"] == "connecting", "the end is noticed")
    until(lambda: virt.count("rx_frames") + virt.count("rx_dropped") == sent, "every frame is counted once")
    out = counts(virt)[0]
    assert out["dropped"] > 0
    assert out["frames"] + out["dropped"] == virt.count("rx_frames")
    assert not held()


def test_seqpacket(virt: Virt, folder: Path) -> None:
    peer = Peer(folder / "peer", socket.SOCK_SEQPACKET)
    virt.mount.ctl(f"cable {virt.unit} seqpacket:{peer.path}")
    peer.accept()
    connected(virt)
    virt.host_sends(frame(60, 1), frame(1514, 2))
    assert [peer.socket.recv(2000) for _ in range(2)] == [frame(60, 1), frame(1514, 2)]
    peer.socket.send(frame(60, 3))
    assert virt.host_gets() == frame(60, 3)
    peer.socket.send(bytes(65554))
    assert peer.socket.recv(1) == b""
    peer.accept()
    connected(virt)
    peer.close()


def test_datagrams(virt: Virt, folder: Path) -> None:
    """The peer may end and start again, even if no frame from the host reveals that it has ended."""
    name = f"dgram:{folder}/peer,{folder}/own"
    virt.mount.ctl(f"cable {virt.unit} {name}")
    for number in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            peer.settimeout(PATIENCE)
            peer.bind(f"{folder}/peer")
            if number:
                until(lambda: not peer.connect_ex(f"{folder}/own"), "the cable follows the path")
                until(lambda: _sends(peer, frame(60, 1)), "the cable accepts frames")
            else:
                peer.sendto(frame(60, 1), f"{folder}/own")
            assert virt.host_gets() == frame(60, 1)
            connected(virt)
            virt.host_sends(frame(60, 2))
            assert peer.recv(2000) == frame(60, 2)
            peer.sendto(b"", f"{folder}/own")
            peer.sendto(bytes(70_000), f"{folder}/own")
            until(lambda: virt.count("tx_dropped") == 2 * (number + 1), "what is no frame is counted")  # noqa: B023
            assert state(virt)["state"] == "connected"
        os.unlink(f"{folder}/peer")
    virt.mount.ctl(f"uncable {virt.unit} {name}")


def _sends(peer: socket.socket, data: bytes) -> bool:
    try:
        peer.send(data)
    except OSError:
        return False
    return True


def test_the_own_socket_of_a_datagram_cable_has_a_default_path(virt: Virt, folder: Path) -> None:
    virt.mount.ctl(f"cable {virt.unit} dgram:{folder}/peer")
    assert [path.name for path in folder.iterdir()] == [f"peer.{virt.name}"]
    virt.mount.ctl(f"destroy {virt.unit}")


def test_listening(virt: Virt, folder: Path) -> None:
    """One peer at a time; further ones are turned away."""
    path = folder / "own"
    virt.set("owner 1000 group 1001")
    virt.mount.ctl(f"cable {virt.unit} unix-listen:{path}")
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1000, 1001, 0o660)
    assert state(virt)["state"] == "listening"
    for number in range(2):
        with socket.socket(socket.AF_UNIX) as peer, socket.socket(socket.AF_UNIX) as second:
            peer.connect(str(path))
            peer.sendall(record(frame(60, number)))
            assert virt.host_gets() == frame(60, number)
            second.settimeout(PATIENCE)
            second.connect(str(path))
            assert second.recv(1) == b""
            virt.host_sends(frame(60, 7))
            peer.settimeout(PATIENCE)
            assert frames(1, peer) == [frame(60, 7)]
        until(lambda: state(virt)["state"] == "listening", "the end is noticed")
    virt.mount.ctl(f"uncable {virt.unit}")
    assert not path.exists()


def test_a_third_end_of_a_wire_is_told_that_it_may_be_taken(virts: Virts, folder: Path) -> None:
    one, two, three = virts(), virts(), virts()
    one.mount.ctl(f"cable {one.unit} unix-listen:{folder}/own\ncable {two.unit} unix:{folder}/own")
    connected(two)
    three.mount.ctl(f"cable {three.unit} unix:{folder}/own")
    until(lambda: "it may have another peer" in str(state(three)["error"]), "the error says so")
    connected(two)
    one.mount.ctl(f"destroy {one.unit}")


def test_the_path_follows_the_rights_of_the_interface(virt: Virt, folder: Path) -> None:
    """A cable that a second user cannot reach yet is opened with `mode`, and no other file is."""
    path, kept = folder / "own", folder / "kept"

    def rights(of: Path) -> tuple[int, int, int]:
        status = of.stat()
        return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)

    virt.mount.ctl(f"cable {virt.unit} unix-listen:{path}")
    assert rights(path) == (0, 0, 0o600)
    virt.set("mode 666")
    assert rights(path) == (0, 0, 0o666)
    virt.set("owner 1000 group 1001")
    assert rights(path) == (1000, 1001, 0o666)
    with fails(errno.EINVAL):
        virt.set("mode 640 netns /nowhere/at/all")
    assert rights(path) == (1000, 1001, 0o666)
    path.rename(kept)
    path.write_text("precious")
    virt.set("mode 600")
    assert stat.S_IMODE(path.stat().st_mode) & 0o044, "another program's file"
    path.unlink()
    virt.set("mode 640")
    virt.mount.ctl(f"destroy {virt.unit}")
    kept.unlink()


def test_a_path_that_is_taken_is_left_alone(virts: Virts, folder: Path) -> None:
    virt, other = virts(), virts()
    path = folder / "own"
    path.write_text("precious")
    for kind in ("unix-listen", "dgram:/nowhere,"):
        line = f"cable {virt.unit} {kind.rstrip(':,')}{',' if ',' in kind else ':'}{path}"
        with fails(errno.EEXIST):
            virt.mount.ctl(line)
        assert "exists and is not a socket" in virt.mount.read("last_error")
    assert path.read_text() == "precious"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(path))
        alive.listen()
        with fails(errno.EADDRINUSE):
            virt.mount.ctl(f"cable {virt.unit} unix-listen:{path}")
        alive.setblocking(False)
        with fails(errno.EAGAIN):
            alive.accept()
    assert path.exists(), "the socket of a program that has ended"
    virt.mount.ctl(f"cable {virt.unit} unix-listen:{path}")
    with fails(errno.EADDRINUSE):
        virt.mount.ctl(f"cable {other.unit} unix-listen:{path}")
    virt.mount.ctl(f"destroy {virt.unit}")
    with fails(errno.ENOENT):
        other.mount.ctl(f"cable {other.unit} unix-listen:{folder}/no/such")


def test_a_path_that_another_file_has_replaced_is_left_alone(virt: Virt, folder: Path) -> None:
    path = folder / "own"
    virt.mount.ctl(f"cable {virt.unit} unix-listen:{path}")
    path.unlink()
    path.write_text("precious")
    virt.mount.ctl(f"destroy {virt.unit}")
    assert path.read_text() == "precious"
    path.unlink()


def test_impairments(virt: Virt, peer: Peer) -> None:
    """The cable's own impairment and that of the interface apply."""
    mount = virt.mount
    cabled(virt, peer, "out loss 100% in delay 1ms duplicate 100%")
    virt.host_sends(frame(60, 1))
    until(lambda: counts(virt)[0] == {"lost": 1}, "the frame is lost")
    peer.socket.sendall(record(frame(60, 2)))
    assert [virt.host_gets() for _ in range(2)] == [frame(60, 2)] * 2
    # On a busy machine, status.json is reused for as long as it took to make.
    until(lambda: counts(virt)[1] == {"frames": 2, "bytes": 120, "duplicated": 1}, "both are counted")
    assert (virt.count("rx_frames"), virt.count("tx_frames")) == (1, 2)
    mount.ctl(f"uncable {virt.unit} unix:{peer.path}")
    assert "cable" not in mount.read("ctl")
    cabled(virt, peer)
    virt.set("impair in duplicate 100%")
    virt.host_sends(frame(60, 3))
    assert frames(2, peer.socket) == [frame(60, 3)] * 2
    virt.set("-impair")
    virt.host_sends(frame(60, 4))
    assert frames(1, peer.socket) == [frame(60, 4)]


def test_a_reader_gets_copies(virt: Virt, peer: Peer) -> None:
    cabled(virt, peer)
    file = virt.open(os.O_RDONLY)
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    virt.host_sends(frame(60, 1))
    assert file.read() == frame(60, 1)
    assert frames(1, peer.socket) == [frame(60, 1)]
    peer.socket.sendall(record(frame(60, 2)))
    assert {(packet.frame, packet.way) for packet in watch.until(2).packets} == {
        (frame(60, 1), "in"),
        (frame(60, 2), "out"),
    }
    assert (virt.count("rx_frames"), virt.count("tx_frames")) == (1, 1)


def test_without_a_connection_the_interface_works_as_without_a_cable(virt: Virt, folder: Path) -> None:
    virt.mount.ctl(f"cable {virt.unit} unix:{folder}/peer")
    file = virt.open()
    virt.host_sends(frame(60, 1))
    assert file.read() == frame(60, 1)
    file.write(frame(60, 2))
    assert virt.host_gets() == frame(60, 2)


def test_frames_that_the_tap_refuses_are_counted(virt: Virt, peer: Peer) -> None:
    """`strict` and antispoof do not end the connection."""
    cabled(virt, peer)
    virt.set("strict antispoof link b2:0a:00:0b:0e:01")  # the source address of test frames
    wrong = b"\xff" * 6 + bytes(6) + frame(60)[12:]
    peer.socket.sendall(record(bytes(10)) + record(bytes(2000)) + record(wrong) + record(frame(60, 1)))
    assert virt.host_gets() == frame(60, 1)
    names = ("tx_frames", "tx_dropped", "tx_short", "tx_oversize", "tx_spoofed")
    assert [virt.count(name) for name in names] == [1, 3, 1, 1, 1]
    until(lambda: counts(virt)[1] == {"frames": 4, "bytes": 10 + 2000 + 60 + 60}, "all are counted")
    virt.set("down")
    peer.socket.sendall(record(frame(60, 2)))
    until(lambda: virt.count("tx_down") == 1, "the frame is dropped")
    virt.set("up")
    peer.socket.sendall(record(frame(60, 3)))
    assert virt.host_gets() == frame(60, 3)


def test_many_short_records(virt: Virt, peer: Peer) -> None:
    """They are handled in several turns, and none of them is lost."""
    cabled(virt, peer)
    peer.socket.sendall(record(b"x") * 9000 + record(frame(60)))
    assert virt.host_gets() == frame(60)
    assert (virt.count("tx_short"), virt.count("tx_frames")) == (9000, 1)


def test_the_tap_vanishes(virt: Virt, peer: Peer) -> None:
    cabled(virt, peer)
    virt.mount.ip(f"link delete {virt.tap}")
    peer.socket.sendall(record(frame(60)))
    until(lambda: virt.count("tx_dropped") == 1, "the frame is counted")
    virt.mount.ctl(f"destroy {virt.unit}")
    assert peer.socket.recv(1) == b""


def test_what_is_refused(virts: Virts, folder: Path) -> None:
    a, b = virts(), virts()
    mount = a.mount
    mount.ctl(f"cable {a.unit} unix:{folder}/peer delay 1ms")
    line = f"cable {a.unit} unix:{folder}/peer delay 1ms"
    assert line in mount.read("ctl")
    before = mount.read("ctl")
    for words, number, why in (
        (
            f"cable {a.unit} unix:{folder}/peer",
            errno.EEXIST,
            f"{a.name} and unix:{folder}/peer already have a cable: take it away with uncable {a.unit} first",
        ),
        (f"cable {a.unit} unix:/other", errno.EBUSY, f"which connects {a.name} and unix:{folder}/peer"),
        (f"cable {a.unit} {b.unit}", errno.EBUSY, f"which connects {a.name} and unix:{folder}/peer"),
        (f"uncable {a.unit} unix:/other", errno.ENOENT, f"there is no cable between {a.name} and unix:/other"),
        (f"cable {b.unit} udp:1.2.3.4:5", errno.EINVAL, '"udp:1.2.3.4:5" is not a socket: it must be unix:PATH'),
        (f"cable {b.unit} unix:relative", errno.EINVAL, '"relative" is not an absolute path'),
        (f"cable {b.unit} tcp:localhost:0", errno.ERANGE, '"0" is outside the range'),
        (f"cable {b.unit} tcp-listen:192.0.2.1:4000", errno.EADDRNOTAVAIL, "cannot listen at tcp-listen:192.0.2.1"),
        (
            f"cable {b.unit} tcp-listen:80",
            errno.EACCES,
            "cannot listen at tcp-listen:80: the port must be 1024 or higher",
        ),
        ("cable 77 unix:/x", errno.ENXIO, "virt77"),
    ):
        for line in (words, *([] if "tcp-listen" in words else [f"check {words}"])):
            with fails(number):
                mount.ctl(line)
            assert why in mount.read("last_error")
    mount.ctl(f"check cable {b.unit} unix-listen:{folder}/own\ncheck uncable {a.unit} unix:{folder}/peer")
    assert mount.read("ctl") == before
    assert f'"{a.name}" -- "unix:{folder}/peer"' in mount.read("topology")


def test_the_lowest_port_is_that_of_the_kernel(virt: Virt) -> None:
    """Containers often have 0 here."""
    mount, lowest = virt.mount, "/proc/sys/net/ipv4/ip_unprivileged_port_start"
    before = mount.sh(f"cat {lowest}; echo 80 >{lowest}")
    try:
        with fails(errno.EACCES):
            mount.ctl(f"cable {virt.unit} tcp-listen:127.0.0.1:79")
        assert "the port must be 80 or higher (net.ipv4.ip_unprivileged_port_start)" in mount.read("last_error")
        mount.ctl(f"cable {virt.unit} tcp-listen:127.0.0.1:80")
    finally:
        mount.sh(f"echo '{before}' >{lowest}")


def test_only_root_makes_one(virt: Virt, folder: Path) -> None:
    """The owner of the interface may not, either."""
    mount = virt.mount
    virt.set("owner 1000")
    words = f"unix-listen:{folder}/own"
    assert "Permission denied" in mount.refused(f"echo cable {virt.unit} {words} >ctl", uid=1000)
    complaint = mount.refused(f"echo cable {words} >{virt.name}/ctl; cat last_error >&2; false", uid=1000)
    assert 'unknown verb "cable"' in complaint
    assert "cable" not in mount.read("ctl")


def test_a_port_of_this_host_without_a_listener(virt: Virt) -> None:
    """The only port that the kernel can choose for the connection is its destination."""
    mount, ports = virt.mount, "/proc/sys/net/ipv4/ip_local_port_range"
    before = mount.sh(f"cat {ports}; echo 40000 40000 >{ports}")
    mount.ctl(f"cable {virt.unit} tcp:127.0.0.1:40000")
    until(lambda: state(virt)["error"], "an attempt has failed")
    refused, no_port = "Connection refused", "Cannot assign requested address"  # the port of the first attempt rests
    errors = [f"cannot connect to tcp:127.0.0.1:40000 at 127.0.0.1: {why}" for why in (refused, no_port)]
    assert state(virt)["error"] in errors
    assert state(virt)["connections"] == 0
    mount.sh(f"echo '{before}' >{ports}")


def test_it_is_restored(lasting: LastingOnes, folder: Path) -> None:
    """This works even after a kill, which leaves the path of the listening socket behind."""
    mount = lasting("state=/mnt/state")
    mount.ctl(f"create 1 up\ncreate 2 up\ncable 1 unix-listen:{folder}/own\ncable 2 tcp-listen:4000 delay 1ms")
    before = mount.read("ctl")
    mount.kill()
    assert (folder / "own").exists()
    mount.again("state=/mnt/state")
    assert mount.read("ctl") == before
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(f"{folder}/own")
        until(lambda: '"state": "connected"' in mount.read("status.json"), "the cable is connected")
    mount.ctl("destroy 1")


def test_its_metrics(virt: Virt, peer: Peer) -> None:
    label = f'{{mount="/mnt/virt",socket="unix:{peer.path}",virt="{virt.name}"}}'
    virt.mount.ctl(f"cable {virt.unit} unix:{peer.path}")
    peer.accept()
    connected(virt)
    lines = virt.mount.read("metrics").splitlines()
    assert f"virtfs_cable_connected{label} 1.0" in lines
    assert f"virtfs_cable_connections_total{label} 1.0" in lines


def test_a_path_inside_the_mount_hangs_nothing(virt: Virt) -> None:
    virt.mount.ctl(f"cable {virt.unit} unix:{DIR}/{virt.name}/frame")
    until(lambda: "onnection refused" in str(state(virt)["error"]), "the attempt has failed")
    with fails(errno.EEXIST):
        virt.mount.ctl(f"uncable {virt.unit} unix:{DIR}/{virt.name}/frame\ncable {virt.unit} unix-listen:{DIR}/ctl")


@pytest.mark.parametrize(("listen", "connect"), [("4000", "127.0.0.1:4000"), ("[::1]:4001", "[::1]:4001")])
def test_tcp(virts: Virts, listen: str, connect: str) -> None:
    """Host names are looked up."""
    left, right = virts(), virts()
    mount = left.mount
    mount.ctl(f"cable {right.unit} tcp-listen:{listen}\ncable {left.unit} tcp:{connect}")
    for virt in (left, right):
        connected(virt)
    assert state(left)["peer"] == connect
    assert re.fullmatch(r"\[(::ffff:127\.0\.0\.1|::1)\]:\d+", state(right)["peer"])
    left.host_sends(*(frame(100, number) for number in range(50)))
    assert [right.host_gets() for _ in range(50)] == [frame(100, number) for number in range(50)]
    right.host_sends(frame(1514))
    assert left.host_gets() == frame(1514)
    mount.ctl(f"destroy {right.unit}")
    until(lambda: "refused" in str(state(left)["error"]), "the next attempt fails")
    assert state(left)["connections"] == 1
    with fails(errno.EHOSTUNREACH):
        mount.ctl(f"ensure {right.unit}\ncable {right.unit} tcp-listen:no.such.host.invalid:4000")
    assert 'cannot look up "no.such.host.invalid"' in mount.read("last_error")
