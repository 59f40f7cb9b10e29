"""The state from which a line of the state file leads to what the line describes, whatever a killed server has left."""

from dataclasses import replace
from ipaddress import ip_interface

from hypothesis import given
from hypothesis import strategies as st

from virtfs.core.bridge import NEW, BridgeState, FdbEntry, Member, steps
from virtfs.core.ethernet import new_mac
from virtfs.core.grammar import parse
from virtfs.core.ids import Unit
from virtfs.core.leftover import bridge_before, virt_before
from virtfs.core.virt import HostEnd, Virt
from virtfs.core.virt_steps import steps as virt_steps

ADDRESSES = tuple(map(ip_interface, ("10.0.3.1/24", "10.0.3.2/24", "fd00::1/64")))
NEW_HOST = HostEnd("tap3", 7, False, 1500, new_mac(Unit(3), 0), True, 256)
hosts = st.builds(
    replace,
    st.just(NEW_HOST),
    up=st.booleans(),
    mtu=st.sampled_from((1280, 1500, 9000)),
    queue=st.sampled_from((100, 256)),
    addresses=st.sets(st.sampled_from(ADDRESSES)).map(lambda found: tuple(sorted(found, key=str))),
    bridge=st.sampled_from(("", "bridge0", "bridge1")),
    promisc=st.booleans(),
)


def actions(line: str) -> tuple:  # type: ignore[type-arg]
    command = parse(line)
    assert command is not None
    return command.actions


def virt(host: HostEnd) -> Virt:
    return Virt(Unit(3), new_mac(Unit(3), 0), host, persist=True)


@given(hosts)
def test_a_line_without_verbs_means_a_new_interface(host: HostEnd) -> None:
    before = virt_before(virt(host), actions("create 3"))
    assert (before.host, before.persist) == (NEW_HOST, False)


@given(hosts)
def test_what_the_line_says_is_left_as_it_is(host: HostEnd) -> None:
    said = "create 3 mtu 1400 queue 99 promisc persist inet 10.0.3.1/24 inet 10.0.3.2/24 inet6 fd00::1/64 up"
    bridge = f" bridge {host.bridge}" if host.bridge else ""
    assert virt_steps(virt(host), virt_before(virt(host), actions(said + bridge))) == ()


def test_addresses_and_the_bridge_stay_only_if_the_line_has_them() -> None:
    now = virt(replace(NEW_HOST, addresses=ADDRESSES, bridge="bridge1", up=True))
    before = virt_before(now, actions("create 3 inet 10.0.3.2/24 bridge bridge0 persist"))
    assert (before.host.addresses, before.host.bridge, before.host.up) == (ADDRESSES[1:2], "", False)


LEFT = BridgeState(
    up=True, mtu=1400, address=bytes(6), timeout=600, priority=7, stp=True,
    members=(Member("eth0", learn=False), Member("tap3", protect=True, priority=8), Member("eth1", cost=7)),
    known=(FdbEntry(bytes(6), "tap3", static=True),), addresses=ADDRESSES,
)  # fmt: skip


def test_a_bridge() -> None:
    before = bridge_before(LEFT, actions("create bridge0 priority 7 inet 10.0.3.1/24 add eth1"), frozenset({"tap3"}))
    members = Member("tap3"), Member("eth1", cost=7)
    assert before == replace(NEW, mtu=1400, priority=7, members=members, addresses=ADDRESSES[:1])
    assert "up" not in {action.verb for action in steps(LEFT, before)}


def test_a_bridge_that_adopts_keeps_what_the_machine_may_be_reached_through() -> None:
    members = tuple(replace(member, index=index) for index, member in enumerate(LEFT.members, 4))
    left = replace(LEFT, members=members)
    before = bridge_before(left, actions("create bridge0"), frozenset(), adopting=frozenset({4}))
    assert ([member.name for member in before.members], before.addresses, before.up) == (["eth0"], ADDRESSES, True)
    before = bridge_before(left, actions("create bridge0 add eth0 adopt"), frozenset(), adopting=frozenset({4}))
    assert ([member.name for member in before.members], before.addresses, before.up) == (["eth0"], ADDRESSES, False)
    before = bridge_before(left, actions("create bridge0"), frozenset(), adopting=frozenset({9}))
    assert (before.members, before.addresses, before.up) == ((), (), False)
