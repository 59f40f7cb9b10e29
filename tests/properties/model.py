"""A model of interfaces: their expected state after any verbs."""

import errno
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field

BIT = {"strict": "1", "-strict": "0", "promisc": "1", "-promisc": "0", "antispoof": "1", "-antispoof": "0"}
SUBNETS = 4
NEW = {
    "up": "0",
    "mtu": "1500",
    "queue": "256",
    "backlog": "0",
    "strict": "0",
    "promisc": "0",
    "antispoof": "0",
    "exclusive": "read",
    "carrier": "always",
    "persist": "0",
    "description": "",
}


class Refused(Exception):
    """The errno that write(2) must fail with."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.number = number


@dataclass
class Modelled:
    """One interface. values: contents of the attribute files, by name."""

    inets: set[str] = field(default_factory=set)
    values: dict[str, str] = field(default_factory=lambda: dict(NEW))

    def apply(self, verbs: Iterable[str]) -> None:
        """Apply the verbs of a line. If Refused is raised, some are applied already; the caller must restore a copy."""
        for verb in verbs:
            match verb.split(" ", 1):
                case ["up" | "down" as name]:
                    self.values["up"] = str(int(name == "up"))
                case ["persist" | "-persist" as name]:
                    self.values["persist"] = str(int(name == "persist"))
                case ["inet", address]:
                    self.inets.add(address)
                case ["-inet", address]:
                    if address not in self.inets:
                        raise Refused(errno.EADDRNOTAVAIL)
                    self.inets.remove(address)
                case ["bridge", _]:
                    raise Refused(errno.ENXIO)  # the test has no bridge
                case ["link", address]:
                    self.values["address"] = address
                case ["taplink", address]:
                    self.values["tap/address"] = address
                case [name] if name.lstrip("-") in self.values:
                    self.values[name.lstrip("-")] = BIT[name]
                case [name, value]:
                    self.values[name] = value
                case _:
                    raise AssertionError(verb)


class Model:
    """All interfaces, by unit."""

    def __init__(self) -> None:
        self.all: dict[int, Modelled] = {}

    def line(self, kind: str, unit: int | None, verbs: list[str]) -> None:
        """Apply a line of the mount's ctl. If Refused is raised, nothing has changed."""
        if kind == "create" and unit is None:
            unit = next(n for n in range(len(self.all) + 1) if n not in self.all)
        assert unit is not None
        there = self.all.get(unit)
        if kind == "create" and there is not None:
            raise Refused(errno.EEXIST)
        if kind in ("destroy", "change") and there is None:
            raise Refused(errno.ENXIO)
        if kind == "destroy":
            del self.all[unit]
            return
        changed = deepcopy(there) if there is not None else Modelled()
        changed.apply(verbs)
        self.all[unit] = changed
