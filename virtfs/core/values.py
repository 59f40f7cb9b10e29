"""An interface as text: the contents of its attribute files, and the verbs that recreate the interface."""

from collections.abc import Callable, Iterator
from typing import Final

from virtfs.core.ethernet import MTU_DEFAULT, format_mac
from virtfs.core.grammar import Action
from virtfs.core.impairment import UNIMPAIRED, Direction, Impairment
from virtfs.core.impairment_text import format_impairments
from virtfs.core.quantities import format_factor, format_size
from virtfs.core.quoting import word
from virtfs.core.virt import COUNTERS, MODE_GROUP, MODE_NEW, QUEUE, Virt

# The contents of each attribute file of an interface. A file that mirrors a verb is writable.
VALUES: Final[dict[str, Callable[[Virt], str]]] = {
    "address": lambda virt: format_mac(virt.address),
    "mtu": lambda virt: str(virt.host.mtu),
    "up": lambda virt: _bit(virt.host.up),
    "queue": lambda virt: str(virt.host.queue),
    "backlog": lambda virt: str(virt.backlog),
    "strict": lambda virt: _bit(virt.strict),
    "promisc": lambda virt: _bit(virt.host.promisc),
    "exclusive": lambda virt: virt.exclusive,
    "antispoof": lambda virt: _bit(virt.antispoof),
    "persist": lambda virt: _bit(virt.persist),
    "upopen": lambda virt: _bit(virt.upopen),
    "carrier": lambda virt: virt.carrier,
    "impair": lambda virt: format_impairments(virt.impairment_in, virt.impairment_out),
    "filter": lambda virt: virt.filter,
    "pace": lambda virt: format_factor(virt.pace),
    "history_size": lambda virt: format_size(virt.history_size),
    "description": lambda virt: virt.description,
}

# The contents of each file of the directory tap/, which shows the host's end.
TAP_VALUES: Final[dict[str, Callable[[Virt], str]]] = {
    "name": lambda virt: word(virt.host.name),
    "index": lambda virt: str(virt.host.index),
    "address": lambda virt: format_mac(virt.host.address),
    "up": lambda virt: _bit(virt.host.up),
    "carrier": lambda virt: _bit(virt.host.carrier),
    "mtu": lambda virt: str(virt.host.mtu),
    "netns": lambda virt: word(virt.netns),
    "bridge": lambda virt: word(virt.host.bridge),
}


def _bit(value: bool) -> str:
    return "1" if value else "0"


# The counters that include a number from the kernel. The kernel does not report changes to it, so it must be polled.
OF_KERNEL: Final = frozenset(("rx_dropped",))


def counter(virt: Virt, name: str) -> int:
    """Return the number in a file of stats/. rx_dropped also counts the frames that the tap dropped."""
    count: int = getattr(virt.counters, name)
    return count + virt.host.dropped if name == "rx_dropped" else count


def counters(virt: Virt) -> Iterator[tuple[str, int]]:
    """Yield the name and the number of each file of stats/, in the order of COUNTERS."""
    for name in COUNTERS:
        yield name, counter(virt, name)


def verbs_of(virt: Virt, owner: str, group: str, *, makes: bool = False, bridge: str = "") -> list[tuple[Action, ...]]:
    """Return the lines of verbs that turn a new interface of the same unit into `virt`.

    owner, group: names or numbers, as arguments of the verbs `owner` and `group`.
    makes: whether the caller will put the first line after `create`. Otherwise `netns` must be the last verb
    of its line, and the verbs that apply in the new namespace are on the next line.
    bridge: the lost bridge that the tap was in, or "".
    Settings with default values are left out. The MAC addresses are always included, because a new interface gets
    random ones. There may be several lines, because `description` and `filter` each take the rest of a line.
    If the tap has vanished, the lines have its settings before that (Virt.kept).
    """
    host = virt.kept
    fresh = Virt(virt.unit, virt.address, host)
    ways: tuple[tuple[Direction, Impairment], ...] = (("in", virt.impairment_in), ("out", virt.impairment_out))
    impaired = tuple((direction, way) for direction, way in ways if way != UNIMPAIRED)
    first: list[tuple[bool, Action]] = [
        (True, Action("link", (virt.address,))),
        (True, Action("taplink", (host.address,))),
        (host.mtu != MTU_DEFAULT, Action("mtu", (host.mtu,))),
        (host.queue != QUEUE, Action("queue", (host.queue,))),
        (virt.backlog != fresh.backlog, Action("backlog", (virt.backlog,))),
        (virt.strict, Action("strict")),
        (host.promisc, Action("promisc")),
        (virt.exclusive != fresh.exclusive, Action("exclusive", (virt.exclusive,))),
        (virt.owner != fresh.owner, Action("owner", (owner,))),
        (virt.group != fresh.group, Action("group", (group,))),
        (virt.mode != (MODE_GROUP if virt.group else MODE_NEW), Action("mode", (virt.mode,))),
        (virt.antispoof, Action("antispoof")),
        (virt.persist, Action("persist")),
        (virt.upopen, Action("upopen")),
        (virt.carrier != fresh.carrier, Action("carrier", (virt.carrier,))),
        (bool(impaired), Action("impair", (impaired,))),
        (bool(virt.pace), Action("pace", (virt.pace,))),
        (bool(virt.history_size), Action("history", (virt.history_size,))),
        *((True, Action("inet" if a.version == 4 else "inet6", (a,))) for a in host.addresses),
        (host.up and not virt.upopen, Action("up")),
        (bool(virt.netns), Action("netns", (virt.netns,))),
    ]
    last: list[tuple[bool, Action]] = [
        (bool(bridge or host.bridge), Action("bridge", (bridge or host.bridge,))),
        (bool(virt.description), Action("description", (virt.description,))),
    ]
    filtered = [(bool(virt.filter), Action("filter", (virt.filter,)))]
    lines = [first, last, filtered] if virt.netns and not makes else [first + last, filtered]
    return [actions for line in lines if (actions := tuple(action for differs, action in line if differs))]
