"""A few of the kills of `make crash`, and what its model takes from a text of ctl."""

import os
import time

import pytest
from harness.nets import need_taps

from .__main__ import crash
from .model import Model, of_ctl, parsed

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
create bridge0 priority 7 mtu 1400 add d1 up
create 1 taplink 02:00:00:00:00:01 persist inet 10.0.1.1/24 inet 10.0.2.1/24 bridge bridge0 description the # up
create 2 up
bridge0 -learn tap1
cable 1 2 delay 1ms
"""
    one = parsed("taplink 02:00:00:00:00:01 persist inet 10.0.2.1/24 inet 10.0.1.1/24 bridge bridge0")
    one["description"] = "the # up"
    bridge = parsed("priority 7 add d1 up -learn tap1")
    assert of_ctl(text) == (
        Model({1: one, 2: {"up": True}}, {"bridge0": bridge}, {(1, 2): "delay 1ms"}),
        {"tap1", "bridge0"},
    )
    with pytest.raises(ValueError, match="not replayed"):
        of_ctl("# not replayed: create 3\n")
