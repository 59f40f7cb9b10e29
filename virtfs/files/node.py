"""What a name in the tree can be: a directory, a link, a text file, a stream.

A node knows its rights and its times and what opening it gives; where it lies is `tree`'s, and what its inode number
is, `fuse`'s.
"""

import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from virtfs.core.ids import Gid, Uid, User
from virtfs.core.virt import Virt


class Owner(Protocol):
    """The owner of a file: an interface, or root for files of the mount."""

    @property
    def owner(self) -> Uid: ...

    @property
    def group(self) -> Gid: ...

    @property
    def mode(self) -> int: ...


@dataclass(frozen=True, slots=True)
class RootOwned:
    """Root, as the owner of the mount's files and of those files of an interface that only root may change."""

    owner: Uid = Uid(0)
    group: Gid = Gid(0)
    mode: int = 0o600
    virt: Virt | None = None


ROOT = RootOwned()


class Rights(Enum):
    """How the permission bits of a file follow from its owner's `mode`."""

    STREAM = "sends or receives frames: the mode itself"
    VALUE = "can be read by everybody, set by whom the mode lets write"
    REPORT = "only tells"

    def bits(self, mode: int) -> int:
        """The permission bits under an interface's mode."""
        if self is Rights.STREAM:
            return mode
        return mode & 0o666 | 0o444 if self is Rights.VALUE else 0o444


class Node:
    """Anything with a name."""

    __slots__ = ("__weakref__", "born", "owner")

    kind = stat.S_IFREG

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.born = time.time_ns()

    def permissions(self) -> int:
        """The nine permission bits."""
        raise NotImplementedError

    def size(self, user: User | None) -> int:
        """Return st_size in bytes as this user sees it; without a user, the last known size."""
        return 0

    def times(self) -> tuple[int, int]:
        """atime and mtime in ns."""
        return self.born, self.born


class Directory(Node):
    """A table of names; others may add and remove entries, the file system's users not."""

    __slots__ = ("children",)

    kind = stat.S_IFDIR

    def __init__(self, owner: Owner, children: Mapping[str, Node] | None = None) -> None:
        super().__init__(owner)
        self.children: dict[str, Node] = dict(children or {})

    def permissions(self) -> int:
        return 0o755


class Symlink(Node):
    """Points at another file, inside the tree or at the run-time directory."""

    __slots__ = ("target",)

    kind = stat.S_IFLNK

    def __init__(self, owner: Owner, target: str) -> None:
        super().__init__(owner)
        self.target = target

    def permissions(self) -> int:
        return 0o777

    def size(self, user: User | None) -> int:
        return len(self.target.encode())
