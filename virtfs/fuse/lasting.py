"""Files whose attributes the kernel may still have, although it did not ask for them again.

The kernel may keep the attributes of a file for `attributes.KEPT`. They carry its rights and its size, so a change
must hold for the next system call of every program. This works as follows.

- The mode, the owner and the group of a file, and the text of a value, change only with the interface. At each change,
  virtfs makes the kernel forget the attributes of the files of that interface (Answers.forget_attributes), before it
  answers the command that made the change.
- A counter changes at any time. An open makes its text afresh. If the size or the time then differs from the kernel's,
  the kernel forgets the attributes before the open is answered. So the fstat(2) of a program that copies the file is
  true. After a read, the kernel asks for the attributes in any case, because the read may have changed atime
  (fs/fuse/file.c __fuse_direct_read).
- A notification has no effect on an inode that the kernel is still making for the answer to a READDIRPLUS. The program
  reads on in the directory, or closes it, right after that. If the interface has changed in between, virtfs sends the
  notifications again (`again`).
"""

from functools import partial
from time import monotonic
from weakref import WeakSet

from virtfs.core.virt import Virt
from virtfs.files.node import Directory, Node, virt_of
from virtfs.fuse.answers import Answers
from virtfs.fuse.inodes_handles import Inodes

LINGER = 1.0  # seconds. The kernel keeps attributes for KEPT, counted from when it gets to the answer.

# What the kernel has of one interface: st_size in bytes and mtime in ns, by inode number.
_Sent = dict[int, tuple[int, int]]


class Lasting:
    """The files whose attributes were sent in the last LINGER seconds. answers: sends the notifications."""

    def __init__(self, inodes: Inodes, answers: Answers) -> None:
        self._inodes = inodes
        self._answers = answers
        self._new: dict[Virt, _Sent] = {}  # those of the present period of LINGER seconds
        self._old: dict[Virt, _Sent] = {}  # and of the period before it
        self._began = monotonic()
        self._watched: WeakSet[Virt] = WeakSet()

    def send(self, inode: int, node: Node, size: int, modified: int) -> bool:
        """Record that attributes are sent to the kernel. Return whether it may keep them.

        It may not if the file belongs to no interface, or to one that is lost or destroyed.
        size: st_size in bytes. modified: mtime in ns.
        """
        if (virt := virt_of(node.owner)) is None or virt.lost:
            return False
        now = monotonic()
        if now - self._began > LINGER:
            self._old = self._new if now - self._began < 2 * LINGER else {}
            self._new, self._began = {}, now
        if virt not in self._new:
            self._new[virt] = {}
            self._watch(virt)
        self._new[virt][inode] = size, modified
        return True

    def opened(self, inode: int, node: Node, size: int, modified: int) -> None:
        """Make the kernel forget the attributes of a file if an open has found others. The arguments are as in send."""
        if (virt := virt_of(node.owner)) is None:
            return
        sent = self._new.get(virt, {}).get(inode) or self._old.get(virt, {}).get(inode)
        if sent is not None and sent != (size, modified):
            self._forget({inode})

    def _watch(self, virt: Virt) -> None:
        if virt not in self._watched:
            self._watched.add(virt)
            virt.listeners.append(partial(self._changed, virt))

    def _changed(self, virt: Virt) -> None:
        self._forget(self._new.pop(virt, {}).keys() | self._old.pop(virt, {}).keys())

    def again(self, directory: Directory) -> None:
        """Make the kernel forget the attributes of all files in a directory."""
        self._forget({self._inodes.number(node) for node in directory.children.values() if node.lasting})

    def _forget(self, inodes: set[int]) -> None:
        for inode in inodes:
            self._answers.forget_attributes(inode)
