"""Files whose attributes the kernel may still keep, and use without asking for them again.

The kernel may keep the attributes of a file for `attributes.KEPT`. They include its rights and its size, so the next
system call of every program must see a change. This works as follows.

- The mode, the owner and the group of a file, and the text of a value, change only with the interface. At each change,
  virtfs makes the kernel forget the attributes of the files of that interface (Answers.forget_attributes), before it
  answers the command that made the change.
- A counter can change at any time. Each open regenerates its text. If the kernel has another size or mtime, virtfs
  makes it forget the attributes before the open is answered. So a program that copies the file gets the true size from
  fstat(2). After a read, the kernel asks for the attributes in any case, because the read may have changed atime
  (fs/fuse/file.c __fuse_direct_read).
- A notification has no effect on an inode that the kernel is still creating from the answer to a READDIRPLUS. Right
  after that answer, the program reads more of the directory or closes it. If the interface has changed in the meantime,
  virtfs then repeats the notifications (`again`).
"""

from functools import partial
from time import monotonic
from weakref import WeakSet

from virtfs.core.virt import Virt
from virtfs.files.node import Directory, Node, virt_of
from virtfs.fuse.answers import Answers
from virtfs.fuse.inodes_handles import Inodes

# How long virtfs remembers which attributes it sent, in seconds: longer than attributes.KEPT, because that period
# starts only when the kernel processes the answer.
LINGER = 1.0

# The attributes sent for the files of one interface: st_size in bytes and mtime in ns, by inode number.
_Sent = dict[int, tuple[int, int]]


class Lasting:
    """The files whose attributes were sent in the last LINGER seconds. answers: sends the notifications."""

    def __init__(self, inodes: Inodes, answers: Answers) -> None:
        self._inodes = inodes
        self._answers = answers
        self._new: dict[Virt, _Sent] = {}  # sent in the current period of LINGER seconds
        self._old: dict[Virt, _Sent] = {}  # sent in the period before
        self._began = monotonic()
        self._watched: WeakSet[Virt] = WeakSet()

    def send(self, inode: int, node: Node, size: int, modified: int) -> bool:
        """Record that a file's attributes are sent to the kernel. Return whether the kernel may keep them.

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
        """Make the kernel forget a file's attributes if they differ from those sent last. Arguments: as for send()."""
        if (virt := virt_of(node.owner)) is None:
            return
        sent = self._new.get(virt, {}).get(inode) or self._old.get(virt, {}).get(inode)
        if sent is not None and sent != (size, modified):
            self._forget({inode})

    def _watch(self, virt: Virt) -> None:
        if virt not in self._watched:
            self._watched.add(virt)
            virt.listeners.append(partial(self._changed, virt))
            virt.line_listeners.append(partial(self._changed, virt))

    def _changed(self, virt: Virt) -> None:
        self._forget(self._new.pop(virt, {}).keys() | self._old.pop(virt, {}).keys())

    def again(self, directory: Directory) -> None:
        """Make the kernel forget the attributes of all files and directories in a directory."""
        kept = (node for node in directory.children.values() if node.lasting or isinstance(node, Directory))
        self._forget({self._inodes.number(node) for node in kept})

    def _forget(self, inodes: set[int]) -> None:
        for inode in inodes:
            self._answers.forget_attributes(inode)
