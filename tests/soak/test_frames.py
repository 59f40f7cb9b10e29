"""After any sequence of operations and traffic, every frame is accounted for, and all views of the state agree."""

from random import Random

import pytest
from harness.lasting import Lasting, LastingOnes
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from .lab import Lab
from .operations import CHOICES, OPERATIONS, do

# Operations that take seconds; the soak has them.
SLOW = {"full disk"}
operations = st.sampled_from([name for name in CHOICES if name not in SLOW])


class Frames(RuleBasedStateMachine):
    """A lab, which is empty at the beginning and at the end."""

    lab: Lab

    @rule(name=operations, random=st.randoms(use_true_random=False))
    def operate(self, name: str, random: Random) -> None:
        self.lab.random = random
        do(self.lab, name)

    @rule(random=st.randoms(use_true_random=False))
    def create(self, random: Random) -> None:
        self.lab.random = random
        do(self.lab, "create")

    def teardown(self) -> None:
        self.lab.checkpoint()
        self.lab.clear()


@pytest.fixture
def lab(lasting: LastingOnes) -> Lab:
    mount: Lasting = lasting()
    return Lab(mount, Random(0))


@pytest.mark.timeout(240)
def test_any_sequence(lab: Lab) -> None:
    machine: type[Frames] = type("Machine", (Frames,), {"lab": lab})
    few = settings(
        max_examples=settings().max_examples // 6,  # 8, unless another profile is chosen
        stateful_step_count=30,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # no shrinking: steps are slow
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=few)
    assert set(lab.done) <= {*OPERATIONS, "checkpoint"}


def test_a_frame_that_is_not_counted_would_be_seen(lab: Lab) -> None:
    lab.random = Random(1)
    do(lab, "create")
    ((number, unit),) = lab.units.items()
    lab.checkpoint()
    unit.ledger.written += 1
    with pytest.raises(AssertionError, match="frames out, and frames written: 0 and 1"):
        lab.checkpoint()
    unit.ledger.written -= 1
    unit.values["mtu"] = 68
    with pytest.raises(AssertionError, match=f"virt{number}: "):
        lab.checkpoint()
    lab.clear()
