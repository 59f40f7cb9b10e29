"""Bridges as text, in the layout of NetBSD's brconfig(8) (sbin/brconfig/brconfig.c), and as plain lists."""

from collections.abc import Iterator

from virtfs.core.bridge import FORWARDING, Bridge, BridgeState, FdbEntry, Member
from virtfs.core.ethernet import format_mac
from virtfs.core.quoting import word

_STATES = ("disabled", "listening", "learning", "forwarding", "blocking")


def status(bridge: Bridge) -> str:
    """Return the text that brconfig(8) on NetBSD prints for a bridge.

    The port numbers are those of Linux; NetBSD prints the interface index instead.
    """
    return "".join(f"{line}\n" for line in _status(bridge.name, bridge.state))


def members(state: BridgeState) -> str:
    """Return the names of the members, one per line."""
    return "".join(f"{word(member.name)}\n" for member in state.members)


def addresses(state: BridgeState) -> str:
    """Return the address table, one entry per line.

    A line has the MAC address, the member, the seconds since the last frame, and the flags as brconfig prints them.
    """
    return "".join(
        f"{format_mac(known.address)} {word(known.member)} {known.age} {_flags(known)}\n" for known in state.known
    )


def _status(name: str, state: BridgeState) -> Iterator[str]:
    # NetBSD's bridge(4) sets no interface flags other than UP and RUNNING (sys/net/if_bridge.c).
    yield f"{name}: {_bits((0x41 if state.up else 0), {0x1: 'UP', 0x40: 'RUNNING'})}"
    yield "\tConfiguration:"
    yield (f"\t\tpriority {state.priority} hellotime {state.hellotime} fwddelay {state.fwddelay} maxage {state.maxage}")
    yield "\t\tipfilter disabled flags 0x0"
    # NetBSD has no such line, because its bridges forward all groups.
    if state.groupfwd:
        yield f"\t\tgroupfwd {state.groupfwd:#x}"
    yield "\tInterfaces:"
    for member in state.members:
        yield from _member(member, state.stp)
    yield f"\tAddress cache (max cache: {state.maxaddr}, timeout: {state.timeout}):"
    for known in state.known:
        left = 0 if known.static or not state.timeout else max(0, state.timeout - known.age)
        yield f"\t\t{format_mac(known.address)} {word(known.member)} {left} {_flags(known)}"


def _member(member: Member, stp: bool) -> Iterator[str]:
    names = {1: "LEARNING", 2: "DISCOVER", 4: "STP", 8: "PROTECTED"}
    flags = member.learn | member.discover << 1 | stp << 2 | member.protect << 3
    yield f"\t\t{word(member.name)} {_bits(flags, names)}"
    # NetBSD shows a state only with the spanning tree. Linux disables a port whose interface is down or has no carrier,
    # also without it (net/bridge/br_if.c br_port_carrier_check).
    state = "" if member.state == FORWARDING else f" {_state(member.state)}"
    tree = f" path cost {member.cost} {_state(member.state)}" if stp else state
    groups = f" groupfwd {member.groupfwd:#x}" if member.groupfwd else ""
    yield f"\t\t\tport {member.number} priority {member.priority}{groups}{tree}"


def _state(number: int) -> str:
    return _STATES[number] if number < len(_STATES) else f"<unknown state {number}>"


def _flags(known: FdbEntry) -> str:
    return _bits(int(known.static), {1: "STATIC"})


def _bits(flags: int, names: dict[int, str]) -> str:
    return f"flags={flags:x}<{','.join(name for bit, name in names.items() if flags & bit)}>"
