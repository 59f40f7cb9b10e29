"""Inode numbers for nodes and handle numbers for opens. Numbers are never reused.

The tables hold only weak references to nodes, so the kernel's lookup counts (FUSE_FORGET) are not needed. A node that
was removed from the tree keeps its inode number as long as it is open. An inode number without a node belongs to a
removed file.
"""

import errno
from collections import Counter
from itertools import count
from typing import NewType
from weakref import WeakKeyDictionary, WeakValueDictionary

from virtfs.core.errors import VirtError
from virtfs.core.ids import Uid, User
from virtfs.core.memory import OPEN, Kind, Memory
from virtfs.files.device import DeviceHandle, FixedHandle
from virtfs.files.listing import Listing
from virtfs.files.node import Node
from virtfs.files.text import TextHandle
from virtfs.fuse.protocol import FUSE_ROOT_ID

OPEN_MAX = 4096  # maximum number of open files per user; root has no limit
SPARE = 8  # a user's opens of last_error that no limit refuses

Inode = NewType("Inode", int)
HandleId = NewType("HandleId", int)  # fh in linux/fuse.h


class Inodes:
    """The inode number of each node. The root directory has FUSE_ROOT_ID."""

    def __init__(self, root: Node) -> None:
        self._numbers: WeakKeyDictionary[Node, Inode] = WeakKeyDictionary({root: Inode(FUSE_ROOT_ID)})
        self._nodes: WeakValueDictionary[Inode, Node] = WeakValueDictionary({Inode(FUSE_ROOT_ID): root})
        self._next = count(FUSE_ROOT_ID + 1)

    def number(self, node: Node) -> Inode:
        """Return the inode number of a node, assigning the next one to a new node."""
        inode = self._numbers.get(node)
        if inode is None:
            inode = self._numbers[node] = Inode(next(self._next))
            self._nodes[inode] = node
        return inode

    def node(self, inode: int) -> Node | None:
        """Return the node with this inode number, or None if the node is gone."""
        return self._nodes.get(Inode(inode))


class Handles:
    """The open files and directories, by handle number. Each user except root may have up to OPEN_MAX of them.

    memory: the memory accounts of the mount. Each open is charged to its user.
    fixed: opens of device files that can be read at any offset.
    devices: opens of all other device files.
    texts: opens of text files.
    listings: opens of directories.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.devices: dict[HandleId, DeviceHandle] = {}
        self.fixed: dict[HandleId, FixedHandle] = {}
        self.texts: dict[HandleId, TextHandle] = {}
        self.listings: dict[HandleId, Listing] = {}
        self._of_user: Counter[Uid] = Counter()
        self._spare: Counter[Uid] = Counter()
        self._next = count(1)

    def __bool__(self) -> bool:
        """Return whether any file or directory is open or being opened."""
        return bool(self._of_user)

    def begin(self, user: User, always: bool = False) -> None:
        """Count the start of an open(2). Call closed() if the open fails, or after the last close.

        always: whether to exceed the limits, for up to SPARE opens of the user.
        VirtError: EMFILE, the user has OPEN_MAX files open; ENOBUFS, a limit on memory is exceeded.
        """
        if not (always and self._spare[user.uid] < SPARE):
            self._check(user)
        self.memory.add(Kind.OPENS, user.uid, OPEN)
        self._of_user[user.uid] += 1
        if always:
            self._spare[user.uid] += 1

    def _check(self, user: User) -> None:
        if not user.root and self._of_user[user.uid] >= OPEN_MAX:
            raise VirtError(errno.EMFILE, f"user {user.uid} has {OPEN_MAX} files of this mount open: close some first")
        self.memory.check(Kind.OPENS, user.uid, OPEN)

    def closed(self, user: User, always: bool = False) -> None:
        """Uncount an open. Called after the last close of the file or directory, or if the open(2) failed."""
        if always:
            self._spare[user.uid] -= 1
            if not self._spare[user.uid]:
                del self._spare[user.uid]
        self.memory.add(Kind.OPENS, user.uid, -OPEN)
        self._of_user[user.uid] -= 1
        if not self._of_user[user.uid]:
            del self._of_user[user.uid]

    def add_device(self, handle: DeviceHandle) -> HandleId:
        """Register an open device file and return its handle number. begin() must have been called."""
        number = HandleId(next(self._next))
        if isinstance(handle, FixedHandle):
            self.fixed[number] = handle
        else:
            self.devices[number] = handle
        return number

    def add_text(self, handle: TextHandle) -> HandleId:
        """Register an open text file and return its handle number. begin() must have been called."""
        number = HandleId(next(self._next))
        self.texts[number] = handle
        return number

    def add_listing(self, listing: Listing) -> HandleId:
        """Register an open directory and return its handle number. begin() must have been called."""
        number = HandleId(next(self._next))
        self.listings[number] = listing
        return number

    def opener(self, number: HandleId) -> User | None:
        """Return the user who opened a file or directory, or None if there is no such handle."""
        for handles in (self.devices, self.fixed, self.texts, self.listings):
            if (handle := handles.get(number)) is not None:
                return handle.user
        return None

    def remove_device(self, number: HandleId) -> DeviceHandle:
        """Remove the handle of a closed device file and return it."""
        handle = self.fixed.pop(number) if number in self.fixed else self.devices.pop(number)
        self.closed(handle.user)
        return handle

    def remove_text(self, number: HandleId) -> TextHandle:
        """Remove the handle of a closed text file and return it."""
        handle = self.texts.pop(number)
        self.closed(handle.user, handle.node.always)
        return handle

    def remove_listing(self, number: HandleId) -> Listing:
        """Remove the handle of a closed directory and return it."""
        listing = self.listings.pop(number)
        self.closed(listing.user)
        return listing
