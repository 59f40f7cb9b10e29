"""virtfs.scapy: what scapy does with a socket, on a frame file whose other end is the host's kernel."""

import doctest
import errno
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from harness.serving import Mount, frame
from harness.waiting import PATIENCE, until
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, ARP_am, Ether
from scapy.packet import Packet, Raw
from scapy.sendrecv import AsyncSniffer, sendp, sniff

import virtfs
from virtfs.scapy import VirtSocket

from .waiting import Waiting, fails

MAC = "02:00:00:00:00:06"
BROADCAST = "ff:ff:ff:ff:ff:ff"
HOST, OWN = "10.8.0.1", "10.8.0.2"


@pytest.fixture
def wire(v: virtfs.Virt) -> Iterator[VirtSocket]:
    """Return the socket of a virt whose tap has the address HOST."""
    v.set(inet=f"{HOST}/24")
    with VirtSocket(v) as wire:
        yield wire


@pytest.fixture
def host(mount: Mount, wire: VirtSocket) -> Callable[..., None]:
    """Return a function that sends frames from the host through the tap of virt3."""
    from harness import programs

    tap = mount.root.call(programs.wire, "tap3")
    return lambda *frames: mount.root.call(programs.send, tap, frames)


def who_has() -> Packet:
    return Ether(src=MAC, dst=BROADCAST) / ARP(hwsrc=MAC, psrc=OWN, pdst=HOST)


def ping(v: virtfs.Virt, number: int) -> Packet:
    """Return an echo request for the host."""
    to_host = Ether(src=MAC, dst=v.host.address) / IP(src=OWN, dst=HOST)
    return to_host / ICMP(id=7, seq=number) / Raw(b"hello")


def ours(packet: Packet) -> bool:
    """Return whether a frame is one of harness.serving.frame(), and not one that the kernel sends on its own."""
    return bool(packet.type == 0x88B5)


def answering(wire: VirtSocket) -> None:
    """Make the host know the address of OWN."""
    assert wire.sr1(who_has(), timeout=PATIENCE, verbose=False) is not None


def test_one_answer(wire: VirtSocket, v: virtfs.Virt) -> None:
    for ask in (wire.sr1, wire.srp1):
        found = ask(who_has(), timeout=PATIENCE, verbose=False)
        assert found is not None
        assert (found[ARP].hwsrc, found[ARP].psrc) == (v.host.address, HOST)


@pytest.mark.parametrize("threaded", [True, False])
def test_many_answers(wire: VirtSocket, v: virtfs.Virt, threaded: bool) -> None:
    answering(wire)
    for ask in (wire.sr, wire.srp):
        requests = [ping(v, number) for number in range(20)]
        answered, lost = ask(requests, timeout=PATIENCE, verbose=False, threaded=threaded)
        assert len(lost) == 0
        assert [(sent[ICMP].seq, got[ICMP].seq, got[ICMP].type) for sent, got in answered] == [
            (number, number, 0) for number in range(20)
        ]
        assert all(float(got.time) >= float(sent.sent_time or 0) > 1e9 for sent, got in answered)


def test_sniff(wire: VirtSocket, host: Callable[..., None]) -> None:
    frames = [frame(60 + number, number) for number in range(5)]
    host(*frames)
    seen = wire.sniff(count=3, lfilter=ours, timeout=PATIENCE)
    seen += sniff(opened_socket=wire, count=2, lfilter=ours, timeout=PATIENCE)
    assert [bytes(packet) for packet in seen] == frames
    assert {type(packet) for packet in seen} == {Ether}
    assert len(wire.sniff(timeout=0.01, lfilter=ours)) == 0


def test_sniff_ends_when_the_interface_is_destroyed(wire: VirtSocket, v: virtfs.Virt) -> None:
    running = Waiting(wire.sniff, 0)
    running.asleep()
    v.destroy()
    running.result()
    assert wire.closed


def test_an_answering_machine(wire: VirtSocket, mount: Mount) -> None:
    machine = wire.am(ARP_am, IP_addr=OWN, ARP_addr=MAC, verbose=False)
    sniffer = machine.bg()
    mount.root.begin(ask_neighbour, OWN).result(PATIENCE)
    assert MAC in mount.ip(f"neigh show {OWN}")
    sniffer.stop()


def ask_neighbour(address: str) -> None:
    """Send a datagram from the host, and wait until the kernel knows the neighbour. Runs in the mount's namespace."""
    from harness.waiting import until

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (address, 9))
    command = ["ip", "-4", "neigh", "show", address]
    until(lambda: "lladdr" in subprocess.run(command, capture_output=True, text=True).stdout, f"{address} is known")


def test_sending_and_receiving_at_the_same_time(wire: VirtSocket, v: virtfs.Virt) -> None:
    answering(wire)
    number = 200
    sniffer = AsyncSniffer(opened_socket=wire, lfilter=lambda packet: ICMP in packet, count=number)
    sniffer.start()
    halves = [[ping(v, n) for n in range(first, number, 2)] for first in (0, 1)]
    for sender in [Waiting(sendp, half, socket=wire, verbose=False) for half in halves]:
        sender.result()
    sniffer.join(PATIENCE)
    assert sorted(packet[ICMP].seq for packet in sniffer.results or ()) == [*range(number)]


def test_sendp_and_bytes(wire: VirtSocket, v: virtfs.Virt) -> None:
    before = v.stats["tx_frames"]
    sendp([who_has(), who_has()], socket=wire, verbose=False)
    assert wire.send(frame(77)) == 77
    assert wire.send(who_has()) == len(who_has())
    assert v.stats["tx_frames"] == before + 4


def ready(*sockets: VirtSocket | socket.socket) -> list[object]:
    """Wait until one of the sockets has data, and return those that have."""
    return list(select.select([*sockets], [], [], PATIENCE)[0])


def test_several_receivers_do_not_block_each_other(wire: VirtSocket, host: Callable[..., None]) -> None:
    """A receiver that wakes up after another has taken the frame keeps its time-out."""
    sniffers = [AsyncSniffer(opened_socket=wire, lfilter=ours) for _ in range(3)]
    for sniffer in sniffers:
        sniffer.start()
    host(*(frame(60, number) for number in range(50)))
    until(lambda: not select.select([wire.fileno()], [], [], 0)[0], "all frames have been taken")
    seen = [bytes(packet) for sniffer in sniffers for packet in sniffer.stop() or ()]
    assert sorted(seen) == sorted(frame(60, number) for number in range(50))
    assert wire.recv() is None


def test_select_beside_another_socket(wire: VirtSocket, host: Callable[..., None]) -> None:
    wire.sniff(timeout=0.01)
    near, far = socket.socketpair()
    with near, far:
        far.send(b"x")
        assert near in ready(wire, near)
        near.recv(1)
        host(frame(60))
        assert ready(wire, near) == [wire]
        assert VirtSocket.select([wire], PATIENCE) == [wire]


def test_paths_and_modes(v: virtfs.Virt) -> None:
    for virt in (v, v.path, str(v.path), v.path / "frame"):
        with VirtSocket(virt) as wire:
            wire.send(frame(60))
    with VirtSocket(v, "r") as wire, fails(errno.EBADF):
        wire.send(frame(60))
    with fails(errno.ENOENT):
        VirtSocket(v.path / "wobble")


def test_close(v: virtfs.Virt) -> None:
    wire = VirtSocket(v)
    fd = wire.fileno()
    assert "frame" in os.readlink(f"/proc/self/fd/{fd}")
    wire.close()
    wire.close()
    assert wire.closed
    assert wire.port.closed
    with pytest.raises(ValueError, match="is closed"):
        wire.send(who_has())
    assert v.clients == []


def test_errors_have_the_path(v: virtfs.Virt) -> None:
    with VirtSocket(v) as wire:
        v.set(strict=True, up=False)
        with fails(errno.ENETDOWN, "frame"):
            wire.send(who_has())
        with fails(errno.EHOSTDOWN, "frame"):
            wire.recv()


def test_the_example_of_the_docstring(wire: VirtSocket, v: virtfs.Virt) -> None:
    wire.close()
    names = {"VirtSocket": VirtSocket, "Ether": Ether, "ARP": ARP, "v": v}
    text = (VirtSocket.__doc__ or "").replace("10.0.3.1", HOST)
    test = doctest.DocTestParser().get_doctest(text, names, "VirtSocket", None, 0)
    assert test.examples
    assert not doctest.DocTestRunner().run(test).failed


def test_without_scapy() -> None:
    program = "import sys; sys.modules['scapy'] = None; import virtfs.scapy"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    sentence = f"virtfs.scapy needs scapy 2.5 or newer: run `{sys.executable} -m pip install scapy`"
    assert done.stderr.splitlines()[-1] == f"ImportError: {sentence}"


def test_without_scapy_in_the_checkout_of_another_user() -> None:
    """Root may not own the environment either: pip must run as its owner."""
    program = "import os, sys; os.setuid(65534); sys.modules['scapy'] = None; import virtfs.scapy"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    owner = f"as the owner of {sys.prefix}, run `{sys.executable} -m pip install scapy`"
    assert done.stderr.splitlines()[-1].endswith(owner), done.stderr
