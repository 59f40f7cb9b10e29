"""Random lines of ctl, each with its effect on the model."""

from collections.abc import Callable
from random import Random

from .model import HOST_BRIDGE, HOSTS, OTHERS, Model, adopted, put

UNITS = range(5)
NAMESPACES = ("net1", "net2")
BRIDGES = ("bridge0", "bridge1")


class Lines:
    """Generates lines that a model accepts, and now and then one that the server must refuse."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def next(self, model: Model) -> tuple[str, str, Model]:
        """Return a line's kind, the line, and the model after it. A refused line leaves the model as it was."""
        while True:
            kind = self._random.choice(KINDS)
            after = model.copy()
            line = getattr(self, f"_{kind}")(after)
            if line:
                return kind, line, after

    def _mac(self) -> str:
        return f"02:00:00:00:{self._random.randrange(256):02x}:{self._random.randrange(256):02x}"

    def _verbs(self, model: Model, unit: int, new: bool) -> list[str]:
        """Return verbs for an interface, and apply them. A new interface gets its MAC addresses."""
        random, words = self._random, model.virts[unit]
        choices: dict[str, Callable[[], str]] = {
            "mtu": lambda: f"mtu {random.choice([1400, 1500, 9000])}",
            "queue": lambda: f"queue {random.choice([99, 256, 300])}",
            "backlog": lambda: f"backlog {random.choice([0, 5])}",
            "exclusive": lambda: f"exclusive {random.choice(['read', 'both', 'none'])}",
            "carrier": lambda: f"carrier {random.choice(['always', 'open', 'off'])}",
            "owner": lambda: f"owner {random.choice([4001, 4002])}",
            "link": lambda: f"link {self._mac()}",
            "taplink": lambda: f"taplink {self._mac()}",
            "strict": lambda: random.choice(["strict", "-strict"]),
            "promisc": lambda: random.choice(["promisc", "-promisc"]),
            "antispoof": lambda: random.choice(["antispoof", "-antispoof"]),
            "history": lambda: random.choice(["history 64K", "-history"]),
            "inet": lambda: f"inet 10.{unit}.{random.randrange(4)}.1/24",
            "up": lambda: random.choice(["up", "up", "down"]),
            "persist": lambda: random.choice(["persist", "persist", "-persist"]),
            "impair": lambda: "impair out delay 1ms",
        }
        said = [choices[name]() for name in random.sample(sorted(choices), random.randrange(1, 7))]
        if new:
            said = [f"link {self._mac()}", f"taplink {self._mac()}", *said]
        elif (held := words.get("inet")) and random.random() < 0.4:
            said.append(f"-inet {random.choice(sorted(held))}")  # type: ignore[call-overload]
        if new and random.random() < 0.3:
            said.append(f"netns {random.choice(NAMESPACES)}")
        elif not words.get("netns") and (bridges := _own(model)) and random.random() < 0.3:
            bridge = random.choice(bridges)
            if words.get("bridge") != bridge:
                model.leave(unit)
            said.append(f"bridge {bridge}")
        if random.random() < 0.3:
            said.append(f"description {random.choice(['a note', 'the # second', 'ü persist'])}")
        elif random.random() < 0.2:
            said.append(random.choice(["filter arp", "filter tcp port 80", "-filter"]))
        for verb in said:
            name, _, value = verb.partition(" ")
            put(words, name, value)
        return said

    def _create(self, model: Model) -> str:
        free = [unit for unit in UNITS if unit not in model.virts]
        if not free:
            return ""
        unit = self._random.choice(free)
        model.virts[unit] = {}
        kind = self._random.choice(["create", "ensure"])
        return f"{kind} {unit} {' '.join(self._verbs(model, unit, new=True))}"

    def _lowest(self, model: Model) -> str:
        free = [unit for unit in range(len(UNITS) * 2) if unit not in model.virts]
        if free[0] not in UNITS:
            return ""
        model.virts[free[0]] = {}
        return f"create {' '.join(self._verbs(model, free[0], new=True))}"

    def _unit(self, model: Model) -> int | None:
        units = sorted(set(model.virts) & set(UNITS))
        return self._random.choice(units) if units else None

    def _host_tap(self, model: Model) -> str:
        """Attach to the tap of the host, change its interface, or let go of it."""
        random, there = self._random, HOSTS in model.virts
        if there and random.random() < 0.3:
            model.destroy(HOSTS)
            return f"destroy {HOSTS}"
        said = [f"mtu {random.choice([1400, 1500])}", f"owner {random.choice([4001, 4002])}", f"taplink {self._mac()}"]
        said += [random.choice(["up", "down"]), f"inet 10.{HOSTS}.{random.randrange(3)}.1/24"]
        said = [*random.sample(said, random.randrange(1, 5)), f"description {random.choice(['one', 'two'])}"]
        words = model.virts.setdefault(HOSTS, {})
        for verb in said:
            name, _, value = verb.partition(" ")
            if there or name != "inet":  # the tap may have other addresses
                put(words, name, value)
        return f"{f'virt{HOSTS}' if there else f'create {HOSTS}'} {' '.join(said)}"

    def _change(self, model: Model) -> str:
        if (unit := self._unit(model)) is None:
            return ""
        return f"virt{unit} {' '.join(self._verbs(model, unit, new=False))}"

    def _destroy(self, model: Model) -> str:
        if (unit := self._unit(model)) is None:
            return ""
        model.destroy(unit)
        return f"destroy {unit}"

    def _netns(self, model: Model) -> str:
        if (unit := self._unit(model)) is None:
            return ""
        name = self._random.choice(NAMESPACES)
        model.leave(unit)
        model.virts[unit]["netns"] = name
        return f"virt{unit} netns {name}"

    def _persist(self, model: Model) -> str:
        if (unit := self._unit(model)) is None:
            return ""
        verb = "-persist" if "persist" in model.virts[unit] else "persist"
        put(model.virts[unit], verb, "")
        return f"virt{unit} {verb}"

    def _cable(self, model: Model) -> str:
        free = [unit for unit in sorted(model.virts) if not any(unit in ends for ends in model.cables)]
        if len(free) < 2:
            return ""
        one, other = self._random.sample(free, 2)
        model.cables[one, other] = impairment = self._random.choice(["", "delay 1ms"])
        return f"cable {one} {other} {impairment}".strip()

    def _uncable(self, model: Model) -> str:
        if not model.cables:
            return ""
        one, other = self._random.choice(sorted(model.cables))
        del model.cables[one, other]
        return f"uncable {one} {other}"

    def _bridge_verbs(self, model: Model, name: str) -> list[str]:
        random, words = self._random, model.bridges[name]
        choices = {
            "priority": lambda: f"priority {random.choice([7, 32768])}",
            "maxage": lambda: f"maxage {random.choice([20, 30])}",
            "timeout": lambda: f"timeout {random.choice([600, 1200])}",
            "inet": lambda: f"inet 10.9.{random.randrange(3)}.1/24",
            "up": lambda: random.choice(["up", "up", "down"]),
        }
        if name in adopted(model).values():
            del choices["up"]  # the kernel removes the adopted routes of a bridge that is set down
        said = [choices[verb]() for verb in random.sample(sorted(choices), random.randrange(1, 5))]
        if (held := words.get("inet")) and random.random() < 0.4:
            said.append(f"-inet {random.choice(sorted(held))}")  # type: ignore[call-overload]
        if random.random() < 0.4 and (free := _free(model)):
            said.append(f"add {random.choice(free)}")
        elif (members := words.get("add")) and random.random() < 0.4:
            said.append(f"delete {random.choice(sorted(members)).removesuffix(' adopt')}")  # type: ignore[call-overload]
        if (units := model.members(name)) and random.random() < 0.4:
            said.append(f"-learn tap{random.choice(units)}")
        for verb in said:
            word, _, value = verb.partition(" ")
            put(words, "-add" if word == "delete" else word, value)
        return said

    def _create_bridge(self, model: Model) -> str:
        free = [name for name in BRIDGES if name not in model.bridges]
        if not free:
            return ""
        name = self._random.choice(free)
        model.bridges[name] = {}
        return f"create {name} {' '.join(self._bridge_verbs(model, name))}"

    def _change_bridge(self, model: Model) -> str:
        if not (names := _own(model)):
            return ""
        name = self._random.choice(names)
        return f"{name} {' '.join(self._bridge_verbs(model, name))}"

    def _adopt(self, model: Model) -> str:
        """Move the addresses and routes of an interface of the host to a bridge, also to a new one."""
        free = [other for other in _free(model) if OTHERS[other]]
        if not free:
            return ""
        name, other = self._random.choice(BRIDGES), self._random.choice(free)
        new = name not in model.bridges
        words = model.bridges.setdefault(name, {})
        said = [f"add {other} adopt"]
        if self._random.random() < 0.5:
            said.append(f"priority {self._random.choice([7, 32768])}")
        if self._random.random() < 0.5:
            said.append(f"inet 10.9.{self._random.randrange(3)}.1/24")
        self._random.shuffle(said)
        for verb in [*said, "up"]:  # a bridge that adopts from an interface that is up is set up
            word, _, value = verb.partition(" ")
            put(words, word, value)
        return f"{'create ' if new else ''}{name} {' '.join(said)}"

    def _host_bridge(self, model: Model) -> str:
        """Attach to the bridge of the host, change it, or let go of it."""
        random, there = self._random, HOST_BRIDGE in model.bridges
        if there and random.random() < 0.3:
            del model.bridges[HOST_BRIDGE]
            return f"destroy {HOST_BRIDGE}"
        said = [
            f"priority {random.choice([7, 99])}",
            f"timeout {random.choice([600, 900])}",
            f"inet 10.8.{random.randrange(3)}.1/24",
        ]
        said = random.sample(said, random.randrange(1, 4))
        words = model.bridges.setdefault(HOST_BRIDGE, {})
        for verb in said:
            word, _, value = verb.partition(" ")
            put(words, word, value)
        return f"{'' if there else 'create '}{HOST_BRIDGE} {' '.join(said)}"

    def _destroy_bridge(self, model: Model) -> str:
        if not (names := _own(model)):
            return ""
        name = self._random.choice(names)
        for unit in model.members(name):
            model.leave(unit)
        del model.bridges[name]
        return f"destroy {name}"

    def _refused(self, model: Model) -> str:
        """Return a line whose last verb the kernel refuses."""
        free = [unit for unit in UNITS if unit not in model.virts]
        unit = self._unit(model)
        mac = self._mac()
        lines = [f"create {free[0]} persist mtu 1400 inet 10.7.7.1/24 up bridge nosuch"] if free else []
        if unit is not None:
            lines.append(f"virt{unit} mtu 1280 taplink {mac} persist inet 10.{unit}.9.1/24 down netns nosuch")
        if names := _own(model):
            name, others = self._random.choice(names), [other for other in _free(model) if OTHERS[other]]
            adopting = f" add {self._random.choice(others)} adopt" if others and self._random.random() < 0.5 else ""
            lines.append(f"{name} priority 99 inet 10.9.9.1/24{adopting} -inet 10.99.9.1")
        return self._random.choice(lines) if lines else ""


KINDS = (
    ["create"] * 4 + ["change"] * 5 + ["destroy"] * 2 + ["create_bridge"] * 2 + ["change_bridge"] * 2
    + ["netns", "persist", "persist", "cable", "cable", "uncable", "destroy_bridge", "refused", "lowest"]
    + ["host_tap"] * 2 + ["adopt"] * 2 + ["host_bridge"]
)  # fmt: skip


def _own(model: Model) -> list[str]:
    """Return the names of the bridges that virtfs has made."""
    return sorted(set(model.bridges) - {HOST_BRIDGE})


def _free(model: Model) -> list[str]:
    """Return the interfaces of the host that are in no bridge."""
    members = (str(value).split()[0] for words in model.bridges.values() for value in words.get("add", ()))  # type: ignore[attr-defined]
    return sorted(set(OTHERS) - set(members))
