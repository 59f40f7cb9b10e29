"""The verbs that undo changes of an interface: carried out on a model, they restore its former state."""

from dataclasses import replace
from ipaddress import ip_interface
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from virtfs.core.grammar import Action
from virtfs.core.ids import Gid, Uid, Unit
from virtfs.core.impairment import UNIMPAIRED, Impairment
from virtfs.core.virt import MODE_GROUP, MODE_NEW, HostEnd, Origin, State, Virt
from virtfs.core.virt_steps import steps

ADDRESSES = tuple(map(ip_interface, ("10.0.3.1/24", "10.0.3.2/24", "fd00::1/64")))
DELAY = Impairment(delay=1000)

hosts = st.builds(
    HostEnd,
    name=st.just("tap3"),
    index=st.just(7),
    up=st.booleans(),
    mtu=st.sampled_from((1000, 1500, 9000)),
    address=st.sampled_from((bytes(6), b"\x02" + bytes(5))),
    carrier=st.just(True),
    queue=st.sampled_from((100, 256)),
    addresses=st.sets(st.sampled_from(ADDRESSES)).map(lambda found: tuple(sorted(found, key=str))),
    bridge=st.sampled_from(("", "bridge0", "bridge1")),
    promisc=st.booleans(),
)
virts = st.builds(
    Virt,
    unit=st.just(Unit(3)),
    address=st.sampled_from((bytes(6), b"\x02" + bytes(5))),
    host=hosts,
    owner=st.sampled_from((Uid(0), Uid(1000))),
    group=st.sampled_from((Gid(0), Gid(100))),
    mode=st.sampled_from((MODE_NEW, MODE_GROUP, 0o640)),
    strict=st.booleans(),
    exclusive=st.sampled_from(("read", "both", "none")),
    backlog=st.integers(0, 2),
    antispoof=st.booleans(),
    upopen=st.booleans(),
    carrier=st.sampled_from(("always", "open", "off")),
    persist=st.booleans(),
    filter=st.sampled_from(("", "icmp")),
    impairment_in=st.sampled_from((UNIMPAIRED, DELAY)),
    impairment_out=st.sampled_from((UNIMPAIRED, DELAY)),
    pace=st.sampled_from((0, 0.5)),
    history_size=st.sampled_from((0, 65536)),
    description=st.sampled_from(("", "a note")),
    netns=st.sampled_from(("", "far")),
    origin=st.just(Origin.FOUND),
)


def carry_out(one: Virt, action: Action) -> None:
    """Carry out a verb as the manual describes it."""
    host, verb, args = one.host, action.verb, action.args
    flag = verb.removeprefix("-")
    match verb:
        case "owner":
            one.set(owner=Uid(int(str(args[0]))))
        case "group":
            gid = Gid(int(str(args[0])))
            modes = {MODE_NEW: MODE_GROUP} if gid else {MODE_GROUP: MODE_NEW}
            one.set(group=gid, mode=modes.get(one.mode, one.mode))
        case "link" | "history":
            one.set(**{{"link": "address", "history": "history_size"}[verb]: args[0]})
        case "mode" | "backlog" | "exclusive" | "description" | "pace" | "filter" | "carrier":
            one.set(**{verb: args[0]})
        case "impair":
            one.set(**{f"impairment_{direction}": impairment for direction, impairment in args[0]})  # type: ignore[attr-defined]
        case "strict" | "antispoof" | "persist" | "upopen" | "-strict" | "-antispoof" | "-persist" | "-upopen":
            one.set(**{flag: verb == flag})
        case "netns":
            one.move(str(args[0]))
        case "promisc" | "-promisc":
            one.set_host(replace(host, promisc=verb == flag))
        case "queue" | "mtu":
            changed: dict[str, Any] = {verb: args[0]}
            one.set_host(replace(host, **changed))
        case "taplink":
            one.set_host(replace(host, address=args[0]))  # type: ignore[arg-type]
        case "inet" | "inet6":
            one.set_host(replace(host, addresses=(*host.addresses, args[0])))  # type: ignore[arg-type]
        case "-inet" | "-inet6":
            one.set_host(replace(host, addresses=tuple(a for a in host.addresses if a != args[0])))
        case "bridge" | "-bridge":
            one.set_host(replace(host, bridge=str(args[0]) if args else ""))
        case "up" | "down":
            one.set_host(replace(host, up=verb == "up"))
        case _:
            raise AssertionError(verb)


def shown(one: Virt) -> tuple[object, ...]:
    """Return everything that verbs can set."""
    names = [
        name
        for name in one.__slots__
        if name not in ("host", "kept", "line_listeners", "listeners", "counters", "state", "version", "__weakref__")
    ]
    host = replace(one.host, addresses=tuple(sorted(one.host.addresses, key=str)))
    return (host, *(getattr(one, name) for name in names))


@given(virts, virts)
def test_they_lead_back(now: Virt, to: Virt) -> None:
    for action in steps(now, to):
        carry_out(now, action)
    assert shown(now) == shown(to)


@given(virts)
def test_nothing_leads_to_what_it_is(one: Virt) -> None:
    assert steps(one, one.snapshot()) == ()


@given(virts, virts)
def test_a_lost_interface_gets_its_settings_back_only(now: Virt, to: Virt) -> None:
    now.lose()
    host = now.host
    for action in steps(now, to):
        carry_out(now, action)
    assert (now.state, now.host) == (State.LOST, host)
    assert (now.owner, now.strict, now.pace) == (to.owner, to.strict, to.pace)
