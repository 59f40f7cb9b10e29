"""What a mount must have after any lines: interfaces, bridges, cables, and the same in the kernel."""

from copy import deepcopy
from dataclasses import dataclass, field

Words = dict[str, object]  # the verbs of an interface or bridge with their values; True for a verb without a value

# The number of arguments of each verb that a line of ctl may have; -1: the rest of the line.
ARGUMENTS = {
    "link": 1, "taplink": 1, "mtu": 1, "queue": 1, "backlog": 1, "strict": 0, "promisc": 0, "exclusive": 1, "owner": 1,
    "antispoof": 0, "persist": 0, "carrier": 1, "pace": 1, "history": 1, "inet": 1, "up": 0, "netns": 1, "bridge": 1,
    "impair": 3, "description": -1, "filter": -1,
    "add": 1, "priority": 1, "timeout": 1, "maxage": 1, "-learn": 1,
}  # fmt: skip
HOSTS = 7  # the unit whose tap the host has made
SEVERAL = {"inet", "add", "-learn"}  # verbs whose values add up
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
            words[name] = words.get(name, frozenset()) - {value}  # type: ignore[operator]
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

        Changes of a tap of the host are not undone, so a line about it that was cut short may be there in part.
        history: the states before and after each of the last lines. exact: whether all of them were acknowledged.
        """
        if without_hosts(self) != without_hosts(found) or (HOSTS in self.virts) != (HOSTS in found.virts):
            return False
        if HOSTS not in self.virts:
            return True
        mine, its = self.virts[HOSTS], found.virts[HOSTS]
        if not all(HOSTS in model.virts for model in history):  # a new interface also has what its tap had
            return not exact or mine.items() <= its.items()
        states = [mine] if exact else [model.virts[HOSTS] for model in history]
        return all(its.get(verb) in [words.get(verb) for words in states] for verb in {*its, *mine})

    def members(self, name: str) -> list[int]:
        """Return the units whose taps are in a bridge."""
        return [unit for unit, words in self.virts.items() if words.get("bridge") == name]


def without_hosts(model: Model) -> Model:
    """Return a state without the interface of the host's tap."""
    return Model({unit: words for unit, words in model.virts.items() if unit != HOSTS}, model.bridges, model.cables)


def of_ctl(text: str) -> tuple[Model, set[str]]:
    """Return the state that a text of ctl describes, and the names after `# made:`. ValueError: a failed line."""
    model, made = Model(), set[str]()
    for line in text.splitlines():
        first, _, rest = line.partition(" ")
        if line.startswith("# made: "):
            made = set(line.removeprefix("# made: ").split())
        elif line.startswith("# virt") and line.endswith("open clone"):
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
