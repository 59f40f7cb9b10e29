"""The file status.json: the whole state of a mount, for programs.

The file is one JSON object (RFC 8259) and a newline. The object always has these keys, in this order; later versions
may add more:

    version     text: the version of virtfs
    options     text: the mount options (-o) of virtfs that differ from their defaults
    netns       number: the network namespace of the mount, by its inode, as lsns(8) shows it
    virts       a list of objects, one for each interface, in the order of the units
    bridges     a list of objects, one for each bridge under bridge/
    cables      a list of objects, one for each cable
    state       an object about the state file, null if the mount has none
    limits      an object: the limits of the mount, named like the fields of core.limits.Limits; sizes are in bytes
    memory      an object with one object for each kind of memory that clients hold (core.memory). Each has bytes (in
                use now), highest (the peak) and refused (the requests and frames refused for lack of memory)

An interface:

    name        "virt3"
    unit        3
    lost        boolean: whether the tap has vanished; the values of the host's end are then the last known ones
    owner       number: the uid
    owner_name  text: the user's name, null if the uid has no name
    group       number: the gid
    group_name  text: the group's name, null if the gid has no name
    mode        text: the permission bits of the streams in octal, such as "0600"
    …           the value of each attribute file, under the name of the file
    readers     number: how many times frame, hex, stream and rx are open for reading
    stats       an object: a number for each file of stats/
    tap         an object: the value of each file of tap/, and addresses, a list of texts such as "10.0.3.1/24"

A bridge:

    name        "bridge0"
    lost        boolean: whether another program has deleted or renamed the bridge. Then up is false, members and
                addresses are empty, and the other values are the last known ones
    up stp      booleans
    mtu maxaddr timeout maxage fwddelay hellotime priority groupfwd
                numbers, in the units of the verbs with these names
    address     text: the MAC address
    inet        a list of texts: the IP addresses
    members     a list of objects: name; number (of the port); learn, discover, protect and adopted (booleans);
                priority, cost and groupfwd (numbers); state (of the spanning tree: 0 disabled, 1 listening,
                2 learning, 3 forwarding, 4 blocking)
    addresses   the address table, a list of objects: address, member, age (in seconds), static (a boolean)

A cable:

    ends        a list of texts: the names of the two interfaces, or of the interface and the socket
    impair      text: the impairments, in the words of the command `cable`; "" if there are none
    stats       an object with the keys out (from the first end to the second) and in (the opposite direction), as in
                `impair`. Each value is an object with a number for each field of core.counters.CableCounters
    socket      null if both ends are interfaces, else an object: state ("connecting", "listening" or "connected"),
                peer (text: the address of a TCP peer, or ""), connections (number of connections so far), error (text:
                why there is no connection, or null)

The state file:

    file            text: its path
    saved           boolean: whether the file has the current state
    unsaved_since   number: when the file ceased to have the current state, in seconds since 1970; null if saved
    error           text: why the last attempt to save the file failed; null if saved
    failed_lines    a list of objects, one for each line that could not be replayed, with the texts line and reason

The value of a file is a boolean if the file holds 0 or 1 for off or on, a number if the file holds a number, and text
otherwise. The value of an empty file is "".
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from itertools import islice
from typing import Final

from virtfs.core.bridge import Bridge, FdbEntry, Member
from virtfs.core.counters import Way
from virtfs.core.ethernet import format_mac
from virtfs.core.ids import Gid, Uid
from virtfs.core.quantities import format_mode, parse_size
from virtfs.core.quoting import one_line, word
from virtfs.core.values import TAP_VALUES, VALUES, counters
from virtfs.core.virt import Virt

Value = str | int | float | bool | None
Object = Mapping[str, object]


def _flag(text: str) -> bool:
    return text == "1"


AT_ONCE = 64  # maximum number of members or addresses of a bridge in a piece of the text
_OF_MEMBER: Final = tuple(field.name for field in fields(Member) if field.name not in ("index", "alias"))

# Converters for the files whose values are not text. A test fails if a file that holds a number is missing here.
_CONVERTERS: Final[dict[str, Callable[[str], Value]]] = {
    "mtu": int,
    "up": _flag,
    "promisc": _flag,
    "queue": int,
    "backlog": int,
    "strict": _flag,
    "antispoof": _flag,
    "persist": _flag,
    "upopen": _flag,
    "pace": lambda text: float(text) if "." in text else int(text),
    "history_size": parse_size,
    "tap/index": int,
    "tap/up": _flag,
    "tap/carrier": _flag,
    "tap/mtu": int,
}


def status_pieces(
    version: str,
    virts: Iterable[Object],
    bridges: Iterable[Object] = (),
    cables: Iterable[Object] = (),
    options: str = "",
    netns: int = 0,
    state: Object | None = None,
    limits: Object | None = None,
    memory: Object | None = None,
) -> Iterator[str]:
    """Yield the text of the file in pieces, from the objects of describe(), describe_bridge() and describe_cable().

    Each object is taken from its iterable when its first piece is made. All values of an object are from that moment.
    state: the object about the state file. limits: the fields of Limits. memory: the result of Memory.describe().
    """
    yield f'{{"version": {json.dumps(version)}, "options": {json.dumps(one_line(options))}, "netns": {netns}'
    for key, objects in (("virts", virts), ("bridges", bridges), ("cables", cables)):
        yield f', "{key}": ['
        between = ""
        for one in objects:
            pieces = _dumped(one)
            yield between + next(pieces)
            yield from pieces
            between = ", "
        yield "]"
    yield f', "state": {json.dumps(state)}, "limits": {json.dumps(limits or {})}'
    # `memory` is last, because pollers of the file ignore all changes after this key.
    yield f', "memory": {json.dumps(memory or {})}}}\n'


def _dumped(one: Object) -> Iterator[str]:
    """Yield the JSON text of an object in pieces. Values that are iterators must come last; they become lists."""
    rows = {key: value for key, value in one.items() if isinstance(value, Iterator)}
    text = json.dumps({key: value for key, value in one.items() if key not in rows} if rows else one)
    if not rows:
        yield text
        return
    yield text[:-1]
    for key, values in rows.items():
        between = f', "{key}": ['
        while some := list(islice(values, AT_ONCE)):
            yield f"{between}{json.dumps(some)[1:-1]}"
            between = ", "
        yield "]" if between == ", " else f"{between}]"
    yield "}"


def describe_cable(impairment: str, out: Way, back: Way, socket: Object | None = None) -> dict[str, object]:
    """Return a cable as a JSON object.

    impairment: the impairments, in the words of the command `cable`. out, back: the counters of the two directions.
    socket: the state of the socket; None if both ends are interfaces.
    """
    stats = {"out": dict(out.items()), "in": dict(back.items())}
    return {"ends": [out.source, out.sink], "impair": impairment, "stats": stats, "socket": socket}


def describe(
    virt: Virt, readers: int, user_name: Callable[[Uid], str], group_name: Callable[[Gid], str]
) -> dict[str, object]:
    """Return an interface as a JSON object.

    readers: how many times frame, hex, stream and rx are open for reading. user_name, group_name: functions that return
    the name of an id, or the id as text if the id has no name.
    """
    return {
        "name": virt.name,
        "unit": virt.unit,
        "lost": virt.lost,
        "owner": virt.owner,
        "owner_name": _name(virt.owner, user_name(virt.owner)),
        "group": virt.group,
        "group_name": _name(virt.group, group_name(virt.group)),
        "mode": format_mode(virt.mode),
        **{file: _value(file, value(virt)) for file, value in VALUES.items()},
        "readers": readers,
        "stats": dict(counters(virt)),
        "tap": {
            **{file: _value(f"tap/{file}", value(virt)) for file, value in TAP_VALUES.items()},
            "addresses": [str(address) for address in virt.host.addresses],
        },
    }


def describe_bridge(bridge: Bridge) -> dict[str, object]:
    """Return a bridge as a JSON object. A lost bridge is down and has no members, as the kernel would say.

    The members and the address table, which may be long, are iterators over what they were at the time of the call.
    """
    state = replace(bridge.state, up=False, members=(), known=()) if bridge.lost else bridge.state
    return {
        "name": bridge.name,
        "lost": bridge.lost,
        "up": state.up,
        "stp": state.stp,
        "mtu": state.mtu,
        "maxaddr": state.maxaddr,
        "timeout": state.timeout,
        "maxage": state.maxage,
        "fwddelay": state.fwddelay,
        "hellotime": state.hellotime,
        "priority": state.priority,
        "groupfwd": state.groupfwd,
        "address": format_mac(state.address),
        "inet": [str(address) for address in state.addresses],
        "members": map(_member, state.members),
        "addresses": map(_known, state.known),
    }


def _known(known: FdbEntry) -> dict[str, Value]:
    """Return an entry of the address table as a JSON object."""
    return {
        "address": format_mac(known.address),
        "member": word(known.member),
        "age": known.age,
        "static": known.static,
    }


def _member(member: Member) -> dict[str, Value]:
    """Return a port as a JSON object, without its interface's index and alias."""
    return {name: getattr(member, name) for name in _OF_MEMBER} | {"name": word(member.name)}


def _value(file: str, text: str) -> Value:
    return _CONVERTERS.get(file, str)(text)


def _name(number: int, name: str) -> str | None:
    return None if name == str(number) else word(name)
