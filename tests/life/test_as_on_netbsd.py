"""The cases of NetBSD's tests for if_tap (tests/net/if_tap/t_tap.sh): create and destroy, stand-alone, bridged.

NetBSD's tests ping from a rump kernel. These ping from another network namespace, and a program on the frame file
answers.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.places import DIR, Place
from harness.serving import Mount, Virt, Virts
from harness.waiting import until

RESPONDER = Path(__file__).parents[2] / "examples/responder.py"
HOST, TAP, PROGRAM, PEER = "10.0.0.1", "10.0.1.1", "10.0.1.2", "10.0.0.2"


@pytest.fixture
def peer(mount: Mount, elsewhere: Place) -> Iterator[Place]:
    """Another machine on an Ethernet with the host. The host has 10.0.0.1, the other machine 10.0.0.2."""
    mount.ip("link add v0 type veth peer name v1")
    mount.ip(f"link set v1 netns {elsewhere.pid}")
    mount.ip(f"addr add {HOST}/24 dev v0")
    mount.ip("link set v0 up")
    elsewhere.ip(f"addr add {PEER}/24 dev v1")
    elsewhere.ip("link set v1 up")
    yield elsewhere
    mount.ip("link del v0")


def pings(place: Place, address: str) -> bool:
    """Flush the neighbour cache, which may hold an earlier failure, and return whether a ping is answered."""
    return "1 received" in place.sh(f"ip neigh flush all; ping -q -c1 -W5 {address} || true")


def silent(place: Place, address: str) -> bool:
    """Return whether a ping is not answered within a second."""
    return "1 received" not in place.sh(f"ping -q -c1 -W1 {address} || true")


def answers(virt: Virt, address: str) -> None:
    """Start a program on the frame file that answers as a host with that address."""
    virt.mount.start(sys.executable, str(RESPONDER), f"{DIR}/{virt.name}", address, stderr=subprocess.PIPE)
    assert virt.read("wait/reader") == "1"


def test_create_and_destroy(mount: Mount) -> None:
    for _ in range(3):
        mount.sh("echo create 0 >ctl; echo virt0 up >ctl; ip link show tap0 | grep -q UP; echo destroy 0 >ctl")
        assert mount.links() == ["lo"]
        assert mount.units() == []


def test_stand_alone(mount: Mount, virts: Virts, peer: Place) -> None:
    """The tap is a separate network. The host reaches it, and the other machine does once it has a route."""
    virt = virts(f"inet {TAP}/24 up")
    assert pings(mount, PEER)
    assert pings(mount, TAP)
    assert silent(mount, PROGRAM)
    answers(virt, PROGRAM)
    assert pings(mount, PROGRAM)
    assert silent(peer, TAP)
    peer.ip(f"route add 10.0.1.0/24 via {HOST}")
    assert pings(peer, TAP)
    virt.set("down")
    assert silent(mount, PROGRAM)


def test_bridged(mount: Mount, virts: Virts, peer: Place) -> None:
    """The program answers the other machine over the bridge, but not without the bridge."""
    virt = virts("up")
    answers(virt, "10.0.0.3")
    assert silent(peer, "10.0.0.3")
    mount.ctl(f"create bridge0 up add v0 add {virt.tap}")
    assert pings(peer, "10.0.0.3")
    learned = mount.sh("bridge fdb show br bridge0")
    assert f"{virt.read('address')} dev {virt.tap} master bridge0" in learned
    rows = [row.split() for row in mount.read("bridge/bridge0/addresses").splitlines()]
    assert [virt.read("address"), virt.tap] in [row[:2] for row in rows]
    mount.ctl(f"bridge0 delete {virt.tap}")
    assert silent(peer, "10.0.0.3")
    mount.ctl(f"virt{virt.unit} bridge bridge0")
    assert pings(peer, "10.0.0.3")
    mount.ctl("bridge0 down")
    assert silent(peer, "10.0.0.3")
    mount.ctl("bridge0 up")
    assert pings(peer, "10.0.0.3")
    mount.ctl(f"destroy {virt.unit}")
    until(lambda: mount.read("bridge/bridge0/members") == "v0", "the bridge has one member")
    assert silent(peer, "10.0.0.3")
    mount.ctl("destroy bridge0")
    assert mount.has("v0")


def test_two_programs_on_one_bridge(mount: Mount, virts: Virts, peer: Place) -> None:
    """The programs do not disturb each other, and each gets the frames that are for it."""
    one, other = virts("up"), virts("up")
    mount.ctl(f"create bridge0 up add v0 add {one.tap} add {other.tap}")
    answers(one, "10.0.0.3")
    answers(other, "10.0.0.4")
    for virt, address in ((one, "10.0.0.3"), (other, "10.0.0.4")):
        assert pings(peer, address)
        assert f"lladdr {virt.read('address')}" in peer.ip(f"neigh show {address}")
    mount.ctl(f"bridge0 protect {one.tap} protect {other.tap}")
    assert pings(peer, "10.0.0.4"), "protected from each other only"
    mount.ctl("destroy bridge0")
