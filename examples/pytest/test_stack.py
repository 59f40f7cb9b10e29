"""A network stack in Python under test, here that of examples/responder.py, which answers ARP and ping.

    virtfs shell -- pytest examples/pytest

The kernel is the other end of the wire: its tap is in a namespace of its own, so that no address clashes.
"""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import virtfs
from virtfs.testing.netns import Netns

sys.path.append(str(Path(__file__).parents[1]))
from responder import answer

OUR_IP = "10.0.0.2"


@pytest.fixture
def port(virt: virtfs.Virt, netns: Netns) -> Iterator[virtfs.Port]:
    """The frames of an interface whose host has the address 10.0.0.1."""
    virt.set(netns=netns.pid)
    virt.set(inet="10.0.0.1/24")
    virt.wait("carrier", timeout=20)
    with virt.open() as port:
        yield port


@pytest.fixture
def stack(virt: virtfs.Virt, port: virtfs.Port) -> Callable[[], bytes]:
    """A function that answers the next frame. It returns the answer."""
    mac = bytes.fromhex(virt.address.replace(":", ""))

    def step() -> bytes:
        said = answer(port.recv(timeout=20), mac, socket.inet_aton(OUR_IP)) or b""
        port.send(said)
        return said

    return step


def test_ping(netns: Netns, stack: Callable[[], bytes]) -> None:
    ping = netns.start("ping", "-nc1", "-w20", OUR_IP, stdout=subprocess.DEVNULL)
    assert stack()[12:14] == b"\x08\x06"  # ARP
    assert stack()[34] == 0  # the type of an ICMP echo reply
    assert ping.wait() == 0


def test_the_host_learns_our_mac(virt: virtfs.Virt, netns: Netns, stack: Callable[[], bytes]) -> None:
    netns.start("ping", "-nc1", "-w20", OUR_IP, stdout=subprocess.DEVNULL)
    stack()
    stack()  # the host pings only after it has taken the ARP reply
    assert virt.address in netns.run("ip", "neighbour", "show", OUR_IP).stdout
