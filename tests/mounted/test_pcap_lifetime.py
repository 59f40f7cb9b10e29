"""Captures while interfaces appear, move and disappear: nothing hangs, no frame is lost, descriptors are released."""

import errno
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from harness import programs
from harness.captured import Captured
from harness.fixtures import Alone
from harness.places import DIR, Place
from harness.process import fails
from harness.serving import Mount, Virt, Virts, frame
from harness.sockets import There
from harness.waiting import until
from harness.watching import Watch


@pytest.fixture
def net(mount: Mount) -> Iterator[str]:
    """A named network namespace on the mount's machine."""
    mount.ip("netns add net1")
    yield "net1"
    if "net1" in mount.ip("netns list"):
        mount.ip("netns del net1")


def packet_sockets(mount: Mount) -> int:
    """Return the number of packet sockets in the mount's network namespace."""
    return len(mount.sh("cat /proc/net/packet").splitlines()) - 1


def open_files(mount: Mount) -> list[str]:
    """Return what the server's open descriptors refer to, without inode numbers."""
    return [name.split(":")[0] for name in mount.descriptors()]


# --- other network namespaces


def test_a_capture_goes_on_in_another_namespace_and_back(virt: Virt, places: Callable[[], Place]) -> None:
    there = places()
    own, root = Watch(virt.mount, f"{virt.name}/pcap"), Watch(virt.mount, "pcap")
    virt.set("history 1M")
    file = virt.open(os.O_WRONLY)
    sent = []
    for turn in range(3):
        virt.host_sends(frame(60, 10 * turn)) if not turn else file.write(frame(60, 10 * turn))
        virt.set(f"netns {there.pid}")
        file.write(frame(61, 10 * turn + 1))
        There(there, virt.tap).send(frame(62, 10 * turn + 2))
        virt.write("tap/netns", "\n")
        file.write(frame(63, 10 * turn + 3))
        sent += [frame(60 + at, 10 * turn + at) for at in range(4)]
    for watch in (own, root):
        seen = watch.until(12)
        assert seen.frames == sent
        assert seen.interfaces == [virt.name]
        assert not watch.ended
    history = virt.mount.root.call(Path.read_bytes, Path(f"{DIR}/{virt.name}/history"))
    assert Captured(history).frames == sent


def test_moved_by_another_s_hand(virt: Virt, places: Callable[[], Place]) -> None:
    there = places()
    own, root = Watch(virt.mount, f"{virt.name}/pcap"), Watch(virt.mount, "pcap")
    virt.mount.ip(f"link set {virt.tap} netns {there.pid}")
    there.ip(f"link set {virt.tap} addrgenmode none")
    until(lambda: virt.read("tap/netns"), "the server has noticed the move")
    there.ip(f"link set {virt.tap} up")
    virt.until("up", "1")
    sender = There(there, virt.tap)

    def seen() -> bool:  # the capture follows once the server has noticed the move
        sender.send(frame(60, 1))
        return frame(60, 1) in own.look().frames and frame(60, 1) in root.look().frames

    until(seen, "frames are captured there")


def test_a_capture_that_begins_there(virt: Virt, net: str) -> None:
    virt.set(f"netns {net}")
    virt.set("filter ether[17] > 5")
    watch, file = Watch(virt.mount, f"{virt.name}/pcap"), virt.open(os.O_WRONLY)
    file.write(frame(60, 1))
    assert watch.until(1).frames == [frame(60, 1)]


def test_a_namespace_that_is_deleted_while_a_capture_runs(virt: Virt, net: str) -> None:
    """The namespace, with the tap in it, stays without its name until the capture ends."""
    virt.set(f"netns {net}")
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    virt.open(os.O_WRONLY).write(frame(60, 1))
    virt.mount.ip(f"netns del {net}")
    watch.until(1)
    watch.file.close()
    until(lambda: virt.read("up") == "0", "the tap goes with its namespace")
    with fails(errno.ENXIO):
        Watch(virt.mount, f"{virt.name}/pcap")
    assert "gone" in virt.mount.read("last_error")


# --- interfaces that are deleted


def test_deleted_by_the_host(virts: Virts) -> None:
    """The interface's capture ends with statistics. The root's capture and those of other interfaces continue."""
    virt, other = virts(), virts()
    mount = virt.mount
    own, root, others = (Watch(mount, name) for name in (f"{virt.name}/pcap", "pcap", f"{other.name}/pcap"))
    virt.set("history 1M")
    virt.host_sends(*(frame(60, number) for number in range(20)))
    mount.ip(f"link del {virt.tap}")
    until(lambda: own.look() and own.ended, "the interface's capture ends")
    assert own.look().frames == [frame(60, number) for number in range(20)]
    assert own.look().statistics == [(20, 0)]
    other.host_sends(frame(60, 99))
    assert others.until(1).frames == [frame(60, 99)]
    seen = root.until(21)
    assert seen.statistics == [(20, 0)]
    assert not root.ended
    history = mount.root.call(Path.read_bytes, Path(f"{DIR}/{virt.name}/history"))
    assert len(Captured(history).frames) == 20
    with fails(errno.ENXIO):
        Watch(mount, f"{virt.name}/pcap")


def test_deleted_while_a_read_and_a_poll_wait(virts: Virts) -> None:
    virt = virts()
    read, polled = (virt.mount.root.open(f"{virt.name}/pcap", os.O_RDONLY) for _ in range(2))
    for file in (read, polled):
        file.read()
    reading, polling = read.begin_read().waiting(), polled.begin_poll(select.POLLIN)
    virt.mount.ip(f"link del {virt.tap}")
    assert reading.result()
    assert read.read() == b""
    assert polling.result() == select.POLLIN
    assert polled.read()
    assert polled.read() == b""


def test_opened_while_it_is_destroyed(virts: Virts) -> None:
    """An open succeeds, or fails with ENXIO or ENOENT. Opened captures end, and nothing is left behind."""
    mount = virts().mount
    before, sockets = open_files(mount), packet_sockets(mount)
    process = mount.process()
    for turn in range(10):
        mount.ctl(f"create {900 + turn} up")
        opening = [process.begin(_open_and_read, f"{DIR}/virt{900 + turn}/pcap") for _ in range(5)]
        roots = [process.begin(os.open, f"{DIR}/pcap", os.O_RDONLY) for _ in range(3)]
        mount.ctl(f"destroy {900 + turn}")
        assert {each.result() for each in opening} <= {"ended", "ENXIO", "ENOENT"}
        for root in roots:
            process.call(os.close, root.result())
    until(lambda: packet_sockets(mount) == sockets, "no packet socket is left")
    until(lambda: open_files(mount) == before, "all descriptors are released")


def _open_and_read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    try:
        while os.read(fd, 65536):
            pass
    finally:
        os.close(fd)
    return "ended"


def test_made_while_the_root_s_is_closed(mount: Mount) -> None:
    before, sockets = open_files(mount), packet_sockets(mount)
    process = mount.process()
    for turn in range(10):
        roots = [process.call(os.open, f"{DIR}/pcap", os.O_RDONLY) for _ in range(3)]
        making = process.begin(_write, f"{DIR}/ctl", f"create {900 + turn} up\n")
        for root in roots:
            process.call(os.close, root)
        making.result()
    until(lambda: packet_sockets(mount) == sockets, "no packet socket is left")
    for turn in range(10):
        mount.ctl(f"destroy {900 + turn}")
    until(lambda: open_files(mount) == before, "all descriptors are released")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def test_down_and_up_again_and_again(virt: Virt) -> None:
    watch, file = Watch(virt.mount, f"{virt.name}/pcap"), virt.open(os.O_WRONLY)
    for number in range(20):
        virt.set("down")
        file.write(frame(60, 200))
        virt.set("up")
        file.write(frame(60, number))
    assert watch.until(20).frames == [frame(60, number) for number in range(20)]
    with fails(errno.EAGAIN):
        watch.file.read()


def test_renamed(virt: Virt) -> None:
    watch, file = Watch(virt.mount, f"{virt.name}/pcap"), virt.open(os.O_WRONLY)
    virt.mount.ip(f"link set {virt.tap} name eth9")
    file.write(frame(60, 1))
    assert watch.until(1).frames == [frame(60, 1)]
    late = Watch(virt.mount, f"{virt.name}/pcap")
    file.write(frame(60, 2))
    assert late.until(1).frames == [frame(60, 2)]


# --- the root's capture


def test_order_of_time_over_interfaces(virts: Virts) -> None:
    some = [virts() for _ in range(5)]
    mount = some[0].mount
    watch = Watch(mount, "pcap")
    files = [virt.open(os.O_WRONLY) for virt in some]
    mount.root.call(_alternate, [file.fd for file in files], [frame(60, number) for number in range(200)], 5)
    seen = watch.until(1000)
    assert [packet.frame for packet in seen.packets] == [
        frame(60, number) for number in range(200) for _ in range(5)
    ], "in the order in which they were written"
    times = [packet.time for packet in seen.packets]
    assert times == sorted(times)
    assert [packet.interface for packet in seen.packets[:5]] == [virt.name for virt in some]


def _alternate(fds: list[int], frames: list[bytes], times: int) -> None:
    for each in frames:
        for fd in fds[:times]:
            os.write(fd, each)


def test_one_goes_amid_others_frames(virts: Virts) -> None:
    """The statistics of a destroyed interface follow its frames."""
    one, other, gone = virts(), virts(), virts()
    mount = one.mount
    watch = Watch(mount, "pcap")
    files = [virt.open(os.O_WRONLY) for virt in (one, gone, other)]
    process = mount.process()
    writer = [process.call(os.open, f"{DIR}/{virt.name}/frame", os.O_WRONLY) for virt in (one, other)]
    mount.root.call(_alternate, [file.fd for file in files], [frame(60, number) for number in range(100)], 3)
    writing = process.begin(_alternate, writer, [frame(61, number) for number in range(500)], 2)
    mount.ctl(f"destroy {gone.unit}")
    writing.result()
    seen = watch.until(1300)
    times = [packet.time for packet in seen.packets]
    assert times == sorted(times)
    assert len(seen.packets) == 1300
    until(lambda: watch.look().statistics, "statistics appear")
    seen = watch.look()
    assert seen.statistics == [(100, 0)]
    of_it = [type(block).__name__ for block in seen.blocks[1:] if _interface(block) == gone.name]
    assert of_it == ["InterfaceDescription", *["EnhancedPacket"] * 100, "InterfaceStatistics"]


def _interface(block: Any) -> str:
    """Return the name of the interface that a block is about."""
    name: str = getattr(block, "interface", block).options["if_name"]
    return name


@pytest.mark.timeout(120)
def test_many_interfaces(alone: Alone) -> None:
    """More interfaces than get a large ring. Every descriptor and every packet socket is released."""
    mount = alone()
    mount.ctl("\n".join(f"create {unit} up" for unit in range(40)))
    before, sockets = open_files(mount), packet_sockets(mount)
    watch = Watch(mount, "pcap")
    owns = [Watch(mount, f"virt{unit}/pcap") for unit in (0, 39)]
    assert packet_sockets(mount) == sockets + 40
    process = mount.process()
    fds = [process.call(os.open, f"{DIR}/virt{unit}/frame", os.O_WRONLY) for unit in range(40)]
    process.call(_alternate, fds, [frame(60, number) for number in range(20)], 40)
    seen = watch.until(800)
    assert seen.frames == [frame(60, number) for number in range(20) for _ in range(40)]
    assert {packet.interface for packet in seen.packets} == {f"virt{unit}" for unit in range(40)}
    assert all(packet.lost == 0 for packet in seen.packets)
    for own in owns:
        assert own.until(20).frames == [frame(60, number) for number in range(20)]
    process.close()
    for each in (watch, *owns):
        each.file.close()
    until(lambda: packet_sockets(mount) == sockets, "no packet socket is left")
    until(lambda: open_files(mount) == before, "all descriptors are released")


def test_a_long_frame_in_a_small_ring_is_cut_and_says_so(alone: Alone) -> None:
    """Rings after the first 32 have small blocks."""
    mount = alone()
    mount.ctl("\n".join(f"create {unit} mtu 40000 up" for unit in range(34)))
    watch = Watch(mount, "pcap")
    for unit in range(34):
        mount.root.open(f"virt{unit}/frame", os.O_WRONLY).write(frame(30000, unit))
    seen = watch.until(34)
    lengths = sorted(len(each) for each in seen.frames)
    assert lengths[2:] == [30000] * 32
    assert 15000 < lengths[0] <= lengths[1] < 16384
    told = [block.packet_len for block in seen.blocks if hasattr(block, "packet_len")]
    assert told == [30000] * 34


def one_beyond(alone: Alone, others: int) -> tuple[Mount, Watch]:
    """Start captures of `others` interfaces, then one of virt99, whose ring is small if there are 32 others."""
    mount = alone()
    mount.ctl("\n".join(f"create {unit} up" for unit in (*range(others), 99)))
    for unit in range(others):
        Watch(mount, f"virt{unit}/pcap")
    watch = Watch(mount, "virt99/pcap")
    watch.look()
    return mount, watch


@pytest.mark.parametrize("others", [0, 32])
def test_a_server_that_is_held_up_loses_nothing_of_a_trickle(alone: Alone, others: int) -> None:
    """The server is stopped for 25 ms, as on a busy machine. The kernel hands over blocks by its clock meanwhile."""
    mount, watch = one_beyond(alone, others)
    wire = mount.root.call(programs.wire, "tap99")
    expected: list[bytes] = []
    for _ in range(5):
        mount.server.send_signal(signal.SIGSTOP)
        sent = mount.root.call(_trickle, wire, 0.025)
        mount.server.send_signal(signal.SIGCONT)
        expected += [frame(60, number) for number in range(sent)]
        seen = watch.until(len(expected))
    assert seen.frames == expected


def test_what_the_kernel_has_no_room_for_is_counted(alone: Alone) -> None:
    """The loss is reported in the stream and in clients. The capture continues with the next frames."""
    mount, watch = one_beyond(alone, 32)
    wire = mount.root.call(programs.wire, "tap99")
    mount.server.send_signal(signal.SIGSTOP)
    mount.root.call(programs.send, wire, tuple(frame(60, number) for number in range(2000)))
    mount.server.send_signal(signal.SIGCONT)
    until(lambda: watch.look().statistics, "the loss is reported")
    seen = watch.look()
    held = len(seen.frames)
    assert 100 < held < 1000
    assert seen.frames == [frame(60, number) for number in range(held)]
    assert seen.statistics == [(2000, 2000 - held)]
    (client,) = [line for line in mount.read("virt99/clients").splitlines() if "pcap" in line]
    assert client.split()[3:6] == [str(held), "0", str(2000 - held)]
    mount.root.call(programs.send, wire, (frame(60, 9),))
    assert watch.until(held + 1).packets[-1].frame == frame(60, 9)


def _trickle(wire: int, seconds: float) -> int:
    """Send frames for that many seconds, with a pause of 1 ms after each. Returns how many were sent."""
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        programs.send(wire, (frame(60, number),))
        number += 1
        select.select([], [], [], 0.001)
    return number


# --- the end of the mount, and of readers


def test_the_mount_ends_while_captures_run(alone: Alone) -> None:
    """Waiting readers get an error, and the server ends at once with status 0."""
    mount = alone()
    mount.ctl("create 1 up history 1M\ncreate 2 up")
    process = mount.process()
    waiting = []
    for name in ("virt1/pcap", "virt2/pcap", "pcap"):
        file = process.open(name, os.O_RDONLY)
        file.read()
        waiting.append(file.begin_read().waiting())
    assert mount.end(signal.SIGTERM) == 0
    for each in waiting:
        with suppress(OSError):  # ENXIO, unless the read has returned the end of the file
            each.result()


def test_the_mount_ends_while_captures_begin(alone: Alone) -> None:
    for _ in range(3):
        mount = alone()
        mount.ctl("\n".join(f"create {unit} up" for unit in range(5)))
        process = mount.process()
        opening = [process.begin(os.open, f"{DIR}/{name}", os.O_RDONLY) for name in ("virt1/pcap", "pcap", "pcap")]
        setting = process.begin(_write, f"{DIR}/virt2/history_size", "1M\n")
        assert mount.end(signal.SIGTERM) == 0
        for each in opening:
            with suppress(OSError):
                each.result()
        with suppress(OSError):
            setting.result()


def test_a_reader_that_is_killed(virt: Virt) -> None:
    mount = virt.mount
    sockets = packet_sockets(mount)
    for name in (f"{virt.name}/pcap", "pcap"):
        process = mount.process()
        file = process.open(name, os.O_RDONLY)
        file.read()
        file.begin_read().waiting()
        process.kill()
    until(lambda: packet_sockets(mount) == sockets, "the ring is released")


def test_readers_that_come_and_go(virt: Virt) -> None:
    """Readers open and close while frames pass. The last close releases the ring."""
    mount = virt.mount
    before, sockets = open_files(mount), packet_sockets(mount)
    file = virt.open(os.O_WRONLY)
    for number in range(20):
        watches = [Watch(mount, name) for name in (f"{virt.name}/pcap", "pcap")]
        file.write(frame(60, number))
        for watch in watches:
            assert watch.until(1).frames == [frame(60, number)]
            watch.file.close()
    file.close()
    until(lambda: packet_sockets(mount) == sockets, "no packet socket is left")
    until(lambda: open_files(mount) == before, "all descriptors are released")


# --- without permission


@pytest.fixture
def bare(alone: Alone) -> Mount:
    """A mount whose server has no CAP_NET_RAW."""
    return alone("", ("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"))


def test_without_the_capability(bare: Mount) -> None:
    """Opening pcap fails with EPERM, and last_error says why. Everything else works."""
    virt = Virt(bare, 1)
    before = open_files(bare)
    for _ in range(3):
        with fails(errno.EPERM):
            Watch(bare, f"{virt.name}/pcap")
        assert "CAP_NET_RAW" in bare.read("last_error")
    with fails(errno.EPERM):
        Watch(bare, "pcap")
    assert bare.read("last_error").startswith("pcap: capturing needs CAP_NET_RAW")
    with fails(errno.EPERM):
        virt.set("mtu 1400 history 1M")
    assert "CAP_NET_RAW" in bare.read("last_error")
    assert (virt.read("history_size"), virt.read("mtu")) == ("0", "1500")
    with fails(errno.EPERM):
        virt.write("history_size", "1M\n")
    with fails(errno.EPERM):
        bare.ctl("create 2 up history 1M")
    assert not bare.exists("virt2")
    assert open_files(bare) == before
    file = virt.open()
    virt.host_sends(frame(60, 1))
    assert file.read() == frame(60, 1)
    file.write(frame(60, 2))
    assert virt.host_gets() == frame(60, 2)
    virt.set("filter arp")
    assert virt.read("clients").count("pcap") == 0
