"""A member, or the bridge, can be taken away at any moment: also while what a member brought is on its way."""

import errno
import subprocess
import sys

import children
import pytest
from mount.conftest import Alone
from mount.places import Place, finished
from mount.serving import ENVIRONMENT

from . import told
from .machine import clear, machine

# Does a line as the daemon does, with one of the two taken away after one of its steps. Tells the errno that the line
# was refused with, whether there was such a step, and how many adopted members are remembered.
_CHILD = """
import subprocess, sys
from virtfs.core.errors import VirtError
from virtfs.core.grammar import parse_verbs
from virtfs.core.verbs import BRIDGE
from virtfs.daemon.bridge_verbs import carry_out
from virtfs.host import adopt
from virtfs.host.bridge import HostBridge, make
from virtfs.host.links import Links
from virtfs.host.rtnl import Rtnl
way, last, victim = sys.argv[1], int(sys.argv[2]), sys.argv[3]
rtnl, links = Rtnl(), Links()
bridge = HostBridge(rtnl, links, "bridge0", make(rtnl, links, "bridge0"))
if way == "give_back":
    bridge.adopt("eth0")
take, number, step = getattr(adopt, way), 0, 0
def interrupted(*args):
    global step
    for step, word in enumerate(take(*args), 1):
        if step == last:
            subprocess.run(["ip", "link", "delete", victim], check=True)
        yield word
setattr(adopt, way, interrupted)
try:
    carry_out(bridge, parse_verbs("add eth0 adopt" if way == "adopt" else "delete eth0", BRIDGE), {}, False)
except VirtError as refusal:
    number = refusal.errno
print(number, int(step >= last), len(bridge.adoptions.brought))
"""


def interrupted(place: Place, way: str, step: int, victim: str) -> tuple[int, bool, int]:
    """See _CHILD."""
    words = place.command(sys.executable, "-c", _CHILD, way, str(step), victim)
    child = children.start(words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said, complaint = finished(child)
    assert child.returncode == 0, complaint
    number, there, remembered = map(int, said.split())
    return number, bool(there), remembered


@pytest.mark.timeout(180)
@pytest.mark.parametrize("way", ["adopt", "give_back"])
def test_a_member_goes_after_any_step(alone: Alone, peer: Place, way: str) -> None:
    """There is no such interface then, whatever the kernel refused, and of it nothing is remembered."""
    place = alone()
    assert place.end() == 0
    step, there = 1, True
    while there:
        machine(place, peer)
        number, there, remembered = interrupted(place, way, step, "eth0")
        if number:
            assert (number, remembered) == (errno.ENXIO, 0), f"step {step}"
        if number and way == "adopt":
            assert told.addresses(place, "bridge0") == set(), f"step {step}"
        clear(place)
        step += 1
    assert step > 15


@pytest.mark.timeout(180)
@pytest.mark.parametrize("way", ["adopt", "give_back"])
def test_the_bridge_goes_after_any_step(alone: Alone, peer: Place, way: str) -> None:
    place = alone()
    assert place.end() == 0
    step, there = 1, True
    while there:
        machine(place, peer)
        number, there, _ = interrupted(place, way, step, "bridge0")
        assert number in (0, errno.ENXIO), f"step {step}"
        clear(place)
        step += 1
    assert step > 15
