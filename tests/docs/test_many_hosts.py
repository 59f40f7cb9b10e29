"""The lines of doc/many-hosts.md join two machines."""

from collections.abc import Callable, Iterator

import pytest
from harness.serving import Mount, frame
from harness.waiting import until

from .markdown import ROOT, blocks, section
from .test_works_with import hosts_of

_PAGE = (ROOT / "doc/many-hosts.md").read_text()


def lines(heading: str) -> list[str]:
    """Return the blocks of a section."""
    return [block.text for block in blocks(section(_PAGE, heading))]


@pytest.fixture
def hosts(alone: Callable[..., Mount]) -> Iterator[tuple[Mount, Mount]]:
    yield from hosts_of(alone)


def test_vxlan(hosts: tuple[Mount, Mount]) -> None:
    (block,) = lines("Bridges with VXLAN ports")
    there = block.replace("192.0.2.1", "HERE").replace("192.0.2.2", "192.0.2.1").replace("HERE", "192.0.2.2")
    hosts[0].sh(block)
    hosts[1].sh(there.replace("10.0.4.1", "10.0.4.2"))
    hosts[0].sh("ping -q -c1 -w5 10.0.4.2; ping -q -c1 -s 1422 -M do -w5 10.0.4.2")
    near, far = (host.root.open("virt3/frame") for host in hosts)
    near.write(frame(1400))
    until(lambda: far.read() == frame(1400), "the frame")
    for host in hosts:
        host.sh("echo destroy bridge0 >ctl; ip link delete vxlan7")


def test_cable(hosts: tuple[Mount, Mount]) -> None:
    there, here = lines("Cables over TCP")
    hosts[0].sh(here)
    hosts[1].sh(there)
    hosts[0].sh("ping -q -c2 -i0.1 -w10 10.0.3.2; ping -q -c1 -s 1472 -M do -w5 10.0.3.2")
