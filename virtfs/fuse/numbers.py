"""Inode numbers for nodes and handle numbers for opens, never used twice.

The kernel's lookup counts (FORGET) are not needed: a node that left the tree keeps its number as long as somebody has
it open, and no longer, because only weak references are held here. A number without a node is a file that is gone.
"""

import errno
from collections import Counter
from itertools import count
from typing import NewType
from weakref import WeakKeyDictionary, WeakValueDictionary

from virtfs.core.errors import VirtError
from virtfs.core.ids import Uid, User
from virtfs.files.device import DeviceHandle, FixedHandle
from virtfs.files.node import Node
from virtfs.files.text import TextHandle
from virtfs.fuse.protocol import FUSE_ROOT_ID

OPEN_MAX = 4096  # files of one user who is not root

Inode = NewType("Inode", int)
HandleId = NewType("HandleId", int)  # fuse.h's fh


class Inodes:
    """Which node has which inode number; the root has FUSE_ROOT_ID."""

    def __init__(self, root: Node) -> None:
        self._numbers: WeakKeyDictionary[Node, Inode] = WeakKeyDictionary({root: Inode(FUSE_ROOT_ID)})
        self._nodes: WeakValueDictionary[Inode, Node] = WeakValueDictionary({Inode(FUSE_ROOT_ID): root})
        self._next = count(FUSE_ROOT_ID + 1)

    def number(self, node: Node) -> Inode:
        """The node's inode number, a new one when it has none yet."""
        inode = self._numbers.get(node)
        if inode is None:
            inode = self._numbers[node] = Inode(next(self._next))
            self._nodes[inode] = node
        return inode

    def node(self, inode: int) -> Node | None:
        """The node of that number, None when it is gone."""
        return self._nodes.get(Inode(inode))


class Handles:
    """The open files of both planes. A user who is not root has OPEN_MAX of them at most."""

    def __init__(self) -> None:
        self.streams: dict[HandleId, DeviceHandle] = {}
        self.fixed: dict[HandleId, FixedHandle] = {}
        self.texts: dict[HandleId, TextHandle] = {}
        self._of_user: Counter[Uid] = Counter()
        self._next = count(1)

    def add_stream(self, handle: DeviceHandle) -> HandleId:
        """A number for an open stream, or EMFILE."""
        number = self._number(handle.user)
        if isinstance(handle, FixedHandle):
            self.fixed[number] = handle
        else:
            self.streams[number] = handle
        return number

    def add_text(self, handle: TextHandle) -> HandleId:
        """A number for an open text file, or EMFILE."""
        number = self._number(handle.user)
        self.texts[number] = handle
        return number

    def remove_stream(self, number: HandleId) -> DeviceHandle:
        """Closed."""
        handle = self.fixed.pop(number) if number in self.fixed else self.streams.pop(number)
        self._closed(handle.user)
        return handle

    def remove_text(self, number: HandleId) -> TextHandle:
        """Closed."""
        handle = self.texts.pop(number)
        self._closed(handle.user)
        return handle

    def _number(self, user: User) -> HandleId:
        if not user.root and self._of_user[user.uid] >= OPEN_MAX:
            raise VirtError(errno.EMFILE, f"{OPEN_MAX} files of this mount are open already")
        self._of_user[user.uid] += 1
        return HandleId(next(self._next))

    def _closed(self, user: User) -> None:
        self._of_user[user.uid] -= 1
        if not self._of_user[user.uid]:
            del self._of_user[user.uid]
