"""Distinct types for numbers and names of different kinds, so that mypy finds mix-ups."""

from dataclasses import dataclass
from typing import NewType

Unit = NewType("Unit", int)  # the n of virt<n> and tap<n>
Uid = NewType("Uid", int)
Gid = NewType("Gid", int)
BridgeName = NewType("BridgeName", str)  # such as "bridge0"; the number is in plain decimal, like a unit

# The longest names, tap2147483639 and bridge999999999, fit in IFNAMSIZ (16 bytes, including the NUL).
UNIT_MAX = Unit(2147483639)
BRIDGE_MAX = 999_999_999


@dataclass(frozen=True, slots=True)
class User:
    """The user who opened a file. A handle keeps the rights that this user had at open(2)."""

    uid: Uid
    gid: Gid
    pid: int

    @property
    def root(self) -> bool:
        """Whether the user is root of the user namespace that the mount belongs to."""
        return self.uid == 0
