"""The model of an interface."""

import re
from dataclasses import dataclass, field
from typing import Any, Final

from .ledger import Ledger

UNITS = 6
USERS = (4001, 4002)
FAR, BRIDGE = "far", "bridge0"
DISK = "/mnt/disk"
STATE = f"{DISK}/state"
STATS = ("rx_frames", "rx_dropped", "rx_duplicated", "tx_frames", "tx_dropped", "tx_duplicated")
NEW: Final[dict[str, Any]] = {
    "up": False,
    "mtu": 1500,
    "queue": 256,
    "backlog": 0,
    "strict": False,
    "promisc": False,
    "antispoof": False,
    "exclusive": "read",
    "persist": False,
    "impair": "",
    "filter": "",
    "description": "",
}
IMPAIRMENTS = ("delay 2ms", "loss 20%", "in delay 1ms", "out duplicate 50%", "in duplicate 50% out delay 3ms")


class Mismatch(AssertionError):
    """The mount, the model, the kernel or the state file disagree."""


@dataclass
class Unit:
    """One interface as the model has it. values: as in status.json."""

    owner: int = 0
    values: dict[str, Any] = field(default_factory=lambda: dict(NEW))
    impairments: dict[str, str] = field(default_factory=lambda: {"in": "", "out": ""})
    inets: list[str] = field(default_factory=list)
    netns: str = ""
    bridge: str = ""
    cable: int | None = None
    lost: bool = False
    ledger: Ledger = field(default_factory=Ledger)

    def apply(self, verb: str) -> None:
        """Apply one verb."""
        name, _, value = verb.partition(" ")
        match name.lstrip("-"):
            case "up" | "down":
                self.values["up"] = name == "up"
            case "inet":
                self.inets = [one for one in self.inets if one != value] + [value] * (name == "inet")
            case "mtu" | "queue" | "backlog":
                self.values[name] = int(value)
            case "impair":
                self.ledger.disturbed = True
                self._impair(value)
            case "exclusive" | "description" | "filter":
                self.values[name.lstrip("-")] = value
            case switch:
                self.values[switch] = not name.startswith("-")

    def _impair(self, words: str) -> None:
        """Replace the impairments of the directions that the words name; of both if they name none."""
        named = re.findall(r"(in|out) ([^io]\S+ \S+)", words) or [("in", words), ("out", words)]
        self.impairments.update(named)
        towards, away = self.impairments["in"], self.impairments["out"]
        both = " ".join(f"{way} {one}" for way, one in self.impairments.items() if one)
        self.values["impair"] = towards if towards == away else both
