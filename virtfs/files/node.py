"""Nodes: the base class of all files, directories and symbolic links, and the rules for permission bits.

A node knows its owner, permission bits, size and times. The module `tree` knows the names, and the package `fuse` knows
the inode numbers.
"""

import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from virtfs.core.ids import Gid, Uid, User
from virtfs.core.virt import Virt


class Owner(Protocol):
    """The owner of a node: an interface (Virt) or RootOwned.

    mode: the permission bits from which `Rights` derives those of each file.
    """

    @property
    def owner(self) -> Uid: ...

    @property
    def group(self) -> Gid: ...

    @property
    def mode(self) -> int: ...


@dataclass(frozen=True, slots=True)
class RootOwned:
    """The owner of files that belong to root: files of the mount, and some files in the directory of an interface.

    virt: the interface whose directory contains the file, or None for a file of the mount.
    """

    owner: Uid = Uid(0)
    group: Gid = Gid(0)
    mode: int = 0o600
    virt: Virt | None = None


ROOT = RootOwned()


def virt_of(owner: Owner) -> Virt | None:
    """Return the interface that a file of this owner belongs to, or None for a file of the mount."""
    if isinstance(owner, Virt):
        return owner
    return owner.virt if isinstance(owner, RootOwned) else None


class Rights(Enum):
    """How the permission bits of a file derive from the `mode` of its owner."""

    DEVICE = "for files that send or receive frames: exactly the mode"
    VALUE = "for values: readable by all, writable as the mode says"
    REPORT = "for reports: readable by all, never writable"
    PRIVATE = "for reports about users: readable by the owner"

    def bits(self, mode: int) -> int:
        """Return the permission bits of a file whose owner has this mode."""
        if self is Rights.DEVICE:
            return mode
        if self is Rights.PRIVATE:
            return mode & 0o400
        return mode & 0o666 | 0o444 if self is Rights.VALUE else 0o444


class Node:
    """Anything that has a name in the tree.

    lasting: whether the kernel may keep the attributes for a moment, because they change only when the file's interface
    changes or a program opens the file.
    """

    __slots__ = ("__weakref__", "born", "owner")

    kind = stat.S_IFREG
    lasting = False

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.born = time.time_ns()

    def permissions(self) -> int:
        """Return the permission bits, 0 to 0o777."""
        raise NotImplementedError

    def size(self, user: User | None) -> int:
        """Return st_size in bytes as `user` sees it. If user is None, return the last known size."""
        return 0

    def times(self, user: User | None) -> tuple[int, int]:
        """Return atime and mtime in ns since 1970, as `user` sees them."""
        return self.born, self.born


class Directory(Node):
    """A directory. The daemon adds and removes entries; users cannot.

    links: st_nlink, 0 once the directory has been removed. listeners: called after each change of `links`.
    steady: whether no name ever changes while the directory exists, so that the kernel may cache all of them.
    fixed: the names that never change in a directory that is not steady.
    """

    __slots__ = ("_children", "_make", "fixed", "links", "listeners", "steady")

    kind = stat.S_IFDIR

    def __init__(
        self,
        owner: Owner,
        children: Mapping[str, Node] | Callable[[], Mapping[str, Node]] | None = None,
        steady: bool = False,
        directories: int = 0,
    ) -> None:
        """children: the entries, or a function that makes them when they are first used.

        directories: the number of directories among the entries that the function makes.
        """
        super().__init__(owner)
        self._children: dict[str, Node] = {}
        self._make = children if callable(children) else None
        self.links = 2 + directories
        self.listeners: list[Callable[[], None]] = []
        self.fixed: frozenset[str] = frozenset()
        self.steady = False
        if children and not callable(children):
            self.add(children)
        self.steady = steady

    @property
    def children(self) -> Mapping[str, Node]:
        """The nodes by name, made on first use.

        A mount may have thousands of interfaces with dozens of files each, and most of the files are never used.
        """
        if self._make is not None:
            make, self._make = self._make, None
            self._children.update(make())
            for child in self._children.values():
                child.born = self.born
        return self._children

    def fix(self) -> None:
        """Declare that the current names never change, so that the kernel may cache them."""
        self.fixed = frozenset(self._children)

    def add(self, children: Mapping[str, Node]) -> None:
        """Add or replace entries. ValueError: the directory is steady, or a name is fixed."""
        for name, node in children.items():
            self.remove(name)
            self._children[name] = node
            if isinstance(node, Directory):
                self._link(1)

    def remove(self, name: str) -> None:
        """Remove an entry. If there is none with that name, do nothing. ValueError: as in add()."""
        if self.steady or name in self.fixed:
            raise ValueError("the kernel may have cached the names of this directory")
        if isinstance(node := self._children.pop(name, None), Directory):
            self._link(-1)
            node._vanish()

    def _vanish(self) -> None:
        self._link(-self.links)
        for node in self._children.values():
            if isinstance(node, Directory):
                node._vanish()

    def _link(self, change: int) -> None:
        self.links += change
        for listener in self.listeners:
            listener()

    def permissions(self) -> int:
        return 0o755


class Symlink(Node):
    """A symbolic link to a file in the tree or in the run-time directory. target: its text."""

    __slots__ = ("target",)

    kind = stat.S_IFLNK
    lasting = True

    def __init__(self, owner: Owner, target: str) -> None:
        super().__init__(owner)
        self.target = target

    def follow(self) -> str:
        """Return the target. Called when a program follows the link, perhaps to open the target.

        OSError: the link cannot be followed.
        """
        return self.target

    def permissions(self) -> int:
        return 0o777

    def size(self, user: User | None) -> int:
        return len(os.fsencode(self.target))
