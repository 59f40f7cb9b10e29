"""Another program may delete a port or the bridge at any moment, even while a port's addresses are being moved."""

import errno

import pytest
from harness import told
from harness.fixtures import Alone
from harness.places import Place

from .forking import Forking
from .machine import clear, machine

# Carries out a line as the daemon does, and deletes the port or the bridge (`victim`) after step `last`. Prints the
# errno of the failure (0 for success), whether step `last` exists, and how many adopted ports are remembered.
_CHILD = """
import subprocess, sys
from virtfs.core.bridgeplan import Taps
from virtfs.core.errors import VirtError
from virtfs.core.grammar import parse_verbs
from virtfs.core.verbs import BRIDGE
from virtfs.daemon.bridge_verbs import carry_out
from virtfs.host import bridge_adopt
from virtfs.host.bridge import HostBridge
from virtfs.host.bridge_make import make
from virtfs.host.links import Links
from virtfs.host.rtnl import Rtnl
NONE = Taps({}, {})
def once(way, last, victim):
    rtnl, links = Rtnl(), Links()
    bridge = HostBridge(rtnl, links, "bridge0", make(rtnl, links, "bridge0"))
    if way == "give_back":
        bridge.adopt("eth0")
    take, number, step = getattr(bridge_adopt, way), 0, 0
    def interrupted(*args):
        nonlocal step
        for step, word in enumerate(take(*args), 1):
            if step == int(last):
                subprocess.run(["ip", "link", "delete", victim], check=True)
            yield word
    setattr(bridge_adopt, way, interrupted)
    try:
        carry_out(bridge, parse_verbs("add eth0 adopt" if way == "adopt" else "delete eth0", BRIDGE), NONE, False)
    except VirtError as refusal:
        number = refusal.errno
    print(number, int(step >= int(last)), len(bridge.adoptions.brought))
"""


def interrupted(program: Forking, way: str, step: int, victim: str) -> tuple[int, bool, int]:
    """Run once() of _CHILD. Returns the three values that it prints."""
    number, there, remembered = map(int, program.begin(way, step, victim).split())
    assert program.status() == 0
    return number, bool(there), remembered


@pytest.mark.timeout(180)
@pytest.mark.parametrize("way", ["adopt", "give_back"])
def test_a_member_goes_after_any_step(alone: Alone, peer: Place, way: str) -> None:
    """The errno is ENXIO whatever the kernel returned, and nothing about the port is remembered."""
    place = alone()
    assert place.end() == 0
    program, step, there = Forking(place, _CHILD), 1, True
    while there:
        machine(place, peer)
        number, there, remembered = interrupted(program, way, step, "eth0")
        if number:
            assert (number, remembered) == (errno.ENXIO, 0), f"step {step}"
        if number and way == "adopt":
            assert told.addresses(place, "bridge0") == set(), f"step {step}"
        clear(place)
        step += 1
    program.close()
    assert step > 15


@pytest.mark.timeout(180)
@pytest.mark.parametrize("way", ["adopt", "give_back"])
def test_the_bridge_goes_after_any_step(alone: Alone, peer: Place, way: str) -> None:
    place = alone()
    assert place.end() == 0
    program, step, there = Forking(place, _CHILD), 1, True
    while there:
        machine(place, peer)
        number, there, _ = interrupted(program, way, step, "bridge0")
        assert number in (0, errno.ENXIO), f"step {step}"
        clear(place)
        step += 1
    program.close()
    assert step > 15
