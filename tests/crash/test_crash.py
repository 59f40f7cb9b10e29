"""A few of the kills of `make crash`, and what its model takes from a text of ctl."""

import os
import time

import pytest
from harness.nets import need_taps

from .__main__ import crash
from .model import HOST_BRIDGE, Model, adopted, of_ctl, parsed

KILLS = 5


@pytest.mark.timeout(120)
def test_some_kills() -> None:
    need_taps()
    seed = int(os.environ.get("CRASH_SEED", time.time_ns() % 1_000_000))
    kills, wrong, _ = crash(KILLS, seed)
    assert not wrong, wrong
    assert kills >= KILLS


def test_a_text_of_ctl_is_read_as_a_model() -> None:
    text = """\
# made: tap1 bridge0
# adopted: bridge0 d2 10.50.2.1/24
create bridge0 priority 7 mtu 1400 add d1 add d2 adopt up
create 1 taplink 02:00:00:00:00:01 persist inet 10.0.1.1/24 inet 10.0.2.1/24 bridge bridge0 description the # up
create 2 up
bridge0 -learn tap1
cable 1 2 delay 1ms
"""
    one = parsed("taplink 02:00:00:00:00:01 persist inet 10.0.2.1/24 inet 10.0.1.1/24 bridge bridge0")
    one["description"] = "the # up"
    bridge = parsed("priority 7 add d2 adopt add d1 up -learn tap1")
    assert of_ctl(text) == (
        Model({1: one, 2: {"up": True}}, {"bridge0": bridge}, {(1, 2): "delay 1ms"}),
        {"tap1", "bridge0"},
    )
    with pytest.raises(ValueError, match="not replayed"):
        of_ctl("# not replayed: create 3\n")


def test_what_the_host_has_made_may_be_there_in_part() -> None:
    before = Model(bridges={HOST_BRIDGE: parsed("priority 7 inet 10.8.1.1/24"), "bridge0": parsed("up")})
    after = before.copy()
    after.bridges[HOST_BRIDGE] = parsed("priority 99 timeout 600 inet 10.8.1.1/24")
    half = before.copy()
    half.bridges[HOST_BRIDGE] = parsed("priority 99 inet 10.8.1.1/24")
    assert after.fits(half, [before, after], exact=False)
    assert not after.fits(half, [before, after], exact=True)
    half.bridges["bridge0"] = {}
    assert not after.fits(half, [before, after], exact=False)
    assert adopted(Model(bridges={"bridge0": parsed("add d1 add d2 adopt")})) == {"d2": "bridge0"}
