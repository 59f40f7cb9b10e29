"""Numbers that must not be mixed up, each a type of its own."""

from dataclasses import dataclass
from typing import NewType

Unit = NewType("Unit", int)  # the n of virt<n> and tap<n>
Uid = NewType("Uid", int)
Gid = NewType("Gid", int)
BridgeName = NewType("BridgeName", str)  # "bridge0": the number under the rule of a Unit

UNIT_MAX = Unit(2147483639)  # spelled out, tap2147483639 still fits IFNAMSIZ with its NUL
BRIDGE_MAX = 999_999_999  # likewise bridge999999999


@dataclass(frozen=True, slots=True)
class User:
    """Who opened a file: the rights of a handle are his, taken at open(2)."""

    uid: Uid
    gid: Gid
    pid: int

    @property
    def root(self) -> bool:
        """Root of the user namespace the mount belongs to."""
        return self.uid == 0
