"""An interface's states: every transition in the table, and the notifications of listeners."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from virtfs.core.ids import Unit
from virtfs.core.virt import SETTINGS, TRANSITIONS, HostEnd, Origin, State, Step, Virt

HOST = HostEnd("tap3", 7, False, 1500, bytes(6), True, queue=256)


def virt(up: bool = False, origin: Origin = Origin.MADE) -> Virt:
    return Virt(Unit(3), bytes(6), replace(HOST, up=up), origin=origin)


def steps(one: Virt) -> dict[Step, Callable[[], None]]:
    """Return the steps, which can be tried in any state."""
    return {
        "up": lambda: one.set_host(replace(one.host, up=True)),
        "down": lambda: one.set_host(replace(one.host, up=False)),
        "move": lambda: one.move("far"),
        "lose": one.lose,
        "destroy": one.destroy,
    }


def in_state(state: State) -> Virt:
    """Return an interface that has reached a state by the regular steps."""
    one = virt(up=state is State.UP)
    if state in (State.LOST, State.DESTROYED):
        one.lose()
    if state is State.DESTROYED:
        one.destroy()
    assert one.state is state
    return one


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("step", ["up", "down", "move", "lose", "destroy"])
def test_each_step_in_each_state(state: State, step: Step) -> None:
    one, told = in_state(state), []
    one.listeners.append(lambda: told.append(one.state))
    allowed = TRANSITIONS[state]
    same = (step, state) in {("up", State.UP), ("down", State.DOWN)}  # no transition: the host's end does not change
    if step in allowed or same:
        steps(one)[step]()
        assert one.state is allowed.get(step, state)
        assert told == [one.state], "listeners are notified once, after the change"
    else:
        with pytest.raises(ValueError, match=f"virt3 is {state.name}"):
            steps(one)[step]()
        assert (one.state, told) == (state, [])


def test_every_state_can_be_reached_and_left_for_good() -> None:
    reached = {State.DOWN} | {state for row in TRANSITIONS.values() for state in row.values()}
    assert reached == set(State) == set(TRANSITIONS)
    assert all("destroy" in row for state, row in TRANSITIONS.items() if state is not State.DESTROYED)
    assert TRANSITIONS[State.DESTROYED] == {}


def test_fields_change_by_methods_only() -> None:
    one = virt()
    with pytest.raises(FrozenInstanceError):
        one.strict = True  # type: ignore[misc]
    with pytest.raises(TypeError, match="state"):
        one.set(state=State.UP)
    before = one.snapshot()
    one.set(strict=True, backlog=9)
    assert (one.strict, one.backlog, before.strict, before.backlog) == (True, 9, False, 0)
    assert {"strict", "owner", "filter"} <= SETTINGS
    assert not SETTINGS & {"unit", "host", "state", "netns", "counters"}


class Life(RuleBasedStateMachine):
    """An interface, and a model of it: its state, and the number of changes that listeners must have seen."""

    def __init__(self) -> None:
        super().__init__()
        self.virt = virt()
        self.state = State.DOWN
        self.seen: list[tuple[State, bool, bool]] = []
        self.virt.listeners.append(self._look)
        self.changes = 0

    def _look(self) -> None:
        self.seen.append((self.virt.state, self.virt.host.up, self.virt.lost))

    @rule(step=st.sampled_from(["up", "down", "move", "lose", "destroy"]))
    def step(self, step: Step) -> None:
        allowed = TRANSITIONS[self.state].get(step)
        same = (step, self.state) in {("up", State.UP), ("down", State.DOWN)}
        if allowed is None and not same:
            with pytest.raises(ValueError, match="it"):
                steps(self.virt)[step]()
            return
        steps(self.virt)[step]()
        self.state = allowed or self.state
        self.changes += 1

    @rule(backlog=st.integers(0, 9))
    def set(self, backlog: int) -> None:
        self.virt.set(backlog=backlog)
        assert self.virt.backlog == backlog
        self.changes += self.state is not State.DESTROYED

    @precondition(lambda self: self.state in (State.UP, State.DOWN))
    @rule(mtu=st.integers(68, 9000))
    def report(self, mtu: int) -> None:
        self.virt.set_host(replace(self.virt.host, mtu=mtu))
        assert self.virt.bounds[1] == mtu + 18
        self.changes += 1

    @invariant()
    def agrees(self) -> None:
        assert self.virt.state is self.state
        assert self.virt.host.up == (self.state is State.UP)
        assert self.virt.lost == (self.state in (State.LOST, State.DESTROYED))
        assert len(self.seen) == self.changes, "listeners are notified of each change until the end"
        if self.seen:
            assert self.seen[-1] == (self.virt.state, self.virt.host.up, self.virt.lost)


TestLife = Life.TestCase
