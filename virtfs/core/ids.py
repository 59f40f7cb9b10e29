"""Distinct types for numbers of different kinds, so that mypy finds mix-ups."""

from dataclasses import dataclass
from typing import NewType

Unit = NewType("Unit", int)  # the n of virt<n> and tap<n>
Uid = NewType("Uid", int)
Gid = NewType("Gid", int)
BridgeName = NewType("BridgeName", str)  # "bridge0": its number is written like a Unit

UNIT_MAX = Unit(2147483639)  # tap2147483639 still fits IFNAMSIZ with its NUL
BRIDGE_MAX = 999_999_999  # likewise bridge999999999


@dataclass(frozen=True, slots=True)
class User:
    """The user who opened a file. A handle keeps the rights its opener had at open(2)."""

    uid: Uid
    gid: Gid
    pid: int

    @property
    def root(self) -> bool:
        """Whether the user is root of the user namespace that the mount belongs to."""
        return self.uid == 0
