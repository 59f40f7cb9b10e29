"""The file status.json: all there is to know, for programs.

One JSON object (RFC 8259) and a newline. Its keys, always all of them and in this order; later versions may add some:

    version     text: virtfs' own
    options     text: the mount's own options after -o that are not as they are by default
    virts       an object for each interface, by unit
    bridges     an object for each bridge under bridge/
    cables      an object for each cable

Of an interface:

    name        "virt3"
    unit        3
    lost        whether its tap has vanished; what is told of the host's end is then the last that was known
    owner       uid, a number        owner_name  the user's name, null when the uid has none
    group       gid, a number        group_name  likewise
    mode        the streams' permission bits, octal text as the verb takes it: "0600"
    …           each attribute file, by its name
    readers     how often frame, hex and rx are open for reading
    stats       an object: each file of stats/, numbers
    tap         an object: each file of tap/, by its name; addresses is a list of texts such as "10.0.3.1/24"

Of a bridge:

    name        "bridge0"
    lost        whether it was deleted by another's hand
    up stp      booleans
    mtu maxaddr timeout maxage fwddelay hellotime priority groupfwd
                numbers, as the verbs of these names take them
    address     its MAC
    inet        its IP addresses, a list of texts
    members     a list of objects: name, number (of the port), learn, discover, protect, adopted (booleans), priority,
                cost, groupfwd, and state of the spanning tree (0 disabled, 1 listening, 2 learning, 3 forwarding,
                4 blocking)
    addresses   its table, a list of objects: address, member, age in seconds, static (a boolean)

Of a cable:

    ends        the names of its two interfaces
    impair      what was said of its impairments, in their words, "" for none

A file that holds 0 or 1 for off and on is a boolean, one that holds a count or a size in bytes a number, any other the
file's text; "" stands for an empty file.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from virtfs.core.bridge import Bridge
from virtfs.core.ethernet import format_mac
from virtfs.core.ids import Gid, Uid
from virtfs.core.quantities import format_mode, parse_size
from virtfs.core.values import TAP_VALUES, VALUES, counter
from virtfs.core.virt import COUNTERS, Virt

Value = str | int | float | bool | None
Object = Mapping[str, object]


def _flag(text: str) -> bool:
    return text == "1"


# What is not text, by file. A file that holds a number and is missing here fails the test.
_KINDS: Final[dict[str, Callable[[str], Value]]] = {
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


def status(
    version: str,
    virts: Iterable[Object],
    bridges: Iterable[Object] = (),
    cables: Iterable[Object] = (),
    options: str = "",
) -> str:
    """The text of the file. virts: as `describe` gives them. bridges, cables: as `describe_bridge`, `…_cable` do."""
    lists = {"virts": list(virts), "bridges": list(bridges), "cables": list(cables)}
    return json.dumps({"version": version, "options": options, **lists}) + "\n"


def describe_cable(words: Sequence[str]) -> dict[str, object]:
    """A cable as an object of JSON. words: what follows `cable` in its line, the two units and the impairment."""
    first, second, *impairment = words
    return {"ends": [f"virt{first}", f"virt{second}"], "impair": " ".join(impairment)}


def describe(
    virt: Virt, readers: int, user_name: Callable[[Uid], str], group_name: Callable[[Gid], str]
) -> dict[str, object]:
    """An interface as an object of JSON.

    user_name, group_name: a number's name, or the number as text when it has none.
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
        "stats": {name: int(counter(virt, name)) for name in COUNTERS},
        "tap": {
            **{file: _value(f"tap/{file}", value(virt)) for file, value in TAP_VALUES.items()},
            "addresses": [str(address) for address in virt.host.addresses],
        },
    }


def describe_bridge(bridge: Bridge) -> dict[str, object]:
    """A bridge as an object of JSON."""
    state = bridge.state
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
        "members": [asdict(member) for member in state.members],
        "addresses": [{**asdict(known), "address": format_mac(known.address)} for known in state.known],
    }


def _value(file: str, text: str) -> Value:
    return _KINDS.get(file, str)(text)


def _name(number: int, name: str) -> str | None:
    return None if name == str(number) else name
