"""What a mount must have after any lines: interfaces, bridges, cables, and the same in the kernel."""

from copy import deepcopy
from dataclasses import dataclass, field

Words = dict[str, object]  # the verbs of an interface or bridge with their values; True for a verb without a value

# The number of arguments of each verb that a line of ctl may have; -1: the rest of the line.
ARGUMENTS = {
    "link": 1, "taplink": 1, "mtu": 1, "queue": 1, "backlog": 1, "strict": 0, "promisc": 0, "exclusive": 1, "owner": 1,
    "antispoof": 0, "persist": 0, "carrier": 1, "pace": 1, "history": 1, "inet": 1, "up": 0, "netns": 1, "bridge": 1,
    "impair": 3, "description": -1, "filter": -1,
    "add": 1, "maxaddr": 1, "inet6": 1, "priority": 1, "timeout": 1, "maxage": 1, "-learn": 1,
}  # fmt: skip
HOSTS = 7  # the unit whose tap the host has made
HOST_BRIDGE = "bridge7"  # a bridge that the host has made
SEVERAL = {"inet", "inet6", "add", "-learn"}  # verbs whose values add up
OTHERS = {"d1": frozenset({"10.50.1.1/24", "10.50.1.2/24"}), "d2": frozenset({"10.50.2.1/24"}), "d3": frozenset[str]()}
"""The other interfaces of the host, with the addresses that the host has given them."""
DEFAULTS: Words = {"mtu": "1500", "queue": "256", "backlog": "0", "exclusive": "read", "carrier": "always"}
DEFAULTS |= {"priority": "32768", "timeout": "1200", "maxage": "20", "description": ""}


def parsed(text: str) -> Words:
    """Return the verbs of a line of ctl."""
    found: Words = {}
    rest = text
    while rest := rest.strip():
        verb, _, rest = rest.partition(" ")
        count = ARGUMENTS[verb]
        if count < 0:
            value, rest = rest, ""
        else:
            words = rest.split(" ")
            count += verb == "add" and words[1:2] == ["adopt"]
            value, rest = " ".join(words[:count]), " ".join(words[count:])
        put(found, verb, value)
    return found


def put(words: Words, verb: str, value: str) -> None:
    """Apply one verb."""
    if verb in SEVERAL:
        words[verb] = words.get(verb, frozenset()) | {value}  # type: ignore[operator]
    elif verb.startswith("-") or verb == "down":
        name = "up" if verb == "down" else verb[1:]
        if value and name in SEVERAL:
            words[name] = words.get(name, frozenset()) - {value, f"{value} adopt"}  # type: ignore[operator]
            if not words[name]:
                del words[name]
        else:
            words.pop(name, None)
    elif DEFAULTS.get(verb) == value:
        words.pop(verb, None)
    else:
        words[verb] = value or True


@dataclass
class Model:
    """The interfaces by unit, the bridges by name, and the impairments of the cables by their ends."""

    virts: dict[int, Words] = field(default_factory=dict)
    bridges: dict[str, Words] = field(default_factory=dict)
    cables: dict[tuple[int, int], str] = field(default_factory=dict)

    def copy(self) -> "Model":
        return deepcopy(self)

    def destroy(self, unit: int) -> None:
        """Remove an interface, its cable, and what its bridge says of it."""
        self.leave(unit)
        del self.virts[unit]
        self.cables = {ends: impairment for ends, impairment in self.cables.items() if unit not in ends}

    def leave(self, unit: int) -> None:
        """Take a tap out of its bridge."""
        self.virts[unit].pop("bridge", None)
        for bridge in self.bridges.values():
            if f"tap{unit}" in bridge.get("-learn", ()):  # type: ignore[operator]
                bridge["-learn"] -= {f"tap{unit}"}  # type: ignore[operator]
                if not bridge["-learn"]:
                    del bridge["-learn"]

    def fits(self, found: "Model", history: list["Model"], exact: bool) -> bool:
        """Return whether `found` is this state.

        Changes of the host's tap and bridge are not undone, so a line that was cut short may have changed them in part.
        history: the states before and after each of the last lines. exact: whether all of them were acknowledged.
        """
        if without_hosts(self) != without_hosts(found):
            return False
        states = [self] if exact else history
        return all(
            _fits(mine, its, [of(model) for model in states], any(of(model) is None for model in history), exact)
            for mine, its, of in ((of(self), of(found), of) for of in (hosts_tap, hosts_bridge))
        )

    def members(self, name: str) -> list[int]:
        """Return the units whose taps are in a bridge."""
        return [unit for unit, words in self.virts.items() if words.get("bridge") == name]


def hosts_tap(model: Model) -> Words | None:
    """Return the verbs of the interface of the host's tap, or None if virtfs is not attached to it."""
    return model.virts.get(HOSTS)


def hosts_bridge(model: Model) -> Words | None:
    """Return the verbs of the host's bridge, or None if virtfs is not attached to it."""
    return model.bridges.get(HOST_BRIDGE)


def _fits(mine: Words | None, its: Words | None, states: list[Words | None], new: bool, exact: bool) -> bool:
    """Return whether the host's tap or bridge may have these verbs. new: whether virtfs may have just attached."""
    if mine is None or its is None:
        return mine is its
    if new:  # the interface also has what the host had given it
        return not exact or all(
            value <= its.get(verb, frozenset())  # type: ignore[operator]
            if isinstance(value, frozenset)
            else its.get(verb) == value
            for verb, value in mine.items()
        )
    return all(its.get(verb) in [(words or {}).get(verb) for words in states] for verb in {*its, *mine})


def without_hosts(model: Model) -> Model:
    """Return a state without the host's tap and bridge."""
    virts = {unit: words for unit, words in model.virts.items() if unit != HOSTS}
    bridges = {name: words for name, words in model.bridges.items() if name != HOST_BRIDGE}
    return Model(virts, bridges, model.cables)


def adopted(model: Model) -> dict[str, str]:
    """Return the bridge of each interface of the host whose addresses a bridge has adopted."""
    return {
        str(value).removesuffix(" adopt"): name
        for name, words in model.bridges.items()
        for value in words.get("add", frozenset())  # type: ignore[attr-defined]
        if str(value).endswith(" adopt")
    }


def of_ctl(text: str) -> tuple[Model, set[str]]:
    """Return the state that a text of ctl describes, and the names after `# made:`. ValueError: a failed line."""
    model, made = Model(), set[str]()
    for line in text.splitlines():
        first, _, rest = line.partition(" ")
        if line.startswith("# made: "):
            made = set(line.removeprefix("# made: ").split())
        elif line.startswith(("# adopted: ", "# found: ")) or (
            line.startswith("# virt") and line.endswith("open clone")
        ):
            continue
        elif first == "create":
            name, _, verbs = rest.partition(" ")
            if name.startswith("bridge"):
                model.bridges[name] = parsed(verbs)
            else:
                model.virts[int(name)] = parsed(verbs)
        elif first == "cable":
            one, other, *impairment = rest.split()
            model.cables[int(one), int(other)] = " ".join(impairment)
        elif first.startswith("virt"):
            model.virts[int(first.removeprefix("virt"))] |= parsed(rest)
        elif first.startswith("bridge"):
            model.bridges[first] |= parsed(rest)
        else:
            raise ValueError(line)
    for bridge in model.bridges.values():
        bridge.pop("mtu", None)  # follows the members
    return model, made
