"""The verbs that restore an earlier state of an interface, to undo a line that failed."""

from collections.abc import Iterator

from virtfs.core.grammar import Action
from virtfs.core.virt import Origin, Virt

# Maps each verb that only sets a field of the Virt to the name of that field.
_FIELDS = {
    "link": "address",
    "backlog": "backlog",
    "exclusive": "exclusive",
    "description": "description",
    "pace": "pace",
    "history": "history_size",
}


def steps(now: Virt, to: Virt) -> tuple[Action, ...]:
    """Return the verbs that bring an interface from the state `now` back to the earlier state `to`, in a valid order.

    If the tap is lost, only the settings of virt are restored. A tap that virtfs created is not moved back to another
    network namespace: only the line that created the tap can have moved it, and undoing this line destroys the tap.
    `bridge` is the last verb before `up`.
    """
    return (*_settings(now, to), *(() if now.lost else _host_end(now, to)))


def _settings(now: Virt, to: Virt) -> Iterator[Action]:
    if now.owner != to.owner:
        yield Action("owner", (str(to.owner),))
    if now.group != to.group:
        yield Action("group", (str(to.group),))
    # `mode` is needed even if only the group differs, because the verb `group` can change the mode.
    if (now.group, now.mode) != (to.group, to.mode):
        yield Action("mode", (to.mode,))
    for verb, field in _FIELDS.items():
        if getattr(now, field) != getattr(to, field):
            yield Action(verb, (getattr(to, field),))
    if (now.impairment_in, now.impairment_out) != (to.impairment_in, to.impairment_out):
        yield Action("impair", ((("in", to.impairment_in), ("out", to.impairment_out)),))
    yield from _flags(now, to, "strict", "antispoof")


def _flags(now: Virt, to: Virt, *names: str) -> Iterator[Action]:
    for name in names:
        if getattr(now, name) != getattr(to, name):
            yield Action(name if getattr(to, name) else f"-{name}")


def _host_end(now: Virt, to: Virt) -> Iterator[Action]:
    if now.netns != to.netns and now.origin is Origin.FOUND:
        yield Action("netns", (to.netns,))
    yield from _flags(now, to, "persist", "upopen")
    for verb in ("filter", "carrier"):
        if getattr(now, verb) != getattr(to, verb):
            yield Action(verb, (getattr(to, verb),))
    here, there = now.host, to.host
    if here.promisc != there.promisc:
        yield Action("promisc" if there.promisc else "-promisc")
    if here.queue != there.queue:
        yield Action("queue", (there.queue,))
    if here.address != there.address:
        yield Action("taplink", (there.address,))
    if here.mtu != there.mtu:
        yield Action("mtu", (there.mtu,))
    # The addresses come after the MTU, because the kernel removes all IPv6 addresses while the MTU is below 1280.
    for address in here.addresses:
        if address not in there.addresses:
            yield Action("-inet" if address.version == 4 else "-inet6", (address,))
    for address in there.addresses:
        if address not in here.addresses:
            yield Action("inet" if address.version == 4 else "inet6", (address,))
    if here.bridge != there.bridge:
        yield Action("bridge", (there.bridge,)) if there.bridge else Action("-bridge")
    if here.up != there.up:
        yield Action("up" if there.up else "down")
