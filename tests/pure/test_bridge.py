"""A bridge without a kernel: the verbs between two states, checks before any change, and brconfig's layout."""

import errno
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfs.core import brconfig
from virtfs.core.bridge import NEW, Bridge, BridgeState, FdbEntry, Member, steps, steps_after, without
from virtfs.core.bridgeplan import Taps, plan, renamed
from virtfs.core.errors import VirtError
from virtfs.core.grammar import Action, parse_verbs
from virtfs.core.ids import BridgeName
from virtfs.core.line_text import format_actions
from virtfs.core.verbs import BRIDGE

MAC = bytes.fromhex("020000000009")
ADDRESSES: list[IPv4Interface | IPv6Interface] = [
    IPv4Interface("10.0.0.1/24"),
    IPv4Interface("10.0.1.1/24"),
    IPv6Interface("fd00::1/64"),
]
NAMES = ["eth0", "tap3", "tap4"]

STATION = st.integers(0, 5).map(lambda number: bytes((2, 0, 0, 0, 0, number)))


@st.composite
def states(draw: st.DrawFn) -> BridgeState:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    members = tuple(
        Member(
            name,
            learn=draw(st.booleans()),
            discover=draw(st.booleans()),
            protect=draw(st.booleans()),
            priority=draw(st.integers(0, 63)) * 4,
            cost=draw(st.sampled_from([100, 7, 55])),
            groupfwd=draw(st.sampled_from([0, 4, 0x4008])),
        )
        for name in names
    )
    stations = draw(st.lists(STATION, unique=True)) if names else []
    return BridgeState(
        up=draw(st.booleans()),
        mtu=draw(st.sampled_from([1500, 1400])),
        maxaddr=draw(st.integers(0, 200)),
        timeout=draw(st.integers(0, 2000)),
        maxage=draw(st.integers(6, 40)),
        fwddelay=draw(st.integers(2, 30)),
        hellotime=draw(st.integers(1, 10)),
        priority=draw(st.integers(0, 65535)),
        groupfwd=draw(st.sampled_from([0, 8, 0xFFF8])),
        stp=bool(names) and draw(st.booleans()),
        members=members,
        known=tuple(FdbEntry(station, draw(st.sampled_from(names)), static=True) for station in stations),
        addresses=tuple(draw(st.lists(st.sampled_from(ADDRESSES), unique=True))),
    )


def done(state: BridgeState, actions: tuple[Action, ...]) -> BridgeState:
    """Return the state after a kernel has carried out the actions."""
    for action in actions:
        state = _done(state, action.verb, action.args)
    return state


def _done(state: BridgeState, verb: str, args: tuple[object, ...]) -> BridgeState:
    def port(**change: object) -> BridgeState:
        assert state.member(str(args[0])) is not None
        changed = (replace(m, **change) if m.name == args[0] else m for m in state.members)  # type: ignore[arg-type]
        return replace(state, members=tuple(changed))

    match verb, args:
        case "up" | "down", ():
            return replace(state, up=verb == "up")
        case "stp" | "-stp", (_,):
            return replace(port(), stp=verb == "stp")
        case "add", (str(name), *_):
            return replace(state, members=(*state.members, Member(name)))
        case "delete", (str(name),):
            return without(state, frozenset((name,)))
        case "static", (str(name), bytes(address)):
            others = tuple(known for known in port().known if known.address != address)
            return replace(state, known=(*others, FdbEntry(address, name, static=True)))
        case "deladdr", (address,):
            assert address in [known.address for known in state.known]
            return replace(state, known=tuple(known for known in state.known if known.address != address))
        case "inet" | "inet6", (address,):
            return replace(state, addresses=(*state.addresses, address))  # type: ignore[arg-type]
        case "-inet" | "-inet6", (address,):
            return replace(state, addresses=tuple(a for a in state.addresses if a != address))
        case "ifpriority", (_, value):
            return port(priority=value)
        case "ifpathcost", (_, value):
            return port(cost=value)
        case "ifgroupfwd", (_, value):
            return port(groupfwd=value)
        case _, (int(value),):
            return replace(state, **{verb: value})  # type: ignore[arg-type]
    return port(**{verb.removeprefix("-"): not verb.startswith("-")})


def unordered(state: BridgeState) -> tuple[object, ...]:
    rest = replace(state, members=(), known=(), addresses=())
    return rest, set(state.members), set(state.known), set(state.addresses)


@given(states(), states())
def test_the_steps_lead_there(now: BridgeState, to: BridgeState) -> None:
    # Without a member no verb can set or clear the spanning tree.
    expected = to if to.members else replace(to, stp=now.stp)
    # For a new member, steps() omits a path cost that Linux may have chosen itself. In this model Linux chooses 100.
    assert unordered(done(now, steps(now, to))) == unordered(expected)
    assert steps(to, to) == ()


@given(states())
def test_the_state_can_be_said_and_read(state: BridgeState) -> None:
    actions = steps(NEW, state)
    assert parse_verbs(format_actions(actions, BRIDGE), BRIDGE) == actions


@given(states(), st.frozensets(st.sampled_from(NAMES)))
def test_some_members_may_come_later(state: BridgeState, later: frozenset[str]) -> None:
    half = done(NEW, steps(NEW, without(state, later)))
    come = done(half, tuple(Action("add", (m.name,)) for m in state.members if m.name in later))
    assert unordered(done(come, steps_after(state, later))) == unordered(state)


def test_what_no_verb_can_say_is_said_nearly() -> None:
    assert steps(NEW, replace(NEW, fwddelay=0)) == (Action("fwddelay", (2,)),)


# --- lines that are refused before any change

HERE = BridgeState(
    members=(Member("tap3"), Member("eth0", adopted=True), Member("eth1")),
    known=(FdbEntry(MAC, "tap3"),),
    addresses=(ADDRESSES[0],),
)
MASTERS = {"tap3": "bridge0", "eth0": "bridge0", "eth1": "bridge0", "tap4": "", "tap5": "bridge1", "tap6": "br-lan"}
TAPS = Taps({}, {"virt8": "h1", "tap8": "h1"}, frozenset({"bridge0", "bridge1"}))


@pytest.mark.parametrize(
    ("line", "number", "sentence"),
    [
        ("add tap9", errno.ENXIO, 'add: there is no interface "tap9"'),
        ("add 9", errno.ENXIO, 'add: there is no interface "9": write virt9'),
        (
            "add tap8",
            errno.ENXIO,
            'add: "tap8" is in network namespace "h1", unlike the bridge:'
            " create a second interface for the bridge, and cable the two",
        ),
        ("learn tap9", errno.ENXIO, 'learn: there is no interface "tap9"'),
        ("delete tap9", errno.ENXIO, 'delete: there is no interface "tap9"'),
        ("add tap3", errno.EEXIST, 'add: "tap3" is already a member'),
        ("add eth0 adopt", errno.EEXIST, 'add: "eth0" is already a member'),
        ("add tap4 add tap4", errno.EEXIST, 'add: "tap4" is already a member'),
        ("add tap5", errno.EBUSY, 'add: "tap5" is in "bridge1": take it out with "bridge1 delete tap5" first'),
        ("add tap6", errno.EBUSY, 'add: "tap6" is in "br-lan": take it out with "ip link set tap6 nomaster" first'),
        ("delete tap4", errno.ENOENT, 'delete: "tap4" is not a member of the bridge'),
        ("delete tap3 learn tap3", errno.ENOENT, 'learn: "tap3" is not a member of the bridge'),
        ("-stp tap5", errno.ENOENT, '-stp: "tap5" is not a member of the bridge'),
        ("static tap4 2:0:0:0:0:9", errno.ENOENT, 'static: "tap4" is not a member of the bridge'),
        ("ifpriority tap4 8", errno.ENOENT, 'ifpriority: "tap4" is not a member of the bridge'),
        ("deladdr 2:0:0:0:0:8", errno.ENOENT, 'deladdr: "02:00:00:00:00:08" is not in the address table'),
        ("-inet 10.0.9.1", errno.EADDRNOTAVAIL, '-inet: the bridge has no address "10.0.9.1"'),
    ],
)
def test_refused_as_a_whole(line: str, number: int, sentence: str) -> None:
    with pytest.raises(VirtError) as caught:
        plan(HERE, parse_verbs(line, BRIDGE), MASTERS, ensure=False, taps=TAPS)
    assert (caught.value.errno, caught.value.strerror) == (number, sentence)


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("add tap4 learn tap4 delete tap4", "add tap4 learn tap4 delete tap4"),
        ("add eth1 adopt", "add eth1 adopt"),
        ("delete tap3 add tap3 learn tap3", "delete tap3 add tap3 learn tap3"),
        ("inet 10.0.0.1/24 up", "up"),
        ("-inet 10.0.0.1", "-inet 10.0.0.1"),
        ("static tap3 2:0:0:0:0:8 deladdr 2:0:0:0:0:8", "static tap3 02:00:00:00:00:08 deladdr 02:00:00:00:00:08"),
    ],
)
def test_what_is_left_to_do(line: str, left: str) -> None:
    assert format_actions(plan(HERE, parse_verbs(line, BRIDGE), MASTERS, ensure=False, taps=TAPS), BRIDGE) == left


@pytest.mark.parametrize(
    "line", ["add tap3", "add eth0 adopt", "delete tap4", "deladdr 2:0:0:0:0:8", "-inet 10.0.9.1", "inet 10.0.0.1/24"]
)
def test_ensure_finds_it_done(line: str) -> None:
    assert plan(HERE, parse_verbs(line, BRIDGE), MASTERS, ensure=True, taps=TAPS) == ()


def test_virtN_is_its_tap() -> None:
    actions = parse_verbs("add virt3 adopt static virt3 2:0:0:0:0:9 add eth0 priority 3 up", BRIDGE)
    said = format_actions(renamed(actions, {"virt3": "wire"}), BRIDGE)
    assert said == "add wire adopt static wire 02:00:00:00:00:09 add eth0 priority 3 up"


# --- brconfig's layout (sbin/brconfig/brconfig.c)


def test_status_of_a_new_bridge() -> None:
    assert brconfig.status(Bridge(BridgeName("bridge0"), NEW)) == (
        "bridge0: flags=0<>\n"
        "\tConfiguration:\n"
        "\t\tpriority 32768 hellotime 2 fwddelay 15 maxage 20\n"
        "\t\tipfilter disabled flags 0x0\n"
        "\tInterfaces:\n"
        "\tAddress cache (max cache: 100, timeout: 1200):\n"
    )


def test_status_lists_and_addresses() -> None:
    state = BridgeState(
        up=True,
        stp=True,
        timeout=300,
        members=(Member("tap3", 1, learn=False, cost=55, state=1), Member("eth0", 2, protect=True, state=9)),
        known=(FdbEntry(MAC, "tap3", static=True, age=7), FdbEntry(bytes.fromhex("b20a000b0e04"), "eth0", age=42)),
    )
    bridge = Bridge(BridgeName("bridge0"), state)
    assert brconfig.status(bridge) == (
        "bridge0: flags=41<UP,RUNNING>\n"
        "\tConfiguration:\n"
        "\t\tpriority 32768 hellotime 2 fwddelay 15 maxage 20\n"
        "\t\tipfilter disabled flags 0x0\n"
        "\tInterfaces:\n"
        "\t\ttap3 flags=6<DISCOVER,STP>\n"
        "\t\t\tport 1 priority 128 path cost 55 listening\n"
        "\t\teth0 flags=f<LEARNING,DISCOVER,STP,PROTECTED>\n"
        "\t\t\tport 2 priority 128 path cost 100 <unknown state 9>\n"
        "\tAddress cache (max cache: 100, timeout: 300):\n"
        "\t\t02:00:00:00:00:09 tap3 0 flags=1<STATIC>\n"
        "\t\tb2:0a:00:0b:0e:04 eth0 258 flags=0<>\n"
    )
    bridge.state = replace(state, stp=False, timeout=0, members=(Member("tap3", 1), Member("eth0", 2, state=0)))
    assert "\t\t\tport 1 priority 128\n" in brconfig.status(bridge)
    assert "\t\t\tport 2 priority 128 disabled\n" in brconfig.status(bridge)
    assert "eth0 0 flags=0<>" in brconfig.status(bridge)
    assert brconfig.members(state) == "tap3\neth0\n"
    assert brconfig.addresses(state) == (
        "02:00:00:00:00:09 tap3 7 flags=1<STATIC>\nb2:0a:00:0b:0e:04 eth0 42 flags=0<>\n"
    )
